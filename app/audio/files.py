"""Recordings as files: any common container, rate and number of channels in, 16 kHz mono out.

What is read was sent by a stranger. Only containers that hold sound themselves are opened,
never playlists and the like that name other files; FFmpeg is given bytes, never a name, and
may open nothing else. Decoding runs in a thread, a block at a time as blocks are asked for.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from app.audio.resample import Resampler
from app.audio.sniff import HEAD_BYTES, describe, wav_missing
from app.roles import SAMPLE_RATE, BadAudio, Samples, TooLarge

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

ACCEPTED = "WAV, MP3, FLAC, OGG, M4A, AAC, WebM, AIFF or CAF"
"""What may be sent, as messages name it."""

_CONTAINERS = "wav,mp3,flac,ogg,mov,mp4,m4a,3gp,matroska,webm,aac,aiff,caf"
_CODECS = (
    "mp2,mp2float,mp3,mp3float,aac,aac_fixed,flac,alac,vorbis,libvorbis,opus,libopus,"
    "pcm_s8,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,"
    "pcm_f64le,pcm_f64be,pcm_mulaw,pcm_alaw,adpcm_ms,adpcm_ima_wav"
)
_RATES = range(4_000, 192_001)

NO_CONTAINER = "is not a recording that can be read, or its beginning is damaged"

_PACKETS_A_SECOND = 1000
"""More than any real coding has (Opus at most 400). With `max_seconds` it limits the work that a
file can cause, whatever its size."""

_LARGEST_ALLOCATION = 64 << 20
"""In bytes; an index of some 2.8 million packets, or 16 hours of M4A."""

_KNOWS_LENGTH = frozenset({"wav", "flac", "aiff", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers whose header states the length. For the others FFmpeg guesses it from the bit rate,
so a long guess is no reason to refuse a file, and a short file is not known to be cut off."""


async def decode_file(source: BinaryIO | Path | bytes, *, max_seconds: float, name: str = "file") -> Samples:
    """The whole of a recording as float32[n] at 16 kHz.

    Args:
        source: the bytes, a seekable binary file (read from its beginning, not closed, and not to
            be touched until this returns), or a path that the server itself chose.
        max_seconds: the longest recording to accept.
        name: the field that errors name.

    Raises:
        BadAudio: there is no sound to be had from it; the message says what it was instead.
        TooLarge: it is longer than `max_seconds`. No more than that is ever decoded.
    """
    async with aclosing(stream_file(source, max_seconds=max_seconds, name=name)) as blocks:
        return np.concatenate([block async for block in blocks])


