"""Recordings that are kept for long, made smaller."""

from __future__ import annotations

import asyncio

from app.audio.encode import Encoder
from app.audio.files import decode_file
from app.roles import SAMPLE_RATE, BadAudio, Samples

_LONGEST_S = 24 * 3600.0
_TOLERANCE_S = 0.02


async def as_opus(recording: bytes) -> bytes:
    """A recording, a file of any format, as Opus in Ogg, mono. It was decoded again and is as long as
    before, to 20 ms. Raises `BadAudio` for what cannot be read or would become shorter."""
    before = await decode_file(recording, max_seconds=_LONGEST_S, name="recording")
    opus = await asyncio.to_thread(_encoded, before)
    after = await decode_file(opus, max_seconds=_LONGEST_S, name="recording")
    if abs(len(before) - len(after)) > _TOLERANCE_S * SAMPLE_RATE:
        lengths = f"{len(before) / SAMPLE_RATE:.3f} s became {len(after) / SAMPLE_RATE:.3f} s"
        raise BadAudio(f"the recording changes its length as Opus: {lengths}")
    return opus


def _encoded(samples: Samples) -> bytes:
    encoder = Encoder("opus", SAMPLE_RATE)
    # FFmpeg makes nothing of ten minutes in one piece.
    blocks = (samples[at : at + SAMPLE_RATE] for at in range(0, len(samples), SAMPLE_RATE))
    return b"".join([*map(encoder.push, blocks), encoder.finish()])
