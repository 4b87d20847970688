"""Words out of pieces, the watch over silence, and what the settings make of providers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from serving import make_settings

from app.clients.streaming import told
from app.clients.streaming.spelling import Firm, Piece
from app.roles import Misconfigured, Word
from app.roles.streaming import StreamDead
from app.runtime import Runtime


def pieces(*texts: str) -> list[Piece]:
    return [Piece(text, i, i + 0.5, 1 - i / 10) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((" Hel", "lo", " world", "."), ["Hello", "world."]),
        (("How", " ", "are", " ", "you", "?"), ["How", "are", "you?"]),
        (("you ", "and", " I"), ["you", "and", "I"]),
        ((" «", "bon", "»"), ["«bon»"]),
        (("你", "好", "，", "GPU", "很", "快", "。"), ["你", "好，", "GPU", "很", "快。"]),
        ((" ", ""), []),
    ],
)
def test_pieces_make_words(given: tuple[str, ...], words: list[str]) -> None:
    firm = Firm()
    complete = firm.add(pieces(*given))
    assert [word.text for word in complete] == words[:-1]
    assert [word.text for word in firm.rest()] == words[-1:]
    assert firm.rest() == ()


def test_a_word_is_told_once_it_is_whole() -> None:
    firm = Firm()
    assert firm.add([Piece(" beau", 0.0, 0.2, 0.9)]) == ()
    assert firm.until(0.2) == 0.0
    [guess] = firm.followed_by([Piece("ti", 0.2, 0.3, 0.3)])
    assert (guess.text, guess.start, guess.end, guess.confidence) == ("beauti", 0.0, 0.3, 0.3)
    assert firm.add([Piece("tiful", 0.2, 0.4, 0.8), Piece(".", 0.5, 0.5, 0.1)]) == ()
    [word] = firm.add([Piece(" Day", 1.0, 1.2, 0.7)])
    assert (word.text, word.start, word.end, word.confidence) == ("beautiful.", 0.0, 0.4, 0.8)
    assert firm.until(1.2) == 1.0


class Clock:
    """A loop whose time is set."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(3600, lambda: None)


def patient(**options: Any) -> tuple[told.Told, Clock]:
    """What was told by a provider that may say nothing for 10 s."""
    stream, clock = told.Told("Somebody", 10, **options), Clock()
    stream._loop = clock  # type: ignore[assignment]
    stream._sign_at = stream._sound_at = 0.0
    return stream, clock


def at(clock: Clock, seconds: float, stream: told.Told) -> bool:
    """Whether the stream is over at that time."""
    clock.now = seconds
    stream._look()
    return stream.over


async def test_only_who_owes_an_answer_is_silent() -> None:
    stream, clock = patient()
    assert not at(clock, 100, stream)
    stream.asked(3.0)
    assert not at(clock, 109, stream)
    stream.sign()  # slow, but there
    assert not at(clock, 118, stream)
    stream.tell((), 3.0, final=True, finalized=True)
    assert not at(clock, 200, stream)
    stream.finish()
    assert not at(clock, 209, stream) and at(clock, 210, stream)
    assert (await anext(stream)).finalized
    with pytest.raises(StreamDead, match="said nothing for 10 s"):
        await anext(stream)


async def test_sound_without_an_answer_is_silence_but_a_pause_is_none() -> None:
    stream, clock = patient()
    for clock.now in (0.0, 0.5, 60.0, 60.9, *(61.0 + i / 2 for i in range(18))):
        stream.sounded()
        assert not stream.over
    stream.sign()
    for clock.now in (70.0 + i / 2 for i in range(21)):
        stream.sounded()
        assert not stream.over
    clock.now = 80.5
    stream.sounded()
    assert stream.over


@pytest.mark.parametrize(
    ("covered", "unsure", "always", "answered"),
    [
        (2.8, False, False, True),
        (2.0, False, False, False),
        (2.8, True, False, False),
        (2.8, False, True, False),
    ],
)
async def test_who_may_leave_a_question_open_is_answered_for(
    covered: float, unsure: bool, always: bool, answered: bool
) -> None:
    stream, clock = patient(flush=lambda: (Word("held", 2.0, 2.5, 1.0),), always_answers=always)
    stream.covered, stream.unsure = covered, unsure
    stream.asked(3.0)
    at(clock, 0.9, stream)
    assert not stream._heard
    at(clock, 1.1, stream)
    assert bool(stream._heard) == answered
    if answered:
        stream.tell((), 3.0, final=True, finalized=True)  # late, after all
        first, second = await anext(stream), await anext(stream)
        assert first.finalized and [word.text for word in first.words] == ["held"]
        assert second.final and not second.finalized
    stream.close()


@pytest.mark.parametrize("module", ["no_such_sdk", "no_such.sdk", "json.no_such_sdk"])
def test_a_package_that_is_missing_is_named(module: str) -> None:
    with pytest.raises(Misconfigured, match="needs the package some-sdk"):
        told.need(module, "some-sdk", "somebody")


async def runtime(tmp_path: Path, **settings: object) -> Runtime:
    return Runtime(make_settings(tmp_path, tmp_path, **settings))


async def test_nobody_hears_elsewhere_by_default(tmp_path: Path) -> None:
    assert (await runtime(tmp_path)).streaming == ()


async def test_providers_are_had_in_the_order_of_the_setting(tmp_path: Path) -> None:
    keys = {f"{name}_api_key": "k" for name in ("deepgram", "soniox", "speechmatics")}
    made = await runtime(tmp_path, stt_streaming_providers="soniox, speechmatics,deepgram, soniox", **keys)
    assert [stt.info.name for stt in made.streaming] == ["soniox", "speechmatics", "deepgram"]
    assert made.streaming is made.streaming
    await made.close()


@pytest.mark.parametrize("name", ["deepgram", "soniox", "speechmatics"])
async def test_what_lacks_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match=f"set {name.upper()}_API_KEY"):
        _ = (await runtime(tmp_path, stt_streaming_providers=name)).streaming
    monkeypatch.setattr(told, "find_spec", lambda module: None)
    given = {f"{name}_api_key": "k"}
    with pytest.raises(Misconfigured, match="install colloquy"):
        _ = (await runtime(tmp_path, stt_streaming_providers=name, **given)).streaming
