"""The English voice: what it says is heard again by a recogniser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soxr
from speech_helpers import (
    CountingWorkers,
    edits,
    hear,
    joined,
    loudness,
    say,
    silence_around,
    timed,
    until,
    words,
)

from app.engines.piper import PiperVoice
from app.engines.whisper import Whisper
from app.roles import SAMPLE_RATE, EngineFailed, Job, NotFound, SpeechOptions, SttOptions

SENTENCES = (
    "Sure, I can help with that.",
    "The weather today will be sunny with a light breeze from the west.",
    "She read the whole book last night, and she loved it.",
    "We should meet at the station, then walk to the museum.",
    "The doctor said that I need to drink more water.",
    "Artificial intelligence is changing the way we work.",
    "Please put the butter and the milk in the refrigerator.",
    "Is there anything else that I can do for you?",
)
LONG = "The quick brown fox jumps over the lazy dog and then it runs away into the dark green forest."


@pytest.fixture(scope="module")
def workers() -> Iterator[CountingWorkers]:
    pool = CountingWorkers(2)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def voice(model_dir: Callable[[str], Path], workers: CountingWorkers) -> PiperVoice:
    return PiperVoice(model_dir("piper-joe"), workers, threads=1)


@pytest.fixture(scope="module")
def recogniser(model_dir: Callable[[str], Path], workers: CountingWorkers) -> Whisper:
    return Whisper(model_dir("whisper-tiny-en"), workers, threads=2)


async def test_what_it_says_is_understood(voice: PiperVoice, recogniser: Whisper) -> None:
    wrong = total = 0
    for sentence in SENTENCES:
        heard = await hear(recogniser, await say(voice, sentence), "en")
        wrong += edits(words(sentence), words(heard))
        total += len(words(sentence))
    assert wrong / total <= 0.08


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("**Dr. Lee** paid $3.50 for the 2nd `cup`.", {"doctor lee", "dr lee"}),
        ("The U.S. team met at 7 p.m. on the *third* floor 😀", {"us team"}),
        ("Read more on [books](https://example.com/x) and `music`.", {"on books and music"}),
    ],
)
async def test_written_text_is_said_as_a_person_would(
    voice: PiperVoice, recogniser: Whisper, written: str, said: set[str]
) -> None:
    heard = " ".join(words(await hear(recogniser, await say(voice, written), "en")))
    assert any(s in heard for s in said), heard
    for mark in ("asterisk", "star", "backtick", "http", "example"):
        assert mark not in heard


async def test_a_sentence_comes_in_parts_and_the_first_is_short(voice: PiperVoice) -> None:
    chunks = await say(voice, LONG)
    assert len(chunks) >= 4
    assert chunks[0].duration < 0.5 < chunks[-2].duration
    assert {c.sample_rate for c in chunks} == {voice.sample_rate}


async def test_parts_are_the_same_sound_as_the_whole(voice: PiperVoice) -> None:
    latents, _ = voice._frames(LONG, 1.0)
    frames = latents.shape[2]
    whole = voice._decode(latents, 0, frames)
    parts = [voice._decode(latents, start, min(start + 37, frames)) for start in range(0, frames, 37)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


async def test_level_and_edges(voice: PiperVoice) -> None:
    for sentence in SENTENCES[:4]:
        samples = joined(await say(voice, sentence))
        assert samples.dtype == np.float32
        assert np.abs(samples).max() <= 1.0
        assert -24.0 < loudness(samples, voice.sample_rate) < -16.0
        before, after = silence_around(samples, voice.sample_rate)
        assert before < 0.06
        assert 0.24 < after < 0.40, "the pause of a full stop, not the model's own silence"
        assert abs(samples[0]) < 0.002, "no click at the start"


async def test_a_comma_pauses_less_than_a_full_stop(voice: PiperVoice) -> None:
    pauses = {
        text[-1]: silence_around(joined(await say(voice, text)), voice.sample_rate)[1]
        for text in ("Well then,", "Well then.", "Well then")
    }
    assert pauses["n"] < pauses[","] < pauses["."]


async def test_speed(voice: PiperVoice) -> None:
    slow, usual, fast = [sum(c.duration for c in await say(voice, LONG, speed=s)) for s in (0.5, 1.0, 2.0)]
    assert 1.6 < slow / usual < 2.2
    assert 1.6 < usual / fast < 2.2


@pytest.mark.parametrize("text", ["", "  \n ", "...", "?!", "😀👍", "---", "```\nprint(1)\n```", "你好"])
async def test_nothing_to_say_is_no_sound(voice: PiperVoice, text: str) -> None:
    assert await say(voice, text) == []


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "text",
    [
        "Dr. Lee paid $3.50 at 10:30 a.m. on 2024-03-05.",
        "**Call** 555-1234 — or see [the docs](https://example.com/a?b=c), e.g. `this`. 😀 Bye! 👍",
        "😀 “Well,” she said… (softly) - “5–10 of 1,000,000?” -- yes.",
        "I say 你好，世界 to you. 你好。 Then I go. 你好",
        "Look:\n```py\nprint(1)\n```\n- one\n- two\n\nDone.",
        "Hi.",
    ],
)
async def test_every_written_word_has_its_time(voice: PiperVoice, text: str, speed: float) -> None:
    chunks = await say(voice, text, speed=speed)
    found = timed(chunks)
    assert "".join(w.text for w in found) == "".join(text.split())
    if text.isascii():
        assert [w.text for w in found] == text.split()
    times = [t for w in found for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 0.0
    # The last word may end a little behind the sound, which is cut where it falls silent.
    assert times[-1] <= sum(c.duration for c in chunks) + 0.1
    assert found[-1].start <= sum(c.duration for c in chunks)


async def test_words_come_with_the_first_sound_of_their_sentence(voice: PiperVoice) -> None:
    chunks = await say(voice, f"{LONG} {SENTENCES[0]}")
    given = [i for i, c in enumerate(chunks) if c.words]
    assert len(given) == 2
    assert given[0] == 0
    assert [w.text for w in chunks[0].words] == LONG.split()
    assert [w.text for w in chunks[given[1]].words] == SENTENCES[0].split()
    assert chunks[given[1]].words[0].start < 0.3


async def test_a_word_lasts_as_long_as_what_is_said_for_it(voice: PiperVoice) -> None:
    _, _, amount, now = timed(await say(voice, "This costs $1,234.56 now."))
    assert amount.text == "$1,234.56"
    assert amount.end - amount.start > 4 * (now.end - now.start)


async def test_sound_cut_at_the_end_of_a_word_has_the_words_up_to_it(
    voice: PiperVoice, recogniser: Whisper
) -> None:
    wrong = total = 0
    for sentence in SENTENCES[1:4]:
        chunks = await say(voice, sentence)
        for i, word in list(enumerate(timed(chunks), 1))[2:-1:3]:
            heard = words(await hear(recogniser, until(chunks, word.end), "en"))
            wrong += edits(words(sentence)[:i], heard)
            total += i
    assert wrong / total <= 0.15


async def test_times_are_nearer_to_what_is_heard_than_a_guess(voice: PiperVoice, recogniser: Whisper) -> None:
    """The recogniser's own times lag by a constant: what is compared is how far they scatter."""
    ours: list[float] = []
    guess: list[float] = []
    for sentence in (*SENTENCES[1:6], LONG):
        chunks = await say(voice, sentence)
        audio = soxr.resample(joined(chunks), voice.sample_rate, SAMPLE_RATE)
        heard = (await recogniser.transcribe(audio, SttOptions(), Job("test"))).words
        if words(" ".join(w.text for w in heard)) != words(sentence):
            continue
        at = 0
        for said, other in zip(timed(chunks), heard, strict=True):
            at += len(said.text) + 1
            ours.append(said.end - other.end)
            guess.append(at / len(sentence) * len(audio) / SAMPLE_RATE - other.end)
    assert len(ours) > 20
    assert np.median(np.abs(ours - np.median(ours))) < 0.75 * np.median(np.abs(guess - np.median(guess)))


