"""One exchange, from the first sound or key press to the last sound of the answer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from app.observability.clock import Stage, TurnClock
from app.observability.logs import new_trace_id
from app.roles import LlmEnd, Samples, Word


@dataclass(slots=True)
class Turn:
    """What a turn is known to be by now. `complete` turns never change and are never heard from
    again: whatever still runs for one checks that before it speaks."""

    source: Literal["speech", "text"]
    clock: TurnClock
    number: int = 0
    """Counts from 1 in the order of history; 0 until the turn is part of it."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    trace_id: str = field(default_factory=new_trace_id)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    transcription_id: str | None = None
    transcript: str = ""
    words: tuple[Word, ...] = ()
    language: str = "en"
    confidence: float | None = None
    partials: tuple[str, ...] = ()
    recording: Samples | None = None
    span: tuple[int, int] | None = None
    """Where the recording lies in the session's sound, in samples."""
    reply_text: str = ""
    heard: str = ""
    audio_ms: float = 0.0
    interrupted: bool = False
    failed: bool = False
    complete: bool = False
    stream_text: bool = True
    kept: bool = True
    """Whether the reply becomes part of the conversation."""
    over: Literal["silence", "reply", "end of reply"] = "silence"
    """What was being heard when the person began to speak."""
    ended: LlmEnd = field(default_factory=lambda: LlmEnd("stop"))
    """What the language model said of its reply."""
    drafts: int = 0
    """How many replies were begun on a guess that the turn is over."""

    @property
    def latency(self) -> dict[str, float]:
        """Milliseconds from the end of speech (or from the typed text) to each stage."""
        spoken = self.clock.at(Stage.SPEECH_END) is not None
        return self.clock.ms_since(Stage.SPEECH_END if spoken else Stage.ENDPOINT)
