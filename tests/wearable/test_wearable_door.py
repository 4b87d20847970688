"""The wearable's stream: who gets in, what goes out and in which order, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from app_simulator import PONG, App, app, pcm
from dialogue.scripted import silence, speech
from serving import Server

from app.api.wearable import connection


def words(count: int) -> list[bytes]:
    """Packets in which the scripted recogniser hears so many words."""
    return pcm(speech(count / 4))


PAUSE = pcm(silence(1.5))


async def test_events_come_in_order_and_ping_first(small: Server, key: str) -> None:
    async with app(small, key) as phone:
        await phone.status("ready")
        assert phone.frames[0][1] == "ping"
        assert phone.statuses == [
            "initiating",
            "in_progress_conversations_processing",
            "stt_initiating",
            "ready",
        ]


async def test_a_segment_keeps_its_id_while_its_text_grows(small: Server, key: str) -> None:
    async with app(small, key) as phone:
        await phone.status("ready")
        for _ in range(3):
            for packet in words(1):
                await phone.play([packet])
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
        await phone.play(PAUSE)
        await phone.until(lambda: phone.text == "one two three")
        assert len(phone.segments) == 1
        await phone.play([*words(4), *PAUSE])
        await phone.until(lambda: phone.text == "one two three one two three four")
        (segment,) = phone.shown
        assert segment["speaker"] == "SPEAKER_00" and not segment["is_user"]
        assert 0 <= segment["start"] < segment["end"] < 8
        assert segment["stt_provider"] == "counting"


async def test_arrays_come_no_more_often_than_the_app_can_draw(
    small: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app(small, key) as phone:
        await phone.status("ready")
        for packet in [*words(9), *PAUSE] * 2:
            await phone.play([packet])
            await asyncio.sleep(0.01)
        await phone.until(lambda: phone.text.count("nine") == 2)
        times = [at for at, text in phone.frames if text.startswith("[")]
        assert len(times) > 2
        assert min(b - a for a, b in itertools.pairwise(times)) > connection._SHOW_S * 0.9


async def test_pings_go_on(small: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PING_S", 0.1)
    async with app(small, key) as phone:
        await phone.until(lambda: phone.pings >= 4)
        await phone.status("ready")
        # The app's answers are no packets.
        await phone.play([PONG, b"\x00", *words(2), *PAUSE])
        await phone.until(lambda: phone.text == "one two")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nobody"}, {"Authorization": "nonsense"}])
async def test_strangers_are_told_by_a_close_code(small: Server, headers: dict[str, str]) -> None:
    phone = App(small, headers=headers)
    await phone.connect()
    assert await phone.closed() == 1008
    assert phone.frames == []


@pytest.mark.parametrize(
    "query",
    [
        {"codec": "mp3"},
        {"codec": "lc3_fs1030", "sample_rate": 44100},
        {"sample_rate": "many"},
        {"sample_rate": 1},
        {"channels": 99},
        {"language": "!!"},
        {"language": "fr"},
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_reason(
    small: Server, key: str, query: dict[str, Any]
) -> None:
    async with app(small, key, **query) as phone:
        assert await phone.closed() == 1008
        assert phone.socket.close_reason


@pytest.mark.parametrize(
    "query",
    [
        {
            "codec": "OPUS",
            "include_speech_profile": "True",
            "stt_service": "soniox",
            "conversation_timeout": -1,
        },
        {"codec": "pcm8", "language": "en-US", "onboarding": "enabled", "whatever": "x", "channels": "1"},
        {"codec": "", "sample_rate": "", "language": "multi", "source": "omi", "conversation_timeout": "60"},
        {"language": "auto", "sample_rate": "16000.0"},
    ],
)
async def test_phones_are_taken_as_they_are(small: Server, key: str, query: dict[str, Any]) -> None:
    async with app(small, key, **query) as phone:
        await phone.status("ready")


async def test_browsers_say_who_they_are_first(small: Server, key: str) -> None:
    async with app(small, path="/v4/web/listen") as phone:
        await phone.say(type="auth", token=key)
        await phone.event("auth_response")
        await phone.status("ready")
        assert phone.events[0] == {"type": "auth_response", "success": True}
        await phone.play([*words(2), *PAUSE])
        await phone.until(lambda: phone.text == "one two")


@pytest.mark.parametrize(
    "message",
    [{"type": "auth", "token": "wrong"}, {"type": "auth"}, {"type": "x"}, {"type": "auth", "token": 5}],
)
async def test_browsers_that_are_strangers_are_told_so(small: Server, message: dict[str, Any]) -> None:
    async with app(small, path="/v4/web/listen") as phone:
        await phone.say(**message)
        assert await phone.closed() == 1008
        assert phone.events == [{"type": "auth_response", "success": False}]


async def test_browsers_that_say_nothing_are_let_go(small: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.api.wearable import socket

    monkeypatch.setattr(socket, "_INTRODUCED_S", 0.2)
    async with app(small, path="/v4/web/listen") as phone:
        assert await phone.closed() == 1008


async def test_who_sends_nothing_is_let_go_and_may_return(
    small: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_IDLE_S", 1.5)
    async with app(small, key) as phone:
        await phone.status("ready")
        assert await phone.closed() == 1001


async def test_bad_packets_are_dropped(small: Server, key: str) -> None:
    async with app(small, key) as phone:
        await phone.status("ready")
        await phone.play([b"odd", *words(3)[:10], b"odder", *words(3)[10:], b"...", *PAUSE])
        await phone.until(lambda: phone.text == "one two three")


async def test_a_stream_of_nonsense_says_so_and_ends(small: Server, key: str) -> None:
    async with app(small, key, codec="opus") as phone:
        await phone.status("ready")
        await phone.play([b"\xff\xff\xff\xff"] * 60)
        assert await phone.closed() == 1008
        (failed,) = [e for e in phone.events if e.get("status") == "stt_failed"]
        assert failed["outcome"] == "invalid_input" and failed["retryable"] is False and failed["reason"]


async def test_a_dead_recogniser_is_no_silent_transcript(
    small: Server, key: str, engines: dict[str, Any]
) -> None:
    engines["stt"].fails = True
    try:
        async with app(small, key) as phone:
            await phone.status("ready")
            await phone.play([*words(3), *PAUSE] * 4)
            failed = await phone.status("stt_failed")
            assert failed["outcome"] == "upstream_error" and failed["retryable"] is True
            assert await phone.closed() == 1011
    finally:
        engines["stt"].fails = False


async def test_being_full_is_an_answer(small: Server, key: str) -> None:
    async with app(small, key) as a, app(small, key) as b, app(small, key) as c:
        for phone in (a, b, c):
            await phone.status("ready")
        async with app(small, key) as late:
            failed = await late.status("stt_failed")
            assert failed["retryable"] is True and "places" in failed["reason"]
            assert await late.closed() == 1011


async def test_unknown_messages_change_nothing(small: Server, key: str) -> None:
    async with app(small, key) as phone:
        await phone.status("ready")
        await phone.socket.send("no json")
        await phone.socket.send("[1, 2]")
        await phone.socket.send('{"type": 7}')
        await phone.say(type="skip_question")
        await phone.say(type="image_chunk", id="a", index=0, total=1, data="AAAA")
        await phone.say(type="suggested_transcript", segments=[{"text": "not asked for"}])
        await phone.say(type="speaker_assigned", speaker_id="x", person_id=None, segment_ids=3)
        await phone.play([*words(2), *PAUSE])
        await phone.until(lambda: phone.text == "one two")


async def test_words_that_the_app_recognised(small: Server, key: str) -> None:
    async with app(small, key, custom_stt="enabled") as phone:
        await phone.status("ready")
        await phone.play(words(4))
        said = [
            {"text": "Good morning.", "speaker": "SPEAKER_01", "start": 0.0, "end": 1.2},
            {"text": "And to you.", "speaker_id": 2, "start": 1.4, "end": 2},
            {"text": None},
            {"text": "How are you?", "speaker": "SPEAKER_02", "start": 2.5, "end": 3.0, "is_user": "maybe"},
        ]
        await phone.say(type="suggested_transcript", segments=said, stt_provider="apple")
        await phone.until(lambda: phone.text == "Good morning. And to you. How are you?")
        assert [(s["speaker_id"], s["stt_provider"]) for s in phone.shown] == [(1, "apple"), (2, "apple")]


async def test_what_was_said_before_the_models_are_there_is_heard(small: Server, key: str) -> None:
    async with app(small, key) as phone:
        await phone.play([*words(5), *PAUSE])
        await phone.until(lambda: phone.text == "one two three four five")
