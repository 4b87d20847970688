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

from app.audio.codecs import pack_pcm16
from app.roles import SAMPLE_RATE, Samples
from app.talk import Recording
from benchmarks.common.system import Began, Event, Line, Over, Sound, Stopped, System, Transcript, Trouble

_FRAME = SAMPLE_RATE // 50
AUDIBLE = 0.01
"""Level of the first audible sample: 40 dB below full scale. What the voice speaks peaks far above."""
_SETTLE_S = 1.5
"""Nothing that the server has not begun to hear this long after a recording will be heard."""
_PATIENCE_S = 20.0
_QUIET_S = 3.0
"""A reply is over, by ear, this long after all of its sound has been played. Longer than a system on a
busy machine needs between two sentences."""
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
    received_s: float = 0.0
    """Seconds of the reply's sound so far."""
    played_until: float = 0.0
    """When a player that starts with the first piece has played all that came so far."""

    def hear(self, data: bytes, at: float, rate: int) -> None:
        """The next piece of the reply (PCM16 at `rate` Hz), which came at `at`."""
        if self.first_sound is None:
            self.first_sound = at
        if self.first_audible is None:
            audible = np.flatnonzero(np.abs(np.frombuffer(data, "<i2").astype(np.float32)) >= AUDIBLE * 32768)
            if len(audible):
                self.first_audible = at
                self.leading_s = self.received_s + int(audible[0]) / rate
        seconds = len(data) / 2 / rate
        self.received_s += seconds
        self.played_until = max(self.played_until, at) + seconds

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
    """One conversation that somebody speaks into."""

    def __init__(self, line: Line, *, by_ear: bool = False) -> None:
        """With `by_ear`, a reply is over when its sound has been played, whatever the system says of
        it: the rule that is the same for all systems."""
        self._line = line
        self._by_ear = by_ear
        self._epoch = time.monotonic()
        self._position = 0
        self._words: Samples = np.zeros(0, np.float32)
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
            frame, self._words = self._words[:_FRAME], self._words[_FRAME:]
            self._position += _FRAME
            await self._line.send(pack_pcm16(np.pad(frame, (0, _FRAME - len(frame)))))

    async def listen(self) -> None:
        """Take down what the system says until the conversation ends."""
        async for event in self._line:
            self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, Trouble):
            self._errors.append(event.message)
            return
        turn = self._turns.setdefault(event.turn, HeardTurn())
        match event:
            case Began():
                pass
            case Stopped():
                turn.stopped_at_ms = event.at_ms
            case Transcript():
                turn.transcript = f"{turn.transcript} {event.text.strip()}".strip()
            case Sound():
                turn.hear(event.pcm16, event.at, event.rate)
            case Over():
                turn.over, turn.latency, turn.reply = True, event.latency, event.reply

    async def ask(self, samples: Samples) -> Exchange:
        """Say `samples` (float32, 16 kHz) and wait until the reply to them is over."""
        earlier = set(self._turns)
        self._errors.clear()
        # No await between these: the words begin with the very next frame.
        begin, self._words = self._position, samples
        last = begin + (Recording(samples).last_speech() or 0)
        spoken = self._epoch + last / SAMPLE_RATE
        ended = self._epoch + (begin + len(samples)) / SAMPLE_RATE + _SETTLE_S
        while True:
            await asyncio.sleep(0.05)
            turns = tuple(turn for id_, turn in self._turns.items() if id_ not in earlier)
            exchange = Exchange(spoken, last / SAMPLE_RATE * 1000, turns, tuple(self._errors))
            now = time.monotonic()
            if now > ended and (self._played(exchange, now) if self._by_ear else all(t.over for t in turns)):
                return exchange
            answering = any(turn.first_sound is not None and not turn.over for turn in turns)
            if self._by_ear:
                answering = exchange.answer is not None
            if now > spoken + (_LONGEST_REPLY_S if answering else _PATIENCE_S):
                return exchange

    @staticmethod
    def _played(exchange: Exchange, now: float) -> bool:
        """Whether there was an answer, and everything has been played for a while."""
        return exchange.answer is not None and now > _QUIET_S + max(t.played_until for t in exchange.turns)


@asynccontextmanager
async def talking(system: System, *, by_ear: bool = False) -> AsyncIterator[Talker]:
    """Somebody in a new conversation with `system`; `by_ear` as for `Talker`."""
    async with system.connect() as line:
        talker = Talker(line, by_ear=by_ear)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(talker.speak()), group.create_task(talker.listen())]
            yield talker
            for task in tasks:
                task.cancel()
