"""Packets as wearables send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]
"""Mono at 16 kHz."""


def pcm(sound: Sound, frame: int = 320) -> list[bytes]:
    """16-bit, little-endian."""
    data = (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
    return [data[at : at + 2 * frame] for at in range(0, len(data), 2 * frame)]


def opus(sound: Sound, frame: int) -> list[bytes]:
    """As a wearable's small processor makes them."""
    from opuslib_next import Encoder  # type: ignore[import-untyped]

    encoder: Any = Encoder(16000, 1, "restricted_lowdelay")
    encoder.complexity, encoder.bitrate = 3, 32_000
    sound = np.concatenate([sound, np.zeros(-len(sound) % frame, np.float32)])
    return [
        encoder.encode_float(sound[at : at + frame].tobytes(), frame) for at in range(0, len(sound), frame)
    ]


def lc3(sound: Sound) -> list[bytes]:
    """Frames of 30 bytes, 10 ms each."""
    import lc3 as codec  # type: ignore[import-untyped]

    encoder = codec.Encoder(10_000, 16_000)
    sound = np.concatenate([sound, np.zeros(-len(sound) % 160, np.float32)])
    return [encoder.encode(sound[at : at + 160], 30) for at in range(0, len(sound), 160)]


def aac(sound: Sound, *, header: bool = True) -> list[bytes]:
    """Frames with ADTS headers, or without."""
    import av

    encoder: Any = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 16000, "mono", "fltp", 48_000
    encoder.options = {"aac_coder": "fast"}
    encoder.open()
    packets = []
    for at in [*range(0, len(sound) - 1023, 1024), None]:
        frame = None
        if at is not None:
            frame = av.AudioFrame.from_ndarray(
                sound[np.newaxis, at : at + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, at
        for packet in encoder.encode(frame):
            data = bytes(packet)
            size = len(data) + 7
            head = [
                0xFF,
                0xF1,
                1 << 6 | 8 << 2,
                1 << 6 | size >> 11,
                size >> 3 & 255,
                (size & 7) << 5 | 31,
                252,
            ]
            packets.append(bytes(head) + data if header else data)
    return packets


PACKERS: dict[str, Callable[[Sound], list[bytes]]] = {
    "opus": lambda sound: opus(sound, 160),
    "opus_fs320": lambda sound: opus(sound, 320),
    "pcm8": pcm,
    "pcm16": pcm,
    "aac": aac,
    "lc3_fs1030": lc3,
}
"""What makes packets of sound, by the codec's name."""
