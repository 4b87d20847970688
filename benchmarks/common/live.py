"""One recording heard by `app.dialogue.utterance` as a session hears it, without the session around it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

import numpy as np

from app.audio.buffer import AudioBuffer
from app.dialogue.agreement import join_words
from app.dialogue.config import TurnConfig
from app.dialogue.endpointing import FRAME, Signal, TurnDetector
from app.dialogue.utterance import Utterance
from app.roles import SAMPLE_RATE, Samples, SpeechToText, SttOptions, Vad

_PRE_ROLL = int(0.3 * SAMPLE_RATE)
"""As in `app.dialogue.session`."""
_CLOSING_S = 0.5
_OPTIONS = SttOptions(language="en")


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording with half a second of silence behind it, in whole frames, and each frame's
    probability of speech: voice detection is the same for all systems and is not measured here."""

    samples: Samples
    probabilities: tuple[float, ...]
    speech_end: int
    """The sample at which speech ends, as the turn detector sees it; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Words on the screen `at` seconds after the recording began."""

    at: float
    text: str
    committed: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one recording. `final_pass` is the text that the final passes gave, before the
    committed words were put in front of it; `final_at` is when the final was there."""

    shown: tuple[Shown, ...]
    final: str
    final_pass: str
    final_at: float
    passes: int


async def prepare(samples: Samples, vad: Vad) -> Sound:
    """Run the voice detector over `samples` (float32, 16 kHz)."""
    length = len(samples) + int(_CLOSING_S * SAMPLE_RATE)
    padded = np.pad(samples, (0, math.ceil(length / FRAME) * FRAME - len(samples)))
    stream = vad.stream()
    detector = _detector()
    found: list[float] = []
    for at in range(0, len(padded), FRAME):
        found.append(await stream.probability(padded[at : at + FRAME]))
        detector.feed(found[-1])
    return Sound(padded, tuple(found), detector.ended_at)


def _detector() -> TurnDetector:
    # Only the end of the recording ends the utterance: where turns end is another question.
    return TurnDetector(TurnConfig(), end_wait=lambda: math.inf)


async def hear(sound: Sound, stt: SpeechToText, stt_partial: SpeechToText, *, paced: bool) -> Heard:
    """Feed `sound` frame by frame, in real time or (not `paced`) waiting after each frame until nothing
    is left to do, as if the machine were infinitely quick. Where speech is over for good the final is
    asked for as soon as the silence is noticed: no end wait is counted."""
    audio = AudioBuffer()
    detector = _detector()
    utterance: Utterance | None = None
    shown: list[Shown] = []
    epoch = time.monotonic()

    def now() -> float:
        return time.monotonic() - epoch if paced else audio.end / SAMPLE_RATE

    def on_partial(u: Utterance) -> None:
        shown.append(Shown(now(), u.text, u.committed))

    for probability in sound.probabilities:
        due = epoch + (audio.end + FRAME) / SAMPLE_RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()) if paced else 0)
        audio.append(sound.samples[audio.end : audio.end + FRAME])
        signal = detector.feed(probability)
        if signal is Signal.STARTED:
            start = max(0, detector.started_at - _PRE_ROLL)
            utterance = Utterance(
                audio,
                start,
                stt=stt,
                stt_partial=stt_partial,
                turn=None,
                options=_OPTIONS,
                owner="benchmark",
                on_partial=on_partial,
            )
        if utterance is None:
            continue
        if signal is Signal.CLOSING:
            utterance.closing(detector.ended_at)
            if detector.ended_at == sound.speech_end:
                break
        elif signal is Signal.RESUMED:
            utterance.resumed()
        utterance.heard(detector.position)
        if not paced:
            await _idle()
    if utterance is None:
        return Heard((), "", "", now(), 0)
    final = await utterance.finish(detector.ended_at)
    at = now()
    utterance.cancel()
    # No part of the utterance's interface: only here does anyone ask what splicing changed.
    final_pass = join_words([transcript.text for transcript, _ in utterance._done if transcript.text])
    return Heard(tuple(shown), final.text, final_pass, at, utterance.passes)


async def _idle() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
