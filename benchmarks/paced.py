"""A person with a microphone, as far as a server can tell: sound in real time, and what came back when.

The microphone runs all the time, at 20 ms a frame, and sends digital silence between recordings. A
frame leaves when its last sample has been "recorded", never before: sample n of the stream is spoken
at `epoch + n / 16000`, and a client that is late does not move that clock.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect

Samples = npt.NDArray[np.float32]

RATE = 16_000
_FRAME = 320
_RATE_OUT = 24_000
AUDIBLE = 0.01
"""Level of the first audible sample: 40 dB below full scale. What the voice speaks peaks far above."""
SPOKEN_DB = 25.0
_BLOCK = 160
_SETTLE_S = 1.5
_PATIENCE_S = 20.0
_LONGEST_REPLY_S = 150.0


def spoken_end(samples: Samples) -> int:
    """The sample after the last spoken one: the end of the last 10 ms block whose RMS is within
    `SPOKEN_DB` of the loudest block's. In clean recordings that is the end of the last vowel or voiced
    consonant; a breath, or the release of a final "t", comes later. So it errs early, and a latency
    counted from it errs long."""
    blocks = samples[: len(samples) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    power = np.square(blocks).mean(axis=1)
    return (int(np.flatnonzero(power >= power.max() * 10 ** (-SPOKEN_DB / 10))[-1]) + 1) * _BLOCK


@dataclass(slots=True)
class HeardTurn:
    """One turn as the server made it; times in seconds of `time.monotonic`."""

    id: str
    transcript: str = ""
    stopped_at_ms: float | None = None
    """Where the server heard the speech end, in ms of the session's sound."""
    first_sound: float | None = None
    """The first reply sound arrived, audible or not."""
    first_audible: float | None = None
    """The frame with the first audible sample arrived."""
    leading_s: float = 0.0
    """Silence before that sample, in seconds of the reply's sound."""
    latency: dict[str, float] = field(default_factory=dict)
    reply: str = ""
    interrupted: bool = False
    over: bool = False
    _received: int = 0

    def hear(self, data: bytes, at: float) -> None:
        """The next piece of the reply (PCM16)."""
        if self.first_sound is None:
            self.first_sound = at
        if self.first_audible is None:
            sound = np.abs(np.frombuffer(data, "<i2").astype(np.float32)) / 32768
            audible = np.flatnonzero(sound >= AUDIBLE)
            if len(audible):
                self.first_audible = at
                self.leading_s = (self._received + int(audible[0])) / _RATE_OUT
        self._received += len(data) // 2

    @property
    def heard_at(self) -> float | None:
        """When the first audible sample is heard from a player that starts with the first piece."""
        if self.first_audible is None or self.first_sound is None:
            return None
        return max(self.first_audible, self.first_sound + self.leading_s)


@dataclass(slots=True)
class Exchange:
    """What one recording led to. `spoken` is when its last spoken sample was spoken."""

    spoken: float
    spoken_ms: float
    """The same in ms of the session's sound."""
    turns: list[HeardTurn]
    errors: list[str]

    @property
    def premature(self) -> bool:
        """Whether an answer began before the last spoken sample."""
        return any(t.first_sound is not None and t.first_sound < self.spoken for t in self.turns)

    @property
    def answer(self) -> HeardTurn | None:
        """The turn whose reply began after the last spoken sample and was audible."""
        after = (t for t in self.turns if t.first_sound is not None and t.first_sound >= self.spoken)
        return next((t for t in after if t.first_audible is not None), None)


class Talker:
    """One connected session that somebody speaks into."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._epoch = time.monotonic()
        self._position = 0
        self._line = np.zeros(0, np.float32)
        self._turns: dict[str, HeardTurn] = {}
        self._errors: list[str] = []
        self.lag = 0.0
        """How late the client itself ever sent a frame, in seconds."""

    async def run(self) -> None:
        """Speak and listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._speak())
            group.create_task(self._listen())

    async def _speak(self) -> None:
        self._epoch = time.monotonic()
        while True:
            due = self._epoch + (self._position + _FRAME) / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.lag = max(self.lag, time.monotonic() - due)
            frame, self._line = self._line[:_FRAME], self._line[_FRAME:]
            self._position += _FRAME
            pcm = np.pad(frame, (0, _FRAME - len(frame))) * 32767
            await self._socket.send(pcm.astype("<i2").tobytes())

    async def _listen(self) -> None:
        while True:
            message = json.loads(await self._socket.recv())
            kind = message["type"]
            if kind == "ping":
                await self._socket.send('{"type": "pong"}')
            elif kind == "error":
                self._errors.append(f"{message['code']}: {message['message']}")
            elif "turn_id" in message:
                turn = self._turns.setdefault(message["turn_id"], HeardTurn(message["turn_id"]))
                if kind == "audio_chunk":
                    for _ in range(message["frames"]):
                        data = await self._socket.recv(decode=False)
                        turn.hear(data, time.monotonic())
                else:
                    _note(turn, kind, message)

    async def ask(self, samples: Samples) -> Exchange:
        """Say `samples` (float32, 16 kHz), wait until the reply to them is over."""
        earlier = set(self._turns)
        self._errors.clear()
        # No await between the two: the line begins with the very next frame.
        begin, self._line = self._position, samples
        last = begin + spoken_end(samples)
        spoken = self._epoch + last / RATE
        ended = self._epoch + (begin + len(samples)) / RATE + _SETTLE_S
        while True:
            await asyncio.sleep(0.05)
            turns = [t for id_, t in self._turns.items() if id_ not in earlier]
            now = time.monotonic()
            speaking = any(t.first_sound is not None and not t.over for t in turns)
            if now > ended and all(t.over for t in turns):
                break
            if now > spoken + (_LONGEST_REPLY_S if speaking else _PATIENCE_S):
                break
        return Exchange(spoken, last / RATE * 1000, turns, list(self._errors))


def _note(turn: HeardTurn, kind: str, message: dict[str, Any]) -> None:
    if kind == "speech_stopped":
        turn.stopped_at_ms = message["at_ms"]
    elif kind == "transcription_final":
        turn.transcript = message["text"]
    elif kind == "turn_dropped":
        turn.over = True
    elif kind == "turn_complete":
        turn.over = True
        turn.latency, turn.reply, turn.interrupted = (
            message["latency"],
            message["reply"],
            message["interrupted"],
        )


@asynccontextmanager
async def talking(url: str) -> AsyncIterator[Talker]:
    """A new session of the server at `url`, with its default settings but for binary sound; ended
    afterwards. A connection that is lost is an error."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        response = await http.post("/api/v1/sessions", json={"audio_out": {"binary": True}})
        session = response.raise_for_status().json()
        try:
            address = f"{url.replace('http', 'ws', 1)}{session['ws_url']}?token={session['token']}"
            async with connect(address, max_size=None) as socket, asyncio.TaskGroup() as group:
                while json.loads(await socket.recv())["type"] != "session_ready":
                    pass
                talker = Talker(socket)
                running = group.create_task(talker.run())
                yield talker
                running.cancel()
        finally:
            await http.delete(f"/api/v1/sessions/{session['session_id']}")
