"""English text to the phonemes that the voices were trained on (IPA in the style of espeak-ng).

`gruut` (MIT) splits text into words and says numbers, money, dates and times as words; its
second lexicon holds 124 000 words in espeak's notation, its first one the readings of words
that are spelled alike and spoken differently ("I read", "a record").

Where its time goes, and why it is not asked for phonemes itself: gruut looks words up in an
SQLite table without an index, 4 ms for every word not met before and for every punctuation
mark. With the table in a dict a sentence takes about 1 ms instead of 10 to 70.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from app.engines.traced import Said, Traced

_VOWELS = "aeiouæɐɑɒɔəɚɛɜɪʊʌᵻ"

_SPELLED = frozenset(
    ("ad", "am", "cd", "dc", "eu", "hr", "id", "ip", "it", "la", "mc", "os", "pc", "pr", "uk", "un", "us")
)
"""Short words that are initials when written in capitals."""

_OWN = {"ok": "oʊkˈeɪ", "covid": "kˈoʊvɪd", "i": "aɪ", "it": "ɪt", "at": "æt", "vs": "vˈɜːsəs"}
"""Words that the lexicon lacks or has wrong."""

_ONE_READING = frozenset(
    ("a", "de", "do", "dos", "lead", "nemo", "nice", "number", "re", "real", "were", "won")
)
"""Words whose second reading in gruut's lexicon is rarer than the tagger's mistakes."""

_TO_ESPEAK: Sequence[tuple[str, str]] = (
    ("͡", ""),
    ("(?<=[ˈˌ])ɚ", "ɜː"),
    ("ɔ(?!ɪ)", "ɔː"),
    ("ɑ", "ɑː"),
    ("u", "uː"),
    ("(?<=[ˈˌ])i", "iː"),
    (f"(?<=[{_VOWELS}ɹː])t(?=[əɚɪi])", "ɾ"),
)
"""From the notation of gruut's first lexicon to espeak's."""

_WORD = re.compile(r"[^\W\d_]")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z']+")
_DOTTED = re.compile(r"(?:[A-Za-z]\.){2,}|[B-HJ-Z]\.")


_UNITS = {
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "kg": "kilograms", "mg": "milligrams",
    "mph": "miles per hour", "km/h": "kilometers per hour", "GB": "gigabytes", "MB": "megabytes",
    "TB": "terabytes", "KB": "kilobytes", "kB": "kilobytes", "ms": "milliseconds", "Hz": "hertz",
    "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "ml": "milliliters", "kW": "kilowatts",
}  # fmt: skip
_DECADES = ("twent", "thirt", "fort", "fift", "sixt", "sevent", "eight", "ninet")
_SAID: Sequence[tuple[re.Pattern[str], Said]] = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r"\b[Ee]\.g\.,?", "for example,"),
        (r"\b[Ii]\.e\.,?", "that is,"),
        # gruut knows the names of these currencies, but fails to say an amount.
        (r"[¥￥]\s?([\d.,]*\d)", r"\1 yen"),
        (r"₹\s?([\d.,]*\d)", r"\1 rupees"),
        (r"₩\s?([\d.,]*\d)", r"\1 won"),
        (
            r"\b(1\d|20|')?([2-9])0s\b",
            lambda m: f"{(m[1] or '').strip(chr(39))} {_DECADES[int(m[2]) - 2]}ies",
        ),
        (
            r"(?<=\d)\s?(?!(?:st|nd|rd|th|s|am|pm|a\.m|p\.m)\b)(km/h|[A-Za-z]+)\b",
            lambda m: f" {_UNITS.get(m[1], m[1])}",
        ),
        (r"(?<=[A-Za-z])(?=\d)", " "),
        (r"\b\d{3}-(?:\d{3}-)?\d{4}\b", lambda m: ", ".join(map(" ".join, m[0].split("-")))),
        (r"(?<![\d/])1/2(?![\d/])", "one half"),
        (r"(?<![\d/])1/([34])(?![\d/])", lambda m: "one third" if m[1] == "3" else "one quarter"),
        (r"(?<![\d/])2/3(?![\d/])", "two thirds"),
        (r"(?<![\d/])3/4(?![\d/])", "three quarters"),
        (r"\s?°\s?F\b", " degrees Fahrenheit"),
        (r"\s?°\s?C\b|\s?℃", " degrees Celsius"),
        (r"\s?°", " degrees"),
        (r"(?<=\d)\s?[–—]\s?(?=\d)|(?<=\d):(?=\d\b)", " to "),
        (r"(?<![\d-])(\d{1,2})-(?=\d{1,2}(?![\d-]))", r"\1 to "),
        (r"~\s?(?=\d)", "about "),
        (r"#(?=\d)", "number "),
        (r"\bC\+\+", "C plus plus"),
        (r"\b([CF])#", r"\1 sharp"),
        (r"(?<=\d)\s?[×x]\s?(?=\d)", " times "),
        (r"\s?=+\s?", " equals "),
        (r"\s?\+\s?(?=\d)|(?<=\d)\s?\+\s?", " plus "),
        (r"\s?&\s?", " and "),
        (r"(?<=\w)@(?=\w)", " at "),
        (r"(?<=[A-Za-z\d])\.(?=[A-Za-z]{2})", " dot "),
        (r"(?<=[A-Za-z])/(?=[A-Za-z])", " "),
        (r"\s*(?:[–—]|(?<=\s)--?(?=\s))\s*|\s*[(\[]\s*|\s*[)\]](?=\s*\w)", ", "),
        (r"[)\]]", ""),
    )
]
"""What gruut does not say, or says wrongly."""


class EnglishPhonemes:
    """A callable: text → phonemes, words parted by spaces, punctuation kept as `, . ? ! : ;`.

    Safe to call from several threads. Loading blocks for about a second, mostly in imports.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # Invalid escapes in the source of a library below: they only warn, once.
            warnings.simplefilter("ignore")
            import gruut_lang_en
            from gruut import TextProcessor
            from gruut.g2p import GraphemesToPhonemes
            from gruut.pos import PartOfSpeechTagger

        data = Path(gruut_lang_en.__file__).parent
        self._lexicon = _read_lexicon(data / "espeak" / "lexicon.db") | _OWN
        self._readings = _read_readings(data / "lexicon.db")
        self._letters = {c: self._lexicon[c] for c in "bcdefghijklmnopqrstuvwxyz"} | {"a": "ˈeɪ"}
        self._guesser = GraphemesToPhonemes(data / "espeak" / "g2p" / "model.crf")
        self._tagger = PartOfSpeechTagger(data / "pos" / "model.crf")
        self._processor = TextProcessor(
            default_lang="en_US",
            load_pos_tagger=False,
            load_g2p_guesser=False,
            lookup_phonemes=lambda word, role=None, do_transforms=True: self._lexicon.get(word),
            # Kept as one token, "U.S.A." does not end a sentence; `_unknown` spells it.
            is_initialism=lambda text: _DOTTED.fullmatch(text.strip()) is not None,
            split_initialism=lambda text: [text.replace(".", "").upper()],
        )
        self._unknown = lru_cache(maxsize=4096)(self._work_out)
        # The taggers keep the sentence they are at inside themselves.
        self._lock = Lock()

    def __call__(self, text: str) -> str:
        """Phonemes of `text`; empty when there is nothing to say."""
        return self.traced(text).text

    def traced(self, text: str) -> Traced:
        """The same, with the character of `text` that each phoneme belongs to."""
        with self._lock:
            tokens = self._tokens(text)
            words = [t for t, _ in tokens if _WORD.search(t)]
            # Tagging costs as much as all the rest: only where a reading hangs on it.
            ambiguous = any(w.lower() in self._readings for w in words)
            tags = iter(self._tagger(words) if ambiguous else [""] * len(words))
            said: list[tuple[str, str, int]] = []
            for token, at in tokens:
                if _WORD.search(token):
                    if phonemes := self._word(token, next(tags)):
                        said.append((token.lower(), phonemes, at))
                elif said and (mark := _mark(token)):
                    said.append((mark, "", at))
            return _join(said)

    def _tokens(self, text: str) -> list[tuple[str, int]]:
        """Words and punctuation as they are said, each with its place in `text`."""
        traced = Traced(text)
        for pattern, said in _SAID:
            traced = traced.sub(pattern, said)
        graph, root = self._processor(traced.text, pos=False, phonemize=False, post_process=False)
        inked = [at for c, at in zip(traced.text, traced.at, strict=True) if not c.isspace()]
        tokens: list[tuple[str, int]] = []
        seen: set[int] = set()
        written = 0
        # Below the sentences are the tokens between spaces, below each what is said for it.
        for paragraph in graph.successors(root.node):
            for sentence in graph.successors(paragraph):
                for token in graph.successors(sentence):
                    at = inked[min(written, len(inked) - 1)]
                    tokens += [(said, at) for said in _leaves(graph, token, seen)]
                    written += len("".join(graph.nodes[token]["data"].text_with_ws.split()))
        return tokens

    def _word(self, word: str, tag: str) -> str:
        lower = word.lower()
        if (readings := self._readings.get(lower)) and (reading := _reading(readings, tag)):
            return reading
        if word.isupper() and lower in _SPELLED:
            return self._spell(lower)
        return self._lexicon.get(lower) or self._unknown(word)

    def _work_out(self, word: str) -> str:
        """Phonemes of a word that is not in the lexicon as it stands."""
        plain = "".join(
            c for c in unicodedata.normalize("NFKD", word) if c.isascii() and (c.isalpha() or c == "'")
        )
        lower = plain.lower().strip("'")
        if not lower:
            return ""
        if known := self._lexicon.get(lower):
            return known
        if plain.isupper() and len(plain) <= 5:
            return self._spell(lower)
        humps = _HUMP.findall(plain)
        if len(humps) > 1:
            return "".join(self._word(hump, "") for hump in humps)
        stem = lower.removesuffix("'s") if lower.endswith("'s") else lower.removesuffix("s")
        if stem != lower and (known := self._lexicon.get(stem)):
            return known + _plural(known)
        return "".join(self._guesser(lower)).replace(" ", "")

    def _spell(self, letters: str) -> str:
        names = [self._letters[c] for c in letters if c in self._letters]
        return "".join(n.replace("ˈ", "ˌ") for n in names[:-1]) + names[-1]


