"""The benchmarks of recognition, voices and voice detection run and measure what they say; their figures
are only held against what would be absurd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.unit_errors import UnitErrors, between, unit_errors

ROOT = Path(__file__).parents[2]


def measured(name: str, folder: Path, models_dir: Path) -> tuple[dict[str, Any], str]:
    """What the quick form wrote, and what it printed."""
    out = folder / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(out)],
        cwd=ROOT,
        env=os.environ | {"MODELS_DIR": str(models_dir)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr, "it says what it is doing"
    return json.loads(out.read_text()), done.stdout


@pytest.mark.parametrize("name", ["recognition", "diarization", "speakers", "vad"])
def test_help(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


def test_recognition(tmp_path: Path, models_dir: Path) -> None:
    result, printed = measured("recognition", tmp_path, models_dir)
    assert len(result["systems"]) == 2
    for system in result["systems"]:
        found = system["sets"]["utterances"]
        errors = [UnitErrors(*e) for e in found["errors"]]
        assert len(errors) == len(found["pieces"]) == 2
        assert sum(e.words for e in errors) > 15
        assert sum(errors, UnitErrors()).rate < 0.5
        assert found["cpu"] > 0 and found["real_time"] > 0
        assert system["memory_mb"] > 20
        assert system["system"] in printed


def test_diarization(tmp_path: Path, models_dir: Path) -> None:
    result, printed = measured("diarization", tmp_path, models_dir)
    assert {row["system"] for row in result["cases"]} >= {"live", "file"}
    for row in result["cases"]:
        assert row["people"] == 2 and row["found"] >= 1 and row["seconds"] == pytest.approx(30, abs=0.5)
        for errors in row["errors"]:
            assert errors["speech"] > 10
            assert all(
                0 <= errors[kind] <= 0.8 * errors["speech"] for kind in ("missed", "false", "confused")
            )
    assert "telephone" in printed


def test_speakers(tmp_path: Path, models_dir: Path) -> None:
    result, printed = measured("speakers", tmp_path, models_dir)
    [group] = result["groups"]
    assert len(group["people"]) >= 3
    lengths = group["lengths"]
    assert [row["seconds"] for row in lengths] == [0.5, 1.0, 1.5, 2.0]
    for row in lengths:
        low, high = row["equal_error_95"]
        assert 0 <= low <= high <= 0.6 and row["pairs_of_one"] > 50 < row["pairs_of_two"]
        at = row["at_distances"]
        assert [d["missed"] for d in at] == sorted((d["missed"] for d in at), reverse=True)
        assert [d["accepted"] for d in at] == sorted(d["accepted"] for d in at)
    assert lengths[-1]["equal_error"] < 0.15, "two seconds tell people apart"
    assert lengths[-1]["mean_cosine_of_one"] > lengths[0]["mean_cosine_of_one"] + 0.1
    assert "EER %" in printed


def test_vad(tmp_path: Path, models_dir: Path) -> None:
    result, printed = measured("vad", tmp_path, models_dir)
    clean, noisy = result["rows"]
    assert clean["noise"] is None and noisy["ratio_db"] == 10
    for row in (clean, noisy):
        assert row["frames_hit"] > 0.8 > 0.2 > row["frames_false"]
        assert row["spoken"] >= row["hit"] >= 0.8 * row["spoken"] > 5
        assert 0.05 < row["onset_s"]["p50"] < 0.6
    assert "white, 10 dB" in printed


# --- counting -------------------------------------------------------------------------------------


def test_errors_are_counted_where_they_are() -> None:
    said = ["Go forward, please.", "Stop.", "Turn to the left."]
    found = unit_errors(said, "go for word please now stop turn left")
    assert [e.words for e in found] == [3, 1, 4]
    assert [e.errors for e in found] == [2, 1, 2]
    assert (found[2].missing, found[2].substituted) == (2, 0)
    assert sum(found, UnitErrors()).rate == pytest.approx(5 / 8)
    assert [e.missing for e in unit_errors(said, "")] == [3, 1, 4]


def test_the_interval_is_about_the_rate_and_narrows() -> None:
    few = [UnitErrors(substituted=n % 2, words=10) for n in range(20)]
    low, high = between(few)
    assert 0 < low < 0.05 < high < 0.1
    closer = between(few * 20)
    assert low < closer[0] < 0.05 < closer[1] < high
