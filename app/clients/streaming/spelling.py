"""Words out of the pieces that some providers send: parts of words, spaces and punctuation marks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from app.roles import Word

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, with the time at which it is said. A space before or behind it parts it from its
    neighbour; a Chinese or Japanese character is a word without one."""

    text: str
    start: float
    end: float
    confidence: float


class Firm:
    """Final pieces, given out as words. The last word waits until another begins: the rest of it, or its full
    stop, may come with the next message, and what was told as final must not change."""

    def __init__(self) -> None:
        self._waiting: list[Piece] = []

    def add(self, pieces: Iterable[Piece]) -> tuple[Word, ...]:
        """The words that are complete now."""
        groups = _groups([*self._waiting, *pieces])
        self._waiting = groups[-1] if groups else []
        return tuple(_word(group) for group in groups[:-1])

    def rest(self) -> tuple[Word, ...]:
        """The word that waits: nothing more will come to it."""
        waiting, self._waiting = self._waiting, []
        return tuple(_word(group) for group in _groups(waiting))

    def followed_by(self, pieces: Iterable[Piece]) -> tuple[Word, ...]:
        """The word that waits and pieces that are not final, as words."""
        return tuple(_word(group) for group in _groups([*self._waiting, *pieces]))

    def until(self, end: float) -> float:
        """Where the words that were given out end, if all final pieces reach to `end`."""
        return min(end, self._waiting[0].start) if self._waiting else end


def _groups(pieces: Iterable[Piece]) -> list[list[Piece]]:
    groups: list[list[Piece]] = []
    apart = True
    for piece in pieces:
        text = piece.text.strip()
        if not text:
            apart = True
            continue
        apart = apart or piece.text[0].isspace() or (_spoken(text) and _stands_alone(groups[-1], text))
        if apart:
            groups.append([])
        groups[-1].append(piece)
        apart = piece.text[-1].isspace()
    return groups


def _stands_alone(before: list[Piece], text: str) -> bool:
    return bool(_CJK.match(text) or any(_CJK.search(piece.text) for piece in before))


def _spoken(text: str) -> bool:
    return any(c.isalnum() for c in text)


def _word(group: list[Piece]) -> Word:
    spoken = [piece for piece in group if _spoken(piece.text)] or group
    return Word(
        "".join(piece.text.strip() for piece in group),
        spoken[0].start,
        spoken[-1].end,
        min(piece.confidence for piece in spoken),
    )
