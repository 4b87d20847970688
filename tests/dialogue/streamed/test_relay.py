"""A session's sound on its way to recognisers elsewhere: no word is lost, none comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numbered import Feed, Hears, spoken
from scripted import silence

from app.dialogue.streamed import relay as relays
from app.dialogue.streamed.relay import Relay
from app.roles import SAMPLE_RATE, SttOptions
from app.roles.streaming import StreamDead


class Desk:
    """A relay that runs, and what it reported."""

    def __init__(self, *providers: Hears) -> None:
        self.switches: list[tuple[str, str, str]] = []
        self.outcomes: list[tuple[str, str]] = []
        self.relay = Relay(
            providers,
            SttOptions(),
            "s",
            on_switch=lambda old, new, dead: self.switches.append((old, new, dead.outcome)),
            on_outcome=lambda provider, outcome: self.outcomes.append((provider, outcome)),
        )
        self.feed = Feed(self.relay)
        self.running = asyncio.create_task(self.relay.run())

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])


@pytest.fixture
async def desk() -> AsyncIterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(*providers: Hears) -> Desk:
        desks.append(Desk(*providers))
        return desks[-1]

    yield make
    for made in desks:
        await made.close()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience that a test can wait for."""
    for name, seconds in {"_ANSWER_S": 0.2, "_SEND_S": 0.2, "_MUTE_S": 0.3, "_LOOK_S": 0.02}.items():
        monkeypatch.setattr(relays, name, seconds)
    monkeypatch.setattr(relays, "_BACK_OFF_S", 0.01)


def numbers(first: int, count: int) -> list[str]:
    return [str(n) for n in range(first, first + count)]


async def test_words_come_with_the_sessions_times_though_silence_is_not_sent(
    desk: Callable[..., Desk],
) -> None:
    ears = Hears()
    d = desk(ears)
    await d.feed.hear(silence(20), spoken(0, 4), silence(30), spoken(4, 3), silence(1))
    assert await d.feed.all_firm() == numbers(0, 7)
    starts = [w.start for w in d.relay.firm]
    second = 20 + 4 * 0.35 + 30
    assert starts[0] == pytest.approx(20, abs=0.02) and starts[4] == pytest.approx(second, abs=0.02)
    [stream] = ears.streams
    said = 7 * 0.35
    # A pre-roll twice, a hang-over once, and the second at the end.
    assert len(stream.sound) / SAMPLE_RATE == pytest.approx(said + 0.6 + 4 + 1, abs=0.2)


async def test_it_asks_for_final_words_in_a_pause(desk: Callable[..., Desk]) -> None:
    ears = Hears()
    d = desk(ears)
    await d.feed.hear(spoken(0, 3), silence(0.5))
    async with asyncio.timeout(5):
        await d.relay.settled(int(1.05 * SAMPLE_RATE))
    assert [w.text for w in d.relay.firm] == numbers(0, 3)
    assert ears.streams[0].finalized == 1


async def test_the_next_one_hears_what_the_dead_one_had_not_made_firm(desk: Callable[..., Desk]) -> None:
    dies = StreamDead("upstream_error", "the line broke")
    first, second = Hears("first", dies_after=1.5, dies_of=dies), Hears("second")
    d = desk(first, second)
    await d.feed.hear(spoken(0, 8), silence(0.5))
    assert await d.feed.all_firm() == numbers(0, 8)
    assert d.switches == [("first", "second", "upstream_error")]
    assert d.outcomes == [("first", "upstream_error")]
    assert first.streams[0].closed
    # It was sent the rest, not all.
    whole = d.feed.sound.end
    assert len(second.streams[0].sound) < whole - SAMPLE_RATE


@pytest.mark.parametrize("trouble", ["hangs", "ignores", "stuck"])
async def test_who_does_not_answer_is_left(desk: Callable[..., Desk], brief: None, trouble: str) -> None:
    after = {"hangs": 1.0, "ignores": None, "stuck": None}[trouble]
    first, second = Hears("first", dies_after=after, **{trouble: True}), Hears("second")
    d = desk(first, second)
    await d.feed.hear(spoken(0, 8), silence(0.5))
    assert await d.feed.all_firm() == numbers(0, 8)
    if trouble != "ignores":  # it had told all words, and only owed the answer
        assert d.switches == [("first", "second", "timeout")]


async def test_who_refuses_for_good_is_not_asked_again(desk: Callable[..., Desk]) -> None:
    wrong = Hears("first", refuses=StreamDead("config_error", "the key is wrong", retryable=False))
    d = desk(wrong, Hears("second", dies_after=1.0), Hears("third"))
    await d.feed.hear(spoken(0, 8), silence(0.5))
    assert await d.feed.all_firm() == numbers(0, 8)
    assert [s[:2] for s in d.switches] == [("first", "second"), ("second", "third")]


