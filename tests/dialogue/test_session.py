"""The session core with scripted roles: who speaks when, and what history holds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from scripted import CountingStt, silence, speech
from session_rig import Rig

from app.dialogue import events
from app.dialogue import session as sessions
from app.dialogue.config import SessionConfig, TurnConfig
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.roles import RoleSet


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def build(**turn: object) -> Rig:
        config = SessionConfig(turn=replace(TurnConfig(end_ms=300, echo=False), **turn))  # type: ignore[arg-type]
        made.append(Rig(config))
        return made[-1]

    yield build
    for rig in made:
        await rig.session.close()


async def test_a_spoken_turn_is_answered_and_kept(rig: Rig) -> None:
    await rig.hear(silence(0.5), speech(1.0), silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    assert done.transcript == "one two three four"
    assert done.reply == rig.llm.text
    assert done.number == 1 and not done.interrupted
    names = rig.names()
    assert names[0] == "SpeechStarted" and names[-1] == "TurnComplete"
    assert names.index("SpeechStopped") < names.index("Final") < names.index("ReplyText")
    assert set(done.latency) >= {"endpoint", "stt_final", "llm_first_token", "first_audio_sent", "reply_done"}
    await asyncio.sleep(0.01)
    [turn] = rig.kept
    # The recording holds the pre-roll, the speech and the post-roll.
    assert rig.recordings[0] == pytest.approx((0.3 + 1.0 + 0.2) * 16000, abs=1100)
    assert [(m.role, m.content) for m in rig.session.history.messages] == [
        ("user", "one two three four"),
        ("assistant", rig.llm.text),
    ]
    assert turn.transcription_id


async def test_the_sound_adds_up_and_its_offsets_are_continuous(rig: Rig) -> None:
    rig.session.say("hello")
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    offset = 0.0
    for event in rig.all(events.ReplyAudio):
        assert isinstance(event, events.ReplyAudio)
        assert event.offset_ms == pytest.approx(offset)
        offset += event.duration_ms
    assert done.audio_ms == pytest.approx(offset) == pytest.approx(len(rig.llm.text.split()) * 100)
    assert (
        "".join(e.text for e in rig.all(events.ReplyText) if isinstance(e, events.ReplyText)) == rig.llm.text
    )


async def test_speech_stops_the_reply_and_history_keeps_what_was_heard(rig: Rig) -> None:
    rig.tts.seconds_a_word = 0.3
    await rig.hear(speech(1.0), silence(1.0))
    await rig.until(events.ReplyAudio, 10)
    rig.session.played(rig.events[-1].turn_id, 650)  # type: ignore[union-attr]
    before = len(rig.events)
    await rig.hear(speech(0.8))
    after = rig.events[before:]
    kinds = [type(e) for e in after]
    assert events.Interrupted in kinds
    stopped = kinds.index(events.Interrupted)
    old = [e for e in after[stopped + 1 :] if isinstance(e, events.ReplyAudio | events.ReplyText)]
    assert old == []
    [interrupted] = rig.all(events.Interrupted)
    assert isinstance(interrupted, events.Interrupted)
    assert interrupted.reason == "speech"
    # 650 ms of 0.3 s words: two whole words.
    assert interrupted.heard == "First sentence"
    assert rig.session.history.messages[-1].content == "First sentence"
    await asyncio.sleep(0.02)
    assert rig.llm.running == 0 and rig.tts.running == 0


async def test_the_next_reply_does_not_speak_the_old_one(rig: Rig) -> None:
    rig.llm.text = "Old words that go on and on. And on and on. And on and on and on."
    rig.tts.seconds_a_word = 0.2
    rig.session.say("first")
    await rig.until(events.ReplyAudio, 3)
    rig.llm.text = "New words."
    said = len(rig.tts.said)
    rig.session.say("second")
    done = await rig.until(events.TurnComplete, 2)
    assert rig.tts.said[said:] == ["New words."]
    assert isinstance(done[1], events.TurnComplete) and done[1].reply == "New words."
    assert [m.content for m in rig.llm.asked[1] if m.role == "user"] == ["first second"] or [
        m.role for m in rig.llm.asked[1]
    ] == ["system", "user", "assistant", "user"]


async def test_the_client_can_interrupt_before_anything_was_heard(rig: Rig) -> None:
    rig.llm.pause = 5
    rig.session.say("hello")
    while not rig.llm.running:
        await asyncio.sleep(0.001)
    rig.session.interrupt("client")
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.interrupted and done.reply == ""
    assert [m.role for m in rig.session.history.messages] == ["user"]
    await asyncio.sleep(0.02)
    assert rig.llm.running == 0


async def test_a_noise_without_words_gets_no_answer(rig: Rig) -> None:
    rig.stt.words = []
    await rig.hear(speech(0.4), silence(1.0))
    await rig.until(events.TurnDropped)
    assert rig.llm.asked == [] and rig.kept == []
    assert rig.session.state == "listening"


async def test_push_to_talk_ends_with_commit_alone(make: Callable[..., Rig]) -> None:
    rig = make(mode="manual")
    await rig.hear(speech(0.5), silence(2.0), speech(0.5))
    assert rig.all(events.SpeechStopped) == []
    rig.session.commit()
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.transcript == "one two three four"


async def test_commit_ends_an_utterance_early(rig: Rig) -> None:
    await rig.hear(speech(1.0))
    rig.session.commit()
    await rig.until(events.TurnComplete)
    rig.session.commit()
    [notice] = await rig.until(events.Notice)
    assert isinstance(notice, events.Notice) and notice.code == "NOTHING_HEARD"


async def test_without_interrupting_the_reply_goes_on_while_the_person_speaks(
    make: Callable[..., Rig],
) -> None:
    rig = make(interrupt=False)
    rig.tts.seconds_a_word = 0.05
    rig.session.say("hello")
    await rig.until(events.ReplyAudio)
    await rig.hear(speech(0.3))
    assert rig.all(events.Interrupted) == []
    await rig.until(events.TurnComplete)


async def test_a_broken_language_model_is_told_and_the_session_lives(rig: Rig) -> None:
    rig.llm.fails_after = 4
    rig.session.say("hello")
    [done] = await rig.until(events.TurnComplete)
    [failed] = rig.all(events.Failed)
    assert isinstance(failed, events.Failed) and failed.code == "ENGINE_FAILED" and failed.retryable
    # What had been written was still spoken.
    assert rig.tts.said == ["First sentence here.", "Second"]
    rig.llm.fails_after = None
    rig.session.say("again")
    done = await rig.until(events.TurnComplete, 2)
    assert isinstance(done[1], events.TurnComplete) and done[1].reply == rig.llm.text


async def test_a_broken_voice_still_gives_the_text(rig: Rig) -> None:
    rig.tts.fails = True
    rig.session.say("hello")
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.reply == rig.llm.text and done.audio_ms == 0
    assert len(rig.all(events.Failed)) == 1


async def test_a_broken_recogniser_loses_no_recording(rig: Rig) -> None:
    rig.stt.fails = True
    await rig.hear(speech(1.0), silence(1.0))
    await rig.until(events.TurnComplete)
    [failed] = rig.all(events.Failed)
    assert isinstance(failed, events.Failed) and failed.turn_id == rig.kept[0].id
    assert rig.recordings[0] > 16000


async def test_words_being_said_when_the_session_ends_are_kept(rig: Rig) -> None:
    await rig.hear(speech(1.0))
    await rig.session.close()
    [turn] = rig.kept
    assert turn.transcript == "one two three four" and turn.interrupted
    assert rig.llm.asked == []


async def test_sound_that_comes_before_the_models_is_heard_later() -> None:
    rig = Rig()
    gate = asyncio.Event()

    async def later() -> RoleSet:
        await gate.wait()
        return rig.roles

    session = Session("late", rig.session.config, roles=later, on_turn=rig._keep, on_event=rig.events.append)
    session.start()
    for part in (speech(1.0), silence(1.0)):
        await session.hear(part)
    assert session.state == "loading" and rig.events == []
    gate.set()
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.transcript == "one two three four"
    await session.close()
    await rig.session.close()


async def test_closing_leaves_no_task(rig: Rig) -> None:
    before = asyncio.all_tasks()
    for i in range(20):
        other = Rig()
        other.llm.pause = 1
        await other.hear(speech(0.5), silence(0.5) if i % 2 else speech(0.1))
        if i % 3:
            other.session.say("hello")
            await asyncio.sleep(0.01)
        await other.session.close()
        assert other.llm.running == 0 and other.tts.running == 0
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_long_speech_is_cut_into_chunks_and_stays_whole(rig: Rig) -> None:
    rig.stt.words = [f"w{i}" for i in range(200)]
    # A recogniser that starts anew with each chunk says the same words again.
    await rig.hear(*[p for _ in range(4) for p in (speech(5.0), silence(0.2))], silence(1.0))
    [final] = await rig.until(events.Final)
    assert isinstance(final, events.Final)
    assert len(final.words) == pytest.approx(80, abs=4)
    starts = [w.start for w in final.words]
    assert starts == sorted(starts)
    assert max(rig.stt.calls) < 23 * 16000


async def test_committed_words_never_change(rig: Rig) -> None:
    for _ in range(10):
        await rig.hear(speech(0.25))
        await asyncio.sleep(0.005)
    await rig.hear(silence(1.0))
    [final] = await rig.until(events.Final)
    committed = [p.committed for p in rig.all(events.Partial) if isinstance(p, events.Partial)]
    assert len(committed) > 3
    assert isinstance(final, events.Final)
    for earlier, later in itertools.pairwise([*committed, final.text]):
        assert later.startswith(earlier)


async def test_the_reply_begins_in_the_closing_silence_and_is_adopted(rig: Rig) -> None:
    outcomes = rig.guesses
    rig.stt.words = "what time is it? and so on".split()
    await rig.hear(speech(1.0), silence(0.16))
    while not rig.tts.said:
        await asyncio.sleep(0.001)
    # Written and spoken, and nobody has heard of it.
    assert rig.all(events.ReplyText) == rig.all(events.ReplyAudio) == rig.all(events.Final) == []
    await rig.hear(silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert outcomes == ["adopted"] and len(rig.llm.asked) == 1
    assert isinstance(done, events.TurnComplete) and done.reply == rig.llm.text
    assert done.latency["llm_first_token"] < done.latency["endpoint"]
    names = rig.names()
    assert names.index("Final") < names.index("ReplyText")
    assert "".join(e.text for e in rig.events if isinstance(e, events.ReplyText)) == rig.llm.text


async def test_a_reply_begun_too_soon_is_never_heard_of(rig: Rig) -> None:
    outcomes = rig.guesses
    rig.stt.words = "I like it. no really I do mean it.".split()
    await rig.hear(speech(0.75), silence(0.16))
    while not rig.tts.said:
        await asyncio.sleep(0.001)
    await rig.hear(speech(1.25), silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert outcomes[0] == "dropped"
    assert isinstance(done, events.TurnComplete)
    assert done.transcript == "I like it. no really I do mean"
    assert [m.content for m in rig.llm.asked[-1] if m.role == "user"] == [done.transcript]
    assert "".join(e.text for e in rig.events if isinstance(e, events.ReplyText)) == rig.llm.text
    assert [m.role for m in rig.session.history.messages] == ["user", "assistant"]


async def test_guesses_are_bounded(make: Callable[..., Rig]) -> None:
    rig = make(speculations=1, end_ms=600)
    rig.stt.words = [f"word{i}." for i in range(30)]
    for _ in range(4):
        await rig.hear(speech(0.5), silence(0.16))
        await asyncio.sleep(0.02)
    await rig.hear(silence(1.0))
    await rig.until(events.TurnComplete)
    assert len(rig.llm.asked) == 2


async def test_no_guess_where_the_words_go_on(rig: Rig) -> None:
    rig.stt.words = "I would like the blue".split()
    await rig.hear(speech(1.0), silence(0.25))
    await asyncio.sleep(0.05)
    assert rig.llm.asked == []


async def test_the_language_model_reads_ahead_while_the_person_speaks(rig: Rig) -> None:
    rig.stt.words = [f"something{i}" for i in range(40)]
    for _ in range(12):
        await rig.hear(speech(0.25))
        await asyncio.sleep(0.005)
    await rig.hear(silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    read = [text for text in rig.llm.prepared if text.startswith("something")]
    assert len(read) >= 2 and len(set(read)) == len(read)
    assert all(done.transcript.startswith(text) for text in read)


@pytest.mark.parametrize(
    ("better", "guess"), [("Press 1 for it.", "adopted"), ("Press nine for it.", "dropped")]
)
async def test_the_quick_recogniser_drafts_and_the_better_one_decides(better: str, guess: str) -> None:
    rig = Rig(quick=CountingStt("press one for it"))
    rig.stt.words = better.split()
    rig.stt.gate = asyncio.Event()
    await rig.hear(speech(1.0), silence(0.25))
    while not rig.tts.said:
        await asyncio.sleep(0.001)
    assert rig.all(events.Final) == []
    rig.stt.gate.set()
    await rig.hear(silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.transcript == better
    assert rig.guesses == [guess]
    asked = [m.content for m in rig.llm.asked[-1] if m.role == "user"]
    assert asked == ["press one for it" if guess == "adopted" else better]
    await rig.session.close()


async def test_a_cough_while_the_reply_is_being_thought_of_does_not_stop_it(rig: Rig) -> None:
    rig.llm.pause = 0.05
    rig.session.say("hello")
    while not rig.llm.running:
        await asyncio.sleep(0.001)
    rig.stt.words = []
    await rig.hear(speech(0.25), silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and not done.interrupted
    assert done.reply == rig.llm.text


async def test_words_stop_a_reply_that_is_still_being_thought_of(rig: Rig) -> None:
    rig.llm.pause = 5
    rig.session.say("hello")
    while not rig.llm.running:
        await asyncio.sleep(0.001)
    await rig.hear(speech(1.0))
    [stopped] = await rig.until(events.Interrupted)
    assert isinstance(stopped, events.Interrupted) and stopped.heard == ""


async def test_who_goes_on_talking_gets_one_answer_to_all_of_it(rig: Rig) -> None:
    rig.llm.pause = 0.2
    await rig.hear(speech(1.0), silence(0.35), speech(0.75))
    await rig.hear(silence(1.0))
    done = await rig.until(events.TurnComplete, 2)
    assert isinstance(done[0], events.TurnComplete) and done[0].interrupted and done[0].reply == ""
    assert isinstance(done[1], events.TurnComplete) and done[1].reply == rig.llm.text
    asked = [m.content for m in rig.llm.asked[-1] if m.role == "user"]
    assert asked == ["one two three four one two three"]


async def test_a_cough_right_after_the_question_does_not_cost_the_answer(rig: Rig) -> None:
    rig.stt.deaf_under_s = 0.5
    rig.stt.gate = asyncio.Event()
    await rig.hear(speech(1.0), silence(0.5), speech(0.25))
    rig.stt.gate.set()
    await rig.hear(silence(1.0))
    await rig.until(events.TurnDropped)
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete)
    assert not done.interrupted and done.reply == rig.llm.text


async def test_a_client_is_told_of_a_turn_when_it_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, go = rig._keep, asyncio.Event()

    async def slow(session: Session, turn: Turn, complete: bool) -> None:
        await go.wait()
        await kept(session, turn, complete)

    monkeypatch.setattr(rig.session, "_on_turn", slow)
    monkeypatch.setattr(sessions, "_TELL_S", 60.0)
    await rig.hear(speech(1.0), silence(1.0))
    await rig.until(events.TurnComplete)
    assert not [e for _, e in rig.session.outbox.since(0) if isinstance(e, events.Final | events.ReplyText)]
    go.set()
    async with asyncio.timeout(10):
        while not any(isinstance(e, events.TurnComplete) for _, e in rig.session.outbox.since(0)):
            await asyncio.sleep(0.002)
    told = [type(e).__name__ for _, e in rig.session.outbox.since(0)]
    assert told.index("Final") < told.index("ReplyText") < told.index("TurnComplete")
    assert rig.said == ["one two three four"] and len(rig.kept) == 1


async def test_a_disk_that_hangs_does_not_keep_the_client_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()

    async def never(session: Session, turn: Turn, complete: bool) -> None:
        await go.wait()

    monkeypatch.setattr(rig.session, "_on_turn", never)
    monkeypatch.setattr(sessions, "_TELL_S", 0.05)
    await rig.hear(speech(1.0), silence(1.0))
    async with asyncio.timeout(10):
        while not any(isinstance(e, events.TurnComplete) for _, e in rig.session.outbox.since(0)):
            await asyncio.sleep(0.01)
    go.set()


@pytest.mark.parametrize("revise", [False, True])
async def test_the_final_pass_is_right_where_clients_show_it_anew(revise: bool) -> None:
    rig = Rig(
        SessionConfig(turn=TurnConfig(end_ms=300, echo=False), respond="never", revise=revise),
        quick=CountingStt("won too three for five six seven eight nine ten"),
    )
    try:
        for _ in range(40):  # in real time, as far as the quick recogniser can tell: it hears again and again
            await rig.hear(speech(0.1))
            await asyncio.sleep(0.005)
        await rig.hear(silence(1.0))
        [final] = await rig.until(events.Final)
        assert isinstance(final, events.Final)
        right = "one two three four"
        assert final.text.startswith(right) if revise else final.text.startswith("won too three for")
    finally:
        await rig.session.close()
