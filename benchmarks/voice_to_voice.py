"""How long a person waits: from their last spoken sample to the first audible sample of the answer.

A client plays recordings of people in real time over the session WebSocket, as a microphone would,
and waits for each reply to end before it goes on, in one conversation. Every figure is the client's,
but for the stages, which are the server's own clock (`turn_complete.latency`). With a peer both
are spoken to by the same client, and only what it hears counts (`benchmarks.common.compare`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.asked import converse_all, summary
from benchmarks.common.compare import compare, show_comparison
from benchmarks.common.report import (
    console,
    machine,
    ms,
    percent,
    print_machine,
    print_table,
    run,
    write_json,
)
from benchmarks.common.server import serving
from benchmarks.peers import NAMES
from benchmarks.peers import peer as find
from corpus import questions

_MOST_SESSIONS = 5


def show(result: dict[str, Any]) -> None:
    """Print what `summary` found."""
    print_machine(result["machine"])
    console.print(", ".join(f"{role}: {model}" for role, model in result["models"].items()), soft_wrap=True)
    found = result["summary"]
    columns = ["p50", "p95", "mean", "min", "max"]

    def row(name: str, values: dict[str, float]) -> list[str]:
        return [name, *(ms(values.get(column)) for column in columns)]

    print_table(
        f"Voice to voice, ms: {found['turns']} turns in {result['sessions']} session(s) at once",
        ["last spoken sample to …", *columns],
        [
            row("first audible sample received", found["voice_to_voice"]),
            row("… heard, if played from the first piece on", found["heard"]),
        ],
    )
    mean = found["voice_to_voice"].get("mean")
    stages = found["stages"].items()
    print_table(
        "Where it goes, ms",
        ["stage", *columns, "share %"],
        [[*row(name, s), percent(s["mean"] / mean, 0) if mean and s["n"] else "–"] for name, s in stages],
    )
    cpu = result["server_cpu_seconds_per_turn"]
    print_table(
        "Beside the time",
        ["", ""],
        [
            ["answers begun before the last spoken sample", str(found["premature_answers"])],
            ["recordings without an answer after it", str(found["missing_answers"])],
            ["recordings heard as several turns", str(found["split_into_several_turns"])],
            ["word error rate of the transcripts, %", percent(found["wer"])],
            [
                "server CPU seconds a turn, its replies spoken to the end",
                "–" if cpu is None else f"{cpu:.2f}",
            ],
            ["the client sent late by at most, ms", ms(result["client_lag_seconds"])],
        ],
    )
    for error in found["errors"]:
        console.print(f"error: {error}")


async def measure(url: str | None, sessions: int, turns: int) -> dict[str, Any]:
    """Run all sessions at once."""
    async with serving(url) as server:
        before = server.cpu_seconds()
        asked, lag = await converse_all(server, sessions, range(turns), by_ear=False)
        after = server.cpu_seconds()
    # The warming turns are turns like any other to the processor.
    spoken = sessions * (turns + 1)
    return {
        "models": server.models,
        "server_cpu_seconds_per_turn": None if before is None or after is None else (after - before) / spoken,
        "client_lag_seconds": lag,
        "summary": summary(asked),
        "turns": [one.as_json() for one in asked],
    }


def _counts(text: str) -> list[int]:
    """`text` as numbers of sessions: "1,2,5"."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= _MOST_SESSIONS for count in counts):
        raise typer.BadParameter(f"numbers from 1 to {_MOST_SESSIONS}, with commas between them")
    return counts


def main(
    turns: Annotated[
        int | None, typer.Option(min=1, help="turns of each session; default: every question once")
    ] = None,
    sessions: Annotated[
        str,
        typer.Option(help="people who talk at the same time; several numbers, one after the other: 1,2,5"),
    ] = "1",
    peer: Annotated[
        list[str] | None, typer.Option(help=f"measure this beside ours: {', '.join(NAMES)}; may be repeated")
    ] = None,
    url: Annotated[str | None, typer.Option(help="a running server; default: a fresh one is started")] = None,
    json: Annotated[Path | None, typer.Option(help="file for everything measured, turn by turn")] = None,
) -> None:
    """Time from a person's last spoken sample to the first audible sample of the answer.

    Recordings of people are played in real time over the session WebSocket.
    Where their speech ends is found by level (app.talk.recording); audible is
    a level of -40 dBFS. Without --url a server is started, with the settings of
    the environment and data of its own.

    With --peer, or several numbers of sessions, the systems take turns, a few
    questions at a time, and one table compares them. A peer's environment is made
    on its first use.
    """
    counts = _counts(sessions)
    peers = [find(name) for name in peer or []]
    turns = turns or len(questions())
    result: dict[str, Any] = {"benchmark": "voice_to_voice", "machine": machine()}
    if peers or len(counts) > 1:
        result |= asyncio.run(compare(peers, url, counts, turns))
        print_machine(result["machine"])
        show_comparison(result)
    else:
        result |= {"sessions": counts[0]} | asyncio.run(measure(url, counts[0], turns))
        show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
