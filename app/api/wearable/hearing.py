"""How the core listens for one connection."""

from __future__ import annotations

from dataclasses import replace

from app.api.context import Context
from app.dialogue.config import SessionConfig, TurnConfig


def listening(context: Context, language: str | None) -> SessionConfig:
    """A session that writes down what is said, and answers nothing."""
    return replace(
        context.default_config(),
        language=language,
        respond="never",
        speak=False,
        revise=True,
        diarize=context.settings.speaker_provider != "none",
        turn=TurnConfig(echo=False, speculations=0),
    )
