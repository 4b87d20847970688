"""Conversations of any length, put together from recordings: who says what when is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from corpus.noise import noise
from corpus.recordings import Recording, load, recordings

SAMPLE_RATE = 16_000
_ROOM_DB = -62.0
_SAME_AGAIN = 0.3
"""How often who has spoken goes on after a pause."""
_OVERLAPS, _LONG_PAUSES = 0.12, 0.05
"""How often somebody begins before the other is done, and how often nobody says anything for a while."""
_AGAIN_AFTER = 3
"""Nobody says a thing again before having said so many others, if there are as many."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """`speaker` says `text`, which is what is in `recording`, from `start` to `end`, in seconds. These are
    the recording's: there may be silence at both ends of it."""

    speaker: str
    start: float
    end: float
    text: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns` in order of their starts; they may overlap."""

    seconds: float
    turns: tuple[Spoken, ...]

    def sound(self, begin: float = 0.0, end: float | None = None) -> npt.NDArray[np.float32]:
        """`float32[n]`, mono, 16 kHz, [-1, 1], from `begin` to `end` (default: all) in seconds: the
        recordings as loud as they are, in a room that is not quite silent."""
        first, last = _samples(begin), _samples(self.seconds if end is None else min(end, self.seconds))
        room = _room()
        mixed: npt.NDArray[np.float32] = np.resize(np.roll(room, -(first % len(room))), last - first)
        for turn in self.turns:
            at = _samples(turn.start)
            if at >= last or turn.end <= begin:
                continue
            spoken = _loaded(turn.recording)
            here, there = max(at, first), min(at + len(spoken), last)
            if here < there:
                mixed[here - first : there - first] += spoken[here - at : there - at]
        limited: npt.NDArray[np.float32] = np.clip(mixed, -1, 1)
        return limited

    def text(self, begin: float = 0.0, end: float | None = None) -> str:
        """What is said by those who begin then, in order."""
        last = self.seconds if end is None else end
        return " ".join(t.text for t in self.turns if begin <= t.start < last)


def conversation(
    seed: int,
    seconds: float,
    speakers: Sequence[str] = (),
    material: Sequence[Recording] = (),
    overlaps: float = _OVERLAPS,
) -> Conversation:
    """People speak in turns for about `seconds`, no turn cut off: the same for the same `seed`. `speakers`
    are who takes part (`Recording.speaker`), by default all who are known by name and have something to say;
    recordings without a text only come with speakers who are named. Pauses last from a breath to ten
    seconds, and of those who take over `overlaps` begin before the last one is over. `material` is what they
    say, by default the recordings of the corpus."""
    random = np.random.default_rng(seed)
    said = _by_speaker(speakers, material or recordings())
    names = list(said)
    lately: dict[str, list[int]] = {name: [] for name in names}
    turns: list[Spoken] = []
    speaker, over, at = names[int(random.integers(len(names)))], 0.0, 0.5
    while True:
        recording = said[speaker][_another(random, lately[speaker], len(said[speaker]))]
        if at + recording.seconds > seconds and turns:
            return Conversation(seconds, tuple(turns))
        turns.append(Spoken(speaker, at, at + recording.seconds, recording.text, recording))
        over = max(over, at + recording.seconds)
        others = [name for name in names if name != speaker]
        if others and random.random() >= _SAME_AGAIN:
            speaker = others[int(random.integers(len(others)))]
            if random.random() < overlaps:
                # Not before half of what it overlaps: of several who began, the last stays the last.
                early = random.uniform(0.2, 1.0)
                at = max(over - early, (turns[-1].start + turns[-1].end) / 2)
                continue
        long = random.random() < _LONG_PAUSES
        at = over + float(random.uniform(3, 10) if long else random.uniform(0.15, 1.5))


def _by_speaker(speakers: Sequence[str], material: Sequence[Recording]) -> dict[str, list[Recording]]:
    found: dict[str, list[Recording]] = {name: [] for name in speakers}
    for recording in material:
        if recording.kind in ("sound", "one_word", "dialogue"):
            continue
        if recording.speaker in speakers or (not speakers and recording.speaker and recording.text):
            found.setdefault(recording.speaker, []).append(recording)
    if nothing := [name for name, theirs in found.items() if not theirs]:
        raise ValueError(f"there are no recordings of {', '.join(nothing)}")
    return found


def _another(random: np.random.Generator, lately: list[int], count: int) -> int:
    free = [n for n in range(count) if n not in lately[-min(_AGAIN_AFTER, count - 1) :]] or [0]
    chosen = free[int(random.integers(len(free)))]
    lately.append(chosen)
    return chosen


@lru_cache(maxsize=256)
def _loaded(recording: Recording) -> npt.NDArray[np.float32]:
    return load(recording)


@lru_cache(maxsize=1)
def _room() -> npt.NDArray[np.float32]:
    return noise("pink", 20.0, _ROOM_DB)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
