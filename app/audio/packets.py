"""The codecs of wearables: one message is one packet, without a header.

`pcm8` is a historical name: like `pcm16` it is signed 16-bit little-endian. Opus packets say themselves
how long they are, so its two names are one codec. What comes out is float32 mono at 16 kHz.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from app.audio.codecs import Decoder, decoder, unpack_pcm16
from app.audio.resample import Resampler
from app.roles import SAMPLE_RATE, BadAudio, BadInput, Misconfigured, Samples

CODECS = ("opus", "opus_fs320", "pcm8", "pcm16", "aac", "lc3_fs1030")
"""What wearables send."""

_LC3_FRAME_BYTES = 30
_LONGEST = 1 << 16
"""Bytes of a message that holds several frames: decoding more than some seconds at once is not for the event
loop."""
_LC3_FRAME_US = 10_000
_LC3_RATES = (8000, 16_000, 24_000, 48_000)
_RATES = range(4000, 96_001)
_MOST_CHANNELS = 8
_ADTS_HEADER = 7
# AudioSpecificConfig: AAC-LC, the index of the sampling rate, the number of channels.
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_AAC_LC = 2


def packet_decoder(codec: str, sample_rate: int, channels: int = 1) -> Decoder:
    """A decoder for one stream's packets of `codec`, which were made at `sample_rate` Hz. Loading a codec's
    library takes a moment: not for the event loop.

    Raises:
        BadInput: no such codec, or not at this rate.
        Misconfigured: the codec's library is not installed.
    """
    if codec not in CODECS:
        raise BadInput(f"there is no codec {codec[:40]!r} here: use {', '.join(CODECS)}", field="codec")
    if sample_rate not in _RATES:
        raise BadInput(f"{sample_rate} Hz is no sample rate of speech", field="sample_rate")
    if not 1 <= channels <= _MOST_CHANNELS:
        raise BadInput(f"sound has 1 to {_MOST_CHANNELS} channels", field="channels")
    if codec.startswith("opus"):
        return decoder("opus", SAMPLE_RATE)
    if codec == "aac":
        return Decoder(_Aac(sample_rate, channels), SAMPLE_RATE)
    if codec == "lc3_fs1030":
        return Decoder(_lc3_unpacker(sample_rate), sample_rate, bounded=False)
    return Decoder(_mixed(channels), sample_rate)


def _mixed(channels: int) -> Callable[[bytes], Samples]:
    if channels == 1:
        return unpack_pcm16

    def unpack(packet: bytes) -> Samples:
        if len(packet) % (2 * channels):
            raise BadAudio("the packet holds no whole number of samples of all channels", field="data")
        mixed: Samples = unpack_pcm16(packet).reshape(-1, channels).mean(axis=1, dtype=np.float32)
        return mixed

    return unpack


# --- LC3 ------------------------------------------------------------------------------------------


def _lc3_unpacker(sample_rate: int) -> Callable[[bytes], Samples]:
    if sample_rate not in _LC3_RATES:
        raise BadInput(f"LC3 cannot be at {sample_rate} Hz; use one of {_LC3_RATES}", field="sample_rate")
    try:
        import lc3  # type: ignore[import-untyped]
    except ImportError as error:
        raise Misconfigured("this server has no LC3: install the lc3py package") from error
    lc3_decoder: Any = lc3.Decoder(_LC3_FRAME_US, sample_rate)

    def unpack(packet: bytes) -> Samples:
        if len(packet) % _LC3_FRAME_BYTES or len(packet) > _LONGEST:
            raise BadAudio(f"an LC3 frame has {_LC3_FRAME_BYTES} bytes, not {len(packet)}", field="data")
        frames = [
            np.frombuffer(lc3_decoder.decode(packet[at : at + _LC3_FRAME_BYTES]), np.float32)
            for at in range(0, len(packet), _LC3_FRAME_BYTES)
        ]
        return np.concatenate(frames)

    # The wrapper means to free its decoders when it goes, but does not.
    for handle in lc3_decoder._Decoder__decoders:
        weakref.finalize(unpack, lc3_decoder.free, handle)
    return unpack


# --- AAC ------------------------------------------------------------------------------------------


class _Aac:
    """AAC frames, with ADTS headers or without."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._rate, self._channels = sample_rate, channels
        self._context: Any = None
        self._announced = sample_rate
        self._resampler: Resampler | None = None
        self._open(bare=False)
        self._bare = False

    def __call__(self, packet: bytes) -> Samples:
        import av

        if len(packet) > _LONGEST:
            raise BadAudio(f"a message holds at most {_LONGEST} bytes of AAC", field="data")
        bare = not _has_header(packet)
        if bare != self._bare:
            self._open(bare)
        try:
            # A frame that cannot be decoded must leave nothing behind: all of the packet or none of it.
            decoded = [
                frame
                for data in ([packet] if bare else _adts_frames(packet))
                for frame in self._context.decode(av.Packet(data))
            ]
        except av.FFmpegError as error:
            raise BadAudio(f"this is not AAC ({error.strerror})", field="data") from error
        pieces = [self._heard(frame) for frame in decoded]
        return np.concatenate(pieces) if pieces else np.empty(0, np.float32)

    def _heard(self, frame: Any) -> Samples:
        if frame.sample_rate != self._rate or self._resampler is None:
            # The stream knows its rate better than who announced it.
            self._rate = frame.sample_rate
            self._resampler = Resampler(self._rate, SAMPLE_RATE)
        with np.errstate(all="ignore"):
            return self._resampler.push(frame.to_ndarray().mean(axis=0, dtype=np.float32))

    def _open(self, bare: bool) -> None:
        import av

        context: Any = av.CodecContext.create("aac", "r")
        if bare:
            if self._announced not in _AAC_RATES:
                raise BadAudio(f"AAC without a header cannot be at {self._announced} Hz", field="sample_rate")
            config = _AAC_LC << 11 | _AAC_RATES.index(self._announced) << 7 | self._channels << 3
            context.extradata = config.to_bytes(2, "big")
        self._context, self._bare = context, bare


def _has_header(packet: bytes) -> bool:
    return len(packet) > _ADTS_HEADER and packet[0] == 0xFF and packet[1] & 0xF6 == 0xF0


def _adts_frames(packet: bytes) -> Iterator[bytes]:
    """The frames of `packet`, each with its header."""
    at = 0
    while at < len(packet):
        head = packet[at : at + _ADTS_HEADER]
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if _has_header(packet[at:]) else 0
        if size <= _ADTS_HEADER or at + size > len(packet):
            raise BadAudio("the packet ends within an AAC frame", field="data")
        yield packet[at : at + size]
        at += size
