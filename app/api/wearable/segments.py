"""The segments of one stream as the app shows them: who said what, when. Nothing here waits.

A segment is what one person says in a row. Words that are firm are `fixed` to it; behind them may stand
the words of an utterance that is still being said (`show`), which change. A segment has its id from when
it is first shown until the conversation is deleted, whatever becomes of its text, so the app can replace
what it has. Only the last segment ever changes: work and memory do not grow with the conversation.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from app.dialogue.events import Named
from app.dialogue.speakers import label_name
from app.dialogue.who import Change

Json = dict[str, Any]

_GAP_S = 30.0
"""After so long a pause a person begins a new segment."""
_LONG = 600
"""Characters after which the next sentence does: what is sent must not grow with a lecture."""
_LABEL = re.compile(r"_(\d{1,6})$")


@dataclass(frozen=True, slots=True)
class Who:
    """A voice of this stream (`label`), and whose it is if that is known: the user's or a person's."""

    label: str = "SPEAKER_00"
    is_user: bool = False
    person_id: str | None = None

    @property
    def number(self) -> int:
        """The label's number; 0 for a label without one."""
        found = _LABEL.search(self.label)
        return int(found[1]) if found else 0


SOMEBODY = Who()


def whose(number: int, person: Named | None) -> Who:
    """The voice of that number, and whose it is if that is known."""
    label = label_name(number)
    if person is None:
        return Who(label)
    return Who(label, is_user=True) if person.is_user else Who(label, person_id=person.id)


@dataclass(slots=True)
class Segment:
    """`text` are the firm words, `soft` those that may change. Times in seconds of the conversation."""

    text: str
    who: Who
    start: float
    end: float
    provider: str = ""
    soft: str = ""
    soft_end: float = 0.0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def segment_json(segment: Segment) -> Json:
    """A segment as the app reads it, and as strictly: a label with `_` and a number, text never null."""
    text = join(segment.text, segment.soft)
    end = max(segment.end, segment.soft_end) if segment.soft else segment.end
    return {
        "id": segment.id,
        "text": text,
        "speaker": label_name(segment.who.number),
        "speaker_id": segment.who.number,
        "is_user": segment.who.is_user,
        "person_id": segment.who.person_id,
        "start": round(segment.start, 3),
        "end": round(max(segment.start, end), 3),
        "translations": [],
        "speech_profile_processed": True,
        "stt_provider": segment.provider,
    }


def join(before: str, after: str) -> str:
    """Two texts that follow each other."""
    if not before or not after:
        return before or after
    cjk = before[-1] >= "\u3000" and after[0] >= "\u3000"
    return before + after if cjk else f"{before} {after}"


class Segments:
    """One stream's segments. What is new or changed is in `changed` until `take`n, what is gone in
    `deleted`, what is to be stored in `firm`."""

    def __init__(self, last: Segment | None = None, provider: str = "") -> None:
        """`last`: the segment that was last when another connection left the conversation."""
        self.changed: dict[str, Segment] = {}
        self.firm: dict[str, Segment] = {}
        self.deleted: list[str] = []
        self._last = last
        self._provider = provider
        # The segment whose `soft` words are those being said: the last one, or one with no firm words yet.
        self._open: Segment | None = None
        # Firm words of the utterance that is being said, of which nobody knows yet whose they are.
        self._unsure: list[Segment] = []

    @property
    def last_who(self) -> Who:
        """Who spoke last."""
        return self._last.who if self._last is not None else SOMEBODY

    @property
    def last_id(self) -> str:
        """The segment that the last firm words went to."""
        return self._last.id if self._last is not None else ""

    @property
    def live(self) -> set[str]:
        """The segments whose text may still change."""
        return {segment.id for segment in (self._last, self._open) if segment is not None}

    def show(self, text: str, start: float, end: float, who: Who) -> None:
        """What is being said, as far as it is known."""
        if not text:
            return
        if self._open is None:
            self._open = self._place(start, who)
        segment = self._open
        if (segment.soft, segment.soft_end) != (text, end):
            segment.soft, segment.soft_end = text, end
            self.changed[segment.id] = segment

    def fix(self, text: str, start: float, end: float, who: Who | None) -> None:
        """What was said: it replaces what was shown of it, and does not change any more. `who` None: that is
        told with the end of the utterance. Until then the words stand apart from what others said."""
        for unsure in self._unsure:
            if who is not None and unsure.who != who:
                unsure.who = who
                self.changed[unsure.id] = self.firm[unsure.id] = unsure
        if who is not None or not text:
            self._unsure.clear()
        apart = who is None and not self._unsure
        who = who or self.last_who
        segment, self._open = self._open, None
        if segment is not None:
            segment.soft = ""
            self.changed[segment.id] = segment
            if segment.text and (segment.who != who or not text or apart):
                segment = None  # it was shown with what another said
            elif not text:
                del self.changed[segment.id]
                self.deleted.append(segment.id)
                return
        if not text:
            return
        if segment is None:
            segment = Segment("", who, start, start, self._provider) if apart else self._place(start, who)
        if not segment.text:
            segment.who = who
        if apart or (self._unsure and segment is not self._unsure[-1]):
            self._unsure.append(segment)
        segment.text, segment.end = join(segment.text, text), max(segment.end, end)
        self._last = segment
        self.changed[segment.id] = self.firm[segment.id] = segment

    def assign(self, ids: Collection[str], who: Who) -> None:
        """It is known who said the segments of these ids."""
        last = self._last
        if last is not None and last.id in ids:
            last.who = who
            self.changed[last.id] = self.firm[last.id] = last

    def learnt(self, change: Change) -> None:
        """More is known of whose voices there are; what is stored is changed elsewhere."""
        held = {
            s.id: s for s in (*self.firm.values(), *self._unsure, self._last, self._open) if s is not None
        }
        for segment in held.values():
            was = segment.who
            for gone, kept in change.merged:
                if segment.who.number == gone:
                    segment.who = replace(segment.who, label=label_name(kept))
            for number, before, now in change.named:
                if segment.who == whose(number, before):
                    segment.who = whose(number, now)
            if segment.who != was:
                self.changed[segment.id] = segment
                if segment.text:
                    self.firm[segment.id] = segment

    def take(self) -> tuple[list[Json], list[str]]:
        """What has changed since the last time, in order of time, and the ids of what is gone."""
        changed = sorted(self.changed.values(), key=lambda s: s.start)
        deleted, self.deleted = self.deleted, []
        self.changed.clear()
        return [segment_json(s) for s in changed if s.text or s.soft], deleted

    def _place(self, start: float, who: Who) -> Segment:
        """Where words of `who` go that begin at `start`: to the last segment, or into one of their own."""
        last = self._last
        if last is not None and last.who == who and start - last.end < _GAP_S and len(last.text) < _LONG:
            return last
        return Segment("", who, start, start, self._provider)
