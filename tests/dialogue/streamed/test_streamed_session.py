"""A session that is heard by recognisers elsewhere."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from numbered import Hears, spoken
from scripted import silence
from session_rig import Rig

from app.dialogue import events
from app.dialogue.config import SessionConfig, TurnConfig
from app.dialogue.streamed import relay as relays
from app.roles.streaming import StreamDead

Make = Callable[..., Rig]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(relays, "_BACK_OFF_S", 0.01)
    made: list[Rig] = []

    def build(*providers: Hears, mode: str = "auto") -> Rig:
        turn = TurnConfig(end_ms=500, echo=False, mode=mode)  # type: ignore[arg-type]
        rig = Rig(SessionConfig(turn=turn))
        rig.roles = replace(rig.roles, stt_streaming=providers)
        made.append(rig)
        return rig

    yield build
    for rig in made:
        await rig.session.close()


def finals(rig: Rig) -> list[str]:
    return [e.text for e in rig.all(events.Final) if isinstance(e, events.Final)]


async def test_a_turn_is_heard_elsewhere_and_answered(make: Make) -> None:
    ears = Hears()
    rig = make(ears)
    await rig.hear(silence(3), spoken(0, 6), silence(1.5))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    assert done.transcript == "0 1 2 3 4 5" and done.reply == rig.llm.text
    assert rig.stt.calls == []
    [final] = rig.all(events.Final)
    assert isinstance(final, events.Final)
    first = final.start + final.words[0].start
    assert first == pytest.approx(3.0, abs=0.05)
    shown = [e for e in rig.all(events.Partial) if isinstance(e, events.Partial)]
    assert shown and all(e.text.startswith(e.committed) for e in shown)
    for earlier, later in itertools.pairwise(shown):
        assert later.committed.startswith(earlier.committed)


async def test_turn_after_turn(make: Make) -> None:
    rig = make(Hears())
    for turn in range(4):
        await rig.hear(spoken(turn * 5, 5), silence(2))
        await rig.until(events.TurnComplete, turn + 1)
    assert finals(rig) == [" ".join(str(5 * t + i) for i in range(5)) for t in range(4)]


async def test_push_to_talk(make: Make) -> None:
    rig = make(Hears(), mode="manual")
    await rig.hear(spoken(0, 5))
    rig.session.commit()
    await rig.until(events.TurnComplete)
    assert finals(rig) == ["0 1 2 3 4"]


async def test_the_provider_dies_mid_sentence_and_no_word_is_lost(make: Make) -> None:
    rig = make(Hears("first", dies_after=2.0), Hears("second"))
    await rig.hear(silence(1), spoken(0, 12), silence(1.5))
    await rig.until(events.TurnComplete)
    assert finals(rig) == [" ".join(map(str, range(12)))]
    [notice] = rig.all(events.Notice)
    assert isinstance(notice, events.Notice) and notice.code == "STT_SWITCHED"
    assert "second" in notice.message and "upstream_error" in notice.message


async def test_when_all_are_dead_this_server_hears_the_rest(make: Make) -> None:
    """The scripted recogniser here writes a word for each 0.25 s, so "one two …" is what was left."""
    wrong = StreamDead("config_error", "no such key", retryable=False)
    rig = make(Hears("first", dies_after=1.5), Hears("second", refuses=wrong), Hears("third", refuses=wrong))
    await rig.hear(silence(1), spoken(0, 10), silence(1.5))
    await rig.until(events.TurnComplete)
    [text] = finals(rig)
    words = text.split()
    elsewhere = [w for w in words if w.isdigit()]
    assert elsewhere == [str(n) for n in range(len(elsewhere))] and 1 <= len(elsewhere) < 10
    here = words[len(elsewhere) :]
    assert here[:2] == ["one", "two"] and not any(w.isdigit() for w in here)
    # And from then on it hears everything.
    await rig.hear(spoken(0, 4), silence(1.5))
    await rig.until(events.TurnComplete, 2)
    assert finals(rig)[1].startswith("one two")


async def test_nobody_can_be_reached(make: Make) -> None:
    rig = make(Hears(refuses=StreamDead("upstream_error", "nobody answers")))
    await rig.hear(spoken(0, 8), silence(1.5))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    assert done.transcript.startswith("one two three four") and done.reply


async def test_streams_end_with_the_session(make: Make) -> None:
    ears = Hears()
    rig = make(ears)
    await rig.hear(spoken(0, 4), silence(1.5))
    await rig.until(events.TurnComplete)
    await rig.session.close()
    assert ears.streams[0].closed
    await asyncio.sleep(0.01)
    assert not [t for t in asyncio.all_tasks() if "relay" in repr(t.get_coro())]