async def test_one_provider_is_tried_again(desk: Callable[..., Desk], brief: None) -> None:
    only = Hears("only", dies_after=1.6)
    d = desk(only)
    await d.feed.hear(spoken(0, 8), silence(0.5))
    assert await d.feed.all_firm() == numbers(0, 8)
    assert len(only.streams) == 3 and d.relay.dead is None


async def test_after_two_changes_nobody_is_left(desk: Callable[..., Desk], brief: None) -> None:
    d = desk(*(Hears(name, dies_after=0.5) for name in ("a", "b", "c", "d")))
    await d.feed.hear(spoken(0, 20), silence(0.5))
    d.relay.ask()
    with pytest.raises(StreamDead, match="it broke"):
        async with asyncio.timeout(5):
            await d.relay.settled(d.feed.sound.end)
    assert [s[:2] for s in d.switches] == [("a", "b"), ("b", "c"), ("c", "")]
    said = [w.text for w in d.relay.firm]
    assert said == numbers(0, len(said)) and d.relay.firm_to < d.feed.sound.end


async def test_a_stream_is_kept_alive_and_then_ended(
    desk: Callable[..., Desk], brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "_KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(relays, "_IDLE_S", 0.4)
    ears = Hears()
    d = desk(ears)
    await d.feed.hear(spoken(0, 2), silence(0.5))
    await d.feed.all_firm()
    async with asyncio.timeout(5):
        while not ears.streams[0].closed:
            await asyncio.sleep(0.01)
    assert ears.streams[0].kept_alive >= 3 and ears.streams[0].finished
    assert d.outcomes == [("ears", "success")]
    await d.feed.hear(spoken(2, 2), silence(0.5))
    assert await d.feed.all_firm() == numbers(0, 4)
    assert len(ears.streams) == 2


@pytest.mark.parametrize(
    ("sound", "outcome"), [("noise", "expected_silence"), ("mumble", "empty_unexpected")]
)
async def test_streams_without_words(
    desk: Callable[..., Desk],
    brief: None,
    monkeypatch: pytest.MonkeyPatch,
    sound: str,
    outcome: str,
) -> None:
    class Deaf(Hears):
        async def open(self, options: object, job: object) -> object:  # type: ignore[override]
            stream = await super().open(options, job)  # type: ignore[arg-type]
            stream._tell = lambda firm_to, finalized: stream._put([], 0, 0, final=True, finalized=finalized)  # type: ignore[method-assign]
            return stream

    monkeypatch.setattr(relays, "_IDLE_S", 0.1)
    d = desk(Deaf())
    await d.feed.hear(spoken(0, 1 if sound == "noise" else 5), silence(0.5))
    async with asyncio.timeout(5):
        while not d.outcomes:
            await asyncio.sleep(0.01)
    assert d.outcomes == [("ears", outcome)]


async def test_new_settings_are_the_next_streams(desk: Callable[..., Desk], brief: None) -> None:
    ears = Hears()
    d = desk(ears)
    await d.feed.hear(spoken(0, 2), silence(0.5))
    await d.feed.all_firm()
    d.relay.configure(SttOptions("de", ("Colloquy",)))
    async with asyncio.timeout(5):
        while not ears.streams[0].closed:
            await asyncio.sleep(0.01)
    await d.feed.hear(spoken(2, 2), silence(0.5))
    assert await d.feed.all_firm() == numbers(0, 4)
    assert [s.options.language for s in ears.streams] == ["en", "de"]


async def test_sound_that_comes_too_fast_waits(desk: Callable[..., Desk]) -> None:
    ears = Hears(stuck=True)
    d = desk(ears)
    for _ in range(4):
        await d.feed.hear(spoken(0, 20))
    waiting = asyncio.create_task(d.relay.room())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()


@given(
    deaths=st.lists(st.floats(0.1, 4.0), max_size=2),
    hangs=st.booleans(),
    parts=st.lists(st.tuples(st.integers(1, 8), st.floats(0.0, 6.0)), min_size=1, max_size=5),
)
@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whoever_dies_when_every_word_is_told_once(
    brief: None, deaths: list[float], hangs: bool, parts: list[tuple[int, float]]
) -> None:
    providers = [Hears(f"p{i}", dies_after=after, hangs=hangs) for i, after in enumerate(deaths)]
    d = Desk(*providers, Hears("last"))
    try:
        total = 0
        for count, pause in parts:
            await d.feed.hear(spoken(total, count), silence(pause))
            total += count
        assert await d.feed.all_firm() == numbers(0, total)
    finally:
        await d.close()
