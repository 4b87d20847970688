"""Whatever a person, a client and broken engines do in whatever order: what always holds.

On virtual time with scripted roles, so that an hour of such conversations takes seconds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import CountingStt, silence, speech
from session_rig import Rig

from app.dialogue import events
from app.dialogue.config import SessionConfig, TurnConfig
from app.roles import SAMPLE_RATE, Samples
from benchmarks.common.virtual_time import run_virtual

Action = tuple[str, Any]

seconds = st.sampled_from([0.06, 0.12, 0.2, 0.3, 0.5, 0.8, 1.1, 1.6])
actions: st.SearchStrategy[Action] = st.one_of(
    st.tuples(st.just("speak"), seconds),
    st.tuples(st.just("speak"), seconds),
    st.tuples(st.just("pause"), seconds),
    st.tuples(st.just("pause"), st.sampled_from([0.1, 0.4, 1.0, 3.0])),
    st.tuples(st.just("words"), st.sampled_from(["one two three four five six seven", "mm-hm", "", "stop"])),
    st.tuples(st.just("say"), st.sampled_from(["hello", "and now?"])),
    st.tuples(st.just("interrupt"), st.just(None)),
    st.tuples(st.just("commit"), st.just(None)),
    st.tuples(st.just("played"), st.floats(0, 3000)),
    st.tuples(st.just("reconnect"), st.integers(0, 30)),
    st.tuples(st.just("mode"), st.sampled_from(["auto", "manual"])),
    st.tuples(st.just("break"), st.sampled_from(["stt", "llm", "tts"])),
    st.tuples(st.just("mend"), st.just(None)),
    st.tuples(st.just("slow"), st.sampled_from([0.0, 0.05, 1.0])),
)


class SlowStt(CountingStt):
    """Takes its time, by the virtual clock."""

    seconds = 0.0

    async def transcribe(self, *args: Any) -> Any:
        await asyncio.sleep(self.seconds)
        return await super().transcribe(*args)


class Play:
    """Acts on one session and keeps what its clients saw."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.seen: list[list[tuple[int, events.Event]]] = []
        self.reader: asyncio.Task[None] | None = None
        self.connect(0)

    def connect(self, after: int) -> None:
        seen: list[tuple[int, events.Event]] = []
        self.seen.append(seen)

        async def read() -> None:
            async for numbered in self.rig.session.outbox.follow(after):
                seen.append(numbered)

        if self.reader is not None:
            self.reader.cancel()
        self.reader = asyncio.create_task(read())

    async def feed(self, sound: Samples) -> None:
        for at in range(0, len(sound), 320):
            await self.rig.session.hear(sound[at : at + 320])
            await asyncio.sleep(len(sound[at : at + 320]) / SAMPLE_RATE)

    async def do(self, name: str, value: Any) -> None:
        rig, session = self.rig, self.rig.session
        quick = rig.roles.stt_partial
        assert isinstance(quick, SlowStt)
        match name:
            case "speak":
                await self.feed(speech(value))
            case "pause":
                await self.feed(silence(value))
            case "words":
                rig.stt.words = quick.words = value.split()
            case "say":
                session.say(value)
            case "interrupt":
                session.interrupt("client")
            case "commit":
                session.commit()
            case "played":
                if audio := rig.all(events.ReplyAudio):
                    session.played(audio[-1].turn_id, value)  # type: ignore[union-attr]
            case "reconnect":
                self.connect(max(0, session.outbox.last_seq - value))
            case "mode":
                session.configure(SessionConfig(turn=TurnConfig(mode=value, end_ms=300, echo=False)))
            case "break":
                if value == "llm":
                    rig.llm.fails_after = 3
                else:
                    (rig.stt if value == "stt" else rig.tts).fails = True
                    rig.voice_broke |= value == "tts"
            case "mend":
                rig.stt.fails = rig.tts.fails = False
                rig.llm.fails_after = None
            case "slow":
                rig.llm.pause = value
                quick.seconds = value / 4


