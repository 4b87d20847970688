"""Calling functions by name: within a time, with a result whatever happens. And what the settings name."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from serving import make_settings
from tools import sample_tools

from app.roles import Misconfigured
from app.settings import Settings
from app.tools import Caller
from app.tools.function import PythonFunction
from app.tools.toolbox import Toolbox, open_toolbox

CALLER = Caller("ann", "s1")
SHOP = """
from os.path import join
from app.tools.builtin import now

def open_shop(day: str) -> str:
    "Opens."
    return day

def _hidden() -> None: ...

class Desk:
    @staticmethod
    def ring(times: int = 1) -> str:
        "Rings."
        return "!"
"""


def box(*names: str, timeout_s: float = 10) -> Toolbox:
    return Toolbox([PythonFunction(getattr(sample_tools, name)) for name in names], timeout_s=timeout_s)


async def result(toolbox: Toolbox, name: str, arguments: str = "{}") -> tuple[bool, str]:
    found = await toolbox.of(CALLER).call(name, arguments)
    return found.ok, found.text


async def test_every_failure_is_a_result(caplog: pytest.LogCaptureFixture) -> None:
    tools = box("whose", "refuse", "broken", "leave", "stop", "long")
    assert [tool.name for tool in tools.tools] == ["whose", "refuse", "broken", "leave", "stop", "long"]
    assert await result(tools, "whose", '{"thing": "hat"}') == (True, "hat of ann in s1")
    assert await result(tools, "nobody") == (False, "there is no function 'nobody'")
    assert await result(tools, "whose") == (False, "the arguments do not fit: thing: Field required")
    assert await result(tools, "refuse") == (False, "refuse failed: there are no rooms left")
    # What a bug says may be a secret: it is in the log.
    assert await result(tools, "broken") == (False, "broken failed inside (RuntimeError)")
    assert "hunter2" in caplog.text
    assert await result(tools, "leave") == (False, "leave failed inside (RuntimeError)")
    assert await result(tools, "stop") == (False, "stop failed inside (RuntimeError)")
    ok, text = await result(tools, "long")
    assert ok and len(text) == 20_001


async def test_nothing_waits_for_what_takes_too_long() -> None:
    tools = box("sleep", "stubborn", timeout_s=0.1)
    began = time.monotonic()
    assert await result(tools, "sleep", '{"seconds": 5}') == (False, "sleep did not finish within 0.1 s")
    assert await result(tools, "stubborn") == (False, "stubborn did not finish within 0.1 s")
    assert time.monotonic() - began < 3
    await tools.close()


async def test_a_call_that_is_not_wanted_any_more_is_stopped() -> None:
    stopped = []

    async def wait() -> None:
        """Waits."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    wait.__name__ = "wait"
    tools = Toolbox([PythonFunction(wait)])
    call = asyncio.create_task(tools.of(CALLER).call("wait", "{}"))
    await asyncio.sleep(0.02)
    call.cancel()
    await asyncio.wait([call])
    await asyncio.sleep(0.02)
    assert call.cancelled() and stopped == [True]


async def test_threads_do_not_hold_each_other_up() -> None:
    tools = box("sleep", "thread")
    slow = [asyncio.create_task(result(tools, "sleep", '{"seconds": 1.5}')) for _ in range(20)]
    await asyncio.sleep(0.05)
    began = time.monotonic()
    assert await result(tools, "thread") == (True, "tool")
    assert time.monotonic() - began < 1
    assert set(await asyncio.gather(*slow)) == {(True, "done")}


def named(tmp_path: Path, tools: str) -> Settings:
    return make_settings(tmp_path, tmp_path, tools=tools)


def test_settings_name_functions_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_functions.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    wish = "app.tools.builtin:now, shop_functions, shop_functions:Desk.ring"
    assert [tool.name for tool in open_toolbox(named(tmp_path, wish)).tools] == ["now", "open_shop", "ring"]
    assert open_toolbox(named(tmp_path, "")).tools == ()


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ("no_such_module", "no_such_module.*cannot be imported"),
        ("app.tools.builtin:nothing", "there is no function"),
        ("app.tools.builtin:now,app.tools.builtin", "two functions 'now'"),
        ("tools.sample_tools:CALLER", "there is no function"),
    ],
)
def test_wrong_names_stop_the_start(tmp_path: Path, tools: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        open_toolbox(named(tmp_path, tools))


@pytest.mark.parametrize(
    "server", [{}, {"command": "a", "url": "http://b"}, {"url": "ftp://b"}, {"command": "a", "what": 1}]
)
def test_a_server_is_a_command_or_a_url(tmp_path: Path, server: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mcp_servers"):
        make_settings(tmp_path, tmp_path, mcp_servers={"x": server})
