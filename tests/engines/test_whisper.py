"""The better recogniser, on recordings of people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.engines.whisper import Whisper
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, BadInput, Job, Samples, SttOptions, Transcript
from corpus import load, noise, normalise, recordings, wer

SOUNDS = {r.id: r for r in recordings()}
SENTENCES = ("cities-1", "cities-6", "prompt-vm-prev", "prompt-queue-thankyou", "prompt-vm-tohearenv")
"""Those that a window that is too short says twice are among them."""


@pytest.fixture(scope="module")
def recogniser(model_dir: Callable[[str], Path]) -> Iterator[Whisper]:
    pool = Workers(1)
    yield Whisper(model_dir("whisper-tiny-en"), pool, threads=1)
    pool.close()


async def heard(recogniser: Whisper, sound: Samples, **options: bool) -> Transcript:
    return await recogniser.transcribe(sound, SttOptions(language="en", **options), Job("test"))


async def test_short_sentences_are_heard_once_and_right(recogniser: Whisper) -> None:
    texts = [(await heard(recogniser, load(SOUNDS[i]), word_times=False)).text for i in SENTENCES]
    assert wer([SOUNDS[i].text for i in SENTENCES], texts) < 0.05


async def test_long_speech_keeps_its_end(recogniser: Whisper) -> None:
    transcript = await heard(recogniser, load(SOUNDS["prompt-conf-usermenu"]))
    assert wer(SOUNDS["prompt-conf-usermenu"].text, transcript.text) < 0.05
    assert " ".join(w.text for w in transcript.words) == transcript.text


async def test_words_have_the_times_at_which_they_are_said(recogniser: Whisper) -> None:
    spoken = load(SOUNDS["cities-1"])
    late = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), spoken])
    words = (await heard(recogniser, spoken)).words
    later = (await heard(recogniser, late)).words
    assert [normalise(w.text) for w in words] == [normalise(w.text) for w in later]
    times = [t for w in words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= len(spoken) / SAMPLE_RATE
    shifts = [b.start - a.start for a, b in zip(words, later, strict=True)]
    assert 0.9 < float(np.median(shifts)) < 1.1


async def test_a_short_sound_costs_less_than_a_long_one(recogniser: Whisper) -> None:
    # As much to write, but the long one needs the whole window.
    short = load(SOUNDS["cities-1"])
    long = np.concatenate([short, np.zeros(10 * SAMPLE_RATE, np.float32)])
    cost = {}
    for sound in (short, long):
        began = time.process_time()
        await heard(recogniser, sound, word_times=False)
        cost[len(sound)] = time.process_time() - began
    assert cost[len(short)] < 0.8 * cost[len(long)]


@pytest.mark.parametrize("kind", ["silence", "white", "pink", "clicks"])
async def test_noise_has_no_words(recogniser: Whisper, kind: str) -> None:
    transcript = await heard(recogniser, noise(kind, 2.0))  # type: ignore[arg-type]
    assert not any(c.isalnum() for c in transcript.text)
    assert transcript.no_speech > 0.8


async def test_what_loops_in_a_short_window_is_heard_again_in_a_whole_one(
    recogniser: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A window of 5 s makes the model go round in circles; 30 s do not.
    monkeypatch.setattr("app.engines.whisper._SHORT_WINDOW", 500)
    looping = ("prompt-vm-prev", "prompt-queue-thankyou", "prompt-please-try-again")
    texts = [(await heard(recogniser, load(SOUNDS[r]), word_times=False)).text for r in looping]
    assert wer([SOUNDS[r].text for r in looping], texts) < 0.05


def test_the_bound_on_what_is_written_is_in_tokens(
    recogniser: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CTranslate2 halves what it is told: quick speech would be cut off.
    monkeypatch.setattr("app.engines.whisper._TOKENS_PER_SECOND", 0)
    features = recogniser._model.feature_extractor(load(SOUNDS["cities-8"]))
    for options in (SttOptions(language="en"), SttOptions(language="en", prompt="In the first chapter.")):
        assert len(recogniser._decode(features, options, 3000).tokens) == 16


async def test_next_to_nothing_is_nothing(recogniser: Whisper) -> None:
    assert (await heard(recogniser, np.zeros(800, np.float32))).text == ""


async def test_a_long_prompt_and_many_names_leave_room_for_the_words(recogniser: Whisper) -> None:
    options = SttOptions("en", ("Marianne", "Elinor", "Willoughby") * 100, "It was a rainy day. " * 300)
    transcript = await recogniser.transcribe(load(SOUNDS["cities-8"]), options, Job("test"))
    assert wer(SOUNDS["cities-8"].text, transcript.text) < 0.15


@pytest.mark.parametrize(
    ("options", "field"), [(SttOptions("fr"), "language"), (SttOptions(None, translate=True), "model")]
)
async def test_an_english_model_refuses_what_it_cannot(
    recogniser: Whisper, options: SttOptions, field: str
) -> None:
    with pytest.raises(BadInput, match="English only") as caught:
        await recogniser.transcribe(load(SOUNDS["cities-1"]), options, Job("test"))
    assert caught.value.field == field


async def test_who_speaks_after_the_end_of_a_sentence_is_heard_too(recogniser: Whisper) -> None:
    """The model itself takes the first one's full stop for the end of all."""
    first, other = SOUNDS["cities-5"], SOUNDS["prompt-vm-whichbox"]
    both = await heard(recogniser, np.concatenate([load(first), np.zeros(3200, np.float32), load(other)]))
    assert "despair" in both.text and "mailbox" in both.text
    starts = [w.start for w in both.words]
    assert starts == sorted(starts) and both.words[-1].end > len(load(first)) / SAMPLE_RATE + 1
