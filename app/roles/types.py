"""Plain frozen values that roles pass to each other.

Audio inside the program is NumPy `float32`, mono, in [-1, 1]. What people say is always at
`SAMPLE_RATE` (16 kHz); what a voice says is at that voice's own rate, named beside it.
Times are seconds, unless a name ends in `_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Sample rate of all audio that is heard, in Hz."""

Samples = npt.NDArray[np.float32]
"""`float32[n]`, mono, [-1, 1]."""

Vector = npt.NDArray[np.float32]
"""`float32[d]` of length 1, so that the product of two is their cosine."""


class Urgency(IntEnum):
    """Who goes first when model work queues for the cores; lower goes ahead.

    A person waits on FINAL and SPEECH; a PARTIAL is only nice to have and may be dropped.
    """

    FINAL = 0
    SPEECH = 1
    PARTIAL = 2
    BACKGROUND = 3


@dataclass(frozen=True, slots=True)
class Job:
    """On whose behalf model work runs, and how urgent it is (see `engines.workers`)."""

    owner: str = ""
    urgency: Urgency = Urgency.FINAL


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """A piece of sound: `samples` float32[n] mono at `sample_rate` Hz. `words`: the written words
    that begin in it or after it, with times from its first sample, where the voice knows them (see
    `TextToSpeech.speak`)."""

    samples: Samples
    sample_rate: int
    words: tuple[Word, ...] = ()

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word; `start` and `end` in seconds from the start of the audio given,
    `confidence` 0–1."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recogniser heard.

    `confidence` is 0–1; `no_speech` is the recogniser's own probability (0–1) that there was
    none. `words` may be empty where the engine has no word times.
    """

    text: str
    words: tuple[Word, ...] = ()
    language: str = "en"
    confidence: float = 1.0
    no_speech: float = 0.0


@dataclass(frozen=True, slots=True)
class SttOptions:
    """How to transcribe.

    `language`: ISO 639-1 code, or None to detect. `vocabulary`: words and names to favour.
    `prompt`: text said just before, as context. `word_times`: whether words with times are
    needed (they can cost extra). `translate`: write in English what is said in another language;
    `BadInput` from engines that cannot.
    """

    language: str | None = "en"
    vocabulary: tuple[str, ...] = ()
    prompt: str = ""
    word_times: bool = True
    translate: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a language model may ask to be called. `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A language model asks for `name` to be called. `arguments` is JSON text, as the model wrote it:
    small models write what is no JSON, too."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat history. `tool_calls` are an assistant's; a message of the role "tool" is the
    result of the call `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class LlmOptions:
    """`max_tokens` of the reply, 0 for as many as the engine writes; `temperature` 0–2; `top_p` 0–1.

    `tool_choice` is "auto", "none", "required", or the name of the one tool to be called. `json_schema`
    makes the reply JSON: a JSON Schema, or `{}` for any object. `stop` ends the reply where the model
    writes one of these. `seed` makes it repeatable where the engine can.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    json_schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """The next piece of the `index`-th tool call of a reply; `id` and `name` come with its first piece,
    `arguments` in as many as the engine makes of them."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class LlmEnd:
    """The last a language model says of a reply: why it ended, and what it cost in tokens (0 where
    the engine does not count)."""

    reason: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int = 0
    completion_tokens: int = 0


LlmPiece = str | ToolCallPiece | LlmEnd
"""What comes of a reply: text, and where tools were offered their calls; `LlmEnd` at most once, last."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that can be asked for by `name`. `language` ISO 639-1; `gender` as the file names
    it, or "unknown"."""

    name: str
    language: str
    gender: str = "unknown"
    engine: str = ""
    sample_rate: int = 22_050


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """How to speak. `voice` None is the default voice for `language`; `speed` 0.5–2.0, 1 is the
    voice's own pace; `cfg_scale` 0.5–2.0 is used by voices that have such a knob."""

    voice: str | None = None
    language: str = "en"
    speed: float = 1.0
    cfg_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What texts mean: `vectors` float32[n, dimensions], a row a text in the order given, each of length
    1, so that the product of two is their cosine. `tokens`: how many were read."""

    vectors: npt.NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class Span:
    """Speech from `start` to `end`, in seconds of a recording."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class SpeakerSpan(Span):
    """Speech of one person; `speaker` is "SPEAKER_00" and so on."""

    speaker: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `/health` shows of an engine."""

    role: str
    name: str
    model: str = ""
    detail: dict[str, str] = field(default_factory=dict)
