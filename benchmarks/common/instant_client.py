"""Many people at once who speak into a server, in a client that costs little itself.

Each has a connection of their own and plays a recording again and again in 20 ms frames of PCM16 at
16 kHz, silence between, at their own moment within these 20 ms and at their own place of the recording. The
frames are made beforehand (with a mask of zeros, which leaves the sound as it is), so that sending one
is a timer and a write. The rest of the WebSocket is the library's.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from app.audio.codecs import pack_pcm16
from app.roles import SAMPLE_RATE, Samples

FRAME = SAMPLE_RATE // 50
_FRAME_S = 0.02
RATE_OUT = 24_000
_BEFORE_S, _AFTER_S = 0.5, 3.0
"""Silence around a recording: long enough for the end wait and the reply."""
_DRY_S = 0.001


def frames_of(recording: Samples) -> list[bytes]:
    """`recording` (float32, 16 kHz) with silence around it, as WebSocket frames ready to be written."""
    before, after = int(_BEFORE_S * SAMPLE_RATE), int(_AFTER_S * SAMPLE_RATE)
    sound = np.pad(recording, (before, after + -(len(recording) + before + after) % FRAME))
    header = struct.pack("!BBHI", 0x82, 0x80 | 126, 2 * FRAME, 0)
    return [header + pack_pcm16(sound[at : at + FRAME]) for at in range(0, len(sound), FRAME)]


@dataclass(slots=True)
class Reply:
    """What came after an end of turn that was due at `due` (`time.monotonic`): when the first sound came,
    how many pieces in all, and how late each was that came when everything before it had been played."""

    due: float
    first: float | None = None
    pieces: int = 0
    late: float = 0.0
    late_pieces: int = 0
    played_until: float = 0.0

    def sound(self, size: int, now: float) -> None:
        """The next `size` bytes."""
        if self.first is None:
            self.first = self.played_until = now
        behind = now - self.played_until
        self.pieces += 1
        if behind > _DRY_S:
            self.late_pieces += 1
            self.late = max(self.late, behind)
        self.played_until = max(self.played_until, now) + size / 2 / RATE_OUT


class Caller(asyncio.Protocol, ABC):
    """One person. What is common to all systems; a subclass knows the messages of one."""

    def __init__(self, url: str) -> None:
        self.replies: list[Reply] = []
        self.errors: list[str] = []
        self.ready = asyncio.get_running_loop().create_future()
        self.lags: list[float] = []
        """How late each frame was sent, in seconds."""
        self._protocol = ClientProtocol(parse_uri(url), max_size=None)
        self._transport: asyncio.Transport | None = None
        self._sent: list[float] = []
        self._frames: Sequence[bytes] = ()
        self._first = 0
        self._epoch = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    # --- speaking --------------------------------------------------------------------------------

    def speak(self, frames: Sequence[bytes], first: int, epoch: float) -> None:
        """Play `frames` round and round from number `first` on; the first is due at `epoch`."""
        self._frames, self._first, self._epoch = frames, first, epoch
        self._timer = asyncio.get_running_loop().call_at(epoch, self._tick)

    def _tick(self) -> None:
        number = len(self._sent)
        now = time.monotonic()
        self.lags.append(now - self._epoch - number * _FRAME_S)
        self._sent.append(now)
        assert self._transport is not None
        self._transport.write(self._frames[(self._first + number) % len(self._frames)])
        due = self._epoch + (number + 1) * _FRAME_S
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def hang_up(self) -> None:
        """End it without a word."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    @property
    def unsent(self) -> int:
        """Bytes that the server has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    # --- hearing ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._trouble(f"the connection was lost: {exc or 'closed'}")
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                if self._protocol.handshake_exc is not None:
                    self._trouble(f"no WebSocket: {self._protocol.handshake_exc}")
            elif event.opcode is Opcode.TEXT:
                self.message(json.loads(bytes(event.data)))
            elif event.opcode is Opcode.BINARY:
                if self.replies:
                    self.replies[-1].sound(len(event.data), now)
                else:
                    self._trouble("sound before the end of any turn")
        self._flush()

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            self._transport.write(data)

    def _trouble(self, what: str) -> None:
        self.errors.append(what)
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(what))

    def ended(self, sample: int) -> None:
        """The server says that a turn is over, as of the first `sample` samples that it heard."""
        frame = -(-sample // FRAME) - 1
        if frame < len(self._sent):
            self.replies.append(Reply(self._sent[frame]))
        else:
            self._trouble("a turn ended with sound that was not sent yet")

    @abstractmethod
    def message(self, message: dict[str, object]) -> None:
        """A message of the server."""
