"""The command, in a folder of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from command import Command


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def colloquy(tmp_path: Path, models_dir: Path, free_port: int) -> Command:
    """The command, where no server runs yet."""
    folder = tmp_path / "here"
    folder.mkdir()
    settings = {"MODELS_DIR": str(models_dir), "DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port)}
    return Command(folder, settings)
