"""A server whose engines cost nothing, and a user of one's own for each test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, WordEmbedding
from serving import Server, make_settings, scripted

KEYS = [f"key-number-{n}" for n in range(100)]
MADE = {
    "title": "Counting",
    "overview": "Somebody counts.",
    "emoji": "🔢",
    "category": "education",
    "action_items": ["Count to ten"],
    "events": [],
    "memories": ["The user can count"],
}


@pytest.fixture(scope="module")
def engines() -> dict[str, Any]:
    return {
        "vad": LoudVad(),
        "stt": CountingStt(),
        "llm": ScriptedLlm(json.dumps(MADE)),
        "tts": ToneTts(),
        "embedding": WordEmbedding(),
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, engines: dict[str, Any]) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("wearable")
    given = make_settings(data / "none", data, api_keys=KEYS, max_sessions=3, speaker_provider="none")
    with scripted(given, **engines) as server:
        yield server


@pytest.fixture(scope="module")
def keys() -> list[str]:
    """Those that a server takes."""
    return KEYS


@pytest.fixture(scope="module")
def _keys() -> Iterator[str]:
    return itertools.cycle(KEYS)


@pytest.fixture
def key(_keys: Iterator[str]) -> str:
    """A user who has said nothing yet."""
    return next(_keys)
