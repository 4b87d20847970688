"""A real MCP server, made with the protocol's own SDK: `python mcp_server.py` speaks over standard input
and output, `python mcp_server.py PORT` over HTTP, to those who show a key."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("shop")


@server.tool()
def price(item: str, pieces: int = 1) -> str:
    """What an item costs."""
    if item == "air":
        raise ToolError("air is not for sale")
    return f"{pieces} {item}: {3 * pieces} euros"


@server.tool()
def now() -> str:
    """The shop's own time."""
    return "shop time"


@server.tool()
def secret() -> str:
    """What the environment holds."""
    return f"{os.environ.get('SHOP')} {os.environ.get('LLM_API_KEY')}"


@server.tool()
def slow() -> str:
    """Takes long."""
    time.sleep(20)
    return "done"


@server.tool()
def leave() -> str:
    """Ends the server."""
    os._exit(3)


class Keyed:
    """Nothing without the key."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"x-key", b"k1") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, receive, send)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import uvicorn

        uvicorn.run(
            Keyed(server.streamable_http_app()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning"
        )
    else:
        server.run("stdio")
