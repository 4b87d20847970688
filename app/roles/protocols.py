"""The roles: what the dialogue asks of an engine or of a provider over the wire.

Each is a small protocol. An in-process engine (`app.engines`) and a client of somebody's API
(`app.clients`) look the same from here. All methods that wait are cancellable: cancelling the
awaiting task, or closing the iterator, stops the work behind it. Failures are
`roles.errors.EngineFailed`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.roles.types import (
    AudioChunk,
    ChatMessage,
    Embeddings,
    EngineInfo,
    Job,
    LlmOptions,
    LlmPiece,
    Samples,
    SpeechOptions,
    SttOptions,
    Tool,
    Transcript,
    Vector,
    Voice,
)

if TYPE_CHECKING:
    from app.roles.streaming import StreamingStt


class Engine(Protocol):
    """What every implementation of a role can do besides its work."""

    @property
    def info(self) -> EngineInfo:
        """Name and model, for `/health` and logs."""
        ...

    async def close(self) -> None:
        """Free what is held. Idempotent."""
        ...


class VadStream(Protocol):
    """Voice activity of one session; keeps the model's state between frames."""

    async def probability(self, frame: Samples) -> float:
        """Probability (0–1) that `frame` (float32[512] at 16 kHz, 32 ms) holds speech. Frames
        are given in order, one at a time."""
        ...


class Vad(Engine, Protocol):
    """Voice activity detection."""

    def stream(self) -> VadStream:
        """A fresh state for one session."""
        ...


class EndOfTurn(Engine, Protocol):
    """Whether a person sounds as if they were done."""

    async def probability(self, audio: Samples, job: Job) -> float:
        """Probability (0–1) that the turn ends where `audio` ends: float32[n] at 16 kHz, the
        utterance so far or its last seconds, with the silence that has just begun."""
        ...


class SpeechToText(Engine, Protocol):
    """Batch recognition of up to about 30 s; the dialogue makes it incremental."""

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        """Transcribe `audio` (float32[n], 16 kHz mono)."""
        ...


class LanguageModel(Engine, Protocol):
    """Writes the reply."""

    @property
    def context_tokens(self) -> int:
        """Size of the context window, prompt and reply together."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens in `text`; an estimate is fine if it errs high."""
        ...

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: tuple[Tool, ...] = ()) -> None:
        """A conversation that will soon be asked about, as far as it is known, and the tools that will be
        offered: a model in process reads it ahead, others need not do anything. Failing is no error."""
        ...

    def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        """The reply to `messages`, piece by piece. Closing the generator stops the work. What the engine
        cannot do of what `options` ask for is `BadInput`, and a conversation that is longer than its
        window `ContextTooLong`."""
        ...


class Completeness(Protocol):
    """Whether what a person has said is likely to be all, by its words. A language model in process can
    tell: it has them in its cache already."""

    async def completeness(
        self, messages: Sequence[ChatMessage], job: Job, tools: tuple[Tool, ...] = ()
    ) -> float | None:
        """How likely (0–1) the last message, a person's, ends where it does: the probability that its
        sentence is closed there, whatever punctuation it has. In the middle of a sentence that is below
        0.01, at the end of one above 0.1. None if it is not known soon."""
        ...


class TextToSpeech(Engine, Protocol):
    """A voice."""

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of all chunks from `speak`."""
        ...

    def voices(self) -> Sequence[Voice]:
        """The voices that can be asked for; the first is the default."""
        ...

    def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        """Speech for `text` (a sentence or a clause), as it is made. An unknown voice is
        `NotFound`; text with nothing to say gives no chunk.

        A voice that knows when it says what puts `words` on chunks: over all of them every word
        of `text` once, in order and as written ("$3.50" is one word; a Chinese or Japanese
        character is one, with its punctuation). A word without a sound ends with the one before
        it; such words at the end may come on a last chunk that has no samples. Where the end of the
        sound is cut, the last word's end may lie a little behind it. A voice that does not know
        leaves `words` empty."""
        ...


class TextEmbedding(Engine, Protocol):
    """Places texts so that those that mean the same lie near each other."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    async def embed(self, texts: Sequence[str], job: Job) -> Embeddings:
        """Where `texts` lie. Of a text that is longer than the model reads, the beginning counts."""
        ...


class SpeakerEmbedding(Engine, Protocol):
    """Places voices so that those of one person lie near each other, whatever is said."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    async def embed(self, audio: Samples, job: Job) -> Vector:
        """Where the voice in `audio` lies: float32[n] at 16 kHz, of one person, with little silence in it.
        Under 0.5 s it is `BadAudio`; from 2 s on it is worth much."""
        ...


@dataclass(frozen=True, slots=True)
class RoleSet:
    """The engines or clients that serve a dialogue. `stt_partial` follows the voice and may be
    the same object as `stt`, which gives the final words. Without `turn` and `completeness`, silence
    and rules about words decide when a turn is over. With `stt_streaming`, what is said live is heard by
    these, one after the other as they fail, and then by `stt`."""

    vad: Vad
    stt: SpeechToText
    stt_partial: SpeechToText
    llm: LanguageModel
    tts: TextToSpeech
    turn: EndOfTurn | None = None
    completeness: Completeness | None = None
    stt_streaming: tuple[StreamingStt, ...] = ()
