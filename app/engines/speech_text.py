"""From text as a language model writes it to text that a voice can read.

Markdown marks, emoji and link targets are not read out. Numbers, money, dates and times are
said by the phonemizers (`english`, `chinese`).
"""

from __future__ import annotations

import re
import unicodedata

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

_SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’)\]]*\s+|(?<=[。！？；…])[”’」』）"]*\s*|\n+""")
_NOT_AN_END = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Jr|Sr|vs|[A-HJ-Z]|(?:\w\.)+\w)\.$")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+|(?<=[，、；：—])\s*")


def speakable(text: str, language: str = "en") -> str:
    """`text` without marks that are for the eye; lines become sentences. May come out empty."""
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    text = "".join(" " if _is_picture(c) else c for c in text)
    lines = [" ".join(line.split()).lstrip(" ,") for line in text.splitlines()]
    lines = [line for line in lines if line]
    stop, space = ("。", "") if language in ("zh", "ja") else (".", " ")
    ended = [line if unicodedata.category(line[-1])[0] == "P" else line + stop for line in lines[:-1]]
    return space.join(ended + lines[-1:])


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
