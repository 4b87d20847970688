"""Several systems in one run: the same recordings, spoken by the same client, in rounds.

In a round each system has its conversations, new ones, of a few questions, one system after the
other; the next round begins with another system. So what else happens on the machine meets all of
them, and nobody is measured while another works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from app.cli.errors import load_settings
from benchmarks.common.asked import Asked, converse_all, summary
from benchmarks.common.report import console, ms, note, percent, print_table
from benchmarks.common.server import serving
from benchmarks.common.system import System
from benchmarks.peers import Peer
from benchmarks.peers.environment import environment

ROUND = 4
"""Questions of a conversation at most, without the one to warm up."""
_MB = 1_000_000
_LEAVE_S = 2.0
"""Time for a system to clear away its conversations before its memory is read."""


@dataclass(slots=True)
class Row:
    """What is known of one system with one number of sessions."""

    system: System
    sessions: int
    asked: list[Asked] = field(default_factory=list)
    spoken: int = 0
    """Turns, with those to warm up: they are like any other to the processor."""
    cpu_s: float | None = 0.0
    rss: list[int | None] = field(default_factory=list)
    """Bytes before the first round, and after each."""
    lag_s: float = 0.0

    async def converse(self, turns: range) -> None:
        """One round."""
        if not self.rss:
            self.rss.append(self.system.rss_bytes())
        before = self.system.cpu_seconds()
        asked, lag = await converse_all(self.system, self.sessions, turns, by_ear=True)
        await asyncio.sleep(_LEAVE_S)
        after = self.system.cpu_seconds()
        known = self.cpu_s is not None and before is not None and after is not None
        self.cpu_s = self.cpu_s + after - before if known else None  # type: ignore[operator]
        self.rss.append(self.system.rss_bytes())
        self.asked += asked
        self.spoken += self.sessions * (len(turns) + 1)
        self.lag_s = max(self.lag_s, lag)

    def growth_bytes(self) -> float | None:
        """Memory that a session left behind, on average of the second half of the rounds: what a system
        loads when it is first used stays, and so do its allocator's pools."""
        known = [size for size in self.rss if size is not None]
        first = len(self.rss) // 2
        if len(known) < len(self.rss) or first == len(self.rss) - 1:
            return None
        return (known[-1] - known[first]) / ((len(known) - 1 - first) * self.sessions)

    def as_json(self) -> dict[str, Any]:
        growth = self.growth_bytes()
        rss = self.rss[-1] if self.rss else None
        return {
            "system": self.system.name,
            "sessions": self.sessions,
            "summary": summary(self.asked),
            "cpu_seconds_per_turn": None if self.cpu_s is None else self.cpu_s / self.spoken,
            "rss_mb": None if rss is None else rss / _MB,
            "growth_mb_per_session": None if growth is None else growth / _MB,
            "client_lag_seconds": self.lag_s,
            "turns": [one.as_json() for one in self.asked],
        }


def rounds(turns: int) -> list[range]:
    """`turns` questions in pieces of at most `ROUND`, as equal as can be."""
    pieces = -(-turns // ROUND)
    ends = [turns * piece // pieces for piece in range(pieces + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


async def compare(
    peers: Sequence[Peer], url: str | None, counts: Sequence[int], turns: int
) -> dict[str, Any]:
    """Measure ours and all `peers` with each number of sessions; each session asks `turns` questions."""
    settings = load_settings()
    pythons = [await environment(peer.requirements) for peer in peers]
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        systems = [await stack.enter_async_context(serving(url))]
        for peer, python in zip(peers, pythons, strict=True):
            note(f"starting {peer.name}")
            systems.append(await stack.enter_async_context(peer.serve(python, settings)))
        for count in counts:
            now = [Row(system, count) for system in systems]
            rows += now
            for number, part in enumerate(rounds(turns)):
                first = number % len(now)
                for row in now[first:] + now[:first]:
                    await row.converse(part)
    return {
        "models": {system.name: system.models for system in systems},
        "systems": [row.as_json() for row in rows],
    }


def ratios(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ours (the first system) over each other, with the same number of sessions."""
    for other in rows:
        ours = next(row for row in rows if row["sessions"] == other["sessions"])
        if other is ours:
            continue

        def over(name: str, ours: dict[str, Any] = ours, other: dict[str, Any] = other) -> float | None:
            a, b = _figure(ours, name), _figure(other, name)
            return None if a is None or not b else a / b

        yield {"system": f"{ours['system']} / {other['system']}", "sessions": other["sessions"]} | {
            name: over(name) for name in ("p50", "p95", "mean", "cpu_seconds_per_turn", "rss_mb")
        }


def _figure(row: dict[str, Any], name: str) -> float | None:
    if name in ("p50", "p95", "mean"):
        row = row["summary"]["voice_to_voice"]
    found: float | None = row.get(name)
    return found


def show_comparison(result: dict[str, Any]) -> None:
    """Print what `compare` found."""
    for name, models in result["models"].items():
        told = ", ".join(f"{role}: {model}" for role, model in models.items())
        console.print(f"{name}: {told}", soft_wrap=True)
    rows = result["systems"]
    print_table(
        "Voice to voice: last spoken sample to first audible sample received",
        ["system", "sessions", "turns", "p50 ms", "p95 ms", "mean ms", "early", "none", "split", "WER %"],
        [_times(row) for row in rows]
        + [_ratio(r, "", "p50", "p95", "mean", "", "", "", "") for r in ratios(rows)],
    )
    print_table(
        "What it costs",
        ["system", "sessions", "CPU s a turn", "reply s", "memory MB", "more MB a session", "sent late ms"],
        [_costs(row) for row in rows]
        + [_ratio(r, "cpu_seconds_per_turn", "", "rss_mb", "", "") for r in ratios(rows)],
    )
    console.print(
        "early: answers begun before the last spoken sample; none: no answer after it; "
        "split: heard as several turns",
        soft_wrap=True,
    )
    for row in rows:
        for error in row["summary"]["errors"]:
            console.print(f"error of {row['system']}, {row['sessions']} session(s): {error}")


def _times(row: dict[str, Any]) -> list[str]:
    found = row["summary"]
    counts = ("premature_answers", "missing_answers", "split_into_several_turns")
    return [
        row["system"],
        str(row["sessions"]),
        str(found["turns"]),
        *(ms(found["voice_to_voice"].get(name)) for name in ("p50", "p95", "mean")),
        *(str(found[name]) for name in counts),
        percent(found["wer"]),
    ]


def _costs(row: dict[str, Any]) -> list[str]:
    return [
        row["system"],
        str(row["sessions"]),
        _number(row["cpu_seconds_per_turn"], 2),
        _number(row["summary"]["reply"].get("mean"), 1),
        _number(row["rss_mb"], 0),
        _number(row["growth_mb_per_session"], 1),
        ms(row["client_lag_seconds"]),
    ]


def _ratio(ratio: dict[str, Any], *names: str) -> list[str]:
    return [
        ratio["system"],
        str(ratio["sessions"]),
        *(_number(ratio[name], 2) if name else "" for name in names),
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
