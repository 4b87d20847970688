"""Who is speaking: pieces of speech put together by voice, as they come.

Each piece comes as a vector of its voice (`SpeakerEmbedding`) and its length. Pieces that are alike get the
same label. There are at most `most` speakers, so a piece costs the same whenever it comes. Short pieces and
two voices at once say little of who it is: they go to the nearest, and nobody new comes of them.

People who are enrolled are recognised among the speakers, once there is enough speech of one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.roles import Vector

SHORT_S = 1.5
"""Of less speech a voice cannot be told for sure."""
NEW_DISTANCE = 0.45
"""How far two voices are apart at least that are held for two people's: 1 - cosine, as it would be of
endless speech (see `HALF_S`)."""
HALF_S = 1.17
"""Speech of which two pieces of one voice have a cosine of a half. A short piece has little of the voice and
much of the words: of `t` and `u` seconds, the cosine is smaller by sqrt((1 + HALF_S / t) (1 + HALF_S / u)).
The encoder's; measured for CAM++ on 13 people, 0.5 to 5 s, to within 0.02."""
KNOWN_DISTANCE = 0.40
"""How far a speaker and somebody enrolled may be apart, by the same measure."""
KNOWN_MARGIN = 0.10
"""How much farther everybody else who is enrolled must be."""
KNOWN_S = 5.0
"""Speech of a speaker before somebody enrolled is looked for in it."""
_DOUBT = 0.10
"""A piece must be so much nearer than `NEW_DISTANCE` to be a speaker's for sure. Between, it goes to the
nearest, and somebody new comes only of two such that are alike."""
_DOUBTFUL = 6
"""Of the latest so many are remembered."""
_SAME_DISTANCE = 0.25
"""Two speakers who are so near, of whom there is `KNOWN_S` each, were one all the time."""
_FAINT = 0.25
"""A short piece that is less like anybody than this goes to who spoke last."""
_LEAST_S = 0.1
_ENROLLED_S = 10.0
"""People are enrolled with about so much speech."""
_REMEMBERED_S = 120.0
"""Speech that weighs in where a voice lies; a voice that changes over a day is followed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody enrolled; `voice` is where their voice lies."""

    id: str
    name: str
    voice: Vector = field(compare=False)


@dataclass(frozen=True, slots=True)
class Assigned:
    """Who a piece is of. `merged`: speakers who turned out to be another, (gone, kept): the kept one is
    the older, and everything of the other is theirs. `named`: speakers in whom somebody enrolled was
    recognised just now, or no longer is."""

    speaker: int
    merged: tuple[tuple[int, int], ...] = ()
    named: tuple[tuple[int, Person | None], ...] = ()


@dataclass(slots=True)
class _Speaker:
    label: int
    total: Vector
    """The sum of the pieces, each weighted by its seconds."""
    seconds: float
    person: Person | None = None
    voice: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.voice = _unit(self.total)

    def add(self, total: Vector, seconds: float) -> None:
        self.total = self.total + total
        self.seconds += seconds
        if self.seconds > _REMEMBERED_S:
            self.total = self.total * np.float32(_REMEMBERED_S / self.seconds)
            self.seconds = _REMEMBERED_S
        self.voice = _unit(self.total)


