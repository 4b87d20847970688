"""From text as a language model writes it to text that a voice can read.

Markdown marks, emoji and link targets are not read out. Numbers, money, dates and times are
said by the phonemizers (`english`, `chinese`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from app.engines.traced import Traced

_MARKDOWN = [
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        (r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", "\n", re.DOTALL),  # code is not for the ear
        (r"!?\[([^\]]*)\]\([^)]*\)", r"\1", 0),
        (r"</?[a-zA-Z][^<>]*>", " ", 0),
        (r"(?:https?|ftp)://(?:www\.)?([^\s/]+)\S*?(?=[.,;:!?)。，]*(?:\s|$))", r"\1", 0),
        (r"^[ \t]*(?:[-*_][ \t]*){3,}$|^[ \t|:-]+$", "", re.MULTILINE),
        (r"^[ \t]*(?:>[ \t]*)*(?:#{1,6}[ \t]+|[-*+•][ \t]+)?(?:\[[ xX]\][ \t]+)?", "", re.MULTILINE),
        (r"^(\d{1,2})[.)][ \t]+", r"\1, ", re.MULTILINE),
        (r"[ \t]*\|[ \t]*", ", ", 0),
        (r"(?<=\d)[ ]?\*[ ]?(?=\d)", "×", 0),
        (r"\*+|`+|~~|(?<!\w)_+|_+(?!\w)", "", 0),
        (r"_", " ", 0),
    )
]

_BREAKS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_LINES = [
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        (rf"[^\S{_BREAKS}]+", " ", 0),
        (rf" ?[{_BREAKS}]\s*", "\n", 0),
        (r"^[ ,]+", "", re.MULTILINE),
        (r"\n+", "\n", 0),
        (r"\A\s+|\s+\Z", "", 0),
    )
]
_LINE_END = re.compile(r"(.)\n")

_SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’)\]]*\s+|(?<=[。！？；…])[”’」』）"]*\s*|\n+""")
_NOT_AN_END = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Jr|Sr|vs|[A-HJ-Z]|(?:\w\.)+\w)\.$")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+|(?<=[，、；：—])\s*")

_CJK = "\u3040-\u30ff\u3400-\u9fff"
_WRITTEN_WORD = re.compile(rf"[^\w\s]*(?:[{_CJK}][,.!?;:)，。！？；：、）】》」』”’…—]*|[^\s{_CJK}]+)")
"""What stands between spaces, except that a Chinese or Japanese character is a word by itself, with
the punctuation around it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that is spoken in one go. `owner`: for each character of `text` the index
    of the written word it is of; `until`: the index behind the last written word that belongs
    here, spoken or not."""

    text: str
    owner: list[int]
    until: int


def spoken_pieces(text: str, language: str, soft: int, hard: int) -> tuple[list[str], list[Piece]]:
    """The written words of `text`, and what is to be spoken of them (`speakable`), in `pieces`.
    Words that have no sound go with what follows, or with the last piece."""
    spans = [match.span() for match in _WRITTEN_WORD.finditer(text)]
    words = [text[begin:end] for begin, end in spans]
    word_at = [0] * len(text)
    for i, (begin, _) in enumerate(spans):
        stop = spans[i + 1][0] if i + 1 < len(spans) else len(text)
        word_at[begin:stop] = [i] * (stop - begin)
    spoken = speakable_traced(text, language)
    found: list[Piece] = []
    at = 0
    for piece in pieces(spoken.text, soft, hard):
        at = spoken.text.index(piece, at)
        owner = [word_at[i] for i in spoken.at[at : at + len(piece)]]
        found.append(Piece(piece, owner, owner[-1] + 1))
        at += len(piece)
    if found:
        found[-1] = Piece(found[-1].text, found[-1].owner, len(words))
    return words, found


def speakable(text: str, language: str = "en") -> str:
    """`text` without marks that are for the eye; lines become sentences. May come out empty."""
    return speakable_traced(text, language).text


def speakable_traced(text: str, language: str) -> Traced:
    """`speakable`, with where each character comes from."""
    traced = Traced(text)
    for pattern, replacement in _MARKDOWN:
        traced = traced.sub(pattern, replacement)
    traced = Traced("".join(" " if _is_picture(c) else c for c in traced.text), traced.at)
    for pattern, replacement in _LINES:
        traced = traced.sub(pattern, replacement)
    stop, space = ("。", "") if language in ("zh", "ja") else (".", " ")
    return traced.sub(
        _LINE_END, lambda m: m[1] + ("" if unicodedata.category(m[1])[0] == "P" else stop) + space
    )


def pieces(text: str, soft: int, hard: int) -> list[str]:
    """Sentences of `text`; one longer than `soft` characters is cut into clauses of about that
    length, and what then is still longer than `hard` at spaces, or anywhere."""
    found: list[str] = []
    for sentence in _cut(text, _SENTENCE_END):
        clause = ""
        for part in _cut(sentence, _CLAUSE_END) if len(sentence) > soft else [sentence]:
            if clause and len(clause) + len(part) > soft:
                found += _chop(clause, hard)
                clause = ""
            clause += part
        found += _chop(clause, hard)
    return [piece.strip() for piece in found if piece.strip()]


def _cut(text: str, where: re.Pattern[str]) -> list[str]:
    parts, start = [], 0
    for match in where.finditer(text):
        if not _NOT_AN_END.search(text, 0, match.start()):
            parts.append(text[start : match.end()])
            start = match.end()
    return [*parts, text[start:]]


def _chop(text: str, hard: int) -> list[str]:
    parts = []
    while len(text) > hard:
        at = text.rfind(" ", 1, hard) + 1 or hard
        parts.append(text[:at])
        text = text[at:]
    return [*parts, text]


def _is_picture(c: str) -> bool:
    """Emoji, their joiners and variants, and other symbols that have no sound."""
    return (
        c > "\x7f"
        and c not in "°℃"
        and (
            unicodedata.category(c) in ("So", "Sk", "Cs", "Co", "Cn", "Cf", "Me") or "\ufe00" <= c <= "\ufe0f"
        )
    )
