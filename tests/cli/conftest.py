"""The command, in a folder of its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from command import ROOT, Command


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def colloquy(tmp_path: Path, models_dir: Path, free_port: int) -> Command:
    """The command, where no server runs yet."""
    folder, modules = tmp_path / "here", tmp_path / "modules"
    folder.mkdir()
    modules.mkdir()
    # What `import sounddevice` does where PortAudio is not installed: whether this machine has a
    # sound card must not matter.
    (modules / "sounddevice.py").write_text('raise OSError("PortAudio library not found")')
    settings = {
        "MODELS_DIR": str(models_dir),
        "DATA_DIR": str(tmp_path / "data"),
        "PORT": str(free_port),
        "PYTHONPATH": f"{modules}{os.pathsep}{ROOT}",
    }
    return Command(folder, settings)