async def stream_file(
    source: BinaryIO | Path | bytes,
    *,
    max_seconds: float,
    name: str = "file",
    block_seconds: float = 1.0,
) -> AsyncGenerator[Samples, None]:
    """A recording in blocks of `block_seconds` (the last may be shorter), float32[n] at 16 kHz.

    Holds about one block at a time, however long the file. Arguments and errors are those of
    `decode_file`; an error may come after blocks, when the file turns out to be too long, broken
    or cut off further in. Close the generator (`contextlib.aclosing`) when leaving it early.
    """
    stop = threading.Event()
    blocks = _blocks(Reading(name, max_seconds, round(block_seconds * SAMPLE_RATE), stop), source)
    # A cancelled `to_thread` leaves its thread at work. The lock makes the clean-up wait for it:
    # when this generator is closed, nobody reads `source` any more.
    running = threading.Lock()

    def step() -> Samples | None:
        with running:
            return next(blocks, None)

    def close() -> None:
        with running:
            blocks.close()

    try:
        while (block := await asyncio.to_thread(step)) is not None:
            yield block
    finally:
        stop.set()
        await asyncio.to_thread(close)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one decoding has to know: its limits, and how to refuse. `block` in samples."""

    name: str
    max_seconds: float
    block: int
    stop: threading.Event

    def refuse(self, what: str) -> BadAudio:
        """It is no recording that we read."""
        return BadAudio(f"`{self.name}` {what}. Send {ACCEPTED}.", field=self.name)

    def broken(self, how: str) -> BadAudio:
        """It is one, but cut off or damaged."""
        return BadAudio(f"`{self.name}` {how}. Send the whole file again.", field=self.name)

    def too_long(self) -> TooLarge:
        """It is longer than may be."""
        return TooLarge(
            f"`{self.name}` is longer than {self.max_seconds:g} s; send it in shorter parts.", field=self.name
        )


class Stopped(Exception):
    """Nobody wants the sound any more."""


class _Source:
    """All that FFmpeg sees of the file: bytes, without a name to judge them by and without a
    way to close it."""

    def __init__(self, file: BinaryIO, stop: threading.Event) -> None:
        self._file = file
        self._stop = stop
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if self._stop.is_set():
            raise Stopped
        return self._file.read(size)

    def seek(self, offset: int, whence: int) -> int:
        return self._file.seek(offset, whence)


def _blocks(reading: Reading, source: BinaryIO | Path | bytes) -> Generator[Samples, None, None]:
    """The sound of `source` in blocks of `reading.block` samples; runs in a thread."""
    with ExitStack() as stack:
        if isinstance(source, bytes):
            file: BinaryIO = BytesIO(source)
        elif isinstance(source, Path):
            file = stack.enter_context(source.open("rb"))
        else:
            file = source
        try:
            yield from _recut(_limited(_sound(reading, file), reading), reading.block)
        except Stopped:
            return


def _limited(pieces: Iterator[Samples], reading: Reading) -> Iterator[Samples]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > reading.max_seconds * SAMPLE_RATE:
            raise reading.too_long()
        yield piece
    if not total:
        raise reading.refuse("holds no sound")


def _recut(pieces: Iterator[Samples], size: int) -> Iterator[Samples]:
    """The same samples in pieces of `size`; the last may be shorter."""
    waiting: list[Samples] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count >= size:
            joined = np.concatenate(waiting)
            whole = count - count % size
            yield from (joined[at : at + size].copy() for at in range(0, whole, size))
            waiting, count = [joined[whole:].copy()], count - whole
    if count:
        yield np.concatenate(waiting)


def _sound(reading: Reading, file: BinaryIO) -> Iterator[Samples]:
    """The sound of `file` at 16 kHz, in pieces as they were stored."""
    from av.error import FFmpegError

    file.seek(0)
    what = describe(file.read(HEAD_BYTES))
    if what:
        raise reading.refuse(f"is {what}" + ("" if what == "empty" else ", not a recording"))
    missing = wav_missing(file)
    file.seek(0)
    try:
        container = open_container(_Source(file, reading.stop))
    except FFmpegError as error:
        raise reading.refuse(NO_CONTAINER) from error
    with container:
        stream = sound_track(container, reading)
        declared = _declared_seconds(container, stream, missing)
        if declared > reading.max_seconds:
            raise reading.too_long()
        reached = yield from decoded(container, stream, reading)
    if declared - reached > max(0.5, 0.02 * declared):
        raise reading.broken(f"was cut off: its header promises {declared:.1f} s, it ends at {reached:.1f} s")


def open_container(source: object, **options: str) -> InputContainer:
    """The container whose bytes `source.read(size)` gives; `source.seek` and `.tell` if it can be sought.
    `options` are FFmpeg's. Raises FFmpeg's errors."""
    import av

    _limit_allocations()

    return av.open(
        source,
        "r",
        container_options={
            "format_whitelist": _CONTAINERS,
            "codec_whitelist": _CODECS,
            "protocol_whitelist": "none",  # no container may have anything else opened
            **options,
        },
        metadata_errors="replace",
    )


def sound_track(container: InputContainer, reading: Reading) -> AudioStream:
    """The sound of `container`; `BadAudio` if there is none that we read."""
    from av.audio.stream import AudioStream

    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise reading.refuse("has no sound track" if len(container.streams) else "holds no sound")
    if stream.codec_context is None or stream.codec_context.name not in _CODECS.split(","):
        raise reading.refuse("has its sound in a coding that is not supported")
    return stream


@cache
def _limit_allocations() -> None:
    """Make FFmpeg refuse any single allocation above `_LARGEST_ALLOCATION`, in this process from
    now on. A few bytes of an MP4's index can claim a hundred million samples, for which it would
    take gigabytes. PyAV has no call for it, but its module is linked to the library that has."""
    import av._core

    with suppress(AttributeError, OSError):  # linked otherwise on some systems: do without
        ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(_LARGEST_ALLOCATION))


def _declared_seconds(container: InputContainer, stream: AudioStream, missing: int) -> float:
    """The length that the header states, 0 if it does not. FFmpeg shortens a WAV's to the file
    that is there, so its `missing` bytes are added. A file's length may be its picture's, so it
    counts only where there is nothing but sound."""
    if container.format.name not in _KNOWS_LENGTH:
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        lacking = missing * 8 / stream.codec_context.bit_rate if stream.codec_context.bit_rate else 0.0
        return float(stream.duration * stream.time_base) + lacking
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1_000_000
    return 0.0


def decoded(
    container: InputContainer, stream: AudioStream, reading: Reading
) -> Generator[Samples, None, float]:
    """The sound of `stream` at 16 kHz; returns the time in seconds where it ends. Broken packets
    are passed over, as players do, unless they are the greater part."""
    from av.error import FFmpegError

    resampler = Resampler(SAMPLE_RATE, SAMPLE_RATE)
    rate = SAMPLE_RATE
    heard = reached = 0.0
    good = bad = 0
    try:
        for number, packet in enumerate(container.demux(stream)):
            if number > _PACKETS_A_SECOND * (1 + heard):
                raise reading.broken("is damaged: it holds hardly any sound for its size")
            try:
                frames = packet.decode()
            except FFmpegError:
                bad += 1
                continue
            good += len(frames)
            for frame in frames:
                if frame.sample_rate != rate:
                    yield resampler.flush()
                    rate = frame.sample_rate
                    if rate not in _RATES:
                        raise reading.refuse(f"claims a sample rate of {rate} Hz")
                    resampler = Resampler(rate, SAMPLE_RATE)
                length = frame.samples / rate
                heard += length
                # A recording may have gaps, which its time stamps count and its samples do not.
                reached = max(heard, (frame.time or 0.0) + length)
                yield resampler.push(_mono(frame))
    except FFmpegError as error:
        raise reading.broken(f"is damaged after {reached:.1f} s") from error
    yield resampler.flush()
    if bad > good:
        raise reading.broken("is damaged: more than half of it cannot be decoded")
    return reached


_FULL_SCALE = {"u8": 128, "s16": 2**15, "s32": 2**31, "s64": 2**63, "flt": 1, "dbl": 1}


def _mono(frame: AudioFrame) -> Samples:
    """The mean of the channels of `frame`, scaled to [-1, 1]."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.packed.name
    # Float formats can hold infinities, whose differences are NaN: the resampler cleans both.
    with np.errstate(all="ignore"):
        mono = data.mean(axis=0, dtype=np.float32)
        scaled: Samples = (mono - np.float32(128 if kind == "u8" else 0)) / np.float32(_FULL_SCALE[kind])
    return scaled
