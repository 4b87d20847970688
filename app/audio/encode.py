"""Sound as a file that is sent while it is made: each push gives the bytes that are ready.

Nothing is ever rewritten, so headers say "length unknown" where a format has a place for it.
Blocking: call it in a thread.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from app.audio.codecs import pack_pcm16
from app.audio.resample import Resampler
from app.audio.tempo import Tempo
from app.roles import Samples

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

RATE = 24_000
"""Sample rate in Hz of everything that is encoded."""

MEDIA_TYPES: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


@dataclass(frozen=True, slots=True)
class _Coding:
    """FFmpeg's names; `sample_format` is what the coder takes; `options` are the container's."""

    container: str
    codec: str
    sample_format: str
    bit_rate: int | None
    options: dict[str, str]


_CODINGS: dict[Format, _Coding] = {
    # No Xing header: it is written at the end, at the beginning of the file.
    "mp3": _Coding("mp3", "libmp3lame", "fltp", 64_000, {"write_xing": "0"}),
    # Pages of 0.2 s; they would be of 1 s.
    "opus": _Coding("ogg", "libopus", "flt", 40_000, {"page_duration": "200000"}),
    "aac": _Coding("adts", "aac", "fltp", 64_000, {}),
    "flac": _Coding("flac", "flac", "s16", None, {}),
}


class Encoder:
    """Makes a mono file of `format` from float32 samples at `source_rate` Hz, played `tempo` times as
    fast (0.5–2). `pcm` is bare 16-bit little-endian samples, `wav` the same behind a header; `opus` is
    in Ogg, `aac` in ADTS."""

    def __init__(self, format: Format, source_rate: int, tempo: float = 1.0) -> None:
        self._tempo = Tempo(source_rate, tempo) if tempo != 1 else None
        self._resampler = Resampler(source_rate, RATE)
        self._coded = None if format in ("wav", "pcm") else _Coded(_CODINGS[format])
        self._header = _wav_header() if format == "wav" else b""

    def push(self, samples: Samples) -> bytes:
        """The next samples; gives what of the file is ready, which may be nothing."""
        if self._tempo is not None:
            samples = self._tempo.push(samples)
        return self._take(self._resampler.push(samples))

    def finish(self) -> bytes:
        """The rest of the file."""
        rest = self._take(self._resampler.push(self._tempo.flush())) if self._tempo else b""
        rest += self._take(self._resampler.flush())
        return rest + self._coded.finish() if self._coded else rest

    def _take(self, samples: Samples) -> bytes:
        if self._coded is not None:
            return self._coded.push(samples)
        header, self._header = self._header, b""
        return header + pack_pcm16(samples)


def _wav_header() -> bytes:
    """Of mono PCM16 at `RATE`, of unknown length."""
    unknown = 0xFFFFFFFF
    return (
        struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE")
        + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
        + struct.pack("<4sI", b"data", unknown)
    )


class _Written:
    """What FFmpeg writes to. Without `seek`, so that it knows that nothing can be rewritten."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class _Coded:
    """A coder of FFmpeg's in its container."""

    def __init__(self, coding: _Coding) -> None:
        import av

        self._written = _Written()
        self._format = coding.sample_format
        self._container: OutputContainer = av.open(
            self._written,
            "w",
            format=coding.container,
            # Each packet is handed over at once; they would be gathered to 32 kB, seconds of sound.
            container_options={"flush_packets": "1", **coding.options},
        )
        stream = self._container.add_stream(coding.codec, rate=RATE, layout="mono")
        self._stream = cast("AudioStream", stream)
        self._stream.codec_context.format = coding.sample_format
        if coding.bit_rate is not None:
            self._stream.bit_rate = coding.bit_rate
        self._at = 0

    def push(self, samples: Samples) -> bytes:
        if len(samples):
            from av import AudioFrame

            data = np.round(samples * 32767).astype(np.int16) if self._format == "s16" else samples
            frame = AudioFrame.from_ndarray(data[np.newaxis], format=self._format, layout="mono")
            frame.sample_rate = RATE
            frame.pts = self._at
            self._at += len(samples)
            self._container.mux(self._stream.encode(frame))
        return self._written.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._written.take()
