"""What a session may be told about how to behave. Doors translate their wire's settings to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_INSTRUCTIONS = (
    "You are Colloquy, a friendly voice assistant. Your words are spoken aloud: answer in one to "
    "three short, plain sentences, without lists, headings, code or emoji. Answer in the language "
    "of the user."
)


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """When a turn starts and ends; times in ms. See `endpointing`."""

    mode: Literal["auto", "manual"] = "auto"
    threshold: float = 0.5
    start_ms: float = 160
    end_ms: float = 500
    adaptive: bool = True
    interrupt: bool = True


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """All that the core knows of a session's wishes. `language` None means: detect."""

    language: str | None = "en"
    vocabulary: tuple[str, ...] = ()
    instructions: str = DEFAULT_INSTRUCTIONS
    voice: str | None = None
    speed: float = 1.0
    max_reply_tokens: int = 256
    temperature: float = 0.7
    turn: TurnConfig = TurnConfig()