@cache
def english_phonemes() -> EnglishPhonemes:
    """The one copy that all voices share; the first call blocks."""
    return EnglishPhonemes()


def _leaves(graph: Any, node: int, seen: set[int]) -> Iterator[str]:
    """What is said for a node of gruut's graph. "10:30 a.m." are two that share what is below
    them: it is said once."""
    if node not in seen:
        seen.add(node)
        below = list(graph.successors(node))
        if not below:
            # What it has no letters for is a node without a text.
            yield getattr(graph.nodes[node]["data"], "text", "")
        for child in below:
            yield from _leaves(graph, child, seen)


def _read_lexicon(path: Path) -> dict[str, str]:
    """The first pronunciation of every word of gruut's espeak lexicon (22 MB as a dict)."""
    rows = _rows(path, "role not like 'gruut:VBD' order by pron_order desc")
    # A few Roman numerals were read out as such: "xi" as "Roman eleven".
    return {w: _alone(w, p) for w, _, p in rows if not ("ɹˌoʊmən" in p and "rom" not in w)}


def _alone(word: str, phonemes: str) -> str:
    """The lexicon was read off running text: take back what a following word did to the end
    ("can" as "cang", "over" with a linking r)."""
    if phonemes.endswith("ŋ") and not word.endswith(("ng", "ngue", "nk")):
        return phonemes[:-1] + "n"
    return phonemes.removesuffix("ɹ") if phonemes.endswith("ɚɹ") else phonemes


