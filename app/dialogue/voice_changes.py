"""Where in an utterance somebody else goes on: people who take turns do not always leave a pause.

The voice is taken in windows all over the utterance. It is cut where the voices just before and just after
are less alike than one person's are. On mixes with known turns (`colloquy bench diarization`) most of what is
told of the wrong speaker comes of utterances of several.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.dialogue.diarize import embedded, windows_of
from app.roles import SAMPLE_RATE, Job, Samples, SpeakerEmbedding

PART_S = 1.5
"""Cuts are so far from each other and from both ends."""
_ALIKE = 0.5
"""Cosine of what is before and after from which on they are one person's. Chosen on five mixes and a
telephone call: from 0.4 to 0.7 the words go to the same people, but the higher, the more cuts in what one
person says."""
_NEAREST_S, _FARTHEST_S = 0.75, 2.0
"""Windows that are heeded lie about a moment so far from the cut: nearer ones are of both."""
_STEP_S = 0.25


async def voice_changes(voices: SpeakerEmbedding, audio: Samples, job: Job) -> list[int]:
    """At which samples of an utterance (float32[n], 16 kHz) another voice goes on. From 3 s on it costs
    a pass of the encoder over 2 s for each half second."""
    if len(audio) < 2 * PART_S * SAMPLE_RATE:
        return []
    found = [
        (at + len(piece) / SAMPLE_RATE / 2, await embedded(voices, piece, job))
        for at, piece in windows_of(audio)
    ]
    middles = np.array([middle for middle, _ in found])
    vectors = np.array([voice for _, voice in found])
    places = np.arange(PART_S, len(audio) / SAMPLE_RATE - PART_S + 1e-6, _STEP_S)
    alike = [_alike(vectors, middles - place) for place in places]
    chosen: list[float] = []
    for index in np.argsort(alike):
        place = float(places[index])
        lowest = alike[index] == min(alike[max(0, index - 1) : index + 2])
        if lowest and alike[index] < _ALIKE and all(abs(place - other) >= PART_S for other in chosen):
            chosen.append(place)
    return [round(place * SAMPLE_RATE) for place in sorted(chosen)]


def _alike(vectors: Samples, middles: npt.NDArray[np.float64]) -> float:
    """Cosine of the voices before and after 0; `middles` of the windows are in seconds."""
    before = vectors[(middles <= -_NEAREST_S) & (middles >= -_FARTHEST_S)]
    after = vectors[(middles >= _NEAREST_S) & (middles <= _FARTHEST_S)]
    # At the ends there is one window, and it reaches over the cut.
    one = (before if len(before) else vectors[:1]).sum(axis=0)
    other = (after if len(after) else vectors[-1:]).sum(axis=0)
    return float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other) + 1e-9)
