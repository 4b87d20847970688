"""Recordings of people with their text, for tests and benchmarks. Not part of the wheel.

`python -m corpus fetch` brings them into `~/.cache/colloquy/corpus`, or the folder that
`COLLOQUY_CORPUS_DIR` names; asking for recordings does the same where they are not there yet.
What they are, and under which licences, is in `corpus/README.md`.
"""

from corpus.catalogue import Kind
from corpus.noise import NoiseKind, noise
from corpus.recordings import Recording, SpeakerTurn, load, questions, recordings
from corpus.wer import cer, normalise, wer

__all__ = [
    "Kind",
    "NoiseKind",
    "Recording",
    "SpeakerTurn",
    "cer",
    "load",
    "noise",
    "normalise",
    "questions",
    "recordings",
    "wer",
]