def _read_readings(path: Path) -> dict[str, dict[str, str]]:
    """Words whose pronunciation hangs on the part of speech: word → first letters of the Penn
    tag → phonemes."""
    found: dict[str, dict[str, str]] = {}
    for word, role, phonemes in _rows(path, "role like 'gruut:%' order by pron_order desc"):
        for pattern, replacement in _TO_ESPEAK:
            phonemes = re.sub(pattern, replacement, phonemes)
        found.setdefault(word, {})[role.removeprefix("gruut:")] = phonemes
    return {w: r for w, r in found.items() if len(set(r.values())) > 1 and w not in _ONE_READING}


def _rows(path: Path, condition: str) -> list[tuple[str, str, str]]:
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as db:
        rows = db.execute(f"select word, role, phonemes from word_phonemes where {condition}").fetchall()
    db.close()
    return [(word, role, phonemes.replace(" ", "")) for word, role, phonemes in rows]


def _reading(readings: Mapping[str, str], tag: str) -> str | None:
    """VBP and VBZ are read like VB; VBN like VBD, and like VB where that has no reading."""
    kinds = ("VBD", "VB") if tag in ("VBD", "VBN") else (tag[:2],)
    return next((readings[k] for k in kinds if k in readings), None)


def _plural(phonemes: str) -> str:
    if phonemes.endswith(("s", "z", "ʃ", "ʒ")):
        return "ᵻz"
    return "s" if phonemes.endswith(("p", "t", "k", "f", "θ")) else "z"


def _mark(token: str) -> str:
    """The pause that a punctuation token stands for, or nothing."""
    if token == "...":
        return ","
    return next((m for m in "?!.;:," if m in token), "")


def _join(said: Sequence[tuple[str, str, int]]) -> Traced:
    """Adjust words to their neighbours as a speaker does, and write the sentence."""
    out: list[tuple[str, int]] = []
    for i, (word, phonemes, at) in enumerate(said):
        following = said[i + 1][1].lstrip("ˈˌ") if i + 1 < len(said) else ""
        if not phonemes:  # a mark; the stronger of two in a row wins
            last, at = out[-1]
            out[-1] = (last.rstrip(",;:") + ("" if last[-1] in ".?!" else word), at)
            continue
        if word in ("a", "i") and not following:
            phonemes = {"a": "ˈeɪ", "i": "ˈaɪ"}[word]
        if following[:1] in tuple(_VOWELS):
            phonemes = {"the": "ðɪ", "to": "tʊ"}.get(word, phonemes)
            phonemes += "ɹ" if phonemes.endswith("ɚ") else ""
        out.append((phonemes, at))
    return Traced.join((Traced(phonemes, [at] * len(phonemes)) for phonemes, at in out), " ")
