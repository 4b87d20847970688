"""What a session tells the world, free of any wire. Doors translate these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal, NamedTuple

from app.roles import Samples, Word
from app.roles.streaming import Outcome

NOBODY_TOLD = "SPEAKER_00"
"""The speaker where they are not told apart."""

USER = "user"
"""The id among people of the one whose session it is."""


class Named(NamedTuple):
    """Somebody who is known; `id` is `USER`, or that of a person whom the user knows."""

    id: str
    name: str

    @property
    def is_user(self) -> bool:
        """Whether it is the user."""
        return self.id == USER


Reason = Literal["speech", "client", "text", "closed"]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """`at` in seconds of the session's audio; it includes no pre-roll."""

    turn_id: str
    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """`at` is where speech ended, not where that was noticed. `forced`: a client said so (`commit`)."""

    turn_id: str
    at: float
    forced: bool = False


TAKEN_BACK = "the client took it back"


@dataclass(frozen=True, slots=True)
class TurnDropped:
    """Speech that held no words, or was taken back."""

    turn_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Partial:
    """Words so far; `text` begins with `committed`, which only grows within an utterance.

    `closed` are the words of the chunks of a long utterance that are over: the first of those of the
    `Final`. Their times are in seconds from `start`, the utterance's first sample in the session's
    audio; the sound up to `heard_to`, in the session's audio too, is in `text`."""

    turn_id: str
    text: str
    committed: str
    confidence: float
    start: float = 0.0
    heard_to: float = 0.0
    closed: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one person said of an utterance: the words from index `first` to the next part's."""

    first: int
    speaker: str
    person: Named | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """What was said; `text` begins with the last `Partial.committed`. Times of `words` are from `start`,
    which is in seconds of the session's audio. `person` is who speaks, if it is somebody known. `parts`: who
    said what, where several did and that was asked for."""

    turn_id: str
    transcription_id: str
    text: str
    words: tuple[Word, ...]
    language: str
    confidence: float
    low_confidence: bool
    speaker: str = NOBODY_TOLD
    start: float = 0.0
    person: Named | None = None
    parts: tuple[Part, ...] = ()

    def voices(self) -> Iterator[tuple[Part, int, int]]:
        """Who said which words, from one index to the next; at least one."""
        parts = self.parts or (Part(0, self.speaker, self.person),)
        for part, after in zip_longest(parts, parts[1:]):
            yield part, part.first, after.first if after else len(self.words)


@dataclass(frozen=True, slots=True)
class ReplyText:
    """The next piece of the reply as it is written."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """The next piece of the reply's sound; `offset_ms` from the reply's first sample. `text` is
    the segment that begins here. The `last` piece is empty: it lets encoders finish."""

    turn_id: str
    samples: Samples
    sample_rate: int
    offset_ms: float
    text: str | None = None
    last: bool = False

    @property
    def duration_ms(self) -> float:
        """Length in ms."""
        return len(self.samples) / self.sample_rate * 1000


@dataclass(frozen=True, slots=True)
class ReplyCall:
    """The next piece of the `index`-th function call that the reply asks for: `arguments` is JSON text that
    grows by it. The calls stand when `TurnComplete` says that the reply was not interrupted."""

    turn_id: str
    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The reply asked for a function of the server, which is called now: `arguments` is JSON text as the
    language model wrote it. If no `ToolEnded` comes before `TurnComplete`, it was stopped with the reply."""

    turn_id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """It took `ms`, and gave `text` (the beginning of it), or failed, and `text` says why."""

    turn_id: str
    call_id: str
    name: str
    ok: bool
    text: str
    ms: float


@dataclass(frozen=True, slots=True)
class ReplyPaused:
    """Somebody may be speaking: hold the reply where it is, and keep what is still to be played.
    `ReplyResumed` or `Interrupted` follows. `at_ms` is about how much of it was heard."""

    turn_id: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class ReplyResumed:
    """It was nothing: play on from where the reply was held."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The reply was stopped; `heard` is the part of it that reached the person."""

    turn_id: str
    reason: Reason
    heard: str


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """Nothing more comes of this turn. `latency` as of `TurnClock.ms_since`. `cut`: the reply reached its
    limit of tokens. The tokens are what the language model counted, 0 if it does not."""

    turn_id: str
    number: int
    transcript: str
    reply: str
    audio_ms: float
    interrupted: bool
    latency: dict[str, float] = field(default_factory=dict)
    cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """Worth knowing, not an error."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something failed; the session lives."""

    code: str
    message: str
    trace_id: str
    retryable: bool = False
    turn_id: str | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """A stream of a recogniser elsewhere has ended. For the books: no client is told."""

    provider: str
    outcome: Outcome


Event = (
    SpeechStarted
    | SpeechStopped
    | TurnDropped
    | Partial
    | Final
    | ReplyText
    | ReplyAudio
    | ReplyCall
    | ToolStarted
    | ToolEnded
    | ReplyPaused
    | ReplyResumed
    | Interrupted
    | TurnComplete
    | Notice
    | Failed
    | StreamEnded
)
