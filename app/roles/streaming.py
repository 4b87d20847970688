"""A recogniser elsewhere that hears a stream: sound goes in as it is spoken, words come out as they firm up.

What a client of a provider has to do, and nothing more. When silence is left out, when a stream is kept
alive, and who goes on when a provider fails is decided once, for all of them, by the dialogue
(`dialogue.streamed`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from app.roles.errors import EngineFailed
from app.roles.protocols import Engine
from app.roles.types import Job, Samples, SttOptions, Word

Outcome = Literal[
    "success",
    "expected_silence",
    "empty_unexpected",
    "timeout",
    "upstream_error",
    "config_error",
    "invalid_input",
]
"""How a stream ended: with words; without, and there was no speech; without, though there was; the provider
did not answer in time; it failed; it refuses the key, the model or the options; it refuses the sound."""


class StreamDead(EngineFailed):
    """A stream gives no more words. `outcome` names why (never "success" or "expected_silence"); the message
    says it in words, without secrets. `retryable`: whether the same provider may do better another time."""

    def __init__(self, outcome: Outcome, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.outcome, self.retryable = outcome, retryable


@dataclass(frozen=True, slots=True)
class Heard:
    """What a provider makes of a stretch of the stream, `start` to `end`. All times are seconds of the sound
    sent on this stream. Words that are not final are replaced by what comes next; final ones never change,
    each comes once, and they come in order: a final answer covers all up to its `end`, silence included.
    `finalized`: this answers a `finalize`, and all that was sent before that one has been told as final."""

    words: tuple[Word, ...]
    start: float
    end: float
    final: bool
    finalized: bool = False
    language: str | None = None


class SttStream(Protocol):
    """One open stream. The provider has accepted it: what is sent from here on is heard or the stream dies
    with a reason. Methods that send raise `StreamDead` as the iterator does; one caller sends, another
    iterates."""

    def __aiter__(self) -> AsyncIterator[Heard]:
        """What is heard, as it comes; iterated once. It ends when all that was sent is told, after `finish`;
        whatever else ends a stream is `StreamDead`."""
        ...

    async def send(self, audio: Samples) -> None:
        """The next sound: float32[n], 16 kHz mono. Waits only for the socket."""
        ...

    async def finalize(self) -> None:
        """Ask for the final words of all that was sent, without ending the stream: answered by a `Heard` that
        is `finalized`, though it may have no words."""
        ...

    async def keep_alive(self) -> None:
        """Tell the provider that more will come. Called every few seconds in which nothing is sent; nothing
        to do where the provider does not care."""
        ...

    async def finish(self) -> None:
        """Nothing more will be sent. Returns at once; the rest comes by the iterator."""
        ...

    async def close(self) -> None:
        """Leave at once, whatever was not told. Idempotent; never raises."""
        ...


class StreamingStt(Engine, Protocol):
    """A provider of streams."""

    async def open(self, options: SttOptions, job: Job) -> SttStream:
        """A stream that the provider has accepted. `StreamDead` if it does not, or not within the provider's
        time limit: "config_error" for a wrong key, model or option, else "upstream_error" or "timeout"."""
        ...
