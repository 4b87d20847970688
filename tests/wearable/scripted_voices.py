"""A speaker encoder that tells voices by how loud they are, for sound made by `voice`."""

from __future__ import annotations

import io
import wave

import numpy as np
from dialogue.scripted import speech
from dialogue.voices import person

from app.roles import SAMPLE_RATE, BadAudio, EngineInfo, Job, Samples, Vector


class LoudnessVoices:
    """`model` is the name of the encoder; another one places the same voice elsewhere."""

    dimensions = 192

    def __init__(self) -> None:
        self.model = "loudness"

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("speaker", "scripted", self.model)

    async def embed(self, audio: Samples, job: Job) -> Vector:
        if len(audio) < SAMPLE_RATE // 2:
            raise BadAudio("too short")
        loud = np.abs(audio)
        number = round(float(np.median(loud[loud > 0.1])) * 20)
        return person(number + (0 if self.model == "loudness" else 100))

    async def close(self) -> None:
        pass


def voice(number: int, seconds: float) -> Samples:
    """Somebody's speech; `number` 3 to 19."""
    return speech(seconds) * np.float32(number / 10)


def wav(*sounds: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes((np.clip(np.concatenate(sounds), -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
