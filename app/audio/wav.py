"""Writing WAV."""

from __future__ import annotations

import io
import wave

from app.audio.codecs import pack_pcm16
from app.audio.resample import bounded
from app.roles import Samples


def wav_bytes(samples: Samples, sample_rate: int) -> bytes:
    """A mono PCM16 WAV file of `samples` (float32[n] at `sample_rate` Hz); clipped, not wrapped."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(pack_pcm16(bounded(samples)))
    return out.getvalue()
