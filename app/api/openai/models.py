"""`GET /v1/models`: what this server has, and what clients may call it."""

from __future__ import annotations

import re
import time
from typing import Any

from fastapi import APIRouter

from app.api.context import Context, Ctx, Owner
from app.api.openai.errors import OpenAiRoute, model_not_found
from app.runtime import Role, chosen_later

router = APIRouter(tags=["openai"], route_class=OpenAiRoute)

EMBEDDING = "text-embedding"
"""The name of whatever model embeds texts."""
_STARTED = int(time.time())
_OPENAIS = re.compile(r"(gpt|chatgpt|o\d|whisper|tts|text-embedding)(-[\w.-]+)?")
"""Names that clients have from OpenAI: each is served by the model that has the role here."""


def models_of(context: Context) -> dict[str, Role]:
    """The names of this server's models, each with its role."""
    status = context.runtime.status
    roles: tuple[Role, ...] = ("llm", "stt", "stt_partial", "tts")
    found: dict[str, Role] = {}
    for role in roles:
        if role in status:
            found.setdefault(status[role].model, "stt" if role == "stt_partial" else role)
    if chosen_later(context.settings)["embedding"] != "none":
        found[EMBEDDING] = "embedding"
    return found


@router.get("/v1/models")
async def models(context: Ctx, owner: Owner) -> dict[str, Any]:
    """The models that this server has."""
    return {"object": "list", "data": [_model(name) for name in models_of(context)]}


@router.get("/v1/models/{name:path}")
async def model(context: Ctx, owner: Owner, name: str) -> dict[str, Any]:
    """One of them. OpenAI's names for such models are known, too."""
    known = models_of(context)
    if name not in known and not _OPENAIS.fullmatch(name):
        raise model_not_found(name, known)
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "colloquy"}
