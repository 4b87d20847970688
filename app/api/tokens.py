"""Tokens for pages and devices that should not hold an API key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api.context import Ctx
from app.roles import NotAllowed

router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])


class TokenWish(BaseModel):
    """For how long it is to be good."""

    seconds: Annotated[int, Field(ge=10, le=30 * 24 * 3600)] = 3600


class TokenOut(BaseModel):
    """It stands for the key, as `Authorization: Bearer TOKEN`, until it runs out or the key is removed."""

    token: str
    expires_at: str


@router.post("", status_code=201)
async def make(request: Request, context: Ctx, wish: TokenWish | None = None) -> TokenOut:
    """A token that may do what your key may, but make tokens."""
    admitted = context.access.admit(request.headers)
    if admitted.until is not None:
        raise NotAllowed("a token makes no tokens: use the API key")
    token, until = context.access.user_token(admitted.owner, (wish or TokenWish()).seconds)
    return TokenOut(token=token, expires_at=datetime.fromtimestamp(until, UTC).isoformat())
