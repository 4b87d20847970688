"""`/objects/…`: recordings by signed link, whole or in part."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response

from app.api.context import Context, Ctx
from app.audio.encode import MEDIA_TYPES

router = APIRouter(tags=["objects"])

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TYPES = {name: MEDIA_TYPES[name] for name in ("wav", "opus")}


@router.head("/objects/{key:path}", include_in_schema=False)
@router.get("/objects/{key:path}", response_class=Response)
async def read_object(
    key: str, request: Request, context: Ctx, owner: str = "", expires: str = "", signature: str = ""
) -> Response:
    """What an `audio_url` leads to: it needs no key and works for an hour. `Range` gives a part of it."""
    context.links.check(key, owner, expires, signature)
    return await serve_object(context, request, owner, key)


async def serve_object(context: Context, request: Request, owner: str, key: str) -> Response:
    """`owner`'s object as an answer, or the part of it that is asked for. Raises `NotFound`."""
    data = await context.vault.get(owner, key)
    ending = key.rpartition(".")[2]
    name = key.rpartition("/")[2]
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-store",
        "Content-Disposition": f'{"inline" if ending in _TYPES else "attachment"}; filename="{name}"',
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    media_type = _TYPES.get(ending, "application/octet-stream")
    asked = request.headers.get("range")
    # `If-Range` names a version, and we give none.
    if asked is None or "if-range" in request.headers or (part := _part(asked, len(data))) is None:
        return Response(data, media_type=media_type, headers=headers)
    headers["Content-Range"] = (
        f"bytes {part.start}-{part.stop - 1}/{len(data)}" if part else f"bytes */{len(data)}"
    )
    if not part:
        return Response(status_code=416, headers=headers)
    return Response(data[part.start : part.stop], 206, headers, media_type)


def _part(asked: str, size: int) -> range | None:
    """The part that a `Range` asks for, empty if there is none; None for all of it, as for what we do not
    understand and for several parts."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
