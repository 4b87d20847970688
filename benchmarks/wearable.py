"""A wearable's long stream: what is heard of a conversation, and whether it costs the same all along.

People's recordings, put together to a conversation with pauses and overlaps (`corpus.conversation`), are sent
to a server in another process as fast as that hears them, in packets of a codec. Now and then the phone
leaves and comes back.
"""

from __future__ import annotations

import asyncio
import json as json_
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.common.process import answering, free_port, started
from benchmarks.common.report import (
    machine,
    note,
    percent,
    print_machine,
    print_table,
    run,
    write_json,
)
from benchmarks.common.wearables import PACKERS
from corpus import wer
from corpus.conversation import Conversation, conversation

_ROOT = Path(__file__).parents[1]
_START_S = 600.0
_LAST_WORDS_S = 120.0
_SEED = 5


@dataclass
class Phone:
    """What an app has on its screen, by id."""

    url: str
    codec: str
    segments: dict[str, Any] = field(default_factory=dict)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _reading: asyncio.Task[None] | None = None
    _socket: ClientConnection | None = None

    async def come(self) -> None:
        """Connect, and wait until it is heard."""
        self._ready.clear()
        url = f"{self.url}/v4/listen?codec={self.codec}&sample_rate=16000&language=en"
        self._socket = await connect(url, max_size=None, ping_interval=None, close_timeout=300)
        self._reading = asyncio.create_task(self._read(self._socket))
        await self._ready.wait()

    async def send(self, packets: Sequence[bytes]) -> None:
        """As fast as they are taken: the network holds minutes of them, so wait until they are there."""
        assert self._socket is not None
        for packet in packets:
            await self._socket.send(packet)
        await (await self._socket.ping())

    async def leave(self) -> None:
        """Hang up; what was sent is heard to its end."""
        assert self._socket is not None and self._reading is not None
        await self._socket.close()
        await self._reading

    async def _read(self, socket: ClientConnection) -> None:
        async for frame in socket:
            if frame == "ping":
                await socket.send(b"\x8a\x00")
                continue
            message = json_.loads(frame)
            if isinstance(message, list):
                self.segments |= {s["id"]: s for s in message}
            elif message.get("status") == "ready":
                self._ready.set()
            elif message.get("type") == "segments_deleted":
                for id_ in message["segment_ids"]:
                    self.segments.pop(id_, None)


async def measure(codec: str, minutes: float, away: float) -> dict[str, Any]:
    """Send it all, and compare what was kept with what was said."""
    talk = conversation(_SEED, minutes * 60)
    with tempfile.TemporaryDirectory(prefix="colloquy-bench-") as folder:
        port, costs = free_port(), Path(folder) / "costs"
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "benchmarks.common.wearable_server", str(port), str(costs)]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"DATA_DIR": f"{folder}/data", "HOST": "127.0.0.1", "PYTHONPATH": path}
        async with started("the server", command, environment) as process:
            await answering("the server", process, f"{url}/health", seconds=_START_S)
            phone = Phone(url.replace("http", "ws", 1), codec)
            await phone.come()
            began = time.monotonic()
            times = await send(phone, talk, away, url)
            seconds = time.monotonic() - began
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
                kept = (await http.get("/v1/conversations")).json()
        segments = [s for c in reversed(kept) for s in c["transcript_segments"]]
        events = [json_.loads(line) for line in costs.read_text(encoding="ascii").splitlines()]
    ids = [s["id"] for s in segments]
    return {
        "codec": codec,
        "minutes": minutes,
        "turns": len(talk.turns),
        "connections": times,
        "seconds": round(seconds, 1),
        "times_real_time": round(minutes * 60 / seconds, 2),
        "wer": wer(talk.text(), " ".join(s["text"] for s in segments)),
        "conversations": len(kept),
        "segments": len(segments),
        "speakers": len({s["speaker_id"] for s in segments}),
        "doubled": len(ids) - len(set(ids)) + _same_again(segments),
        "lost": len(set(phone.segments) - set(ids)),
        "out_of_order": sum(b["start"] < a["end"] - 0.01 for a, b in pairwise(segments)),
        **costs_over_time(events, minutes),
    }


