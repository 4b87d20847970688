"""Words of a text that is still growing, laid over what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.roles import Word
from corpus import normalise


@dataclass(frozen=True, slots=True)
class Match:
    """How `words` fit the beginning of a longer text: `errors` (substituted, inserted and missing
    words) against its first `length` words, where they fit best, and for each of `words` the index of
    the same word there, or None."""

    errors: int
    length: int
    indexes: tuple[int | None, ...]


def match_beginning(words: Sequence[str], whole: Sequence[str]) -> Match:
    """Lay `words` over the beginning of `whole` with the fewest errors (Levenshtein distance, the end
    of `whole` free). Of equally good beginnings the one whose length is nearest to that of `words`."""
    rows = [list(range(len(whole) + 1))]
    for i, word in enumerate(words, 1):
        above, row = rows[-1], [i]
        for j, other in enumerate(whole, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
        rows.append(row)
    length = min(range(len(whole) + 1), key=lambda j: (rows[-1][j], abs(j - len(words))))
    indexes: list[int | None] = [None] * len(words)
    i, j = len(words), length
    while i > 0 and j > 0:
        same = words[i - 1] == whole[j - 1]
        if rows[i][j] == rows[i - 1][j - 1] + (not same):
            i, j = i - 1, j - 1
            indexes[i] = j if same else None
        elif rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return Match(rows[-1][length], length, tuple(indexes))


def tokens(text: str) -> list[str]:
    """Words of `text` as they are compared (`corpus.normalise`)."""
    return normalise(text).split()


def end_times(reference: Sequence[str], words: Sequence[Word]) -> dict[int, float]:
    """When words of `reference` end, by index, in seconds: those that recognised `words` with times
    have in common with it."""
    timed = [(token, word.end) for word in words for token in tokens(word.text)]
    found = match_beginning([token for token, _ in timed], reference)
    return {index: end for index, (_, end) in zip(found.indexes, timed, strict=True) if index is not None}
