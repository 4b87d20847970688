"""OpenAI's shape of an error: `{"error": {"message", "type", "param", "code"}}`.

Routers of this package are made with `route_class=OpenAiRoute`; what their endpoints raise is answered in
that shape, with the status that OpenAI's clients turn into the right class of exception.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHttpException
from starlette.types import Message

from app.api.context import context_of
from app.api.errors import from_validation
from app.observability.logs import bind, new_trace_id
from app.roles import BadInput, Busy, ColloquyError, NotAllowed

log = logging.getLogger(__name__)

MAX_JSON_BYTES = 8 << 20
"""Of a body that is no form; forms are read, and limited, by who takes them."""
REQUEST_ID = "x-request-id"
"""The header of every answer that names its trace in the log; OpenAI's clients show it."""


class Refused(ColloquyError):
    """A refusal that OpenAI has a `code` for."""

    def __init__(
        self, message: str, *, param: str | None = None, openai_code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message, field=param)
        self.openai_code = openai_code
        self.http_status = status
        self.code = BadInput.code


def model_not_found(name: str, there_is: Iterable[str]) -> Refused:
    """There is no model `name`, at least not for this."""
    return Refused(
        f"the model {name!r} is not one for this: there is {', '.join(there_is) or 'none'}",
        param="model",
        openai_code="model_not_found",
        status=404,
    )


class OpenAiRoute(APIRoute):
    """A route that answers failures in OpenAI's shape and bounds the size of JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            trace_id = new_trace_id()
            with bind(trace_id=trace_id):
                try:
                    response = await inner(_limited(request))
                except Exception as error:  # noqa: BLE001 - all of them have an answer
                    response = _answer(request, _known(error))
            response.headers[REQUEST_ID] = trace_id
            return response

        return handle


def error_body(error: ColloquyError) -> dict[str, dict[str, str | None]]:
    """The JSON of an error, for an answer or for an event of a stream."""
    status = _status(error)
    code: str | None = error.code.lower()
    if isinstance(error, Refused):
        code = error.openai_code
    elif isinstance(error, NotAllowed):
        code = "invalid_api_key"
    elif isinstance(error, BadInput):
        code = None
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    # OpenAI writes the path of a field as `messages[0].content`.
    param = re.sub(r"\.(\d+)", r"[\1]", error.field or "")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": param if param not in ("", "body") else None,
            "code": code,
        }
    }


def _status(error: ColloquyError) -> int:
    return {422: 400, 502: 500}.get(error.http_status, error.http_status)


def _answer(request: Request, error: ColloquyError) -> JSONResponse:
    status = _status(error)
    level = logging.ERROR if status >= 500 and not error.retryable else logging.INFO
    log.log(level, "%s %s: %s: %s", request.method, request.url.path, error.code, error.message)
    context_of(request).metrics.errors_total.labels(error.code).inc()
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    elif status >= 500 and not error.retryable:
        # Or the clients would ask twice more.
        headers["x-should-retry"] = "false"
    if isinstance(error, NotAllowed):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error), status, headers)


def _known(error: Exception) -> ColloquyError:
    if isinstance(error, ColloquyError):
        return error
    if isinstance(error, RequestValidationError):
        return _from_validation(error)
    if isinstance(error, AnyHttpException):
        return Refused(str(error.detail), status=error.status_code)
    log.exception("unexpected failure", exc_info=error)
    return ColloquyError("something failed inside; the log has the details")


def _from_validation(error: RequestValidationError) -> ColloquyError:
    if isinstance(error.body, bytes | None):
        return BadInput("send a JSON object, with the header Content-Type: application/json")
    return from_validation(error.errors())


def _limited(request: Request) -> Request:
    """The request, failing with 413 where its body goes beyond the limit."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        return request
    left = MAX_JSON_BYTES

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"a request may have {MAX_JSON_BYTES >> 20} MB")
        return message

    return Request(request.scope, receive)


router = APIRouter(route_class=OpenAiRoute, include_in_schema=False)
"""Answers what nobody else under /v1 does; to be included last."""


@router.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def unknown(path: str, request: Request) -> Response:
    """OpenAI's answer to a path, or a method, that is not there."""
    raise Refused(f"Invalid URL ({request.method} /v1/{path})", openai_code="unknown_url", status=404)
