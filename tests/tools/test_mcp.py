"""Tools of real MCP servers: a process that is spoken to over its standard input and output, and one
over HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.settings import McpSettings
from app.tools import Caller, builtin
from app.tools import mcp as connecting
from app.tools.function import PythonFunction
from app.tools.mcp import McpServer
from app.tools.toolbox import Toolbox

SERVER = Path(__file__).with_name("mcp_server.py")
CALLER = Caller("ann", "s1")


@asynccontextmanager
async def serving(*servers: McpServer, timeout_s: float = 10.0) -> AsyncIterator[Toolbox]:
    toolbox = Toolbox([PythonFunction(builtin.now)], servers, timeout_s)
    toolbox.start()
    try:
        yield toolbox
    finally:
        await toolbox.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


def own_process(name: str = "shop") -> McpServer:
    settings = {"command": sys.executable, "args": [str(SERVER)], "env": {"SHOP": "corner"}}
    return McpServer(name, McpSettings.model_validate(settings))


async def test_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "not yours")
    monkeypatch.setattr(connecting, "_RETRY_S", (0.1, 0.1))
    shop = own_process()
    async with serving(shop) as toolbox:
        # Nobody waits for it.
        assert [tool.name for tool in toolbox.tools] == ["now"] and shop.state == "connecting"
        await until(lambda: shop.state == "ready")
        tools = {tool.name: tool for tool in toolbox.tools}
        # A name that is taken is told apart by the server's.
        assert set(tools) == {"now", "price", "shop_now", "secret", "slow", "leave"}
        assert tools["price"].description == "What an item costs."
        assert tools["price"].parameters["required"] == ["item"]
        mine = toolbox.of(CALLER)
        bought = await mine.call("price", '{"item": "tea", "pieces": 2}')
        assert (bought.ok, bought.text) == (True, "2 tea: 6 euros")
        assert (await mine.call("shop_now", "")).text == "shop time"
        assert (await mine.call("secret", "{}")).text == "corner None"
        for arguments in ('{"item": "air"}', '{"pieces": 2}', "[]", "{"):
            wrong = await mine.call("price", arguments)
            assert not wrong.ok and wrong.text, arguments

        # It dies in a call, and is there again.
        gone = await mine.call("leave", "{}")
        assert not gone.ok
        await until(lambda: shop.state == "failed")
        assert {tool.name for tool in toolbox.tools} == {"now"} and shop.message
        lost = await mine.call("price", '{"item": "tea"}')
        assert not lost.ok and "not there" in lost.text
        await until(lambda: shop.state == "ready")
        assert (await mine.call("price", '{"item": "tea"}')).text == "1 tea: 3 euros"
    assert shop.state == "ready"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
def over_http(port: int) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, str(SERVER), str(port)])
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the MCP server did not start") from None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def at(url: str, name: str = "web", key: str = "k1") -> McpServer:
    return McpServer(name, McpSettings.model_validate({"url": url, "headers": {"X-Key": key}}))


async def test_a_server_over_http(over_http: str) -> None:
    web, shut = at(over_http), at(over_http, "shut", "wrong")
    async with serving(web, shut, timeout_s=5) as toolbox:
        await until(lambda: web.state == "ready" and shut.state == "failed")
        assert {tool.name for tool in toolbox.tools} == {"now", "price", "web_now", "secret", "slow", "leave"}
        mine = toolbox.of(CALLER)
        assert (await mine.call("price", '{"item": "tea"}')).text == "1 tea: 3 euros"
        wrong = await mine.call("price", '{"item": "air"}')
        assert not wrong.ok and "air is not for sale" in wrong.text
        late = await mine.call("slow", "{}")
        assert (late.ok, late.text) == (False, "slow did not finish within 5 s")


async def test_nobody_there(port: int) -> None:
    nobody = at(f"http://127.0.0.1:{port}/mcp", "nobody")
    nothing = McpServer("nothing", McpSettings(command="no-such-command-here"))
    async with serving(nobody, nothing) as toolbox:
        await until(lambda: nobody.state == nothing.state == "failed")
        assert nobody.message and "no-such-command-here" in nothing.message
        assert [tool.name for tool in toolbox.tools] == ["now"]
        assert (await toolbox.of(CALLER).call("now", "{}")).ok
