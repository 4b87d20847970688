"""How loud sound is."""

from __future__ import annotations

import math

import numpy as np

from app.roles import Samples

SILENCE_DBFS = -120.0
"""What `rms_dbfs` answers for digital silence: below any 16-bit recording, and finite."""


def rms_dbfs(samples: Samples) -> float:
    """Root mean square of `samples` (float32[n]) in dB relative to full scale: 0 for a square wave
    at ±1, about -3 for a full-scale sine, `SILENCE_DBFS` for silence or no samples."""
    if not len(samples):
        return SILENCE_DBFS
    power = float(np.dot(samples, samples)) / len(samples)
    return max(SILENCE_DBFS, 10 * math.log10(power)) if power > 0 else SILENCE_DBFS
