"""Sound as it travels in packets: a decoder or an encoder a session, each with its state.

Names and rates are those of the session protocol. Inside, sound is float32 mono in [-1, 1];
what is heard is always brought to 16 kHz. A packet of 20 ms takes some 25 µs to decode and, as
Opus, 150 µs to encode: fit for the event loop, if a voice's long pieces are fed a few hundred
milliseconds at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.audio.resample import Resampler
from app.roles import SAMPLE_RATE, BadAudio, BadInput, Samples

RATES = (8000, 16000, 24000, 44100, 48000)
"""Sample rates that may travel, in Hz."""

OPUS_RATES = (8000, 16000, 24000, 48000)
"""Those that Opus knows."""

OPUS_FRAME_MS = 20
"""Length of every Opus packet that an encoder makes."""

_OPUS_LONGEST_MS = 120
_OPUS_BITRATE = 32_000

Unpack = Callable[[bytes], Samples]
Pack = Callable[[Samples], bytes]


# --- packets in -----------------------------------------------------------------------------


class Decoder:
    """Turns one session's packets into samples. Made by `decoder`."""

    def __init__(self, unpack: Unpack, sample_rate: int, *, bounded: bool = True) -> None:
        """`bounded`: what `unpack` gives is within [-1, 1]."""
        self._unpack = unpack
        # Most sound comes as it is wanted; going over it once more would take longer than unpacking it.
        as_it_is = bounded and sample_rate == SAMPLE_RATE
        self._resampler = None if as_it_is else Resampler(sample_rate, SAMPLE_RATE)

    def decode(self, packet: bytes) -> Samples:
        """The next packet as float32[n] at 16 kHz; up to 2 ms of it may come with the next one.

        Raises:
            BadAudio: the packet (field `data`) is empty or broken. It changes nothing: the next
                good packet is decoded as if this one had not been sent.
        """
        if not packet:
            raise BadAudio("The audio packet is empty; send at least one sample.", field="data")
        samples = self._unpack(packet)
        return samples if self._resampler is None else self._resampler.push(samples)

    def flush(self) -> Samples:
        """What was held back, at the end of the sound. Packets after it start a new stretch."""
        return np.empty(0, np.float32) if self._resampler is None else self._resampler.flush()


def decoder(codec: str, sample_rate: int) -> Decoder:
    """A decoder for packets of `codec` at `sample_rate` Hz.

    `pcm16` is signed 16-bit little-endian, `pcm8` unsigned 8-bit, `mulaw` and `alaw` the two of
    G.711, `opus` one raw packet at a time, of any length and channels that Opus allows. An Opus packet
    can be decoded at any of its rates, whatever the encoder was given: it is decoded straight to 16 kHz.

    Raises:
        BadInput: no such codec, or not at this rate.
    """
    _check(codec, sample_rate)
    if codec == "opus":
        return Decoder(_opus_unpacker(), SAMPLE_RATE, bounded=False)
    unpack = {"pcm16": unpack_pcm16, "pcm8": _unpack_pcm8, "mulaw": unpack_mulaw, "alaw": unpack_alaw}
    return Decoder(unpack[codec], sample_rate)


def unpack_pcm16(data: bytes) -> Samples:
    """Signed 16-bit little-endian `data` as float32[n]; `BadAudio` if a byte is left over."""
    if len(data) % 2:
        raise BadAudio(
            f"PCM16 takes two bytes a sample, but the packet has {len(data)}; send whole samples.",
            field="data",
        )
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def _unpack_pcm8(data: bytes) -> Samples:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)


def unpack_mulaw(data: bytes) -> Samples:
    """G.711 μ-law `data` as float32[n]."""
    return _MULAW_DECODED[np.frombuffer(data, np.uint8)]


def unpack_alaw(data: bytes) -> Samples:
    """G.711 A-law `data` as float32[n]."""
    return _ALAW_DECODED[np.frombuffer(data, np.uint8)]


def _opus_unpacker() -> Unpack:
    from opuslib_next import Decoder as OpusDecoder  # type: ignore[import-untyped]
    from opuslib_next import OpusError

    opus = OpusDecoder(SAMPLE_RATE, 1)
    longest = SAMPLE_RATE * _OPUS_LONGEST_MS // 1000

    def unpack(packet: bytes) -> Samples:
        try:
            return np.frombuffer(opus.decode_float(packet, longest), np.float32)
        except OpusError as error:
            raise BadAudio(
                f"This is not an Opus packet ({error}); send one raw packet a message, without a container.",
                field="data",
            ) from error

    return unpack