class Speakers:
    """The speakers of one conversation. `threshold` is `NEW_DISTANCE`, `most` how many there may be;
    `known_distance` and `known_margin` are how near, and how much nearer than the next, a speaker must be
    to somebody enrolled."""

    def __init__(
        self,
        threshold: float = NEW_DISTANCE,
        most: int = 8,
        *,
        known_distance: float = KNOWN_DISTANCE,
        known_margin: float = KNOWN_MARGIN,
        known_s: float = KNOWN_S,
        half_s: float = HALF_S,
    ) -> None:
        self._threshold = threshold
        self._most = most
        self._half_s = half_s
        self._known_distance, self._known_margin, self._known_s = known_distance, known_margin, known_s
        self._speakers: list[_Speaker] = []
        self._people: dict[str, Person] = {}
        self._next = 0
        self._last: _Speaker | None = None
        self._doubtful: deque[tuple[Vector, float]] = deque(maxlen=_DOUBTFUL)

    def __len__(self) -> int:
        return len(self._speakers)

    @property
    def labels(self) -> list[int]:
        """Who there is, in order of appearance."""
        return [speaker.label for speaker in self._speakers]

    def person(self, label: int) -> Person | None:
        """Who of the enrolled speaks as `label`."""
        return next((s.person for s in self._speakers if s.label == label), None)

    def voice(self, label: int) -> tuple[Vector, float] | None:
        """Where the voice of `label` lies, and of how much speech that is known; to enrol somebody by."""
        return next(((s.voice, s.seconds) for s in self._speakers if s.label == label), None)

    def nearest(self, embedding: Vector) -> int | None:
        """Whose voice `embedding` is most like; nothing is learnt from it."""
        if not self._speakers:
            return None
        return max(self._speakers, key=lambda s: float(s.voice @ embedding)).label

    def assign(self, embedding: Vector, seconds: float) -> Assigned:
        """Who a piece of `seconds` of speech is of."""
        embedding, seconds = _unit(embedding), max(seconds, _LEAST_S)
        speaker, sure = self._choose(embedding, seconds)
        if speaker is None:
            speaker = _Speaker(self._next, embedding * np.float32(seconds), seconds)
            self._next += 1
            self._doubtful.clear()
            self._speakers.append(speaker)
        elif sure:
            speaker.add(embedding * np.float32(seconds), seconds)
        merged: list[tuple[int, int]] = []
        named: list[tuple[int, Person | None]] = []
        if sure:
            named += self._recognise([speaker])
            while (pair := self._same_as(speaker)) is not None:
                kept, gone = pair
                self._join(kept, gone)
                merged.append((gone.label, kept.label))
                named = [n for n in named if n[0] != gone.label] + self._recognise([kept])
                speaker = kept
        self._last = speaker
        return Assigned(speaker.label, tuple(merged), tuple(named))

    def _choose(self, embedding: Vector, seconds: float) -> tuple[_Speaker | None, bool]:
        """The speaker of a piece, None for somebody new, and whether the piece is worth learning from."""
        if not self._speakers:
            return None, seconds >= SHORT_S
        far, _, best = min(
            (self._distance(s.voice, s.seconds, embedding, seconds), s.label, s) for s in self._speakers
        )
        if seconds < SHORT_S:
            return (best if far <= 1 - _FAINT or self._last is None else self._last), False
        if far <= self._threshold - _DOUBT:
            return best, True
        if len(self._speakers) >= self._most:
            return best, False
        if far <= self._threshold and not self._again(embedding, seconds):
            # Two voices at once are a little like each of them, and like nothing that comes again.
            self._doubtful.append((embedding, seconds))
            return best, False
        return None, True

    def _again(self, embedding: Vector, seconds: float) -> bool:
        near = self._threshold - _DOUBT
        return any(self._distance(voice, s, embedding, seconds) <= near for voice, s in self._doubtful)

    def _distance(self, one: Vector, one_s: float, other: Vector, other_s: float) -> float:
        """How far apart two voices are, as if there were endless speech of each."""
        return distance(one, one_s, other, other_s, self._half_s)

    # --- speakers who are one -------------------------------------------------------------------

    def _same_as(self, speaker: _Speaker) -> tuple[_Speaker, _Speaker] | None:
        """`speaker` and another who is the same, the older first."""
        for other in self._speakers:
            if other is speaker or min(other.seconds, speaker.seconds) < self._known_s:
                continue
            far = self._distance(other.voice, other.seconds, speaker.voice, speaker.seconds)
            one, two = other.person, speaker.person
            if one is not None and two is not None:
                same = one.id == two.id and far <= self._threshold
            else:
                same = far <= _SAME_DISTANCE
            if same:
                return (other, speaker) if other.label < speaker.label else (speaker, other)
        return None

    def _join(self, kept: _Speaker, gone: _Speaker) -> None:
        kept.add(gone.total, gone.seconds)
        kept.person = kept.person or gone.person
        self._speakers.remove(gone)
        if self._last is gone:
            self._last = kept

    # --- people who are known -------------------------------------------------------------------

    def enrol(
        self, person_id: str, name: str, embeddings: Sequence[Vector]
    ) -> tuple[tuple[int, Person | None], ...]:
        """Make a person known by pieces of their speech, or known anew. Says in whom somebody is now
        recognised, as in `Assigned.named`."""
        voice = _unit(np.sum([_unit(e) for e in embeddings], axis=0, dtype=np.float32))
        self._people[person_id] = Person(person_id, name, voice)
        return tuple(self._recognise(self._speakers))

    def forget(self, person_id: str) -> tuple[tuple[int, Person | None], ...]:
        """The person is no longer known."""
        self._people.pop(person_id, None)
        return tuple(self._recognise(self._speakers))

    def identify(self, embedding: Vector, seconds: float) -> Person | None:
        """Who of the enrolled has this voice, if it is plain enough; of `seconds` of speech."""
        ranked = sorted(
            (self._distance(p.voice, _ENROLLED_S, embedding, seconds), p.id) for p in self._people.values()
        )
        if not ranked or ranked[0][0] > self._known_distance:
            return None
        if len(ranked) > 1 and ranked[1][0] - ranked[0][0] < self._known_margin:
            return None
        return self._people[ranked[0][1]]

    def perhaps(self, label: int) -> Person | None:
        """Who of the enrolled `label` may be, where it is not plain enough to say so."""
        speaker = next((s for s in self._speakers if s.label == label), None)
        if speaker is None or speaker.seconds < self._known_s or not self._people:
            return None
        far, nearest = min(
            (self._distance(p.voice, _ENROLLED_S, speaker.voice, speaker.seconds), p.id)
            for p in self._people.values()
        )
        return self._people[nearest] if far <= self._known_distance + _DOUBT else None

    def _recognise(self, speakers: Iterable[_Speaker]) -> list[tuple[int, Person | None]]:
        changed: list[tuple[int, Person | None]] = []
        for speaker in speakers:
            if speaker.seconds < self._known_s:
                continue
            person = self.identify(speaker.voice, speaker.seconds)
            if person != speaker.person:
                speaker.person = person
                changed.append((speaker.label, person))
        return changed

    # --- going on elsewhere ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that was learnt of the speakers, as JSON has it; who is enrolled is not in it."""
        return {
            "next": self._next,
            "last": None if self._last is None else self._last.label,
            "speakers": [
                {"label": s.label, "seconds": s.seconds, "total": s.total.tolist()} for s in self._speakers
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave elsewhere."""
        self._next = state["next"]
        self._speakers = [
            _Speaker(s["label"], np.asarray(s["total"], np.float32), s["seconds"]) for s in state["speakers"]
        ]
        self._last = next((s for s in self._speakers if s.label == state["last"]), None)
        self._recognise(self._speakers)


def distance(one: Vector, one_s: float, other: Vector, other_s: float, half_s: float = HALF_S) -> float:
    """How far apart two voices are, known from so many seconds each: 1 - cosine, as if of endless speech."""
    return 1 - float(one @ other) * math.sqrt((1 + half_s / one_s) * (1 + half_s / other_s))


def label_name(label: int) -> str:
    """As clients see it: SPEAKER_00."""
    return f"SPEAKER_{label:02d}"


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0 else vector
