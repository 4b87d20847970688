"""Voices made by arithmetic: as near and as far apart as those of people are, of any length."""

from __future__ import annotations

import numpy as np

from app.dialogue.speakers import HALF_S
from app.roles import Vector

DIMENSIONS = 192


def person(number: int) -> Vector:
    """Where the voice of person `number` lies; different people are about at right angles."""
    vector = np.random.default_rng([3, number]).standard_normal(DIMENSIONS).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def piece(who: Vector, seconds: float, seed: int) -> Vector:
    """A piece of their speech: the shorter, the more there is in it besides the voice."""
    noise = np.random.default_rng([7, seed]).standard_normal(DIMENSIONS).astype(np.float32)
    noise *= np.float32(np.sqrt(HALF_S / seconds) / np.linalg.norm(noise))
    vector = who + noise
    return vector / np.float32(np.linalg.norm(vector))