# --- packets out ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A piece of sound ready to send, and how long it plays."""

    data: bytes
    duration_ms: float


class Encoder:
    """Turns a voice's samples into packets. Made by `encoder`."""

    def __init__(
        self, pack: Pack, source_rate: int, sample_rate: int, *, frame: int = 0, lookahead: int = 0
    ) -> None:
        """`frame`: samples in every packet, 0 for any number. `lookahead`: samples by which the
        codec's output lags its input."""
        self._pack = pack
        self._rate = sample_rate
        self._frame = frame
        self._lookahead = lookahead
        # Packing bounds the sound by itself; only Opus takes it as it is.
        as_it_is = source_rate == sample_rate and not frame
        self._resampler = None if as_it_is else Resampler(source_rate, sample_rate)
        self._waiting: Samples = np.empty(0, np.float32)
        self._begun = False

    def encode(self, samples: Samples) -> list[EncodedChunk]:
        """Packets that float32[n] at the source rate completes, in order; possibly none. Samples
        outside [-1, 1] are clipped."""
        self._begun = self._begun or len(samples) > 0
        return self._packets(samples if self._resampler is None else self._resampler.push(samples))

    def flush(self) -> list[EncodedChunk]:
        """The end of the sound: what was held back, filled up with silence to a whole packet.
        What is encoded after it is a new sound."""
        if not self._begun:
            return []
        self._begun = False
        rest = np.empty(0, np.float32) if self._resampler is None else self._resampler.flush()
        if self._frame:
            sound = len(self._waiting) + len(rest) + self._lookahead
            silence = self._lookahead + -sound % self._frame
            rest = np.concatenate([rest, np.zeros(silence, np.float32)])
        return self._packets(rest)

    def _packets(self, samples: Samples) -> list[EncodedChunk]:
        if not self._frame:
            return [self._chunk(samples)] if len(samples) else []
        sound = np.concatenate([self._waiting, samples])
        whole = len(sound) - len(sound) % self._frame
        self._waiting = sound[whole:]
        return [self._chunk(sound[at : at + self._frame]) for at in range(0, whole, self._frame)]

    def _chunk(self, samples: Samples) -> EncodedChunk:
        return EncodedChunk(self._pack(samples), len(samples) * 1000 / self._rate)


def encoder(codec: str, source_rate: int, sample_rate: int) -> Encoder:
    """An encoder of sound at `source_rate` Hz (any) to packets of `codec` at `sample_rate` Hz.

    `pcm16`, `pcm8`, `mulaw` and `alaw` answer every piece with at most one packet; `opus` makes
    packets of 20 ms and keeps the remainder.

    Raises:
        BadInput: no such codec, or not at this rate.
    """
    _check(codec, sample_rate)
    if codec == "opus":
        pack, lookahead = _opus_packer(sample_rate)
        frame = sample_rate * OPUS_FRAME_MS // 1000
        return Encoder(pack, source_rate, sample_rate, frame=frame, lookahead=lookahead)
    pack = {"pcm16": pack_pcm16, "pcm8": _pack_pcm8, "mulaw": _pack_mulaw, "alaw": _pack_alaw}[codec]
    return Encoder(pack, source_rate, sample_rate)


def pack_pcm16(samples: Samples) -> bytes:
    """float32[n] within [-1, 1] as signed 16-bit little-endian; the exact reverse of
    `unpack_pcm16`."""
    return _steps(samples, 32768).astype("<i2").tobytes()


def _pack_pcm8(samples: Samples) -> bytes:
    return (_steps(samples, 128) + np.float32(128)).astype(np.uint8).tobytes()


def _pack_mulaw(samples: Samples) -> bytes:
    return _MULAW_ENCODED[_steps(samples, 32768).astype(np.int32) + 32768].tobytes()


def _pack_alaw(samples: Samples) -> bytes:
    return _ALAW_ENCODED[_steps(samples, 32768).astype(np.int32) + 32768].tobytes()


