"""Errors as Deepgram has them: `{err_code, err_msg, request_id}`, and its headers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from app.api.context import Context, context_of
from app.observability.logs import bind
from app.roles import BadAudio, BadInput, Busy, ColloquyError, NotAllowed, NotReady, TooLarge

log = logging.getLogger(__name__)

_KINDS: tuple[tuple[type[ColloquyError], int, str, str], ...] = (
    (NotAllowed, 401, "INVALID_AUTH", "Invalid credentials: "),
    (TooLarge, 413, "PAYLOAD_TOO_LARGE", ""),
    (BadAudio, 400, "Bad Request", "Bad Request: failed to process audio: "),
    (BadInput, 400, "Bad Request", "Bad Request: "),
    (NotReady, 503, "SERVICE_UNAVAILABLE", ""),
    (Busy, 429, "TOO_MANY_REQUESTS", "Too many requests: "),
)


def refusal(context: Context, error: ColloquyError, request_id: str) -> Response:
    """What a client is told of `error`."""
    status, code, begin = error.http_status, error.code, ""
    for kind, *told in _KINDS:
        if isinstance(error, kind):
            status, code, begin = told  # type: ignore[assignment]
            break
    with bind(trace_id=request_id):
        level = logging.ERROR if status >= 500 and not error.retryable else logging.INFO
        log.log(level, "/v1/listen: %s: %s", error.code, error.message)
    context.metrics.errors_total.labels(error.code).inc()
    message = begin + error.message
    # A header is Latin-1 and one line, which what a client sent and is quoted back need not be.
    line = " ".join(message.encode("ascii", "replace").decode().split())
    headers = {"dg-request-id": request_id, "dg-error": line[:500]}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return JSONResponse(
        {"err_code": code, "err_msg": message, "request_id": request_id}, status, headers=headers
    )


class DeepgramRoute(APIRoute):
    """A route whose errors are in Deepgram's shape. `request.state.request_id` names the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            request.state.request_id = request_id = str(uuid.uuid4())
            try:
                response = await handle(request)
            except ColloquyError as error:
                return refusal(context_of(request), error, request_id)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody is there to read it
            except Exception as error:  # whatever it is, the shape of the answer stays
                log.exception("unexpected failure", exc_info=error)
                inside = ColloquyError("something failed inside; the log has the details")
                return refusal(context_of(request), inside, request_id)
            response.headers["dg-request-id"] = request_id
            return response

        return handler
