"""One shape for every error: `{code, message, trace_id}`, `field` where one is to blame, `position`
where there is a queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.api.context import context_of
from app.observability.logs import bind, current_trace_id, new_trace_id
from app.roles import BadInput, Busy, ColloquyError, NotAllowed, NotFound

log = logging.getLogger(__name__)


def body_of(error: ColloquyError, trace_id: str) -> dict[str, str | int]:
    """The JSON of an error."""
    body: dict[str, str | int] = {"code": error.code, "message": error.message, "trace_id": trace_id}
    if error.field:
        body["field"] = error.field
    if isinstance(error, Busy) and error.position is not None:
        body["position"] = error.position
    return body


def _answer(request: Request, error: ColloquyError, status: int | None = None) -> JSONResponse:
    trace_id = current_trace_id() or new_trace_id()
    status = status or error.http_status
    with bind(trace_id=trace_id):
        level = logging.ERROR if status >= 500 and not error.retryable else logging.INFO
        log.log(level, "%s %s: %s: %s", request.method, request.url.path, error.code, error.message)
    context_of(request).metrics.errors_total.labels(error.code).inc()
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, NotAllowed):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(error, trace_id), status, headers)


def install(app: FastAPI) -> None:
    """Make `app` answer every failure in our shape."""

    @app.exception_handler(ColloquyError)
    async def expected(request: Request, error: ColloquyError) -> JSONResponse:
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(request, from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        kind = {404: NotFound, 401: NotAllowed, 403: NotAllowed}.get(error.status_code, BadInput)
        message = str(error.detail)
        if error.status_code == 404 and message == "Not Found":
            message = f"there is nothing at {request.url.path}"
        return _answer(request, kind(message), error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("unexpected failure", exc_info=error)
        return _answer(request, ColloquyError("something failed inside; the log has the details"))


def from_validation(errors: Sequence[Any]) -> BadInput:
    """The first of pydantic's complaints as one sentence that names the field."""
    first = errors[0]
    place = ".".join(str(p) for p in first["loc"] if p not in ("body", "query", "path"))
    if first["type"] in ("json_invalid", "json_type"):
        return BadInput("that is not JSON" + (f" ({first['msg']})" if first.get("msg") else ""), field="body")
    if first["type"] == "union_tag_not_found":
        return BadInput("a message is an object with a type", field="type")
    if first["type"] == "union_tag_invalid":
        context = first.get("ctx") or {}
        return BadInput(
            f"there is no message type {context.get('tag')!r}; see docs/protocol.md", field="type"
        )
    # A tagged union puts the tag in front of the field's name.
    message = str(first["msg"])
    return BadInput(f"{place or 'body'}: {message[:1].lower()}{message[1:]}", field=place or "body")
