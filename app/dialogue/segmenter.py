"""Cuts a reply, while it is written, into pieces that can be spoken.

The first piece is a clause or phrase, so that the voice starts early; later ones are sentences, with short
ones put together and long ones cut at clauses, because a voice sounds best on whole sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ABBREVIATIONS = frozenset(
    """
    dr mr mrs ms prof st sr jr vs etc e.g i.e no fig approx dept est inc ltd co corp gen col sgt
    capt lt rev hon jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k a.m p.m ph.d
    """.split()
)
_HARD = "。！？；\n"
_SOFT_END = ".!?;"
_CLAUSE = ",:，、："
_CLOSERS = "\"'”’)]）】」』"

_FIRST_MIN = 10
"""Characters (Chinese ones count threefold) that make a first clause worth speaking. A first
sentence may be shorter: "Yes."."""
_FIRST_LONG = 16
"""Without a comma by now, the first piece ends before the next word of `_JOINTS`: a voice that begins
half a second sooner is worth more than the melody of one clause."""
_JOINTS = frozenset(
    """
    that if because and but or when which who while so as since although where whether
    to in on at for from with about after before during through between under over into
    """.split()
)
_MIN = 40
_MAX = 220


def _weight(text: str) -> int:
    return sum(3 if "\u3000" <= c <= "\u9fff" else 1 for c in text)


class Segmenter:
    """Feed it text as it comes; it gives back pieces ready to speak. Joined, the pieces are the
    text, but for white space at their borders."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def feed(self, text: str) -> Iterator[str]:
        """Pieces that `text` completes."""
        self._text += text
        while (cut := self._cut()) is not None:
            piece, self._text = self._text[:cut].strip(), self._text[cut:]
            if piece:
                self._first = False
                yield piece

    def finish(self) -> Iterator[str]:
        """The rest, once nothing more comes."""
        piece, self._text = self._text.strip(), ""
        if piece:
            yield piece

    def _cut(self) -> int | None:
        """Where the next piece ends, if that can be known yet."""
        text = self._text
        clause: int | None = None
        sentence: int | None = None
        for i, char in enumerate(text):
            if char in _HARD:
                end = _past_closers(text, i + 1)
            elif char in _SOFT_END or char in _CLAUSE:
                end = _past_closers(text, i + 1)
                # What follows decides between "3.14", "e.g. this" and an end.
                if end >= len(text):
                    if char not in "，、：":
                        break
                elif char not in "，、：" and not text[end].isspace():
                    continue
            else:
                continue
            weight = _weight(text[:end])
            if char in _CLAUSE:
                if self._first and weight >= _FIRST_MIN:
                    return end
                if weight <= _MAX:
                    clause = end
                continue
            if char == "." and is_abbreviation(text, i):
                continue
            if weight >= (3 if self._first else _MIN) or char == "\n":
                return end if weight <= _MAX or clause is None else clause
            sentence = end
        if self._first and (joint := _before_joint(text)) is not None:
            return joint
        if _weight(text) > _MAX:
            if sentence or clause:
                return sentence or clause
            space = text.rfind(" ", 0, _MAX)
            return space + 1 if space > 0 else (_MAX // 3 if len(text) > _MAX // 3 else None)
        return None


def _before_joint(text: str) -> int | None:
    """Where the first word behind `_FIRST_LONG` characters begins that begins a new phrase."""
    for match in re.finditer(r"(?<=\s)[a-z]+(?=\s)", text):
        if match.start() >= _FIRST_LONG and match.group() in _JOINTS:
            return match.start()
    return None


def _past_closers(text: str, at: int) -> int:
    while at < len(text) and text[at] in _CLOSERS:
        at += 1
    return at


def is_abbreviation(text: str, dot: int) -> bool:
    """Whether the dot at `dot` belongs to a word such as "Dr.", an initial, or a list number."""
    match = re.search(r"[\w.]+$", text[:dot])
    word = match.group().lower() if match else ""
    if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i"):
        return True
    return bool(re.fullmatch(r"\d{1,2}", word)) and (dot == len(word) or text[dot - len(word) - 1] == "\n")
