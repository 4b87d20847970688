"""What a session may be told about how to behave. Doors translate their wire's settings to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.roles import ChatMessage, Tool

_ENGLISH = (
    "You are Colloquy, a friendly voice assistant. Your words are spoken aloud: answer in one to "
    "three short, plain sentences, without lists, headings, code or emoji. Answer in the language "
    "of the user."
)
_CHINESE = (
    "你是Colloquy，一个友好的语音助手。你的回答会被朗读出来：请用一到三句简短、口语化的中文回答，"
    "不要使用列表、标题、代码或表情符号。"
)


def default_instructions(language: str | None) -> str:
    """Who the assistant is, said in the language it is to answer in: small models follow the
    prompt's language rather than what it asks for."""
    return _CHINESE if language == "zh" else _ENGLISH


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """When a turn starts and ends; times in ms. See `endpointing`."""

    mode: Literal["auto", "manual"] = "auto"
    threshold: float = 0.5
    start_ms: float = 160
    end_ms: float = 500
    adaptive: bool = True
    eagerness: Literal["low", "medium", "high"] = "medium"
    """How soon a pause is taken for the end: scales every wait of `endpointing`."""
    interrupt: bool = True
    echo: bool = True
    """Whether the microphone may hear the reply: no echo cancellation on the client's side."""
    pre_roll_ms: float = 300
    """Sound before the first speech frame that belongs to the utterance: soft first consonants."""
    speculations: int = 3
    """How many times within an utterance a reply may be begun on a likely end."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """All that the core knows of a session's wishes. `language` None means: detect."""

    language: str | None = "en"
    vocabulary: tuple[str, ...] = ()
    instructions: str = _ENGLISH
    voice: str | None = None
    speed: float = 1.0
    max_reply_tokens: int = 256
    temperature: float = 0.7
    respond: Literal["auto", "manual", "never"] = "auto"
    """"manual": only when a door asks (`Session.respond`); "never": what is said is only written down."""
    speak: bool = True
    """Whether replies are spoken, or only written."""
    revise: bool = False
    """Whether the final words may differ from what was firm while somebody spoke: for clients that show it
    anew."""
    diarize: bool = False
    """Whether it is told who speaks (`Final.speaker`)."""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    turn: TurnConfig = TurnConfig()


@dataclass(frozen=True, slots=True)
class Ask:
    """A reply that a client asks for: by `config` if that is given, to `messages` instead of the conversation
    if there are any, and forgotten once it is told unless `keep`."""

    config: SessionConfig | None = None
    messages: tuple[ChatMessage, ...] | None = None
    keep: bool = True
