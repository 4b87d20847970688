"""A full server over the wire: who waits is told where, and goes on without asking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from serving import Server, make_settings, scripted
from wire_client import join, new_session

from app.api.messages import Queued, SessionReady, TurnComplete
from app.roles import Busy
from app.talk import connect


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """One place, and two may wait."""
    settings = make_settings(tmp_path / "none", tmp_path, max_sessions=1, max_waiting=2)
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}
    with scripted(settings, **engines) as server:
        yield server


async def end(server: Server, session: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.delete(f"/api/v1/sessions/{session['session_id']}")


async def test_the_queue_moves_up_and_what_was_said_in_it_is_answered(small: Server) -> None:
    first, second, third = [await new_session(small.url) for _ in range(3)]
    assert [s["queue_position"] for s in (first, second, third)] == [0, 1, 2]
    async with httpx.AsyncClient(base_url=small.url) as http:
        refused = await http.post("/api/v1/sessions")
        waiting = await http.get(f"/api/v1/sessions/{second['session_id']}")
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
    body = refused.json()
    assert (body["code"], body["position"]) == ("BUSY", 2)
    assert waiting.json()["state"] == "queued"
    async with (
        join(small.url, first) as one,
        join(small.url, second) as two,
        join(small.url, third) as three,
    ):
        await one.until("session_ready")
        assert (await two.until("queued"))["position"] == 1
        told = await three.until("queued")
        assert told["position"] == 2 and told["retry_after_s"] >= 1 and told["seq"] == 0
        # The line is alive meanwhile, sound waits, and what is wrong is refused.
        await two.play(speech(1.0))
        await two.play(silence(1.5))
        await two.send("ping")
        await two.until("pong")
        await two.send("no_such_message")
        assert (await two.until("error"))["field"] == "type"
        await end(small, first)
        ready = await two.until("session_ready")
        assert ready["received_ms"] == 2500 and not ready["resumed"]
        await two.until("turn_complete")
        assert (await three.until("queued"))["position"] == 1
        await end(small, second)
        await three.until("session_ready")
    await end(small, third)


async def test_a_client_goes_on_by_itself_when_there_is_a_place(small: Server) -> None:
    async with connect(small.url) as first:
        await first.ready()
        async with connect(small.url) as second, connect(small.url) as third:
            await second.text("Hello?")
            with pytest.raises(Busy, match="2 wait already"):
                async with connect(small.url):
                    pass
            async with asyncio.timeout(20):
                async for message in second:
                    if isinstance(message, Queued):
                        assert message.position == 1
                        async with httpx.AsyncClient(base_url=small.url) as http:
                            await http.delete(f"/api/v1/sessions/{first.session_id}")
                    if isinstance(message, TurnComplete):
                        break
            kinds = []
            async with asyncio.timeout(20):
                async with httpx.AsyncClient(base_url=small.url) as http:
                    await http.delete(f"/api/v1/sessions/{second.session_id}")
                async for message in third:
                    kinds.append(type(message))
                    if isinstance(message, SessionReady):
                        break
            assert set(kinds[:-1]) == {Queued} and kinds[-1] is SessionReady


async def test_one_who_waits_and_comes_back_has_kept_place_and_words(small: Server) -> None:
    first, second = await new_session(small.url), await new_session(small.url)
    async with join(small.url, first) as one:
        await one.until("session_ready")
        async with join(small.url, second) as two:
            await two.until("queued")
            await two.play(speech(0.5))
            await two.send("ping")
            await two.until("pong")
        async with join(small.url, second) as two:
            await two.send("resume", last_seq=0)
            assert (await two.until("queued"))["position"] == 1
            await end(small, first)
            ready = await two.until("session_ready")
            assert ready["resumed"] and ready["received_ms"] == 500
    await end(small, second)
