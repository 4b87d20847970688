"""Tools of MCP servers, through the protocol's own SDK.

Each server has one task, which holds the connection (it must be opened and closed by the same one),
looks every half minute what the server offers, and connects again when it is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import Any, Literal

from app.dialogue.functions import Result
from app.roles import Misconfigured, Tool
from app.settings import McpSettings

log = logging.getLogger(__name__)

_LOOK_S = 30.0
_CONNECT_S = 30.0
_RETRY_S = 1.0, 60.0
_MOST_PAGES = 20
State = Literal["connecting", "ready", "failed"]


class McpServer:
    """One server. `tools` are those that it offered last, whether it is there or not."""

    def __init__(self, name: str, settings: McpSettings) -> None:
        self.name = name
        self.state: State = "connecting"
        self.message = ""
        """Why it is not there."""
        self.tools: tuple[Tool, ...] = ()
        self._settings = settings
        self._client: Any = None
        self._look = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        wait = _RETRY_S[0]
        while True:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(_CONNECT_S):
                        client = await _client_of(self._settings, stack)
                        await stack.enter_async_context(client)
                        await self._list(client)
                    log.info("MCP server %s is there", self.name, extra={"tools": len(self.tools)})
                    self._client, self.state, self.message = client, "ready", ""
                    wait = _RETRY_S[0]
                    await self._stay(client)
            except Exception as error:  # noqa: BLE001
                # Whatever it is: it may be gone tomorrow.
                message = _reason(error)
                if message != self.message:
                    log.warning("MCP server %s is not there: %s", self.name, message)
                self.state, self.message = "failed", message
            finally:
                self._client = None
            await asyncio.sleep(wait)
            wait = min(wait * 2, _RETRY_S[1])

    async def _stay(self, client: Any) -> None:
        """Look now and then what it offers, which also tells whether it is there."""
        while True:
            self._look.clear()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            async with asyncio.timeout(_CONNECT_S):
                await self._list(client)

    async def _list(self, client: Any) -> None:
        found: list[Tool] = []
        cursor = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [Tool(t.name, t.description or t.title or "", t.input_schema) for t in page.tools]
            cursor = page.next_cursor
            if not cursor:
                break
        self.tools = tuple(found)

    async def call(self, name: str, arguments: dict[str, Any]) -> Result:
        """Call one of its tools."""
        client = self._client
        if client is None:
            return Result(False, f"the server {self.name!r} of this function is not there; try again later")
        try:
            result = await client.call_tool(name, arguments)
        except Exception as error:  # noqa: BLE001
            # The connection may have gone with it.
            self._look.set()
            log.warning("MCP server %s: a call of %s failed: %s", self.name, name, _reason(error))
            return Result(False, f"{name} failed: {_reason(error)}")
        return Result(not result.is_error, _text_of(result))


async def _client_of(settings: McpSettings, stack: AsyncExitStack) -> Any:
    """A client that is not connected yet; what it needs is closed with `stack`."""
    try:
        sdk, stdio, http, web = await asyncio.to_thread(_sdk)
    except ImportError as error:
        raise Misconfigured("MCP_SERVERS needs a package that is not installed: colloquy[mcp]") from error
    if settings.url is not None:
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        # Replies may be streams that are silent for long; calls have a limit of their own.
        timeout = web.Timeout(_CONNECT_S, read=None)
        client = await stack.enter_async_context(web.AsyncClient(headers=headers, timeout=timeout))
        return sdk.Client(http.streamable_http_client(settings.url, http_client=client))
    env = {name: value.get_secret_value() for name, value in settings.env.items()}
    return sdk.Client(stdio.StdioServerParameters(command=settings.command, args=settings.args, env=env))


def _sdk() -> tuple[Any, Any, Any, Any]:
    """A second of imports."""
    import httpx2
    import mcp
    from mcp.client import stdio, streamable_http

    return mcp, stdio, streamable_http, httpx2


def _text_of(result: Any) -> str:
    """What a result says, as text."""
    parts = []
    for block in result.content:
        resource = getattr(block, "resource", None)
        text = getattr(block, "text", None) or getattr(resource, "text", None)
        parts.append(text if text is not None else f"({block.type}, which cannot be shown)")
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts) or "done"


def _reason(error: BaseException) -> str:
    """What a person is told of an error; of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return str(error) or type(error).__name__
