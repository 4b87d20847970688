"""Two systems in one run, and the table that they end in."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console
from test_peers import parrots

from app.settings import Settings
from benchmarks.common import compare as module
from benchmarks.common import report
from benchmarks.common.compare import Row, compare, ratios, rounds, show_comparison
from benchmarks.common.system import System
from benchmarks.peers import Peer


def test_rounds_cover_all_turns() -> None:
    assert rounds(9) == [range(3), range(3, 6), range(6, 9)]
    assert rounds(10) == [range(3), range(3, 6), range(6, 10)]
    assert rounds(1) == [range(1)]


def test_growth_is_that_of_a_session_in_the_second_half() -> None:
    def growth(sessions: int, *rss: int | None) -> float | None:
        return Row(System("ours", {}, (), parrots), sessions, rss=list(rss)).growth_bytes()  # type: ignore[arg-type]

    assert growth(1, 100, 500) is None
    assert growth(1, 100, 500, 540) == 40
    assert growth(1, 100, 500, 540, 580) == 40
    assert growth(2, 100, 500, 600, 660, 720) == 30
    assert growth(1, None, None, None) is None


def test_ratios_are_ours_over_the_peer_of_equal_sessions() -> None:
    def row(system: str, sessions: int, seconds: float | None) -> dict[str, object]:
        found = {} if seconds is None else {"p50": seconds, "p95": 2 * seconds, "mean": seconds}
        figures = {"summary": {"voice_to_voice": found}, "cpu_seconds_per_turn": 1.0, "rss_mb": None}
        return {"system": system, "sessions": sessions} | figures

    table = [row("ours", 1, 0.6), row("peer", 1, 1.2), row("ours", 2, 0.9), row("peer", 2, None)]
    one, two = ratios(table)
    assert (one["system"], one["sessions"], one["p50"], one["p95"]) == ("ours / peer", 1, 0.5, 0.5)
    assert one["cpu_seconds_per_turn"] == 1 and one["rss_mb"] is None
    assert two["sessions"] == 2 and two["p50"] is None


async def test_ours_and_a_peer_in_one_run(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    nothing = tmp_path / "parrot.requirements.txt"
    nothing.write_text("# it needs no packages\n")
    pythons: list[Path] = []

    @asynccontextmanager
    async def serve(python: Path, settings: Settings) -> AsyncIterator[System]:
        pythons.append(python)
        async with parrots() as system:
            yield system

    result = await compare([Peer("parrot", nothing, serve)], None, [1], 1)
    assert pythons[0].exists()
    ours, peer = result["systems"]
    assert (ours["system"], peer["system"]) == ("colloquy", "parrot")
    for row in (ours, peer):
        assert row["summary"]["missing_answers"] == 0 and row["summary"]["errors"] == []
        [turn] = row["turns"]
        assert turn["seconds"] > 0 and turn["reply_seconds"] > 0
    assert ours["turns"][0]["recording"] == peer["turns"][0]["recording"]
    assert ours["cpu_seconds_per_turn"] > 0 and ours["rss_mb"] > 100
    assert peer["cpu_seconds_per_turn"] is None and peer["rss_mb"] is None

    console = Console(file=io.StringIO(), width=118, highlight=False)
    monkeypatch.setattr(report, "console", console)
    monkeypatch.setattr(module, "console", console)
    show_comparison(result)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "colloquy / parrot" in printed and "more MB a session" in printed
