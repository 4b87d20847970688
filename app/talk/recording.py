"""A recording that speaks in real time, as a microphone would, and remembers when it said what.

Where speech ends in a file is found by its level, so that the time from a person's last sound to
the first sound of the answer can be measured without asking the server that is measured.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.audio.codecs import pack_pcm16
from app.audio.files import decode_file
from app.roles import SAMPLE_RATE, Samples

FRAME = SAMPLE_RATE // 50
"""Samples sent at once: 20 ms."""

_BLOCK = SAMPLE_RATE // 100
_LOUD_BLOCKS = 10
_BELOW_LOUD_DB = 35.0
_ABOVE_FLOOR_DB = 10.0
_QUIETEST_SPEECH_DBFS = -60.0
_DIGITAL_SILENCE_DBFS = -90.0
_SHORTEST_BLOCKS = 3
_PAUSE_BLOCKS = 30


class Recording:
    """`samples` (float32[n], 16 kHz) and where in them is speech.

    The level of each 10 ms is compared with a threshold: 35 dB below the loud parts (what a tenth
    of a second in all is louder than), but at least 10 dB above the background (the 10th
    percentile) where the two are far enough apart for that, and never below -60 dBFS. Sound
    shorter than 30 ms is a click, not speech. What is softer (a breath, reverberation) is not
    counted as speech.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._speech = _speech_blocks(samples)

    @classmethod
    async def load(cls, path: Path, *, max_seconds: float = 3600.0) -> Recording:
        """Read a file of any common format. Raises `BadAudio` or `TooLarge`, saying why."""
        return cls(await decode_file(path, max_seconds=max_seconds, name=path.name))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    def last_speech(self, before: int | None = None) -> int | None:
        """The index of the last sample of speech (of all before sample `before`), to 10 ms; None
        if there is no speech."""
        blocks = self._speech if before is None else self._speech[: -(-max(0, before) // _BLOCK)]
        spoken = np.flatnonzero(blocks)
        return min(len(self.samples), (int(spoken[-1]) + 1) * _BLOCK) - 1 if len(spoken) else None

    def pause_at(self, sample: int) -> bool:
        """Whether nobody speaks at `sample`, between utterances: gaps between words (up to 300 ms)
        do not count."""
        block = sample // _BLOCK
        around = self._speech[max(0, block - _PAUSE_BLOCKS) : block + 1]
        after = self._speech[block : block + _PAUSE_BLOCKS]
        return not self._speech[block : block + 1].any() and not (around.any() and after.any())


def _speech_blocks(samples: Samples) -> npt.NDArray[np.bool_]:
    """For each 10 ms, whether it is speech; see `Recording`."""
    whole = len(samples) // _BLOCK * _BLOCK
    if not whole:
        return np.zeros(0, np.bool_)
    power = np.square(samples[:whole].reshape(-1, _BLOCK)).mean(axis=1, dtype=np.float64)
    level = 10 * np.log10(np.maximum(power, 1e-12))
    # Digital silence between recordings that were put together is no background.
    sound = level[level > _DIGITAL_SILENCE_DBFS]
    if not len(sound):
        return np.zeros(len(level), np.bool_)
    loud, floor = float(np.sort(sound)[-_LOUD_BLOCKS:][0]), float(np.percentile(sound, 10))
    threshold = max(loud - _BELOW_LOUD_DB, min(floor + _ABOVE_FLOOR_DB, loud - _ABOVE_FLOOR_DB))
    speech: npt.NDArray[np.bool_] = level >= max(threshold, _QUIETEST_SPEECH_DBFS)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speech, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if end - begin < _SHORTEST_BLOCKS:
            speech[begin:end] = False
    return speech


class Pace:
    """Sends one recording in real time, followed by silence, and knows when each sample went.

    While `hold` is set the recording waits at its next pause, and silence is sent instead, as a
    polite person would while the other speaks. Frames go on a fixed schedule: a late one is made
    up for, so time does not drift.
    """

    def __init__(self, recording: Recording, *, now: Callable[[], float] = time.monotonic) -> None:
        self.recording = recording
        self.hold = False
        self.finished = asyncio.Event()
        """Set when the last sample of the recording has been sent."""
        self._now = now
        self._times: list[float] = []  # when each frame of the recording was sent
        self._progress: list[int] = []  # for each frame sent, how many of the recording were by then

    async def run(self, send: Callable[[bytes], Awaitable[None]], trailing: float = math.inf) -> float | None:
        """Send the recording as PCM16 at 16 kHz, frame by frame, then `trailing` seconds of silence.

        Returns when its last sample of speech was sent, on the monotonic clock; None if it has no
        speech. A frame goes out when its first sample is due, so a sample is sent up to 20 ms
        earlier than a microphone could have.
        """
        samples = self.recording.samples
        silence = bytes(2 * FRAME)
        position, frames, quiet = 0, 0, 0
        began = self._now()
        while position < len(samples) or quiet * FRAME < trailing * SAMPLE_RATE:
            # Also when late: the event loop must not be kept from reading what comes back.
            await asyncio.sleep(max(0.0, began + frames * FRAME / SAMPLE_RATE - self._now()))
            if position >= len(samples):
                self.finished.set()
                quiet += 1
                frame = silence
            elif self.hold and self.recording.pause_at(position):
                frame = silence
            else:
                piece = samples[position : position + FRAME]
                frame = pack_pcm16(piece).ljust(len(silence), b"\0")
                position += FRAME
                self._times.append(self._now())
            self._progress.append(len(self._times))
            frames += 1
            await send(frame)
        self.finished.set()
        last = self.recording.last_speech()
        return None if last is None else self.sent_at(last)

    def sent_at(self, sample: int) -> float | None:
        """When sample `sample` of the recording was sent, on the monotonic clock; None if it was not."""
        frame = sample // FRAME
        return self._times[frame] if 0 <= frame < len(self._times) else None

    def sample_at(self, ms: float) -> int:
        """The sample of the recording that was reached at `ms` of the session's sound, which is the
        clock of the server's `at_ms`: pauses that were put in count there."""
        if not self._progress:
            return 0
        index = min(max(0, int(ms * SAMPLE_RATE / 1000 / FRAME)), len(self._progress) - 1)
        return self._progress[index] * FRAME
