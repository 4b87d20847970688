"""What the client has seen of a talk: turn by turn, from the server's events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from app.api.messages import (
    ErrorOut,
    Interrupted,
    LlmToken,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    TranscriptionFinal,
    TranscriptionPartial,
    TurnComplete,
    TurnDropped,
)
from app.talk import Sound

_AUDIBLE = 100
"""Of 32768: softer (below about -50 dBFS) is not the reply's beginning yet."""

State = Literal["listening", "hearing", "thinking", "speaking"]


@dataclass(slots=True)
class Exchange:
    """One turn: `firm` and `soft` are the words so far, `said` the final ones. `voice_ended` is when
    the last sound of it (or the typed text) was sent, `first_sound` when the first audible sound of
    the reply came, in seconds of the monotonic clock."""

    turn_id: str
    state: State = "thinking"
    firm: str = ""
    soft: str = ""
    said: str = ""
    reply: str = ""
    low_confidence: bool = False
    latency: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False
    dropped: bool = False
    failure: str = ""
    complete: bool = False
    voice_ended: float | None = None
    first_sound: float | None = None

    @property
    def voice_to_voice_ms(self) -> float | None:
        """From the person's last sound to the reply's first, as it was here."""
        if self.voice_ended is None or self.first_sound is None:
            return None
        return round((self.first_sound - self.voice_ended) * 1000, 1)

    @property
    def open(self) -> bool:
        """Whether more is to come of it."""
        return not (self.complete or self.dropped)

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "turn_id": self.turn_id,
            "said": self.said,
            "reply": self.reply,
            "interrupted": self.interrupted,
            "failure": self.failure or None,
            "voice_to_voice_ms": self.voice_to_voice_ms,
            "latency": self.latency,
        }


class Tally:
    """All turns of one talk."""

    def __init__(self) -> None:
        self._all: dict[str, Exchange] = {}
        self.failure = ""

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._all.values())

    @property
    def open(self) -> list[Exchange]:
        """Turns that are not over."""
        return [e for e in self._all.values() if e.open]

    @property
    def answered(self) -> list[Exchange]:
        """Turns that were said and answered."""
        return [e for e in self._all.values() if e.complete and e.reply and not e.failure]

    @property
    def state(self) -> State:
        """What goes on."""
        return self.open[-1].state if self.open else "listening"

    def hang_up(self) -> None:
        """The person leaves: nothing more is wanted of turns that are not over."""
        for turn in self.open:
            turn.dropped = True

    def take(self, message: ServerMessage, at: float) -> Exchange | None:
        """Note what `message` says, which came at `at`; gives the turn that it is about."""
        turn_id = getattr(message, "turn_id", None)
        if turn_id is None:
            if isinstance(message, ErrorOut):
                self.failure = message.message
            return None
        turn = self._all.setdefault(turn_id, Exchange(turn_id))
        match message:
            case SpeechStarted():
                turn.state = "hearing"
            case SpeechStopped():
                turn.state = "thinking"
            case TurnDropped():
                turn.dropped = True
            case TranscriptionPartial():
                turn.firm = message.committed
                turn.soft = message.text.removeprefix(message.committed)
            case TranscriptionFinal():
                turn.said, turn.firm, turn.soft = message.text, message.text, ""
                turn.low_confidence = message.low_confidence
            case LlmToken():
                turn.reply += message.token
            case Sound():
                turn.state = "speaking"
                if turn.first_sound is None and _audible(message):
                    turn.first_sound = at
            case Interrupted():
                turn.interrupted = True
            case ErrorOut():
                turn.failure = message.message
            case TurnComplete():
                turn.complete, turn.interrupted = True, message.interrupted
                turn.said, turn.reply, turn.latency = message.transcript, message.reply, message.latency
        return turn


def _audible(sound: Sound) -> bool:
    """Whether PCM16 holds anything to be heard."""
    samples = np.frombuffer(b"".join(sound.packets), "<i2").astype(np.int32)
    return bool((np.abs(samples) >= _AUDIBLE).any())
