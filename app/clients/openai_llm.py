"""Any chat API that speaks OpenAI's protocol (OpenAI, Groq, vLLM, llama.cpp's server, …)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from app.roles import ChatMessage, EngineFailed, EngineInfo, Job, LlmOptions, Misconfigured


class OpenAiLlm:
    """`LanguageModel` over `POST {base_url}/chat/completions` with streaming."""

    def __init__(
        self, model: str, *, base_url: str | None, api_key: str, context_tokens: int, timeout_s: float
    ) -> None:
        """`timeout_s` bounds the connection and each wait for the next piece. The SDK tries twice
        more while nothing has come yet."""
        import openai

        self._errors = openai
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=2
        )
        self._model = model
        self._context_tokens = context_tokens
        self._timeout_s = timeout_s

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("llm", "openai", self._model)

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """An estimate that errs high: a token a Chinese character, one for three Latin letters."""
        return len(text.encode()) // 3 + 8

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def prepare(self, messages: Sequence[ChatMessage], job: Job) -> None:
        """Nothing: reading ahead would be billed."""

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[str, None]:
        """See `LanguageModel`. Closing the generator closes the HTTP stream, which is how these
        servers learn to stop."""
        openai = self._errors
        try:
            stream: Any = await self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": m.role, "content": m.content} for m in messages],  # type: ignore[misc]
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                stream=True,
            )
            try:
                chunks = aiter(stream)
                while True:
                    async with asyncio.timeout(self._timeout_s):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    if chunk.choices and (text := chunk.choices[0].delta.content):
                        yield text
            finally:
                await stream.close()
        except openai.AuthenticationError as error:
            raise Misconfigured("the language model's API refused the key: check LLM_API_KEY") from error
        except openai.NotFoundError as error:
            raise Misconfigured(
                f"the language model's API knows no model {self._model!r}: check LLM_MODEL_NAME"
            ) from error
        except (openai.APITimeoutError, TimeoutError) as error:
            raise EngineFailed(
                f"the language model's API did not answer within {self._timeout_s:g} s"
            ) from error
        except openai.APIConnectionError as error:
            raise EngineFailed("the language model's API cannot be reached: check LLM_BASE_URL") from error
        except openai.APIError as error:
            raise EngineFailed(f"the language model's API failed: {error.message}") from error