async def send(phone: Phone, talk: Conversation, away: float, url: str) -> int:
    """All of it, a minute at a time, leaving every `away` minutes; how many connections that took."""
    connections = 1
    for minute in range(int(np.ceil(talk.seconds / 60))):
        if away and minute and minute % away == 0:
            await phone.leave()
            await _heard_out(url)
            await phone.come()
            connections += 1
        await phone.send(PACKERS[phone.codec](talk.sound(minute * 60, minute * 60 + 60)))
        note(f"{phone.codec}: {minute + 1} minutes")
    await phone.send(PACKERS[phone.codec](np.zeros(32_000, np.float32)))
    await phone.leave()
    await _heard_out(url)
    return connections


async def _heard_out(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, asyncio.timeout(_LAST_WORDS_S):
        while (await http.get("/health")).json()["sessions"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def _same_again(segments: Sequence[Any]) -> int:
    """Segments at the same time with the same words."""
    seen = [(s["text"], round(s["start"], 1)) for s in segments]
    return len(seen) - len(set(seen))


def costs_over_time(events: Sequence[dict[str, float]], minutes: float) -> dict[str, Any]:
    """What an event cost in the first and in the last of ten parts, and what the server held then."""
    if not events:
        return {}
    begin = events[0]["at"]
    part = minutes * 60 / 10
    found: dict[str, Any] = {}
    for name, low, high in (("first", 0.0, part), ("last", 9 * part, np.inf)):
        there = [e for e in events if low <= e["at"] - begin <= high]
        for kind in ("ms", "speaker_ms", "store_ms"):
            values = [e[kind] for e in there if kind in e]
            p50, p99 = np.percentile(values, [50, 99]) if values else (0.0, 0.0)
            found[f"{name}_{kind}"] = {
                "n": len(values),
                "p50": round(float(p50), 3),
                "p99": round(float(p99), 3),
            }
        memory = [e["memory"] for e in there if "memory" in e]
        found[f"{name}_memory_mb"] = round(memory[-1]) if memory else None
    early = [e["memory"] for e in events if "memory" in e and e["at"] - begin >= 60]
    found["minute_1_memory_mb"] = round(early[0]) if early else found["first_memory_mb"]
    return found


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print_machine(result["machine"])
    rows, costs = [], []
    for r in result["codecs"]:
        rows.append(
            [
                r["codec"],
                f"{r['minutes']:g}",
                f"{r['times_real_time']:.1f}",
                percent(r["wer"]),
                *(str(r[n]) for n in ("turns", "segments", "speakers", "connections")),
                *(str(r[n]) for n in ("doubled", "lost", "out_of_order")),
            ]
        )
        for kind, what in (("ms", "segments"), ("speaker_ms", "speakers"), ("store_ms", "stored (wall)")):
            first, last = r[f"first_{kind}"], r[f"last_{kind}"]
            cells = [f"{c[p]:.2f}" for c in (first, last) for p in ("p50", "p99")]
            costs.append([f"{r['codec']}, {what}", *cells])
        costs.append(
            [f"{r['codec']}, memory MB", str(r["minute_1_memory_mb"]), "", str(r["last_memory_mb"]), ""]
        )
    print_table(
        "A conversation through each codec",
        "codec,minutes,× real time,WER %,turns,segments,speakers,connections,doubled,lost,disorder".split(
            ","
        ),
        rows,
    )
    print_table(
        "What an event costs, in ms, and the memory at minute 1 and at the end",
        ["", "first tenth p50", "p99", "last tenth p50", "p99"],
        costs,
    )


def main(
    codec: Annotated[
        list[str] | None, typer.Option(help=f"one of {', '.join(PACKERS)}; repeatable; default: all")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.5, max=24 * 60, help="of conversation")] = 2.0,
    away: Annotated[int, typer.Option(min=0, help="minutes between leaving and coming back; 0: stay")] = 10,
    json: Annotated[Path | None, typer.Option(help="file for everything measured")] = None,
) -> None:
    """A long conversation through a wearable's stream: word error rate, what is lost or doubled, and whether
    minute 60 costs what minute 1 did. Two minutes of each codec take some minutes, an hour of one ten."""
    if unknown := set(codec or ()) - set(PACKERS):
        raise typer.BadParameter(f"no codec {', '.join(sorted(unknown))}; there are {', '.join(PACKERS)}")
    info = machine()
    found = [asyncio.run(measure(name, minutes, away)) for name in codec or PACKERS]
    result = {"benchmark": "wearable", "machine": info, "codecs": found}
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
