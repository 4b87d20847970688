"""How WebSockets are closed when the server stops."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_GOING_AWAY = 1001
_WEARABLES = "/v4/"


class LeavingProtocol(WebSocketsSansIOProtocol):
    """Wearables' apps know 1001, and come back; all others are told 1012, as uvicorn does."""

    def shutdown(self) -> None:
        """The server stops."""
        if self.handshake_complete and not self.close_sent and self.scope["path"].startswith(_WEARABLES):
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": _GOING_AWAY})
            self.conn.send_close(_GOING_AWAY)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        else:
            super().shutdown()
