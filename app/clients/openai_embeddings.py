"""Any embeddings API that speaks OpenAI's protocol (OpenAI, vLLM, llama.cpp's server, this one, …)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.roles import Embeddings, EngineFailed, EngineInfo, Job, Misconfigured

_AT_ONCE = 128
"""Texts of one request; OpenAI takes 2048, others less."""
_TIMEOUT_S = 60.0


class OpenAiEmbeddings:
    """`TextEmbedding` over `POST {base_url}/embeddings`. How much of a text is read is the API's affair:
    some refuse one that is too long, which is `EngineFailed`."""

    def __init__(self, model: str, *, base_url: str | None, api_key: str) -> None:
        """See `open`, which also finds out `dimensions`. The SDK tries twice more."""
        import openai

        self._errors = openai
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=_TIMEOUT_S, max_retries=2
        )
        self._model = model
        self._dimensions = 0

    @classmethod
    async def open(cls, model: str, *, base_url: str | None, api_key: str) -> OpenAiEmbeddings:
        """A client that has asked once: for one word, to see that it may and how long vectors are."""
        client = cls(model, base_url=base_url, api_key=api_key)
        try:
            client._dimensions = (await client.embed(["hello"], Job())).vectors.shape[1]
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("embedding", "openai", self._model)

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def embed(self, texts: Sequence[str], job: Job) -> Embeddings:
        """See `TextEmbedding`."""
        openai = self._errors
        rows: list[list[float]] = []
        tokens = 0
        try:
            for at in range(0, len(texts), _AT_ONCE):
                some = list(texts[at : at + _AT_ONCE])
                # Asked for by name: the SDK's own choice, base64, is not known everywhere.
                answer = await self._client.embeddings.create(
                    model=self._model, input=some, encoding_format="float"
                )
                if len(answer.data) != len(some):
                    raise EngineFailed(f"the embeddings API gave {len(answer.data)} for {len(some)} texts")
                rows += [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
                tokens += answer.usage.prompt_tokens if answer.usage else 0
        except openai.AuthenticationError as error:
            raise Misconfigured("the embeddings API refused the key: check EMBEDDING_API_KEY") from error
        except openai.NotFoundError as error:
            raise Misconfigured(
                f"the embeddings API knows no model {self._model!r}: check EMBEDDING_MODEL_NAME"
            ) from error
        except openai.APITimeoutError as error:
            raise EngineFailed(f"the embeddings API did not answer within {_TIMEOUT_S:g} s") from error
        except openai.APIConnectionError as error:
            raise EngineFailed("the embeddings API cannot be reached: check EMBEDDING_BASE_URL") from error
        except openai.APIError as error:
            raise EngineFailed(f"the embeddings API failed: {error.message}") from error
        vectors = np.asarray(rows, np.float32).reshape(-1, self._dimensions or len(rows[0]))
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), tokens)
