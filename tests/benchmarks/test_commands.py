"""The benchmarks run and measure what they say; how long things take is not for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def measured(name: str, folder: Path, models_dir: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """What the benchmark wrote, and what it printed."""
    out = folder / "result.json"
    done = run(name, "--json", str(out), *arguments, MODELS_DIR=str(models_dir))
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


@pytest.mark.parametrize("name", ["voice_to_voice", "transcription", "wearable"])
def test_help(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


def test_troubles_are_one_line(tmp_path: Path) -> None:
    nobody = run("voice_to_voice", "--url", "http://127.0.0.1:9")
    assert nobody.returncode != 0
    assert "no server answers at http://127.0.0.1:9" in nobody.stderr
    unknown = run("transcription", "--only", "no-such-recording")
    assert unknown.returncode != 0
    assert unknown.stderr.strip() == "no such recording with a text: no-such-recording"
    stranger = run("voice_to_voice", "--peer", "nobody")
    assert stranger.returncode == 2
    assert stranger.stderr.startswith("there is no peer 'nobody'; there are: ")
    crowd = run("voice_to_voice", "--sessions", "1,9")
    assert crowd.returncode == 2
    assert "numbers from 1 to 5" in crowd.stderr


def test_voice_to_voice(tmp_path: Path, models_dir: Path) -> None:
    result, printed = measured("voice_to_voice", tmp_path, models_dir, "--turns", "2")
    assert result["machine"]["cores"] >= 1
    assert result["models"]["llm"]
    found = result["summary"]
    assert found["turns"] == found["voice_to_voice"]["n"] == len(result["turns"]) == 2
    assert found["missing_answers"] == 0
    assert found["errors"] == []
    assert found["wer"] < 0.5
    for turn in result["turns"]:
        assert 0 < turn["seconds"] <= turn["heard_seconds"]
        assert turn["transcript"] and turn["reply"]
        # The stages account for all of the time, and only where ears differ may one be negative.
        assert sum(turn["stages"].values()) == pytest.approx(turn["seconds"])
        assert all(seconds >= 0 for name, seconds in list(turn["stages"].items())[1:-1])
    assert "first audible sample received" in printed


def test_transcription(tmp_path: Path, models_dir: Path) -> None:
    chosen = ["--only", "prompt-please-try-again", "--only", "prompt-vm-savefolder"]
    result, printed = measured("transcription", tmp_path, models_dir, *chosen)
    assert result["recordings"] == 2
    assert result["paced"] is True
    systems = {system["system"]: system for system in result["systems"]}
    assert len(systems) == 6
    for name, system in systems.items():
        found = system["summary"]
        assert 0 <= found["wer"] < 0.5
        assert found["cpu_seconds_per_audio_second"] > 0
        assert found["text_after_speech_s"]["n"] == 2
        if "→" not in name:
            continue
        assert found["firm_delay_s"]["n"] == found["shown_delay_s"]["n"] > 0
        for row in system["recordings"]:
            firm = [shown["committed"] for shown in row["shown"]]
            assert all(later.startswith(earlier) for earlier, later in pairwise(firm))
            assert row["text"].startswith(firm[-1])
            assert all(f >= s for f, s in zip(row["firm_delays_s"], row["shown_delays_s"], strict=True)), (
                "a word is firm when it is shown, or later"
            )
    assert "While somebody speaks" in printed


def test_wearable(tmp_path: Path, models_dir: Path) -> None:
    result, printed = measured("wearable", tmp_path, models_dir, "--codec", "opus_fs320", "--minutes", "0.5")
    [found] = result["codecs"]
    assert found["wer"] < 0.5 and found["segments"] > 2 and found["speakers"] >= 1
    assert (found["doubled"], found["lost"], found["out_of_order"]) == (0, 0, 0)
    assert found["last_memory_mb"] > 100 and "opus_fs320, segments" in printed
