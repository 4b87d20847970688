"""Words of a text that is still growing, laid over what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from app.roles import Word
from benchmarks.common.live import Heard
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


def while_speaking(reference: Sequence[str], ends: dict[int, float], heard: Heard) -> dict[str, Any]:
    """What was on the screen before the final, counted so that recordings can be added up. Delays are
    of the words that the final has right, in seconds behind their end (`ends`); a word that no partial
    had is there with the final."""
    partials = [tokens(s.text) for s in heard.shown]
    firm = [tokens(s.committed) for s in heard.shown]
    final, final_pass = tokens(heard.final), tokens(heard.final_pass)
    matches = [match_beginning(words, reference) for words in partials]
    firm_matches = [match_beginning(words, reference) for words in firm]
    right = {i for i in match_beginning(final, reference).indexes if i is not None}
    first_shown: dict[int, float] = {}
    first_firm: dict[int, float] = {}
    for shown, match, firm_match in zip(heard.shown, matches, firm_matches, strict=True):
        # What is firm is shown: where the two fit differently, both count.
        for first, found in ((first_shown, match), (first_shown, firm_match), (first_firm, firm_match)):
            for index in found.indexes:
                if index is not None:
                    first.setdefault(index, shown.at)
    last = firm[-1] if firm else []
    timed = sorted(right & set(ends))
    return {
        "partial_errors": sum(m.errors for m in matches),
        "partial_words": sum(m.length for m in matches),
        "committed_errors": firm_matches[-1].errors if firm else 0,
        "committed_words": firm_matches[-1].length if firm else 0,
        "committed_unlike_final_pass": match_beginning(last, final_pass).errors,
        "committed_heard": len(last),
        "changed_words": sum(match_beginning(a, b).errors for a, b in pairwise([*partials, final])),
        "final_words": len(final),
        "right_words": len(right),
        "shown_early": len(right & set(first_shown)),
        "firm_early": len(right & set(first_firm)),
        "shown_delays_s": [round(first_shown.get(i, heard.final_at) - ends[i], 3) for i in timed],
        "firm_delays_s": [round(first_firm.get(i, heard.final_at) - ends[i], 3) for i in timed],
    }
