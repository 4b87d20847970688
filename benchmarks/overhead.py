"""What our own work costs: added latency, processor and memory with many sessions and instant engines.

The server has one core, the client another. Recogniser, language model and voice answer at once,
so whatever time passes between the end of a turn and the first sound of the reply is spent by the
server itself: wire, voice detection, dialogue, wire again.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from app.roles import Misconfigured
from benchmarks.common.instant_load import Load, measure
from benchmarks.common.instant_systems import ours, peer
from benchmarks.common.report import (
    console,
    machine,
    note,
    percent,
    print_machine,
    print_table,
    run,
    write_json,
)

TARGET_S = 0.020
"""p99 of the added latency up to which a number of sessions counts as served."""
_HOPELESS_S = 1.0
_MOST = 1000


def _ms(spread: dict[str, float], *keys: str) -> list[str]:
    return [f"{spread[key] * 1000:.1f}" if key in spread else "–" for key in keys]


def _latency(row: dict[str, Any]) -> list[str]:
    begin = [f"{row['system']}, {row['sessions']}", str(row["turns"])]
    late = [percent(row["late_pieces"]), *_ms(row["late"], "p99", "max")]
    return [*begin, *_ms(row["added"], "p50", "p95", "p99", "max"), *late, str(row["missing"])]


def _costs(row: dict[str, Any]) -> list[str]:
    server = [percent(row["cpu"], 0), percent(row["others"], 0), f"{row['rss_mb']:.0f}"]
    client = [percent(row["client_cpu"], 0), *_ms(row["client_lag"], "p99", "max")]
    return [f"{row['system']}, {row['sessions']}", *server, *client, str(len(row["errors"]))]


def _per_session(rows: list[dict[str, Any]]) -> float | None:
    """MB that a session adds, from the fewest sessions to the most."""
    first, last = rows[0], rows[-1]
    if first["sessions"] == last["sessions"]:
        return None
    return float(last["rss_mb"] - first["rss_mb"]) / int(last["sessions"] - first["sessions"])


def show(result: dict[str, Any]) -> None:
    """Print the rows."""
    print_machine(result["machine"])
    rows = result["rows"]
    first = "system, sessions"
    print_table(
        f"Added latency, ms ({result['seconds']:.0f} s each, {result['vad']})",
        [first, "turns", "p50", "p95", "p99", "max", "late %", "late p99", "late max", "missing"],
        [_latency(row) for row in rows],
    )
    print_table(
        "What it takes: the server's core, and how the client did",
        [first, "server %", "others %", "RSS MB", "client %", "lag p99 ms", "lag max ms", "errors"],
        [_costs(row) for row in rows],
    )
    for name in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == name]
        served = [row["sessions"] for row in own if row["turns"] and row["added"]["p99"] <= TARGET_S]
        grown = _per_session(own)
        console.print(
            f"{name}: p99 within {TARGET_S * 1000:.0f} ms up to {max(served, default=0)} sessions"
            + ("" if grown is None else f", {grown:.2f} MB a session")
        )
    for row in rows:
        for error in sorted(set(row["errors"]))[:3]:
            console.print(f"{row['system']}, {row['sessions']}: {error}", soft_wrap=True)
    if any(row["client_cpu"] > 0.9 for row in rows):
        console.print("the client's own core was full: its lag is in the figures")


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= _MOST for count in counts):
        raise typer.BadParameter(f"numbers from 1 to {_MOST}, with commas between them")
    return sorted(counts)


async def _measure_all(
    peers: list[str], counts: list[int], seconds: float, *, with_vad: bool, cores: tuple[int, int]
) -> list[dict[str, Any]]:
    systems = [ours(with_vad=with_vad), *[await peer(name, with_vad=with_vad) for name in peers]]
    rows: list[dict[str, Any]] = []
    for sessions in counts:
        for system in list(systems):
            note(f"{system.name}: {sessions} sessions")
            row = await measure(system, Load(sessions, seconds), server_core=cores[0])
            rows.append(row)
            if len(systems) > 1 and row["added"].get("p99", math.inf) > _HOPELESS_S:
                note(f"{system.name} is left out from here on: p99 above {_HOPELESS_S:.0f} s")
                systems.remove(system)
    return rows


def main(
    sessions: Annotated[str, typer.Option(help="open at once; several numbers, one after the other")] = (
        "1,10,50,100,150,200"
    ),
    seconds: Annotated[float, typer.Option(min=1, help="how long each is measured")] = 20,
    peer: Annotated[list[str] | None, typer.Option(help="measure this beside ours: pipecat")] = None,
    vad: Annotated[bool, typer.Option("--with-vad/--without-vad", help="Silero, or speech by level")] = True,
    json: Annotated[Path | None, typer.Option(help="file for everything measured")] = None,
) -> None:
    """Added latency, processor time and memory of many sessions with instant engines.

    A server on one core, a client on another. Each session plays a recording of a
    person in real time, again and again, and is answered with 1.5 s of sound.
    Added latency: from sending the 20 ms frame with which the end wait is over
    to the arrival of the reply's first sound.
    """
    counts = _counts(sessions)
    if not hasattr(os, "sched_setaffinity"):
        raise Misconfigured("this benchmark pins processes to cores, which only Linux can")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Misconfigured("this benchmark needs two cores: one for the server, one for the client")
    result: dict[str, Any] = {
        "benchmark": "overhead",
        "machine": machine(),
        "seconds": seconds,
        "vad": "with Silero" if vad else "without voice detection",
    }
    os.sched_setaffinity(0, {cores[1]})
    gc.disable()  # its pauses would be taken for the server's
    result["rows"] = asyncio.run(
        _measure_all(peer or [], counts, seconds, with_vad=vad, cores=(cores[0], cores[1]))
    )
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
