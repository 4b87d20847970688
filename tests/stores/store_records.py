"""Records for the tests of the stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from app.roles import Word
from app.stores.interfaces import SessionRecord, TurnRecord

EARLY = datetime(2026, 11, 21, 23, 59, 58, 123456, tzinfo=UTC)


def a_session(**given: Any) -> SessionRecord:
    return SessionRecord(**{"id": str(uuid4()), "owner": "ann", "created_at": EARLY, **given})


def typed(session_id: str, number: int = 1, **given: Any) -> TurnRecord:
    """A typed turn with its answer."""
    values = {
        "id": str(uuid4()),
        "session_id": session_id,
        "number": number,
        "created_at": EARLY + timedelta(minutes=number),
        "source": "text",
        "transcript": f"What is {number} and one?",
        "reply": f"{number + 1}.",
        "reply_full": f"{number + 1}.",
    }
    return TurnRecord(**{**values, **given})


def spoken(session_id: str, number: int = 1, **given: Any) -> TurnRecord:
    """A spoken turn with a value in every field."""
    values = {
        "source": "speech",
        "transcription_id": str(uuid4()),
        "transcript": 'Ça va? 你好 🎙 it\'s "fine"\nyes',
        "words": (Word("Ça", 0.1, 0.32, 0.9), Word("va?", 0.32, 0.7, 0.1 + 0.2)),
        "language": "fr",
        "confidence": 0.87,
        "partials": ("Sa", "Ça va"),
        "reply": "Oui, ça",
        "reply_full": "Oui, ça va bien.",
        "interrupted": True,
        "latency": {"endpoint": 320.0, "stt_final": 412.5, "first_audio_sent": 987.6},
        "audio_key": f"raw_inputs/2026/11/21/{session_id}_{number}.wav",
        "audio_seconds": 1.25,
    }
    return typed(session_id, number, **{**values, **given})
