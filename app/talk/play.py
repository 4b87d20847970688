"""Plays replies: on the loudspeaker, or as if there were one, into a WAV file.

Both know how much of a reply has been heard by now; `report` tells the server.
"""

from __future__ import annotations

import asyncio
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from app.roles import Misconfigured
from app.talk.client import Talk
from app.talk.devices import Device

_REPORT_S = 0.2
_GAP_S = 0.4
"""Silence between two replies in the file."""
_BUFFER_S = 0.1
"""What the sound card holds. With its own default, a third of this, busy cores let it run dry."""


class Player(Protocol):
    """What plays PCM16 mono at `sample_rate` Hz, a turn after the other."""

    @property
    def sample_rate(self) -> int: ...

    def play(self, turn_id: str, pcm16: bytes) -> None:
        """Play this after what came before of the turn."""

    def stop(self) -> None:
        """Throw away what has not been heard yet."""

    def pause(self, turn_id: str) -> None:
        """Be silent, and keep what has not been heard yet until `resume`; another turn's sound ends
        the pause too."""

    def resume(self) -> None:
        """Play on from where it was paused."""

    def position(self) -> tuple[str, float] | None:
        """The turn that plays, or played last, and how many ms of it have been heard."""

    @property
    def busy(self) -> bool:
        """Whether there is something left to be heard."""

    def close(self) -> None:
        """Stop, and free the device."""


class Tape:
    """A player without a loudspeaker: plays by the clock, and keeps what would have been heard."""

    def __init__(self, sample_rate: int = 24000, now: Callable[[], float] = time.monotonic) -> None:
        self.sample_rate = sample_rate
        self._now = now
        self._pcm = bytearray()
        self._turn: str | None = None
        self._begin = 0  # of the turn, in _pcm
        self._until = 0.0
        self._paused: tuple[str, float] | None = None  # the turn, and since when

    def play(self, turn_id: str, pcm16: bytes) -> None:
        if self._paused is not None and turn_id != self._paused[0]:
            self.resume()
        if turn_id != self._turn:
            if self._pcm:
                self._pcm += bytes(2 * int(_GAP_S * self.sample_rate))
            self._turn, self._begin = turn_id, len(self._pcm)
        self._pcm += pcm16
        self._until = max(self._until, self._clock()) + len(pcm16) / 2 / self.sample_rate

    def stop(self) -> None:
        left = round(max(0.0, self._until - self._clock()) * self.sample_rate)
        del self._pcm[max(self._begin, len(self._pcm) - 2 * left) :]
        self._until = self._clock()
        self._paused = None

    def pause(self, turn_id: str) -> None:
        self._paused = turn_id, self._clock()

    def resume(self) -> None:
        if self._paused is not None:
            self._until += self._now() - self._paused[1]
            self._paused = None

    def _clock(self) -> float:
        """The time, which stands still during a pause."""
        return self._now() if self._paused is None else self._paused[1]

    def position(self) -> tuple[str, float] | None:
        if self._turn is None:
            return None
        given = (len(self._pcm) - self._begin) / 2 / self.sample_rate
        return self._turn, 1000 * max(0.0, given - max(0.0, self._until - self._clock()))

    @property
    def busy(self) -> bool:
        return self._clock() < self._until

    @property
    def seconds(self) -> float:
        """How much there is."""
        return len(self._pcm) / 2 / self.sample_rate

    def save(self, path: Path) -> None:
        """Write it as a WAV file. `OSError` if that cannot be."""
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.writeframes(self._pcm)

    def close(self) -> None:
        pass


class Loudspeaker:
    """Plays on the sound card. The card's own thread takes what it needs; all else is the caller's."""

    def __init__(self, device: Device) -> None:
        """Raises `Misconfigured` if the device cannot be opened."""
        import sounddevice

        self.sample_rate = device.sample_rate
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._given = 0  # bytes, of all turns
        self._taken = 0  # bytes, by the card
        self._taken_at = 0.0
        self._turn: str | None = None
        self._begin = 0  # where the turn began, in bytes given
        self._paused: str | None = None  # the turn
        try:
            self._stream = sounddevice.RawOutputStream(
                samplerate=device.sample_rate,
                channels=1,
                dtype="int16",
                latency=_BUFFER_S,
                callback=self._fill,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise Misconfigured(f"the loudspeaker {device.name!r} cannot be opened: {error}") from error
        self._latency = float(self._stream.latency)

    def _fill(self, out: Any, frames: int, when: Any, status: Any) -> None:
        with self._lock:
            piece = bytes(self._waiting[: len(out)] if self._paused is None else b"")
            del self._waiting[: len(piece)]
            self._taken += len(piece)
            if piece:
                self._taken_at = time.monotonic()
        out[: len(piece)] = piece
        out[len(piece) :] = bytes(len(out) - len(piece))

    def play(self, turn_id: str, pcm16: bytes) -> None:
        with self._lock:
            if turn_id != self._paused:
                self._paused = None
            if turn_id != self._turn:
                self._turn, self._begin = turn_id, self._given
            self._waiting += pcm16
            self._given += len(pcm16)

    def stop(self) -> None:
        with self._lock:
            self._given -= len(self._waiting)
            self._waiting.clear()
            self._paused = None

    def pause(self, turn_id: str) -> None:
        with self._lock:
            self._paused = turn_id

    def resume(self) -> None:
        with self._lock:
            self._paused = None

    def position(self) -> tuple[str, float] | None:
        with self._lock:
            if self._turn is None:
                return None
            taken = (self._taken - self._begin) / 2 / self.sample_rate
            return self._turn, 1000 * max(0.0, taken - self._unheard())

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._waiting) or self._unheard() > 0

    def _unheard(self) -> float:
        """Seconds of what the card has taken that are still to be heard."""
        return max(0.0, self._latency - (time.monotonic() - self._taken_at))

    def close(self) -> None:
        self._stream.close()


async def report(player: Player, talk: Talk) -> None:
    """Tell the server, five times a second, how much has been heard. Runs until it is cancelled."""
    told: tuple[str, float] | None = None
    while True:
        await asyncio.sleep(_REPORT_S)
        position = player.position()
        if position is not None and position != told:
            told = position
            await talk.playback(*position)
