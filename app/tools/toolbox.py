"""All functions that language models may call here, and the calling of one: found by its name, within a
time, with a result whatever happens."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from app.dialogue.functions import Functions, Result
from app.roles import ColloquyError, Misconfigured, Tool
from app.settings import Settings
from app.tools import Caller
from app.tools.function import PythonFunction, Unusable, text_of
from app.tools.mcp import McpServer

log = logging.getLogger(__name__)

_LONGEST = 20_000
"""Characters of a result. What the language model has room for is less, mostly."""

_Call = Callable[[str, Caller], Awaitable[Result]]


class Toolbox:
    """`functions` and the tools of `servers`. A call may take `timeout_s`."""

    def __init__(
        self,
        functions: Sequence[PythonFunction] = (),
        servers: Sequence[McpServer] = (),
        timeout_s: float = 10.0,
    ) -> None:
        self.servers = tuple(servers)
        self._functions = tuple(functions)
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """Connect to the servers, in the background."""
        for server in self.servers:
            self._keep(asyncio.create_task(server.run(), name=f"mcp-{server.name}"))

    async def close(self) -> None:
        """Disconnect; calls that go on are stopped."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)

    def of(self, caller: Caller) -> Functions:
        """What can be called on behalf of `caller`."""
        return _OfCaller(self, caller)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What there is to be called now."""
        return tuple(tool for tool, there, _ in self._all() if there)

    async def call(self, name: str, arguments: str, caller: Caller) -> Result:
        """See `Functions.call`."""
        call = next((call for tool, _, call in self._all() if tool.name == name), None)
        if call is None:
            return Result(False, f"there is no function {name!r}")
        # A task of its own: one that does not heed its cancelling must not hold up the reply.
        running = self._keep(asyncio.ensure_future(_result(name, call(arguments, caller))))
        try:
            await asyncio.wait([running], timeout=self._timeout_s)
            if not running.done():
                log.warning("the function %s took too long", name)
                return Result(False, f"{name} did not finish within {self._timeout_s:g} s")
            result: Result = running.result()
        finally:
            running.cancel()
        if len(result.text) > _LONGEST:
            result = replace(result, text=f"{result.text[:_LONGEST]}…")
        return result

    def _all(self) -> Iterator[tuple[Tool, bool, _Call]]:
        """Each tool by the name under which it is offered, whether it is there, and how it is called. The
        names of servers that are gone stay theirs."""
        taken = set()
        for function in self._functions:
            taken.add(function.tool.name)
            yield function.tool, True, _caller_of(function)
        for server in self.servers:
            for tool in server.tools:
                name = _free_name(server.name, tool.name, taken)
                taken.add(name)
                yield replace(tool, name=name), server.state == "ready", _asker_of(server, tool.name)

    def _keep(self, task: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the tools failed", exc_info=error)


@dataclass(frozen=True, slots=True)
class _OfCaller:
    toolbox: Toolbox
    caller: Caller

    @property
    def tools(self) -> tuple[Tool, ...]:
        return self.toolbox.tools

    async def call(self, name: str, arguments: str) -> Result:
        return await self.toolbox.call(name, arguments, self.caller)


def _caller_of(function: PythonFunction) -> _Call:
    async def call(arguments: str, caller: Caller) -> Result:
        return Result(True, text_of(await function.call(arguments, caller)))

    return call


def _asker_of(server: McpServer, name: str) -> _Call:
    async def call(arguments: str, caller: Caller) -> Result:
        try:
            given = json.loads(arguments or "{}")
        except ValueError as error:
            raise Unusable(f"the arguments are no JSON: {error}") from error
        if not isinstance(given, dict):
            raise Unusable("the arguments are no JSON object")
        return await server.call(name, given)

    return call


async def _result(name: str, call: Awaitable[Result]) -> Result:
    try:
        return await call
    except Unusable as error:
        return Result(False, str(error))
    except (ColloquyError, ValueError) as error:
        # What a function says on purpose is for the language model, and the person.
        log.warning("the function %s refused: %s", name, type(error).__name__)
        return Result(False, f"{name} failed: {error}")
    except Exception as error:
        log.exception("the function %s failed", name)
        return Result(False, f"{name} failed inside ({type(error).__name__})")


def _free_name(server: str, name: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "_"
    if plain not in taken:
        return plain
    long = f"{server}_{plain}"[:64]
    number = 2
    while long in taken:
        long = f"{server}_{plain}"[:60] + f"_{number}"
        number += 1
    return long


# --- from the settings ---------------------------------------------------------------------------


def open_toolbox(settings: Settings) -> Toolbox:
    """What `TOOLS` and `MCP_SERVERS` name. Raises `Misconfigured`."""
    functions: dict[str, PythonFunction] = {}
    for path in filter(None, (part.strip() for part in settings.tools.split(","))):
        for function in _found(path):
            made = PythonFunction(function)
            if made.tool.name in functions:
                raise Misconfigured(f"TOOLS has two functions {made.tool.name!r}")
            functions[made.tool.name] = made
    servers = [McpServer(name, server) for name, server in settings.mcp_servers.items()]
    return Toolbox(list(functions.values()), servers, settings.tool_timeout_s)


def _found(path: str) -> list[Callable[..., Any]]:
    """The function at `module:function`, or all public ones that a module defines."""
    module_name, _, name = path.partition(":")
    # Where the server is started is where operators put such a file.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise Misconfigured(f"TOOLS: {module_name!r} cannot be imported: {error}") from error
    if not name:
        return list(_public(module))
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise Misconfigured(f"TOOLS: there is no function {path!r}")
    return [found]


def _public(module: ModuleType) -> Iterator[Callable[..., Any]]:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        value = getattr(module, name, None)
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            yield value