async def test_a_long_text_is_said_whole(voice: PiperVoice, recogniser: Whisper) -> None:
    text = " ".join(SENTENCES[:3])
    heard = await hear(recogniser, await say(voice, text), "en")
    assert edits(words(text), words(heard)) <= 4


async def test_closing_it_stops_the_work(voice: PiperVoice, workers: CountingWorkers) -> None:
    before = workers.asked
    await say(voice, LONG * 3)
    whole = workers.asked - before
    before = workers.asked
    speech = voice.speak(LONG * 3, SpeechOptions(), Job("test"))
    await anext(speech)
    await speech.aclose()
    assert workers.asked - before == 2, "the front and one window"
    assert whole > 10
    await asyncio.sleep(0.05)
    assert workers.waiting == 0
    assert workers.asked - before == 2


async def test_cancelling_in_the_middle(voice: PiperVoice, workers: CountingWorkers) -> None:
    got: list[float] = []
    begun = asyncio.Event()

    async def listen() -> None:
        async for chunk in voice.speak(LONG * 20, SpeechOptions(), Job("test")):
            got.append(chunk.duration)
            begun.set()

    task = asyncio.create_task(listen())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asked = workers.asked
    assert await say(voice, "Still here.")
    assert workers.asked - asked <= 4, "nothing of the cancelled reply was done after it"


async def test_two_at_once_do_not_mix(voice: PiperVoice, recogniser: Whisper) -> None:
    texts = SENTENCES[4:6]
    for text, chunks in zip(texts, await asyncio.gather(*(say(voice, t) for t in texts)), strict=True):
        heard = await hear(recogniser, chunks, "en")
        assert edits(words(text), words(heard)) <= 2


async def test_an_unknown_voice(voice: PiperVoice, workers: CountingWorkers) -> None:
    before = workers.asked
    with pytest.raises(NotFound, match="en-Joe_man") as error:
        await say(voice, "Hello.", voice="en-Nobody_woman")
    assert error.value.field == "voice"
    assert workers.asked == before


async def test_it_names_itself(voice: PiperVoice) -> None:
    (joe,) = voice.voices()
    assert (joe.name, joe.language, joe.gender) == ("en-Joe_man", "en", "man")
    assert joe.sample_rate == voice.sample_rate == 22_050
    assert await say(voice, "Hi.", voice=joe.name)
    assert voice.info.role == "tts"


async def test_no_model_there(tmp_path: Path, workers: CountingWorkers) -> None:
    with pytest.raises(EngineFailed, match=r"no voice \(\*\.onnx\)"):
        await PiperVoice.load(tmp_path, workers, threads=1)
