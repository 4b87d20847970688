"""A function that the embedded language model calls, and answers with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from session_rig import Rig

from app.dialogue import events
from app.dialogue.config import SessionConfig
from app.engines.llama import Llama
from app.tools import Caller
from app.tools.function import PythonFunction
from app.tools.toolbox import Toolbox


@pytest.fixture
async def llama(model_dir: Callable[[str], Path], models_dir: Path) -> AsyncIterator[Llama]:
    path = next(model_dir("qwen2.5-coder-0.5b-instruct-q4_k_m").glob("*.gguf"))
    llama = Llama(path, threads=1, slots=2)
    yield llama
    await llama.close()


async def test_what_only_the_function_knows_is_answered(llama: Llama) -> None:
    asked: list[int] = []

    def door_code(room: int) -> str:
        """Tells the door code of a room."""
        asked.append(room)
        return "The door code is 4711."

    functions = Toolbox([PythonFunction(door_code)]).of(Caller("ann", "s"))
    rig = Rig(SessionConfig(temperature=0, speak=False), functions=functions)
    object.__setattr__(rig.roles, "llm", llama)
    rig.session.say("What is the door code of room 7?")
    [done] = await rig.until(events.TurnComplete, seconds=60)
    assert isinstance(done, events.TurnComplete)
    assert asked and asked[0] == 7
    assert "4711" in done.reply
    await rig.session.close()
