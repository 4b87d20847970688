"""What long work for a request needs: a form whose size is not trusted, and to stop when the client
leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.context import Context
from app.api.openai.errors import Refused, model_not_found
from app.api.openai.models import models_of
from app.roles import BadInput, TooLarge
from app.runtime import Role

T = TypeVar("T")

_FIELDS = 100
_FIELD_BYTES = 1 << 16
_DRAIN_S = 10
"""A client that sends too much is read for so long before it is told: most listen only when they
have sent all."""


def check_model(context: Context, name: str, *roles: Role) -> None:
    """Any name of a model will do, but not that of a model of ours that is there for something else."""
    ours = models_of(context)
    if name in ours and ours[name] not in roles:
        raise model_not_found(name, [model for model, role in ours.items() if role in roles])


async def read_form(request: Request, max_mb: float) -> tuple[UploadFile, dict[str, list[str]]]:
    """The upload `file` of a multipart request, on disk if it is large and the caller's to close, and
    the other fields: "[]" behind a name is dropped, and so are fields without a value. Raises
    `BadInput`, `TooLarge`."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadInput("send the recording as multipart/form-data, in the field `file`", field="file")
    stream = request.stream()
    parser = MultiPartParser(
        request.headers,
        _limited(stream, request.headers.get("content-length", ""), max_mb),
        max_files=1,
        max_fields=_FIELDS,
        max_part_size=_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadInput(f"the form cannot be read: {error.message}", field="body") from error
    except ClientDisconnect as error:
        raise Refused("the client left while it sent the recording", status=499) from error
    except TooLarge:
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_DRAIN_S):
                async for _ in stream:
                    pass
        raise
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        raise BadInput("send the recording as a file, in the field `file`", field="file")
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str) and value:
            fields.setdefault(name.removesuffix("[]"), []).append(value)
    return file, fields


async def _limited(
    stream: AsyncGenerator[bytes, None], declared: str, max_mb: float
) -> AsyncGenerator[bytes, None]:
    left = max_mb * 1e6 + _FIELDS * _FIELD_BYTES
    too_large = TooLarge(f"a file may have {max_mb:g} MB", field="file")
    if declared.isdecimal() and int(declared) > left:
        raise too_large
    async for block in stream:
        left -= len(block)
        if left < 0:
            raise too_large
        yield block


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives. When the client leaves before, `work` is cancelled, and None is given once it
    has ended. To be called when the request's body has been read."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        if working.cancel():
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


class Streamed(StreamingResponse):
    """`content`, sent as it is made. When all is sent or the client leaves, `resources` are closed.

    Starlette's own response cancels its content again and again until it has ended, so that nothing in
    it can clean up behind itself."""

    def __init__(self, content: AsyncIterator[bytes], resources: AsyncExitStack, media_type: str) -> None:
        super().__init__(content, media_type=media_type, headers={"Cache-Control": "no-cache"})
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        # Outside of what is cancelled: to uvicorn a client has left, too, when it has been sent all.
        async with self._resources:
            await unless_gone(receive, self.stream_response(send))
