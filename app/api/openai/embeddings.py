"""`POST /v1/embeddings`, as OpenAI's clients know it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.context import Context, Ctx, Owner
from app.api.openai.errors import OpenAiRoute, model_not_found
from app.api.openai.requests import unless_gone
from app.roles import BadInput, Embeddings, Job, NotReady, TextEmbedding, Urgency

router = APIRouter(tags=["openai"], route_class=OpenAiRoute)

MAX_TEXTS = 2048
MAX_CHARACTERS = 32_768
"""Of one text: as much as OpenAI's models take, 8192 tokens of four letters."""
MAX_ALL_CHARACTERS = 1_200_000
"""Of all texts: OpenAI's 300,000 tokens."""
_LOADING_S = 60.0
"""The first request waits this long for the model to be fetched and loaded."""


class EmbeddingRequest(BaseModel):
    """What is to be embedded. Fields that OpenAI has besides are ignored."""

    input: Any = Field(description="a text, or a list of at most 2048")
    model: str = Field(description="any name: the server has one model for this")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: float32, little-endian; OpenAI's own clients ask for it"
    )
    dimensions: int | None = Field(
        None, ge=1, description="keep so many numbers of each vector, brought back to length 1"
    )


@router.post("/v1/embeddings")
async def embeddings(request: Request, body: EmbeddingRequest, context: Ctx, owner: Owner) -> Response:
    """The vectors of texts, each of length 1. The first request loads the model. A text that is longer
    than the model reads is embedded by its beginning."""
    work = _embedded(_texts(body.input), body, context, owner)
    answer = await unless_gone(request.receive, work)
    # Nobody reads what is said to a client that has left; the number is for the log.
    return answer or Response(status_code=499)


async def _embedded(texts: list[str], body: EmbeddingRequest, context: Context, owner: str) -> Response:
    engine = await _engine(context)
    others = {s.model for role, s in context.runtime.status.items() if role != "embedding"}
    if body.model in others:
        raise model_not_found(body.model, [engine.info.model])
    wanted = body.dimensions or engine.dimensions
    if wanted > engine.dimensions:
        raise BadInput(
            f"dimensions: the model here has {engine.dimensions}, so at most that", field="dimensions"
        )
    # Somebody waits for it: not the urgency that is refused when the machine is busy.
    found = await engine.embed(texts, Job(owner, Urgency.SPEECH))
    answer = await asyncio.to_thread(_answer, found, wanted, body)
    return Response(answer, media_type="application/json")


def _texts(given: Any) -> list[str]:
    """The texts of `input`, or `BadInput` with what is wrong with it."""
    texts = given if isinstance(given, list) else [given]

    def refuse(message: str) -> BadInput:
        return BadInput(f"input: {message}", field="input")

    if any(isinstance(text, int | list) for text in texts):
        raise refuse(
            "the model here has tokens of its own, so send text, not the numbers of another model's tokens "
            "(LangChain: check_embedding_ctx_length=False)"
        )
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise refuse("send a text, or a list of texts, none of them empty")
    if len(texts) > MAX_TEXTS:
        raise refuse(f"{len(texts)} texts are too many for one request: send at most {MAX_TEXTS}")
    if (longest := max(map(len, texts))) > MAX_CHARACTERS:
        raise refuse(f"a text has {longest} characters: send at most {MAX_CHARACTERS}")
    if (total := sum(map(len, texts))) > MAX_ALL_CHARACTERS:
        raise refuse(f"{total} characters are too many for one request: send at most {MAX_ALL_CHARACTERS}")
    # JSON can spell half of a surrogate pair, which is no text.
    return [text.encode("utf-8", "replace").decode() for text in texts]


async def _engine(context: Context) -> TextEmbedding:
    try:
        async with asyncio.timeout(_LOADING_S):
            engine: TextEmbedding = await context.runtime.on_demand("embedding")
            return engine
    except TimeoutError:
        status = context.runtime.status["embedding"]
        raise NotReady(
            f"{status.model} is {status.state} ({status.progress:.0%}): try again soon", retry_after=10
        ) from None


def _answer(found: Embeddings, wanted: int, body: EmbeddingRequest) -> bytes:
    """The JSON; written vector by vector, because one call for all would hold up every other thread."""
    vectors = found.vectors[:, :wanted]
    if wanted < found.vectors.shape[1]:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def item(index: int, vector: npt.NDArray[np.float32]) -> str:
        value: Any = vector.tolist()
        if body.encoding_format == "base64":
            value = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return json.dumps({"object": "embedding", "index": index, "embedding": value})

    items = ",".join(item(index, vector) for index, vector in enumerate(vectors))
    usage = json.dumps({"prompt_tokens": found.tokens, "total_tokens": found.tokens})
    model = json.dumps(body.model)
    return f'{{"object":"list","model":{model},"usage":{usage},"data":[{items}]}}'.encode()
