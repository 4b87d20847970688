"""What the app tells us: words that it recognised itself, and who it is that speaks. Taken leniently."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from app.api.wearable.segments import Json, Who

_MOST = 200
_LONGEST = 10_000
_NUMBER = re.compile(r"(\d{1,3})$")
_USER = "user"


@dataclass(frozen=True, slots=True)
class Said:
    """Words with times in seconds of the stream."""

    text: str
    start: float
    end: float
    who: Who
    provider: str


def suggested(message: Json) -> Iterator[Said]:
    """The words of a `suggested_transcript`, in order of time; what cannot be read is left out."""
    provider = message.get("stt_provider")
    provider = provider[:64] if isinstance(provider, str) else "custom"
    given = message.get("segments")
    found = [s for s in map(_said, given[:_MOST]) if s is not None] if isinstance(given, list) else []
    for text, start, end, who in sorted(found, key=lambda s: s[1]):
        yield Said(text, start, end, who, provider)


def _said(given: Any) -> tuple[str, float, float, Who] | None:
    if not isinstance(given, dict) or not isinstance(given.get("text"), str):
        return None
    text = " ".join(given["text"].split())[:_LONGEST]
    if not text:
        return None
    start = _seconds(given.get("start"))
    number = _number(given.get("speaker_id"), given.get("speaker"))
    return text, start, max(start, _seconds(given.get("end"))), Who(f"SPEAKER_{number:02d}")


def assignment(message: Json, people: Collection[str]) -> tuple[Who, list[str]] | None:
    """Who it is that speaks, and in which segments, of a `speaker_assigned`; None if that is nobody of
    `people` or the user."""
    person = message.get("person_id")
    number = _number(message.get("speaker_id"), None)
    given = message.get("segment_ids")
    ids = [id_ for id_ in given if isinstance(id_, str)][:_MOST] if isinstance(given, list) else []
    label = f"SPEAKER_{number:02d}"
    if person == _USER:
        return Who(label, is_user=True), ids
    if isinstance(person, str) and person in people:
        return Who(label, person_id=person), ids
    return None


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and math.isfinite(value):
        return max(0.0, float(value))
    return 0.0


def _number(number: Any, label: Any) -> int:
    if isinstance(number, int) and 0 <= number < 1000:
        return number
    found = _NUMBER.search(label) if isinstance(label, str) else None
    return int(found[1]) if found else 0
