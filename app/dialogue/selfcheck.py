"""The server speaks to itself once: does what it says come back as what it said?

It warms every engine before the first person does, and gives the metrics a real figure for this
machine: recognition of its own voice, and how well voice detection tells speech from silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.audio.resample import Resampler
from app.dialogue.agreement import split_words
from app.dialogue.endpointing import FRAME
from app.dialogue.exchange import speak_all
from app.roles import SAMPLE_RATE, Job, RoleSet, SpeechOptions, SttOptions, Urgency

_SENTENCES = {
    "en": "The weather is lovely today, and we are going for a walk in the park.",
    "zh": "今天天气很好，我们一起去公园散步。",
}
_SILENCE = np.zeros(SAMPLE_RATE, np.float32)
_SPEECH = 0.5


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """`cer` is the character error rate of the round trip in percent, `vad_accuracy` the share of
    frames judged rightly in percent, of one second of silence before and after the sentence."""

    cer: float
    vad_accuracy: float


async def self_check(roles: RoleSet, language: str | None) -> SelfCheck:
    """Speak a sentence and listen to it. Raises `EngineFailed` if an engine does not work."""
    spoken = language if language in _SENTENCES else "en"
    said = _SENTENCES[spoken]
    job = Job("self-check", Urgency.BACKGROUND)
    voice = await speak_all(roles, said, SpeechOptions(language=spoken), job.owner)
    down = Resampler(voice.sample_rate, SAMPLE_RATE)
    speech = np.concatenate([down.push(voice.samples), down.flush()])
    heard = await roles.stt.transcribe(speech, SttOptions(language, word_times=False), job)
    rate = _distance(_letters(said), _letters(heard.text)) / len(_letters(said))
    return SelfCheck(round(rate * 100, 1), round(await _vad_accuracy(roles, speech) * 100, 1))


async def _vad_accuracy(roles: RoleSet, speech: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    stream = roles.vad.stream()
    sound = np.concatenate([_SILENCE, speech, _SILENCE])
    right = total = 0
    for at in range(0, len(sound) - FRAME, FRAME):
        frame = sound[at : at + FRAME]
        spoken = await stream.probability(frame) >= _SPEECH
        inside = len(_SILENCE) <= at and at + FRAME <= len(_SILENCE) + len(speech)
        # Pauses inside the sentence are nobody's to judge; only its loud frames must be speech.
        if not inside or float(np.abs(frame).max()) > 0.1:
            total += 1
            right += spoken == inside
    return right / total


def _letters(text: str) -> str:
    return "".join(c for c in "".join(split_words(text.lower())) if c.isalnum())


def _distance(a: str, b: str) -> int:
    """Edit distance of two strings."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]
