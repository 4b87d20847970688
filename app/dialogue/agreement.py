"""Which words of a growing transcript are firm.

Each pass hears the utterance anew and may change its mind about the last words. A word is
committed once three passes in a row agree on it, another word follows, and the last pass is sure
of it (local agreement: Liu et al. 2020, "Low-Latency Sequence-to-Sequence Speech Recognition and
Translation by Partial Hypothesis Selection"). What is committed never changes: later passes, and
the final one, are spliced on behind it. That is why it must be right: on the recordings of
`corpus`, committing what two passes agree on took the word error rate of the final text from 1.9
to 8.1 %; with three passes and the last one's confidence it is 2.0 %, for 65 % of the words firm
before the end in place of 89 %.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

_PUNCTUATION = re.compile(r"[^\w']+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


_MATTERS = frozenset("no not never none nothing nobody without can can't don't won't isn't".split())
_ALIKE = 0.7
"""Letters that two words share, as a share of all."""
_PASSES = 3
_SURE = 0.7


def nearly_same_words(a: str, b: str) -> bool:
    """Whether an answer to the one answers the other: two recognisers heard the same, however each
    writes it. Case, punctuation and small numbers ("Press 1", "press one.") do not count, nor does,
    among six words or more, one that sounds alike ("too", "to"), unless it is a name or a number or says
    no."""
    one, other = ([w for w in split_words(text) if _norm(w)] for text in (a, b))
    differing = [i for i, (x, y) in enumerate(zip(one, other, strict=False)) if _norm(x) != _norm(y)]
    if len(one) != len(other) or len(differing) > (len(one) >= 6):
        return False
    if any(i and (one[i][0].isupper() or other[i][0].isupper()) for i in differing):
        return False
    differ = [(_norm(one[i]), _norm(other[i])) for i in differing]
    return all(
        not {x, y} & _MATTERS
        and not any(c.isdigit() for c in x + y)
        and SequenceMatcher(None, x, y, autojunk=False).ratio() >= _ALIKE
        for x, y in differ
    )


def split_words(text: str) -> list[str]:
    """Words of `text` in any script: a Chinese or Japanese character is a word, together with
    punctuation that follows it."""
    words: list[str] = []
    for token in text.split():
        for part in _CJK.findall(token):
            if words and not _norm(part) and token != part:
                words[-1] += part
            else:
                words.append(part)
    return words


def join_words(words: Sequence[str]) -> str:
    """The inverse of `split_words`: no space between Chinese or Japanese characters."""
    text = ""
    for word in words:
        if text and not (_is_cjk(text[-1]) and _is_cjk(word[0])):
            text += " "
        text += word
    return text


def _is_cjk(char: str) -> bool:
    return "\u3000" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef"


_DIGITS = {
    word: str(value)
    for value, word in enumerate("zero one two three four five six seven eight nine ten".split())
}


def _norm(word: str) -> str:
    """The word as it is compared: without case and punctuation, a small number as its digit."""
    bare = _PUNCTUATION.sub("", word.lower())
    return _DIGITS.get(bare, bare)


def align(firm: Sequence[str], soft: Sequence[str], heard: Sequence[str]) -> tuple[int, list[int | None]]:
    """Lay the words so far, `firm` and then `soft`, over the beginning of a new hypothesis.

    Returns how many words of `heard` the firm ones stand for, and for each firm word the index of
    its counterpart, or None. The soft words take part because they hold the others in place: after
    "ill-disposed" was heard as "ill suppose it", only what follows tells where it ends. But a soft
    word weighs less than a firm one. Where there are fewer words than before ("five, five, five" is
    now "5 5"), it is the soft ones that nobody said.
    """
    known = [_norm(w) for w in (*firm, *soft)]
    other = [_norm(w) for w in heard]

    def score(i: int, j: int) -> int:
        if known[i] != other[j]:
            return -1
        # A match outweighs the gaps that it takes to get to it: one word is often heard as two.
        return 3 if i < len(firm) else 2

    # Global alignment (Needleman and Wunsch 1970) with the end of `heard` free: it may go on.
    rows = [[-j for j in range(len(other) + 1)]]
    for i in range(1, len(known) + 1):
        above, row = rows[-1], [-i]
        for j in range(1, len(other) + 1):
            row.append(max(above[j] - 1, row[j - 1] - 1, above[j - 1] + score(i - 1, j - 1)))
        rows.append(row)
    j = max(range(len(other) + 1), key=lambda end: (rows[-1][end], -abs(end - len(known))))
    i = len(known)
    matches: list[int | None] = [None] * len(known)
    cut = j if not soft else 0
    while i > 0:
        if j > 0 and rows[i - 1][j - 1] + score(i - 1, j - 1) == rows[i][j]:
            matches[i - 1] = j - 1
            i, j = i - 1, j - 1
        elif rows[i - 1][j] - 1 == rows[i][j]:
            i -= 1
        else:
            j -= 1
        if i == len(firm) and soft:
            cut = j
    return cut, matches[: len(firm)]


class Agreement:
    """The firm and the soft words of one utterance."""

    def __init__(self) -> None:
        self.firm: list[str] = []
        self.soft: list[str] = []
        # What the last passes had beyond the firm words, oldest first.
        self._before: list[list[str]] = []

    @property
    def committed(self) -> str:
        """The firm part as text."""
        return join_words(self.firm)

    @property
    def text(self) -> str:
        """Firm and soft part as text."""
        return join_words(self.firm + self.soft)

    def update(self, heard: Sequence[str], confidences: Sequence[float] = ()) -> None:
        """Take the words of a new pass over the whole utterance, and how sure it is of each (0–1;
        all sure if not given)."""
        cut, _ = align(self.firm, self.soft, heard)
        tail = list(heard[cut:])
        sure = list(confidences[cut:]) or [1.0] * len(tail)
        agreed = 0
        if len(self._before) == _PASSES - 1:
            # The last word may still be half of a longer one.
            while agreed < len(tail) - 1 and sure[agreed] >= _SURE and self._had(agreed, tail[agreed]):
                agreed += 1
        self.firm += tail[:agreed]
        self.soft = tail[agreed:]
        self._before = [words[agreed:] for words in [*self._before, tail][1 - _PASSES :]]

    def _had(self, index: int, word: str) -> bool:
        return all(index < len(words) and _norm(words[index]) == _norm(word) for words in self._before)

    def finish(self, heard: Sequence[str]) -> tuple[list[str], list[int | None]]:
        """The final words: the firm ones, then what `heard` has beyond them. With each comes its
        index in `heard`, or None where the final pass did not have it."""
        cut, matches = align(self.firm, self.soft, heard)
        return self.firm + list(heard[cut:]), matches + list(range(cut, len(heard)))
