"""A person with a microphone, as far as a server can tell: sound in real time, and what came back when.

The microphone runs all the time, at 20 ms a frame, and sends digital silence between recordings. A
frame leaves when its last sample has been "recorded", never before: sample n of the stream is spoken
at `epoch + n / 16000`, and a client that is late does not move that clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from app.api.messages import (
    ErrorOut,
    Notice,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    TranscriptionFinal,
    TurnComplete,
    TurnDropped,
)
from app.audio.codecs import pack_pcm16
from app.roles import SAMPLE_RATE, Samples
from app.talk import Recording, Sound, Talk, connect

_FRAME = SAMPLE_RATE // 50
_RATE_OUT = 24_000
AUDIBLE = 0.01
"""Level of the first audible sample: 40 dB below full scale. What the voice speaks peaks far above."""
_SETTLE_S = 1.5
"""Nothing that the server has not begun to hear this long after a recording will be heard."""
_PATIENCE_S = 20.0
_LONGEST_REPLY_S = 150.0


@dataclass(slots=True)
class HeardTurn:
    """One turn as the server made it; times in seconds of `time.monotonic`."""

    transcript: str = ""
    stopped_at_ms: float | None = None
    """Where the server heard the speech end, in ms of the session's sound."""
    first_sound: float | None = None
    """The first reply sound arrived, audible or not."""
    first_audible: float | None = None
    """The piece with the first audible sample arrived."""
    leading_s: float = 0.0
    """Silence before that sample, in seconds of the reply's sound."""
    latency: dict[str, float] = field(default_factory=dict)
    reply: str = ""
    over: bool = False
    received: int = 0
    """Samples of the reply's sound so far."""

    def hear(self, data: bytes, at: float) -> None:
        """The next piece of the reply (PCM16), which came at `at`."""
        if self.first_sound is None:
            self.first_sound = at
        if self.first_audible is None:
            audible = np.flatnonzero(np.abs(np.frombuffer(data, "<i2").astype(np.float32)) >= AUDIBLE * 32768)
            if len(audible):
                self.first_audible = at
                self.leading_s = (self.received + int(audible[0])) / _RATE_OUT
        self.received += len(data) // 2

    @property
    def heard_at(self) -> float | None:
        """When the first audible sample is heard from a player that starts with the first piece."""
        if self.first_audible is None or self.first_sound is None:
            return None
        return max(self.first_audible, self.first_sound + self.leading_s)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one recording led to. Its last spoken sample was spoken at `spoken`, which is `spoken_ms`
    of the session's sound."""

    spoken: float
    spoken_ms: float
    turns: tuple[HeardTurn, ...]
    errors: tuple[str, ...]

    @property
    def premature(self) -> bool:
        """Whether an answer began before the last spoken sample."""
        return any(t.first_sound is not None and t.first_sound < self.spoken for t in self.turns)

    @property
    def answer(self) -> HeardTurn | None:
        """The first turn whose reply began after the last spoken sample and was audible."""
        after = (t for t in self.turns if t.first_sound is not None and t.first_sound >= self.spoken)
        return next((t for t in after if t.first_audible is not None), None)


class Talker:
    """One session that somebody speaks into."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._epoch = time.monotonic()
        self._position = 0
        self._line: Samples = np.zeros(0, np.float32)
        self._turns: dict[str, HeardTurn] = {}
        self._errors: list[str] = []
        self.lag = 0.0
        """How late the client itself ever sent a frame, in seconds."""

    async def speak(self) -> None:
        """Run the microphone until cancelled."""
        self._epoch = time.monotonic()
        while True:
            due = self._epoch + (self._position + _FRAME) / SAMPLE_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.lag = max(self.lag, time.monotonic() - due)
            frame, self._line = self._line[:_FRAME], self._line[_FRAME:]
            self._position += _FRAME
            await self._talk.send_audio(pack_pcm16(np.pad(frame, (0, _FRAME - len(frame)))))

    async def listen(self) -> None:
        """Take down what the server says until the session ends."""
        async for message in self._talk:
            self._note(message)

    def _note(self, message: ServerMessage) -> None:
        match message:
            case ErrorOut() | Notice():
                self._errors.append(f"{message.code}: {message.message}")
            case SpeechStarted():
                self._turns[message.turn_id] = HeardTurn()
            case SpeechStopped():
                self._turns[message.turn_id].stopped_at_ms = message.at_ms
            case TranscriptionFinal():
                self._turns[message.turn_id].transcript = message.text
            case Sound():
                for packet in message.packets:
                    self._turns[message.turn_id].hear(packet, self._talk.received_at)
            case TurnDropped():
                self._turns[message.turn_id].over = True
            case TurnComplete():
                turn = self._turns[message.turn_id]
                turn.over, turn.latency, turn.reply = True, message.latency, message.reply

    async def ask(self, samples: Samples) -> Exchange:
        """Say `samples` (float32, 16 kHz) and wait until the reply to them is over."""
        earlier = set(self._turns)
        self._errors.clear()
        # No await between these: the line begins with the very next frame.
        begin, self._line = self._position, samples
        last = begin + (Recording(samples).last_speech() or 0)
        spoken = self._epoch + last / SAMPLE_RATE
        ended = self._epoch + (begin + len(samples)) / SAMPLE_RATE + _SETTLE_S
        while True:
            await asyncio.sleep(0.05)
            turns = [turn for id_, turn in self._turns.items() if id_ not in earlier]
            now = time.monotonic()
            answering = any(turn.first_sound is not None and not turn.over for turn in turns)
            if now > ended and all(turn.over for turn in turns):
                break
            if now > spoken + (_LONGEST_REPLY_S if answering else _PATIENCE_S):
                break
        return Exchange(spoken, last / SAMPLE_RATE * 1000, tuple(turns), tuple(self._errors))


@asynccontextmanager
async def talking(url: str) -> AsyncIterator[Talker]:
    """Somebody in a new session of the server at `url`, with its default settings but for sound as
    binary frames."""
    async with connect(url, {"audio_out": {"binary": True}}) as talk:
        await talk.ready()
        talker = Talker(talk)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(talker.speak()), group.create_task(talker.listen())]
            yield talker
            for task in tasks:
                task.cancel()
