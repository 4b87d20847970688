"""One system under one load: who calls when, and what is counted."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.instant_client import Reply, frames_of
from benchmarks.common.instant_systems import System
from corpus import load, questions

RECORDINGS = "prompt-vm-savefolder prompt-vm-nobodyavail card-5 austen-880 austen-930 cities-6".split()
"""About three seconds each, said without a pause."""
_WARM_S = 8.0
"""Longer than any recording with its silence: everybody has been answered once."""
_LAST_S = 1.0
_GOLDEN = 0.6180339887
"""Steps of this, taken modulo 1, lie evenly however many there are."""
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """So many sessions, measured for so many seconds."""

    sessions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Usage:
    """Processor seconds of the server and of this process, busy seconds of the server's core, and when."""

    server: float
    client: float
    core: float
    at: float


async def measure(system: System, load_: Load, *, server_core: int) -> dict[str, Any]:
    """Start `system` on `server_core`, put the load on it, and count."""
    recordings = {r.id: r for r in questions()}
    streams = [frames_of(load(recordings[name])) for name in RECORDINGS]
    async with system.serve(server_core, load_.sessions) as running:
        idle = _rss(running.pid)
        callers = [await running.call() for _ in range(load_.sessions)]
        await asyncio.gather(*(caller.ready for caller in callers))
        begin = time.monotonic() + 0.5
        for number, caller in enumerate(callers):
            frames, place = streams[number % len(streams)], number * _GOLDEN % 1
            caller.speak(frames, int(place * len(frames)), begin + place * 0.02)
        await asyncio.sleep(_WARM_S)
        for caller in callers:
            caller.lags.clear()
        before = _usage(running.pid, server_core)
        await asyncio.sleep(load_.seconds)
        after = _usage(running.pid, server_core)
        rss, unsent = _rss(running.pid), sum(caller.unsent for caller in callers)
        await asyncio.sleep(_LAST_S)
        errors = [error for caller in callers for error in caller.errors]
        for caller in callers:
            caller.hang_up()
    wall = after.at - before.at
    replies = [r for caller in callers for r in caller.replies if before.at <= r.due < after.at]
    return _counted(replies) | {
        "system": system.name,
        "sessions": load_.sessions,
        "cpu": (after.server - before.server) / wall,
        "others": max(0.0, after.core - before.core - after.server + before.server) / wall,
        "client_cpu": (after.client - before.client) / wall,
        "client_lag": _spread(lag for caller in callers for lag in caller.lags),
        "rss_mb": rss / _MB,
        "rss_idle_mb": idle / _MB,
        "unsent_bytes": unsent,
        "errors": errors,
    }


def _counted(replies: list[Reply]) -> dict[str, Any]:
    answered = [(r, r.first) for r in replies if r.first is not None]
    pieces = sum(r.pieces for r in replies)
    return {
        "turns": len(answered),
        "missing": len(replies) - len(answered),
        "added": _spread(first - r.due for r, first in answered),
        "late": _spread(r.late for r, _ in answered),
        "late_pieces": sum(r.late_pieces for r in replies) / pieces if pieces else None,
        "added_seconds": [round(first - r.due, 5) for r, first in answered],
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    data = np.array(list(values))
    if not len(data):
        return {}
    p50, p95, p99 = np.percentile(data, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(data.max())}


def _rss(pid: int) -> int:
    """Resident memory, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _usage(pid: int, core: int) -> _Usage:
    ticks = os.sysconf("SC_CLK_TCK")
    own = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    [busy] = [line.split()[1:] for line in lines if line.startswith(f"cpu{core} ")]
    # user, nice, system, idle, iowait, irq, softirq, steal
    spent = [int(field) for field in busy[:8]]
    return _Usage(
        server=(int(own[11]) + int(own[12])) / ticks,
        client=time.process_time(),
        core=(sum(spent) - spent[3] - spent[4]) / ticks,
        at=time.monotonic(),
    )
