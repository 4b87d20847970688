"""A session whose process dies goes on in another one, from what is in Redis."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from redis_server import RedisServer, redis_server
from scripted import silence, speech
from session_rig import Rig

from app.dialogue import events
from app.dialogue.handover import pack, restored, unpack
from app.roles import Word
from app.stores.shared import SharedSessions

Told = list[tuple[int, events.Event]]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Client:
    """What a client knows: the events it was told, the sound it still has to send."""

    def __init__(self) -> None:
        self.told: Told = []

    async def follow(self, rig: Rig) -> None:
        after = self.told[-1][0] if self.told else 0
        async for seq, event in rig.session.outbox.follow(after):
            self.told.append((seq, event))

    def all(self, kind: type[events.Event]) -> list[events.Event]:
        return [e for _, e in self.told if isinstance(e, kind)]

    async def until(self, kind: type[events.Event], count: int = 1) -> list[events.Event]:
        async with asyncio.timeout(20):
            while len(found := self.all(kind)) < count:
                await asyncio.sleep(0.005)
        return found


class World:
    """One session that may die, and the next process that takes it over."""

    def __init__(self, url: str, name: str) -> None:
        self.name, self.url = name, url
        self.client = Client()
        self.rig: Rig | None = None
        self.stores: list[SharedSessions] = []
        self._follower: asyncio.Task[None] | None = None

    async def start(self, text: str = "First sentence here. Second sentence here. Third one.") -> Rig:
        store = SharedSessions(self.url, f"{self.name}-{len(self.stores)}", 60)
        self.stores.append(store)
        if len(self.stores) == 1:
            await store.create(self.name, "anna", {})
            taken = None
        else:
            kept = await store.claim(self.name, "anna")
            taken = restored(kept.state, kept.events, kept.sound)
        self.rig = Rig(store=store, restored=taken, session_id=self.name)
        self.rig.llm.text = text
        self._follower = asyncio.create_task(self.client.follow(self.rig))
        return self.rig

    async def die(self) -> None:
        """The process is gone: nothing of it runs, nothing more is written."""
        assert self.rig is not None and self._follower is not None
        for task in [*self.rig.session._tasks, self._follower]:
            task.cancel()
        await asyncio.gather(*self.rig.session._tasks, self._follower, return_exceptions=True)

    async def end(self) -> None:
        if self.rig is not None:
            await self.rig.session.close()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        for store in self.stores:
            await store.close()


@pytest.fixture
async def world(redis: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(redis.url, request.node.name)
    yield world
    await world.end()


def safe_ms(rig: Rig) -> float:
    """How much sound the client need not send again."""
    assert rig.session.safe is not None
    return rig.session.safe[0]


def consistent(told: Told) -> None:
    """Every event once, in order."""
    assert [seq for seq, _ in told] == list(range(1, len(told) + 1))


async def test_a_sentence_goes_on_in_another_process(world: World) -> None:
    rig = await world.start()
    await rig.hear(silence(0.5), speech(1.0))
    await world.client.until(events.Partial)
    await world.die()
    rig = await world.start()
    safe = int(safe_ms(rig) * 16)
    spoken = np.concatenate([silence(0.5), speech(1.0), speech(0.5), silence(1.0)])
    assert 0.5 * 16000 < safe <= 1.5 * 16000
    await rig.hear(spoken[safe:])
    [final] = await world.client.until(events.Final)
    assert isinstance(final, events.Final) and final.text == "one two three four five six"
    await world.client.until(events.TurnComplete)
    assert len(world.client.all(events.SpeechStarted)) == len(world.client.all(events.SpeechStopped)) == 1
    committed = [p.committed for p in world.client.all(events.Partial) if isinstance(p, events.Partial)]
    for earlier, later in itertools.pairwise([*committed, final.text]):
        assert later.startswith(earlier)
    consistent(world.client.told)
    # The recording is whole, across the two.
    assert rig.recordings[0] == pytest.approx((0.3 + 1.5 + 0.2) * 16000, abs=1100)


@pytest.mark.parametrize("then", [0.2, 0.12, 0.28], ids=["alike", "faster", "slower"])
async def test_a_reply_goes_on_in_another_process(world: World, then: float) -> None:
    """A voice does not take as long for a sentence the second time."""
    rig = await world.start()
    rig.tts.seconds_a_word = 0.2
    rig.session.say("hello")
    await world.client.until(events.ReplyAudio, 6)
    await world.die()
    rig = await world.start()
    rig.tts.seconds_a_word = then
    [done] = await world.client.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and not done.interrupted
    text = "".join(e.text for e in world.client.all(events.ReplyText) if isinstance(e, events.ReplyText))
    assert done.reply == text == "First sentence here. Second sentence here. Third one."
    offset = 0.0
    for event in world.client.all(events.ReplyAudio):
        assert isinstance(event, events.ReplyAudio)
        assert event.offset_ms == pytest.approx(offset, abs=0.1)
        offset += event.duration_ms
    assert done.audio_ms == pytest.approx(offset, abs=0.1)
    assert then != 0.2 or done.audio_ms == pytest.approx(8 * 200, abs=1)
    spoken = [e.text for e in world.client.all(events.ReplyAudio) if isinstance(e, events.ReplyAudio)]
    assert " ".join(t for t in spoken if t) == text
    assert [(m.role, m.content) for m in rig.session.history.messages] == [
        ("user", "hello"),
        ("assistant", text),
    ]
    consistent(world.client.told)


async def test_a_reply_that_was_half_written_is_written_on(world: World) -> None:
    rig = await world.start("One two three. Four five six. Seven eight nine.")
    rig.llm.pause = 0.1
    rig.session.say("count")
    await world.client.until(events.ReplyText, 4)
    await world.die()
    rig = await world.start(" and so on.")
    [done] = await world.client.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    asked = rig.llm.asked[0]
    # The model is given what it had written, and goes on from there.
    assert asked[-1].role == "assistant" and done.reply.startswith(asked[-1].content)
    assert asked[-1].content.startswith("One two three.")
    assert done.reply.endswith("and so on.")
    consistent(world.client.told)


async def test_the_conversation_before_is_remembered(world: World) -> None:
    rig = await world.start()
    rig.session.say("first")
    await world.client.until(events.TurnComplete)
    await asyncio.sleep(0.05)
    await world.die()
    rig = await world.start()
    rig.session.say("second")
    done = await world.client.until(events.TurnComplete, 2)
    assert isinstance(done[1], events.TurnComplete) and done[1].number == 2
    assert [m.content for m in rig.llm.asked[0][1:]] == ["first", rig.llm.text, "second"]


async def test_a_process_that_lost_its_session_falls_silent(world: World) -> None:
    moved: list[object] = []
    rig = await world.start()
    rig.session._mirror._on_lost = lambda: moved.append(1)  # type: ignore[union-attr]
    other = SharedSessions(world.url, "thief", 60)
    await other.claim(world.name, "anna")
    rig.session.say("hello")
    async with asyncio.timeout(10):
        while not moved:
            await asyncio.sleep(0.01)
    # Nobody is told what is not written down.
    assert world.client.told == []
    await other.close()


async def test_the_conversation_goes_on_while_redis_is_away(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        world = World(server.url, "away")
        rig = await world.start()
        server.stop()
        rig.session.say("hello")
        await world.client.until(events.TurnComplete)
        server.start()
        await world.stores[0].create("away", "anna", {})
        rig.session.say("again")
        await world.client.until(events.TurnComplete, 2)
        await asyncio.sleep(1.0)
        await world.die()
        await world.start()
        consistent(world.client.told)
        rig = world.rig  # type: ignore[assignment]
        rig.session.say("third")
        done = await world.client.until(events.TurnComplete, 3)
        assert isinstance(done[2], events.TurnComplete) and done[2].number == 3
        await world.end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the dead close nothing
@pytest.mark.parametrize("seed", range(6))
async def test_dying_at_any_moment_loses_nothing(world: World, seed: int) -> None:
    """Two spoken turns, cut at random moments; the client sends again what is not acknowledged."""
    chance = random.Random(seed)
    spoken = np.concatenate([silence(0.4), speech(1.0), silence(1.2), speech(0.75), silence(1.2)])
    rig = await world.start()
    lives = 0
    sent = 0
    while sent < len(spoken) or len(world.client.all(events.TurnComplete)) < 2:
        await rig.session.hear(spoken[sent : sent + 320])
        sent = min(len(spoken), sent + 320)
        await asyncio.sleep(0.004)
        if sent == len(spoken) and lives >= 4:
            await world.client.until(events.TurnComplete, 2)
        elif chance.random() < 0.03 and lives < 4:
            lives += 1
            await world.die()
            rig = await world.start()
            sent = int(safe_ms(rig) * 16)
    consistent(world.client.told)
    finals = [e.text for e in world.client.all(events.Final) if isinstance(e, events.Final)]
    assert finals == ["one two three four", "one two three"]
    assert len(world.client.all(events.SpeechStarted)) == 2
    done = [e for e in world.client.all(events.TurnComplete) if isinstance(e, events.TurnComplete)]
    # (Sound comes five times as fast as it would: the second may interrupt the answer to the first.)
    assert [(d.number, d.transcript) for d in done] == [(1, finals[0]), (2, finals[1])]
    assert not done[1].interrupted and done[1].reply == rig.llm.text


@pytest.mark.parametrize(
    "event",
    [
        events.SpeechStarted("t", 1.5),
        events.Final("t", "i", "größer 好", (Word("größer", 0.1, 0.5, 0.9),), "de", 0.8, False),
        events.Partial("t", "a b", "a", 0.8, 1.5, 9.0, (Word("a", 0.1, 0.5, 0.9),)),
        events.SpeechStopped("t", 2.5, forced=True),
        events.ReplyAudio("t", np.array([0.5, -0.25, 0.0], np.float32), 22050, 12.5, "text"),
        events.TurnComplete("t", 1, "a", "b", 10.0, False, {"endpoint": 1.0}),
        events.Failed("C", "m", "tr", True, None, "f"),
        events.ReplyPaused("t", 3.0),
    ],
)
def test_events_survive_being_written_down(event: events.Event) -> None:
    again = unpack(pack(event))
    if isinstance(event, events.ReplyAudio):
        assert isinstance(again, events.ReplyAudio)
        np.testing.assert_array_equal(again.samples, event.samples)
        assert (again.offset_ms, again.text, again.sample_rate) == (12.5, "text", 22050)
    else:
        assert again == event
