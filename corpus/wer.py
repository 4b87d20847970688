"""Word and character error rate between a text and what was recognised."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import jiwer

_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: n for n, word in enumerate(_UNITS)} | {word: 20 + 10 * n for n, word in enumerate(_TENS)}
_SAME = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "ok": "okay",
    "metres": "meters",
    "percent": "per cent",
    "%": "per cent",
}
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u9fff])")


def normalise(text: str) -> str:
    """`text` as words that can be compared: lower case, no punctuation, hyphenated words apart,
    every number as its digits one by one ("ten", "10" → "1 0"; "oh" beside a digit → "0"), and
    Chinese and Japanese characters each a word."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"(?<=\w)'(?=\w)", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"[^\w%]|_", " ", _CJK.sub(r" \1 ", text))
    words = " ".join(_SAME.get(word, word) for word in text.split()).split()
    words = [letter for word in _numbers(words) for letter in (word if word.isdigit() else [word])]
    return " ".join(_oh(words))


def _numbers(words: Sequence[str]) -> list[str]:
    """Number words as figures; those that make one number ("one hundred and five") as one."""
    out: list[str] = []
    index = 0
    while index < len(words):
        length, value = _number_at(words[index:])
        out.append(str(value) if length else words[index])
        index += length or 1
    return out


def _number_at(words: Sequence[str]) -> tuple[int, int]:
    """How many of the first words make one number, and which; (0, 0) if none does."""
    length, value = _below_hundred(words)
    if not length:
        return 0, 0
    for name, size in (("hundred", 100), ("thousand", 1000)):
        if words[length : length + 1] == [name]:
            value *= size
            length += 1
            skip = 1 if words[length : length + 1] == ["and"] else 0
            rest, more = _number_at(words[length + skip :])
            if rest and more < size:
                length, value = length + skip + rest, value + more
    return length, value


def _below_hundred(words: Sequence[str]) -> tuple[int, int]:
    if not words or words[0] not in _SMALL:
        return 0, 0
    value = _SMALL[words[0]]
    if value >= 20 and len(words) > 1 and 0 < _SMALL.get(words[1], 0) < 10:
        return 2, value + _SMALL[words[1]]
    return 1, value


def _oh(words: Sequence[str]) -> list[str]:
    out: list[str] = []
    for index, word in enumerate(words):
        beside = (out[-1:] or [""])[0] + "".join(words[index + 1 : index + 2])
        out.append("0" if word in {"oh", "o"} and any(c.isdigit() for c in beside) else word)
    return out


def wer(reference: str | Sequence[str], hypothesis: str | Sequence[str]) -> float:
    """Word error rate (0 is perfect; above 1 with many inserted words) of one text, or of
    several together: the errors of all over the words of all."""
    return _rate(reference, hypothesis, by_character=False)


def cer(reference: str | Sequence[str], hypothesis: str | Sequence[str]) -> float:
    """Character error rate, as `wer`, spaces not counted; for languages without spaces."""
    return _rate(reference, hypothesis, by_character=True)


def _rate(reference: str | Sequence[str], hypothesis: str | Sequence[str], *, by_character: bool) -> float:
    references = [reference] if isinstance(reference, str) else list(reference)
    hypotheses = [hypothesis] if isinstance(hypothesis, str) else list(hypothesis)
    errors = words = 0
    for expected, heard in zip(references, hypotheses, strict=True):
        expected, heard = normalise(expected), normalise(heard)
        if by_character:
            expected, heard = " ".join(expected.replace(" ", "")), " ".join(heard.replace(" ", ""))
        words += len(expected.split())
        if not expected:  # jiwer refuses an empty reference
            errors += len(heard.split())
            continue
        found = jiwer.process_words(expected, heard)
        errors += found.substitutions + found.deletions + found.insertions
    return errors / max(words, 1)
