"""Fixtures of the engine tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_dir() -> Callable[[str], Path]:  # replaced by tests/conftest.py
    """The folder that holds a model's files."""
    root = Path(os.environ.get("COLLOQUY_MODELS_DIR", "/work/lab/models"))
    return lambda name: root / name
