"""What bytes are, judged by how they begin: for refusing what is no sound, and saying so."""

from __future__ import annotations

import struct
from typing import BinaryIO

HEAD_BYTES = 4096
"""How much of a file `describe` wants to see."""

_MOST_CHUNKS = 100
"""A WAV has a handful of chunks before its sound; a hostile one could have millions."""

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"v=0\r", "a stream description"),
    (b"v=0\n", "a stream description"),
)


def describe(head: bytes) -> str | None:
    """What a file that begins with `head` (up to `HEAD_BYTES`) is, in words, if it surely is
    something else than sound; None if it may be sound."""
    if not head:
        return "empty"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "an AVI video"
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Every sound format has control characters, or bytes that are no UTF-8, near its beginning."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two where `head` ends.
        if len(head) < HEAD_BYTES or error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)


def wav_missing(file: BinaryIO) -> int:
    """Bytes of sound that a WAV's header promises and the file lacks; 0 if it is whole, no WAV,
    or was written as a stream, when writers put 0 or something near 2^31 or 2^32 for the size.
    Moves the file's position."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0
    at = 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > size:
            break
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"data":
            return 0 if length >= 0x7FFF0000 else max(0, at + 8 + length - size)
        at += 8 + length + length % 2
    return 0
