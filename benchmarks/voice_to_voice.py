"""How long a person waits: from their last spoken sample to the first audible sample of the answer.

A client plays recordings of people in real time over the session WebSocket, as a microphone would,
and waits for each reply to end before it goes on, in one conversation. Every figure is the client's,
but for the stages, which are the server's own clock (`turn_complete.latency`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.paced import Exchange, talking
from benchmarks.common.report import (
    console,
    machine,
    ms,
    note,
    percent,
    print_machine,
    print_table,
    run,
    spread,
    write_json,
)
from benchmarks.common.server import serving
from corpus import Recording, load, questions, wer

STAGES = {
    "voice end heard": "",  # the server's last speech frame, behind the last spoken sample as we define it
    "endpoint wait": "endpoint",
    "transcription": "stt_final",
    "LLM first token": "llm_first_token",
    "first segment": "first_segment",
    "voice (TTS)": "tts_first_audio",
    "sending": "first_audio_sent",
    "network and frames": "",  # what is left: 20 ms frames, the socket, the client, silence sent first
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A recording that was said, and what came of it."""

    session: int
    recording: Recording
    exchange: Exchange

    @property
    def transcript(self) -> str:
        """All that was heard of the recording; it may have been cut into several turns."""
        return " ".join(t.transcript for t in self.exchange.turns if t.transcript)

    @property
    def seconds(self) -> float | None:
        """The figure: last spoken sample to first audible sample received."""
        answer = self.exchange.answer
        first = answer.first_audible if answer else None
        return None if first is None else first - self.exchange.spoken

    @property
    def stages(self) -> dict[str, float]:
        """Seconds each stage took after those before it were done: what was ready in time, because it
        was begun in the closing silence, took none. They add up to `seconds`. Empty where the clock has
        gaps."""
        answer, total = self.exchange.answer, self.seconds
        if answer is None or total is None or answer.stopped_at_ms is None:
            return {}
        marks = [answer.latency.get(stage, math.nan) for stage in STAGES.values() if stage]
        if any(math.isnan(mark) for mark in marks):
            return {}
        voice_end = answer.stopped_at_ms - self.exchange.spoken_ms
        taken = [later - earlier for earlier, later in pairwise(accumulate([0.0, *marks], max))]
        rest = total * 1000 - voice_end - marks[-1]
        return {name: t / 1000 for name, t in zip(STAGES, [voice_end, *taken, rest], strict=True)}

    def as_json(self) -> dict[str, Any]:
        answer, exchange = self.exchange.answer, self.exchange
        heard = answer.heard_at if answer else None
        return {
            "session": self.session,
            "recording": self.recording.id,
            "seconds": self.seconds,
            "heard_seconds": None if heard is None else heard - exchange.spoken,
            "stages": self.stages,
            "latency": answer.latency if answer else {},
            "premature": exchange.premature,
            "turns": len(exchange.turns),
            "errors": exchange.errors,
            "reference": self.recording.text,
            "transcript": self.transcript,
            "wer": wer(self.recording.text, self.transcript),
            "reply": answer.reply if answer else "",
        }


async def converse(url: str, session: int, recordings: Sequence[Recording]) -> tuple[list[Asked], float]:
    """Say all recordings in one conversation; the first is for warming up and does not count. Also
    how late this client ever was, in seconds."""
    asked: list[Asked] = []
    sounds = [load(recording) for recording in recordings]  # now: reading would hold up the microphone
    async with talking(url) as talker:
        await talker.ask(sounds[0])
        talker.lag = 0.0
        for number, (recording, sound) in enumerate(zip(recordings[1:], sounds[1:], strict=True), 1):
            one = Asked(session, recording, await talker.ask(sound))
            asked.append(one)
            note(f"session {session} turn {number}: {ms(one.seconds)} ms  {recording.id}  {one.transcript}")
    return asked, talker.lag


def chosen(session: int, sessions: int, turns: int) -> list[Recording]:
    """One recording to warm up and `turns` more; sessions begin at different places of the list."""
    all_ = questions()
    first = session * len(all_) // sessions
    return [all_[(first + i) % len(all_)] for i in (-1, *range(turns))]


def summary(asked: Sequence[Asked]) -> dict[str, Any]:
    """The figures of a run; times in seconds."""
    rows = [one.as_json() for one in asked]
    staged = [one.stages for one in asked if one.stages]
    return {
        "voice_to_voice": spread(row["seconds"] for row in rows if row["seconds"] is not None),
        "heard": spread(row["heard_seconds"] for row in rows if row["heard_seconds"] is not None),
        "stages": {name: spread(s[name] for s in staged) for name in STAGES},
        "turns": len(rows),
        "premature_answers": sum(row["premature"] for row in rows),
        "missing_answers": sum(row["seconds"] is None for row in rows),
        "split_into_several_turns": sum(row["turns"] > 1 for row in rows),
        "errors": [error for row in rows for error in row["errors"]],
        "wer": wer([row["reference"] for row in rows], [row["transcript"] for row in rows]),
    }


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
        async with asyncio.TaskGroup() as group:
            talks = [
                group.create_task(converse(server.url, n, chosen(n, sessions, turns)))
                for n in range(sessions)
            ]
        after = server.cpu_seconds()
    asked = [one for talk in talks for one in talk.result()[0]]
    # The warming turns are turns like any other to the processor.
    spoken = sessions * (turns + 1)
    return {
        "models": server.models,
        "server_cpu_seconds_per_turn": None if before is None or after is None else (after - before) / spoken,
        "client_lag_seconds": max(talk.result()[1] for talk in talks),
        "summary": summary(asked),
        "turns": [one.as_json() for one in asked],
    }


def main(
    turns: Annotated[
        int | None, typer.Option(min=1, help="turns of each session; default: every question once")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, max=5, help="people who talk at the same time")] = 1,
    url: Annotated[str | None, typer.Option(help="a running server; default: a fresh one is started")] = None,
    json: Annotated[Path | None, typer.Option(help="file for everything measured, turn by turn")] = None,
) -> None:
    """Time from a person's last spoken sample to the first audible sample of the answer.

    Recordings of people are played in real time over the session WebSocket.
    Where their speech ends is found by level (app.talk.recording); audible is
    a level of -40 dBFS. Without --url a server is started, with the settings of
    the environment and data of its own.
    """
    result = {"benchmark": "voice_to_voice", "machine": machine(), "sessions": sessions}
    result |= asyncio.run(measure(url, sessions, turns or len(questions())))
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
