"""A peer's environment is made by the command itself, once, from pinned packages."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from app.roles import EngineFailed, Misconfigured
from benchmarks.peers import NAMES, peer
from benchmarks.peers.environment import environment, folder_of

PINNED = re.compile(r"[a-z0-9.-]+==[^ ]+( ; .+)? \\$")


def make_wheel(folder: Path) -> Path:
    """A package with one module, `parrot`."""
    path = folder / "parrot-1.0-py3-none-any.whl"
    info = "parrot-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("parrot.py", "WORDS = 'hello there'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "parrot.py,,\n")
    return path


def requirements(folder: Path, wheel: Path, sha256: str) -> Path:
    path = folder / "parrot.requirements.txt"
    path.write_text(f"parrot @ {wheel.as_uri()} --hash=sha256:{sha256}\n")
    return path


async def test_it_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel = make_wheel(tmp_path)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()

    wrong = requirements(tmp_path, wheel, sha256[::-1])
    with pytest.raises(EngineFailed, match="DO NOT MATCH THE HASHES"):
        await environment(wrong)
    wanted = requirements(tmp_path, wheel, sha256)
    assert folder_of(wanted).is_relative_to(tmp_path / "cache")
    python = await environment(wanted)
    assert "made in" in capsys.readouterr().err
    command = [str(python), "-c", "import parrot; print(parrot.WORDS)"]
    said = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert said.stdout == "hello there\n"

    wheel.unlink()
    assert await environment(wanted) == python
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_pinned_and_name_no_place(name: str) -> None:
    text = peer(name).requirements.read_text()
    lines = [
        line for line in text.splitlines() if line and not line.lstrip().startswith(("#", "--hash=sha256:"))
    ]
    assert lines
    assert [line for line in lines if not PINNED.match(line)] == []
    assert "--hash" in text and "://" not in text and "index-url" not in text


def test_a_stranger_is_refused() -> None:
    with pytest.raises(Misconfigured, match="there is no peer 'nobody'; there are: pipecat"):
        peer("nobody")
