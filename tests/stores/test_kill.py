"""A server is killed again and again while people talk: what they were told is what is stored."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from dialogue.scripted import silence, speech
from websockets.exceptions import WebSocketException
from wire_client import join, new_session

TURNS = 200
AT_ONCE = 4

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")


class Process:
    """The server, in a process of its own."""

    def __init__(self, data: Path) -> None:
        here = Path(__file__).parent
        path = os.pathsep.join(map(str, (here.parent, here.parents[1])))
        self._process = subprocess.Popen(
            [sys.executable, str(here / "kill_server.py"), str(data)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the server did not start"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass
class Told:
    """What clients were told: the texts of turns, and the turns that were over, by session and turn."""

    finals: dict[tuple[str, str], str] = field(default_factory=dict)
    complete: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


async def talk(url: str, told: Told, dice: random.Random) -> None:
    """Speak, turn after turn, until the server is gone."""
    with suppress(WebSocketException, httpx.TransportError, OSError, TimeoutError):
        session = await new_session(url, turn_detection={"end_ms": 200})
        async with join(url, session) as wire:
            await wire.until("session_ready")
            while True:
                await wire.play(speech(dice.uniform(0.5, 2.4)))
                await wire.play(silence(1.0))
                while (message := await wire.receive())["type"] != "turn_complete":
                    if message["type"] == "transcription_final":
                        told.finals[session["session_id"], message["turn_id"]] = message["text"]
                told.complete[session["session_id"], message["turn_id"]] = message


def waiting(data: Path) -> int:
    """How much is not stored yet."""
    return sum(p.suffix in (".entry", ".heard") for p in (data / "data" / "spool").rglob("*"))


async def stored(url: str, session_ids: set[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What REST tells of these sessions, when it is all there."""
    found = {}
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for id_ in session_ids:
            turns = (await http.get(f"/api/v1/sessions/{id_}/turns", params={"limit": 1000})).json()
            assert [t["number"] for t in turns] == list(range(1, len(turns) + 1)), (
                "one number a turn, no gaps"
            )
            for turn in turns:
                found[id_, turn["turn_id"]] = turn
                if turn["source"] == "speech":
                    sound = await http.get(f"/api/v1/sessions/{id_}/turns/{turn['turn_id']}/audio")
                    assert sound.status_code == 200 and sound.content[:4] == b"RIFF"
    return found


async def test_two_hundred_turns_and_kills(tmp_path: Path) -> None:
    dice, told, kills = random.Random(11), Told(), 0
    while len(told.complete) < TURNS:
        process = await asyncio.to_thread(Process, tmp_path)
        talking = [asyncio.create_task(talk(process.url, told, dice)) for _ in range(AT_ONCE)]
        await asyncio.sleep(dice.uniform(0.5, 4.0))
        await asyncio.to_thread(process.kill)
        kills += 1
        async with asyncio.timeout(60):
            await asyncio.gather(*talking)
    last = await asyncio.to_thread(Process, tmp_path)
    try:
        async with asyncio.timeout(60):
            while waiting(tmp_path):
                await asyncio.sleep(0.05)
        found = await stored(last.url, {session_id for session_id, _ in told.finals})
    finally:
        await asyncio.to_thread(last.kill)
    assert kills >= 3
    for place, text in told.finals.items():
        assert found[place]["transcript"] == text
    for place, message in told.complete.items():
        assert (found[place]["number"], found[place]["reply"]) == (message["number"], message["reply"])
    logging.getLogger(__name__).info(
        "%d kills, %d texts told, %d turns told to be over, %d stored",
        *(kills, len(told.finals), len(told.complete), len(found)),
    )
    # Nothing else: what was being told when the process died may be there too, one for each session.
    assert len(found) <= len(told.finals) + kills * AT_ONCE