async def play(script: list[Action]) -> tuple[Rig, Play]:
    loop = asyncio.get_running_loop()
    rig = Rig(quick=SlowStt(), now=loop.time)
    rig.tts.seconds_a_word = 0.25
    others = asyncio.all_tasks() - {asyncio.current_task()}
    others = {t for t in others if t not in rig.session._tasks}
    stage = Play(rig)
    await asyncio.sleep(0.01)  # the models are there
    for name, value in script:
        await stage.do(name, value)
        await asyncio.sleep(0)
    await rig.session.close()
    assert stage.reader is not None
    await asyncio.wait_for(asyncio.gather(stage.reader, return_exceptions=True), 60)
    # Nothing is left of it: no task, no engine at work.
    assert asyncio.all_tasks() - others == {asyncio.current_task()}
    assert rig.llm.running == 0 and rig.tts.running == 0
    return rig, stage


def check_order(happened: list[events.Event]) -> None:
    """One reply at a time, nothing of a turn after its end, no sound while it is held."""
    over: set[str] = set()
    running: str | None = None
    held = False
    for event in happened:
        turn_id = getattr(event, "turn_id", None)
        if isinstance(event, events.Failed):
            continue
        assert turn_id not in over, f"{event} of a turn that is over"
        if isinstance(event, events.ReplyText | events.ReplyAudio):
            assert running in (None, turn_id), "two replies at once"
            running = turn_id
            assert not (held and isinstance(event, events.ReplyAudio)), "sound of a reply that is held"
        elif isinstance(event, events.ReplyPaused):
            assert turn_id == running and not held
            held = True
        elif isinstance(event, events.ReplyResumed):
            assert turn_id == running and held
            held = False
        elif isinstance(event, events.Interrupted):
            held = False
        elif isinstance(event, events.TurnComplete | events.TurnDropped):
            over.add(event.turn_id)
            if event.turn_id == running:
                running, held = None, False


def check_speech(happened: list[events.Event]) -> None:
    """Every utterance that began ended, in one way; firm words stay."""
    for started in happened:
        if not isinstance(started, events.SpeechStarted):
            continue
        of_it = [e for e in happened if getattr(e, "turn_id", None) == started.turn_id]
        kinds = [type(e) for e in of_it]
        assert kinds.count(events.SpeechStarted) == kinds.count(events.SpeechStopped) == 1
        assert kinds.count(events.TurnComplete) + kinds.count(events.TurnDropped) == 1
        firm = [e.committed for e in of_it if isinstance(e, events.Partial)]
        firm += [e.text for e in of_it if isinstance(e, events.Final)]
        for earlier, later in itertools.pairwise(firm):
            assert later.startswith(earlier)


def check_history(rig: Rig, happened: list[events.Event]) -> None:
    """History is what was said and heard, no more and no less, in order."""
    done = sorted(
        (e for e in happened if isinstance(e, events.TurnComplete) and e.number), key=lambda e: e.number
    )
    assert [d.number for d in done] == list(range(1, len(done) + 1))
    messages = rig.session.history.messages
    assert " ".join(d.transcript for d in done if d.transcript) == " ".join(
        m.content for m in messages if m.role == "user"
    )
    assert [d.reply for d in done if d.reply] == [m.content for m in messages if m.role == "assistant"]
    for d in done:
        text = "".join(e.text for e in happened if isinstance(e, events.ReplyText) and e.turn_id == d.turn_id)
        assert text.startswith(d.reply) and (d.interrupted or d.reply == text.strip())
        audio = [e for e in happened if isinstance(e, events.ReplyAudio) and e.turn_id == d.turn_id]
        assert abs(sum(a.duration_ms for a in audio) - d.audio_ms) < 1e-6
        if d.interrupted and d.reply and not rig.voice_broke:
            # No word was heard that was not sent. (Without a voice the person reads.)
            assert len(d.reply.split()) <= d.audio_ms / 250 + 1


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(actions, max_size=30))
def test_whatever_happens(script: list[Action]) -> None:
    def main() -> Coroutine[Any, Any, tuple[Rig, Play]]:
        return play(script)

    rig, stage = run_virtual(main)
    for seen in stage.seen:
        numbers = [seq for seq, _ in seen]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    check_order(rig.events)
    check_speech(rig.events)
    check_history(rig, rig.events)
    # Who was there from the beginning saw everything, once, in order.
    if len(stage.seen) == 1:
        assert [event for _, event in stage.seen[0]] == rig.events
