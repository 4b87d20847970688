"""The command itself: quick help, version, exit codes, benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, Command

from app import __version__

COMMANDS = ["serve", "talk", "doctor", "models", "bench"]


def test_help_names_every_command(colloquy: Command) -> None:
    done = colloquy("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(colloquy: Command, name: str) -> None:
    done = colloquy(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: colloquy {name}")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version(colloquy: Command) -> None:
    assert colloquy("--version").stdout == f"colloquy {__version__}\n"


def test_help_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """What makes it quick: none of the libraries that the commands use is imported."""
    script = """
import sys
from app.cli import main
sys.argv = ["colloquy", "talk", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = "numpy fastapi starlette uvicorn httpx websockets sqlalchemy av asyncio".split()
print("LOADED", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["frobnicate"], ["serve", "--frobnicate"], ["models", "frobnicate"]])
def test_wrong_use_exits_with_2(colloquy: Command, arguments: list[str]) -> None:
    done = colloquy(*arguments)
    assert done.returncode == 2 and "frobnicate" in done.stderr


def test_benchmarks_are_listed_and_run_with_their_own_arguments(colloquy: Command) -> None:
    done = colloquy("bench")
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert listed == {p.stem for p in (ROOT / "benchmarks").glob("*.py") if not p.stem.startswith("_")}
    assert "voice_to_voice" in listed
    done = colloquy("bench", "voice_to_voice", "--help")
    assert done.returncode == 0 and "benchmarks.voice_to_voice" in done.stdout
    done = colloquy("bench", "nothing")
    assert done.returncode == 2 and "voice_to_voice" in done.stderr
