"""Tells the utterances of one session apart by voice, and knows people among the voices."""

from __future__ import annotations

import asyncio
import itertools
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.dialogue.events import USER, Named, Part
from app.dialogue.speakers import Person, Speakers, label_name
from app.dialogue.voice_changes import voice_changes
from app.roles import (
    SAMPLE_RATE,
    BadAudio,
    ColloquyError,
    Job,
    NotFound,
    Samples,
    SpeakerEmbedding,
    Urgency,
    Word,
)

log = logging.getLogger(__name__)

_LEAST = SAMPLE_RATE // 2
_WAIT_S = 3.0
"""For a model that is still loaded; a label is not worth more of a person's time."""
_MERGED = 256
"""Of the latest so many it is known into whom they went."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who said something: `label` is `SPEAKER_00` and so on; `person` if it is somebody known."""

    label: str
    person: Named | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What is now known of what was said before: `merged` are labels that turned out to be others (gone,
    kept), and then `named` those that are now whose (label, who it was before, who it is)."""

    merged: tuple[tuple[int, int], ...] = ()
    named: tuple[tuple[int, Named | None, Named | None], ...] = ()


Known = Callable[[SpeakerEmbedding], Awaitable[Iterable[Person]]]
"""Gives the people whose voices are known, as the encoder places them."""


class Who:
    """`voices` gives the model, which loads when first asked for; `speakers` are those of the session, and
    `known` is asked once whom to recognise. `known_s` of speech make a voice known well."""

    def __init__(
        self,
        voices: Callable[[], Awaitable[SpeakerEmbedding]],
        speakers: Speakers,
        owner: str,
        known: Known | None = None,
        *,
        known_s: float = 5.0,
    ) -> None:
        self._voices, self._speakers, self._owner = voices, speakers, owner
        self._known, self._known_s = known, known_s
        self._enrolled: set[str] = set()
        self._load = known is not None
        self._last = 0
        self._merged: dict[int, int] = {}
        # Whom the user named; who, of them, is to be learnt once there is enough of the voice; and what was
        # told of each label.
        self._assigned: dict[int, Named] = {}
        self._wanted: dict[int, Named] = {}
        self._told: dict[int, Named] = {}
        self.version = 0
        """Rises with every change of what `state` gives."""
        self.recognise_user = True
        """Whether the user is recognised as well as the people whom they know."""
        self.suggested: set[tuple[int, str]] = set()
        """Names that were suggested for labels already."""
        self.on_change: Callable[[Change], None] = lambda change: None
        self.on_learnt: Callable[[Named, Any, float], None] = lambda person, voice, seconds: None
        """Given somebody whom the user named, where the voice lies and of how much speech that is known."""

    async def label(self, spoken: Samples) -> Told:
        """Who said `spoken`, float32[n] at 16 kHz; where that cannot be told, who spoke before."""
        if len(spoken) >= _LEAST:
            try:
                async with asyncio.timeout(_WAIT_S):
                    engine = await self._voices()
                    await self._recognise(engine)
                    voice = await engine.embed(spoken, Job(self._owner, Urgency.FINAL))
                said = self._speakers.assign(voice, len(spoken) / SAMPLE_RATE)
                self._last = said.speaker
                self._tell(said.merged)
                self._learn(said.speaker)
            except (BadAudio, NotFound):
                pass  # too little, or a server that does not tell speakers apart
            except (ColloquyError, TimeoutError) as error:
                log.warning("who spoke was not told: %r", error)
        return Told(label_name(self._last), self.person(self._last))

    async def parts(self, spoken: Samples, words: Sequence[Word]) -> list[Part]:
        """Who said which of `words`, whose times are from the beginning of `spoken`: people who take turns do
        not always leave a pause."""
        changes: list[int] = []
        try:
            async with asyncio.timeout(_WAIT_S):
                changes = await voice_changes(await self._voices(), spoken, Job(self._owner, Urgency.FINAL))
        except NotFound:
            pass
        except (ColloquyError, TimeoutError) as error:
            log.warning("an utterance was not cut where the voice changes: %r", error)
        found: list[Part] = []
        for begin, end in itertools.pairwise([0, *changes, len(spoken)]):
            told = await self.label(spoken[begin:end])
            first = (
                bisect_left(words, begin / SAMPLE_RATE, key=lambda w: (w.start + w.end) / 2) if begin else 0
            )
            if found and found[-1].first == first:
                found.pop()  # no word lay in it
            if not found or (first < len(words) and found[-1].speaker != told.label):
                found.append(Part(first, told.label, told.person))
        return found

    # --- who they are -------------------------------------------------------------------------------

    def current(self, number: int) -> int:
        """The speaker of a label that may have turned out to be another's since."""
        while number in self._merged:
            number = self._merged[number]
        return number

    def person(self, number: int) -> Named | None:
        """Who speaks as that label: whom the user named, or who was recognised."""
        number = self.current(number)
        return self._assigned.get(number) or _named(self._speakers.person(number))

    def perhaps(self, number: int) -> Named | None:
        """Who that may be, if nobody knows and somebody known is nearly near enough."""
        number = self.current(number)
        return None if self.person(number) else _named(self._speakers.perhaps(number))

    def assign(self, number: int, person: Named) -> None:
        """The user says who speaks as that label: that holds, and the voice is learnt if there is enough of
        it, or once there is."""
        number = self.current(number)
        self._assigned[number] = self._wanted[number] = person
        self._tell()
        self._learn(number)

    def enrol(self, person: Person) -> None:
        """Somebody is known from here on, or known anew."""
        if person.id == USER and not self.recognise_user:
            return
        self._enrolled.add(person.id)
        self._speakers.enrol(person.id, person.name, [person.voice])
        self._tell()

    def forget(self, person_id: str) -> None:
        """Somebody is not known any more."""
        self._enrolled.discard(person_id)
        for names in (self._assigned, self._wanted):
            for number in [n for n, person in names.items() if person.id == person_id]:
                del names[number]
        self._speakers.forget(person_id)
        self._tell()

    def look_again(self) -> None:
        """Ask again whom to recognise: another process may have learnt of somebody."""
        self._load = self._known is not None

    async def _recognise(self, engine: SpeakerEmbedding) -> None:
        if not self._load or self._known is None:
            return
        found = [p for p in await self._known(engine) if self.recognise_user or p.id != USER]
        self._load = False
        for person in found:
            self._speakers.enrol(person.id, person.name, [person.voice])
        for gone in self._enrolled - {person.id for person in found}:
            self._speakers.forget(gone)
        self._enrolled = {person.id for person in found}
        # All at once: while only some are known, others would be taken for strangers.
        self._tell()

    def _learn(self, number: int) -> None:
        person, known = self._wanted.get(number), self._speakers.voice(number)
        if person is not None and known is not None and known[1] >= self._known_s:
            del self._wanted[number]
            self.on_learnt(person, *known)

    def _tell(self, merged: tuple[tuple[int, int], ...] = ()) -> None:
        """Tell what is known now and was told otherwise before."""
        self.version += 1
        for gone, kept in merged:
            self._merged[gone] = kept
            for names in (self._assigned, self._wanted):
                if gone in names:
                    names.setdefault(kept, names.pop(gone))
        while len(self._merged) > _MERGED:
            del self._merged[next(iter(self._merged))]
        # What was told of those that went is told of those that have theirs.
        told = [(self.current(gone), self._told.pop(gone, None)) for gone, _ in merged]
        labels = {*self._assigned} if self._load else {*self._speakers.labels, *self._assigned, *self._told}
        told += [(number, self._told.get(number)) for number in sorted(labels)]
        named = [(number, was, now) for number, was in told if (now := self.person(number)) != was]
        for number, _, now in named:
            self._told.pop(number, None)
            if now is not None:
                self._told[number] = now
        if merged or named:
            self.on_change(Change(merged, tuple(named)))

    # --- going on elsewhere -------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What another process needs to give the same labels, as JSON has it."""
        speakers = self._speakers.state()
        for speaker in speakers["speakers"]:
            speaker["total"] = [round(value, 4) for value in speaker["total"]]
        return {"speakers": speakers, "assigned": _as_json(self._assigned), "told": _as_json(self._told)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave elsewhere."""
        self._speakers.restore(state["speakers"])
        self._last = state["speakers"]["last"] or 0
        self._merged.clear()
        self._wanted.clear()
        self._assigned, self._told = _of_json(state["assigned"]), _of_json(state["told"])
        self.version += 1
        self.look_again()


def _named(person: Person | None) -> Named | None:
    return None if person is None else Named(person.id, person.name)


def _as_json(names: dict[int, Named]) -> dict[str, list[str]]:
    return {str(number): list(person) for number, person in names.items()}


def _of_json(names: dict[str, list[str]]) -> dict[int, Named]:
    return {int(number): Named(*person) for number, person in names.items()}
