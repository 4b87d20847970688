"""A real database or object store is stopped in the middle of a turn: people talk on, and all of it is kept
once, in order, when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from postgres_server import postgres_server
from s3_server import s3_server
from serving import Server, make_settings, scripted
from wire_client import Wire, join, new_session

Stopped = tuple[Server, Callable[[], None], Callable[[], None]]
"""A server that talks, and how a store of its is stopped and started."""


def _engines() -> dict[str, Any]:
    llm = ScriptedLlm("It is so. And so it is.")
    llm.pause = 0.05
    return {"vad": LoudVad(), "stt": CountingStt(), "llm": llm, "tts": ToneTts(0.02)}


@pytest.fixture
def without_database(tmp_path: Path) -> Iterator[Stopped]:
    with postgres_server() as database:
        settings = make_settings(tmp_path / "none", tmp_path, database_url=database.url(database.database()))
        with scripted(settings, **_engines()) as server:
            yield server, database.stop, database.start


@pytest.fixture
def without_objects(tmp_path: Path) -> Iterator[Stopped]:
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as s3:
        given = {name.lower(): value for name, value in s3.environment.items()}
        settings = make_settings(tmp_path / "none", tmp_path, object_store_url=s3.bucket("kept"), **given)
        with scripted(settings, **_engines()) as server:
            yield server, s3.stop, s3.start


async def _say(wire: Wire, words: int) -> None:
    await wire.play(speech(words * 0.25))
    await wire.play(silence(1.0))


async def _talk(
    stopped: Stopped, during: Callable[[httpx.AsyncClient, str], Any]
) -> tuple[str, list[dict[str, Any]]]:
    """Five turns: the store goes away in the middle of the second one's reply, and comes back after the
    fourth. What clients were told of them."""
    server, stop, start = stopped
    session = await new_session(server.url, turn_detection={"end_ms": 200})
    told = []
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        async with join(server.url, session) as wire:
            await wire.until("session_ready")
            for number in range(1, 6):
                await _say(wire, number + 2)
                if number == 2:
                    await wire.until("llm_token")
                    await asyncio.to_thread(stop)
                complete = await wire.until("turn_complete")
                assert complete["number"] == number and complete["reply"] == "It is so. And so it is."
                told.append(complete)
                if number == 4:
                    await during(http, session["session_id"])
                    # Somebody who comes now can talk, too.
                    stranger = await new_session(server.url, turn_detection={"end_ms": 200})
                    async with join(server.url, stranger) as other:
                        await other.until("session_ready")
                        await _say(other, 3)
                        await other.until("turn_complete")
                    await asyncio.to_thread(start)
            assert not [message for message in wire.seen if message["type"] == "error"]
        spool = server.settings.data_dir / "spool"
        async with asyncio.timeout(60):
            while any(path.suffix in (".entry", ".heard") for path in spool.rglob("*")):
                await asyncio.sleep(0.05)
        for id_, count in ((session["session_id"], 5), (stranger["session_id"], 1)):
            turns = (await http.get(f"/api/v1/sessions/{id_}/turns")).json()
            assert [turn["number"] for turn in turns] == list(range(1, count + 1))
            for turn in turns:
                sound = await http.get(f"/api/v1/sessions/{id_}/turns/{turn['turn_id']}/audio")
                assert sound.status_code == 200 and sound.content[:4] == b"RIFF"
        stored = (await http.get(f"/api/v1/sessions/{session['session_id']}/turns")).json()
    assert [(t["turn_id"], t["reply"]) for t in stored] == [(t["turn_id"], t["reply"]) for t in told]
    assert [len(turn["transcript"].split()) for turn in stored] == [3, 4, 5, 6, 7]
    return session["session_id"], stored


def _kept(server: Server, what: str) -> float:
    registry = server.app.state.context.metrics.registry
    value: float = registry.get_sample_value("colloquy_kept_total", {"what": what}) or 0.0
    return value


async def test_the_database_is_stopped_in_the_middle_of_a_turn(without_database: Stopped) -> None:
    async def during(http: httpx.AsyncClient, session_id: str) -> None:
        for path in (f"/api/v1/sessions/{session_id}/turns", "/api/v1/sessions"):
            refused = await http.get(path)
            assert (refused.status_code, refused.json()["code"]) == (503, "STORE_FAILED")
        assert (await http.get("/health")).status_code == 200

    await _talk(without_database, during)
    server = without_database[0]
    assert (_kept(server, "turn"), _kept(server, "lost"), _kept(server, "refused")) == (6, 0, 0)


async def test_the_object_store_is_stopped_in_the_middle_of_a_turn(without_objects: Stopped) -> None:
    async def during(http: httpx.AsyncClient, session_id: str) -> None:
        # Turns wait for their recordings, which are not there.
        (first, *_) = (await http.get(f"/api/v1/sessions/{session_id}/turns")).json()
        refused = await http.get(f"/api/v1/sessions/{session_id}/turns/{first['turn_id']}/audio")
        assert (refused.status_code, refused.json()["code"]) == (503, "STORE_FAILED")

    await _talk(without_objects, during)
    server = without_objects[0]
    assert (_kept(server, "turn"), _kept(server, "lost"), _kept(server, "refused")) == (6, 0, 0)
