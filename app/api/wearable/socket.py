"""`/v4/listen` and `/v4/web/listen`: a wearable's sound in, segments and events out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from app.api.closing import close
from app.api.context import Context, context_of
from app.api.wearable.connection import Close, Connection
from app.api.wearable.limits import Limits, close_code
from app.api.wearable.query import parse
from app.observability.logs import bind, new_trace_id
from app.roles import ColloquyError
from app.security.access import Admitted

log = logging.getLogger(__name__)
router = APIRouter()

_INTRODUCED_S = 5.0
_LONGEST_TOKEN = 1 << 14


@router.websocket("/v4/listen")
async def listen(socket: WebSocket) -> None:
    """The app's stream; whose it is says the header `Authorization`. It is accepted before it is looked at,
    so that what is wrong arrives as a close code: 1008 credentials or a parameter, 4001 the token has run
    out, 4004 it is not accepted any more, 4002 the day's minutes are spent, 1011 recognition does not work,
    1001 nothing came for 90 s, or the server or its time is ending: come back."""
    await _serve(socket, web=False)


@router.websocket("/v4/web/listen")
async def web_listen(socket: WebSocket) -> None:
    """The same for browsers, which cannot set headers: their first message is `auth` with a token."""
    await _serve(socket, web=True)


async def _serve(socket: WebSocket, *, web: bool) -> None:
    context = context_of(socket)
    with bind(trace_id=new_trace_id()):
        try:
            await socket.accept()
            admitted = await _introduced(context, socket) if web else context.access.admit(socket.headers)
            wish = parse(socket.query_params)
            limits = Limits(context, admitted)
            await limits.begin()
        except ColloquyError as error:
            code = close_code(error, 1008)
            context.metrics.wearable_closes_total.labels(str(code)).inc()
            await close(socket, code, error.message)
            return
        except Close as end:
            await close(socket, end.code, end.reason)
            return
        except (WebSocketDisconnect, RuntimeError):
            return
        context.metrics.websocket_connections_active.inc()
        try:
            await Connection(context, socket, admitted.owner, wish, limits).serve()
        finally:
            context.metrics.websocket_connections_active.dec()


async def _introduced(context: Context, socket: WebSocket) -> Admitted:
    """Whose connection a browser's is."""
    token: Any = None
    try:
        async with asyncio.timeout(_INTRODUCED_S):
            message = json.loads(await socket.receive_text())
        if isinstance(message, dict) and message.get("type") == "auth":
            token = message.get("token")
    except TimeoutError:
        raise Close(1008, "no auth message came within 5 seconds") from None
    except (ValueError, KeyError, RecursionError):
        pass
    try:
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN:
            raise Close(1008, "the first message is {type: auth, token: ...}")
        admitted = context.access.admit({**socket.headers, "authorization": f"Bearer {token}"})
    except (ColloquyError, Close) as error:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_json({"type": "auth_response", "success": False})
        raise error
    await socket.send_json({"type": "auth_response", "success": True})
    return admitted
