"""`/users/me`: everything of a user, to take along or to be erased."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.api.context import Ctx, Owner
from app.api.erasing import erase
from app.api.export import export

router = APIRouter(tags=["users"])


class Erased(BaseModel):
    """How many things of each kind were erased; what there was none of is left out."""

    erased: dict[str, int]


@router.delete("/users/me", include_in_schema=False)
@router.delete("/api/v1/users/me")
async def erase_me(context: Ctx, owner: Owner) -> Erased:
    """Erase everything that is kept of you: your key first, then open sessions, recordings, and all else. If
    it fails, or is cut off, send it again."""
    return Erased(erased=await erase(context, owner))


@router.get("/users/me/export", include_in_schema=False)
@router.get("/api/v1/users/me/export", response_class=StreamingResponse)
async def export_me(context: Ctx, owner: Owner) -> StreamingResponse:
    """Everything that is kept of you: a ZIP of JSON files and recordings."""
    headers = {
        "Cache-Control": "private, no-store",
        "Content-Disposition": 'attachment; filename="colloquy-export.zip"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(export(context, owner), media_type="application/zip", headers=headers)
