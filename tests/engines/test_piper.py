"""The English voice: what it says is heard again by a recogniser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from speech_helpers import CountingWorkers, edits, hear, joined, loudness, say, silence_around, words

from app.engines.piper import PiperVoice
from app.engines.whisper import Whisper
from app.roles import EngineFailed, Job, NotFound, SpeechOptions

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
    latents = voice._frames(LONG, 1.0)
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
