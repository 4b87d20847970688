"""Sound over a reply: what holds it, what stops it, and what lets it go on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from scripted import silence, speech
from session_rig import Rig

from app.dialogue import events
from app.dialogue.barge_in import Onset, verdict
from app.roles import SAMPLE_RATE, Samples


async def answering(rig: Rig, seconds_a_word: float = 0.3) -> None:
    """A long reply is being heard."""
    rig.tts.seconds_a_word = seconds_a_word
    rig.session.say("hello")
    await rig.until(events.ReplyAudio, 3)


def order(rig: Rig, *kinds: type[events.Event]) -> list[str]:
    return [type(e).__name__ for e in rig.events if isinstance(e, kinds)]


PAUSING = (events.ReplyPaused, events.ReplyResumed, events.Interrupted)


async def test_a_voice_holds_the_reply_at_once_and_words_stop_it(rig: Rig) -> None:
    await answering(rig)
    await rig.hear(speech(0.12))
    assert order(rig, *PAUSING) == ["ReplyPaused"]
    assert rig.all(events.SpeechStarted) == []
    await rig.hear(speech(0.9))
    await rig.until(events.Interrupted)
    assert order(rig, *PAUSING) == ["ReplyPaused", "Interrupted"]


async def test_while_the_reply_is_held_no_sound_goes_out_and_nothing_is_lost(rig: Rig) -> None:
    await answering(rig, 0.05)
    await rig.hear(speech(0.12))
    sent = len(rig.all(events.ReplyAudio))
    await asyncio.sleep(0.6)
    assert len(rig.all(events.ReplyAudio)) == sent
    await rig.hear(silence(0.4))
    [done] = await rig.until(events.TurnComplete)
    assert order(rig, *PAUSING) == ["ReplyPaused", "ReplyResumed"]
    assert isinstance(done, events.TurnComplete) and not done.interrupted
    sound = [e for e in rig.all(events.ReplyAudio) if isinstance(e, events.ReplyAudio)]
    assert done.audio_ms == pytest.approx(sum(e.duration_ms for e in sound)) == pytest.approx(400)


@pytest.mark.parametrize("words", ["Mm-hmm.", "Yeah, right.", "Uh huh", "I see.", "嗯嗯", "好的"])
async def test_a_nod_does_not_stop_the_reply(rig: Rig, words: str) -> None:
    rig.stt.words = [words]
    await answering(rig)
    await rig.hear(speech(0.4), silence(1.0))
    [dropped] = await rig.until(events.TurnDropped)
    assert isinstance(dropped, events.TurnDropped) and "go on" in dropped.reason
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and not done.interrupted
    assert [m.content for m in rig.session.history.messages if m.role == "user"] == ["hello"]


async def test_a_yes_at_the_end_of_the_reply_is_an_answer(rig: Rig) -> None:
    rig.llm.text = "Do you like it?"
    rig.stt.words = ["Yeah."]
    await answering(rig, 0.05)
    await rig.hear(speech(0.3), silence(1.0))
    done = await rig.until(events.TurnComplete, 2)
    assert isinstance(done[1], events.TurnComplete) and done[1].transcript == "Yeah."


async def test_a_noise_without_words_lets_the_reply_go_on_while_it_lasts(rig: Rig) -> None:
    rig.stt.words = []
    await answering(rig)
    await rig.hear(speech(2.0))
    assert order(rig, *PAUSING) == ["ReplyPaused", "ReplyResumed"]
    await rig.hear(silence(1.0))
    await rig.until(events.TurnDropped)
    assert order(rig, *PAUSING) == ["ReplyPaused", "ReplyResumed"]


async def test_our_own_words_do_not_stop_us(rig: Rig) -> None:
    rig.llm.text = "The river is long and wide and slow. It ends in a lake. Then it goes on."
    rig.stt.words = "river is long and white and slow".split()
    await answering(rig, 0.15)
    await rig.until(events.ReplyAudio, 12)
    await rig.hear(speech(1.75), silence(1.0))
    [dropped] = await rig.until(events.TurnDropped)
    assert isinstance(dropped, events.TurnDropped) and "our own" in dropped.reason
    assert rig.all(events.Interrupted) == []


async def test_a_reply_that_is_held_goes_on_if_the_microphone_falls_silent(rig: Rig) -> None:
    await answering(rig, 0.05)
    await rig.hear(speech(0.12))
    [done] = await rig.until(events.TurnComplete)
    assert order(rig, *PAUSING) == ["ReplyPaused", "ReplyResumed"]
    assert isinstance(done, events.TurnComplete) and done.reply == rig.llm.text


async def test_what_the_client_played_before_the_pause_is_what_was_heard(rig: Rig) -> None:
    await answering(rig)
    await rig.hear(speech(0.12))
    [paused] = rig.all(events.ReplyPaused)
    assert isinstance(paused, events.ReplyPaused)
    rig.session.played(paused.turn_id, 350)
    await rig.hear(speech(0.9))
    [stopped] = await rig.until(events.Interrupted)
    assert isinstance(stopped, events.Interrupted) and stopped.heard == "First"


def tone(hertz: float, level: float = 0.1) -> Samples:
    at = np.arange(512) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


def test_a_hum_does_not_want_the_turn_an_open_voice_does() -> None:
    onset = Onset()
    for _ in range(5):
        onset.hear(tone(140) + tone(280), voiced=True)
    assert not onset.wants_the_turn()
    onset.hear(tone(140) + tone(1500, 0.05), voiced=True)
    assert onset.wants_the_turn()


def test_a_voice_far_below_the_usual_level_does_not_want_the_turn() -> None:
    onset = Onset()
    onset.learn(tone(1500, 0.3))
    for level, wants in ((0.02, False), (0.2, True)):
        for _ in range(3):
            onset.hear(tone(1500, level), voiced=True)
        assert onset.wants_the_turn() is wants


@pytest.mark.parametrize(
    ("text", "reply", "expected"),
    [
        ("Stop.", "", "words"),
        ("No, wait.", "", "words"),
        ("Yeah, but what about him?", "", "words"),
        ("Okay okay", "", "nod"),
        ("", "", "nothing"),
        ("the capital of france", "Well, the capital of France is Paris.", "echo"),
        ("what is the capital of spain then", "Well, the capital of France is Paris.", "words"),
        ("Paris", "The capital of France is Paris.", "words"),
    ],
)
def test_what_words_over_a_reply_amount_to(text: str, reply: str, expected: str) -> None:
    assert verdict(text, 0.9, 0.0, 900, reply) == expected