def _steps(samples: Samples, scale: int) -> npt.NDArray[np.float32]:
    """The nearest whole steps of 1 / `scale`, as many as there are: sound beyond [-1, 1] is clipped (+1
    is one step more than fits), and NaN is silence."""
    steps: npt.NDArray[np.float32] = samples * np.float32(scale)
    np.rint(steps, out=steps)
    np.maximum(steps, np.float32(-scale), out=steps)
    np.minimum(steps, np.float32(scale - 1), out=steps)
    if np.isnan(np.add.reduce(steps)):
        np.nan_to_num(steps, copy=False, nan=0.0)
    return steps


def _opus_packer(sample_rate: int) -> tuple[Pack, int]:
    """The packing function and its lookahead in samples."""
    from opuslib_next import Encoder as OpusEncoder

    opus: Any = OpusEncoder(sample_rate, 1, "audio")
    opus.bitrate = _OPUS_BITRATE

    def pack(samples: Samples) -> bytes:
        packet: bytes = opus.encode_float(samples.tobytes(), len(samples))
        return packet

    return pack, int(opus.lookahead)


# --- what both need -------------------------------------------------------------------------


def _check(codec: str, sample_rate: int) -> None:
    if codec not in ("pcm16", "pcm8", "mulaw", "alaw", "opus"):
        raise BadInput(f"No codec {codec!r}; use pcm16, pcm8, mulaw, alaw or opus.", field="codec")
    rates = OPUS_RATES if codec == "opus" else RATES
    if sample_rate not in rates:
        listed = ", ".join(map(str, rates))
        raise BadInput(f"{codec} cannot be at {sample_rate} Hz; use one of {listed}.", field="sample_rate")


# G.711 μ-law: sign, three bits of exponent, four of mantissa, all inverted; 33 * 4 is added to
# the 16-bit magnitude before, so that every segment's leading bit is implied.
_MULAW_BIAS = 132
_MULAW_MAX = 32635


def _mulaw_decoded() -> Samples:
    """float32[256]: what each byte stands for."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent = (code >> 4 & 7).astype(np.int32)
    magnitude = (((code & 15).astype(np.int32) << 3) + _MULAW_BIAS << exponent) - _MULAW_BIAS
    return np.where(code & 128, -magnitude, magnitude).astype(np.float32) / np.float32(32768)


def _mulaw_encoded() -> npt.NDArray[np.uint8]:
    """uint8[65536]: the byte for each 16-bit value, from -32768 up."""
    linear = np.arange(-32768, 32768, dtype=np.int32)
    magnitude = np.minimum(np.abs(linear), _MULAW_MAX) + _MULAW_BIAS
    exponent = np.frexp(magnitude.astype(np.float64))[1] - 8
    code = np.where(linear < 0, 128, 0) | exponent << 4 | (magnitude >> exponent + 3 & 15)
    inverted: npt.NDArray[np.uint8] = ~code.astype(np.uint8)
    return inverted


# G.711 A-law: sign (1 is positive), three bits of exponent, four of mantissa, every second bit inverted.
# The first two of its eight segments have the same step, 16 on a scale of 16 bits.
_ALAW_INVERTED = np.uint8(0x55)


def _alaw_decoded() -> Samples:
    """float32[256]: what each byte stands for, the middle of its step."""
    code = np.arange(256, dtype=np.uint8) ^ _ALAW_INVERTED
    exponent = (code >> 4 & 7).astype(np.int32)
    magnitude = ((code & 15).astype(np.int32) << 4) + 8
    magnitude = np.where(exponent > 0, magnitude + 256 << np.maximum(exponent - 1, 0), magnitude)
    return np.where(code & 128, magnitude, -magnitude).astype(np.float32) / np.float32(32768)


def _alaw_encoded() -> npt.NDArray[np.uint8]:
    """uint8[65536]: the byte for each 16-bit value, from -32768 up."""
    linear = np.arange(-32768, 32768, dtype=np.int32)
    magnitude = np.where(linear < 0, ~linear, linear)
    exponent = np.maximum(np.frexp(magnitude.astype(np.float64))[1] - 8, 0)
    code = np.where(linear < 0, 0, 128) | exponent << 4 | (magnitude >> np.maximum(exponent, 1) + 3 & 15)
    inverted: npt.NDArray[np.uint8] = code.astype(np.uint8) ^ _ALAW_INVERTED
    return inverted


_MULAW_DECODED = _mulaw_decoded()
_MULAW_ENCODED = _mulaw_encoded()
_ALAW_DECODED = _alaw_decoded()
_ALAW_ENCODED = _alaw_encoded()
