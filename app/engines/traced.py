"""A text that is rewritten step by step, and where each character of it came from.

A voice says "$3.50" as four words: to know when it is heard, every step on the way from what was
written to the model's input has to be followed back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher

Said = str | Callable[[re.Match[str]], str]
"""What takes the place of a match, as in `re.sub`."""

_COMPARED = 200_000
"""Characters times characters: comparing more takes too long, and a rough place will do."""


class Traced:
    """`text`, and `at`: for each of its characters the index of the one it stands for in the
    text at the beginning (never falling)."""

    __slots__ = ("at", "text")

    def __init__(self, text: str, at: Sequence[int] | None = None) -> None:
        self.text = text
        self.at: Sequence[int] = range(len(text)) if at is None else at

    def __getitem__(self, part: slice) -> Traced:
        return Traced(self.text[part], self.at[part])

    @classmethod
    def join(cls, parts: Iterable[Traced], between: str = "") -> Traced:
        """The parts in a row; what is `between` counts to the part before it."""
        text: list[str] = []
        at: list[int] = []
        for part in parts:
            if text and between:
                text.append(between)
                at += [at[-1] if at else 0] * len(between)
            text.append(part.text)
            at += part.at
        return cls("".join(text), at)

    def sub(self, pattern: re.Pattern[str], said: Said) -> Traced:
        """`pattern.sub(said, text)`; itself where nothing matches."""
        parts: list[Traced] = []
        end = 0
        for match in pattern.finditer(self.text):
            new = match.expand(said) if isinstance(said, str) else said(match)
            parts += [self[end : match.start()], self[match.start() : match.end()].rewritten(new)]
            if not match[0] and new:  # put in between: it counts to what is before it
                at = self.at[max(0, match.start() - 1)] if self.at else 0
                parts[-1] = Traced(new, [at] * len(new))
            end = match.end()
        return Traced.join([*parts, self[end:]]) if parts else self

    def rewritten(self, new: str) -> Traced:
        """`new` in place of the whole text; what both have in common keeps its place."""
        old = self.text
        if new == old:
            return self
        if not old:
            return Traced(new, [0] * len(new))
        at: list[int] = []
        changes = [("replace", 0, len(old), 0, len(new))]
        if len(old) * len(new) <= _COMPARED:
            changes = list(SequenceMatcher(None, old, new, autojunk=False).get_opcodes())
        for _, i, i_end, j, j_end in changes:
            # A replacement is laid evenly over what it replaces, an insertion on what is before it.
            width = max(1, i_end - i)
            first = i if i_end > i else max(0, i - 1)
            at += [self.at[first + k * width // (j_end - j)] for k in range(j_end - j)]
        return Traced(new, at)
