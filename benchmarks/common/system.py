"""What a benchmark knows of a system that can be spoken to, ours or another's.

A `Line` is one conversation: sound goes in frame by frame, `Event`s come out. The client
(`benchmarks.common.paced`) is the same for all systems; what differs is the few lines that translate
a system's own wire to this.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Began:
    """The system took the person to begin a turn. `turn` is any name that no other turn of the
    conversation has; a system that numbers none gets a counter from its adapter."""

    turn: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The system took speech to end at `at_ms` of the conversation's sound. Optional."""

    turn: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in a turn; several of one turn are joined."""

    turn: str
    text: str


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of the reply: PCM16 mono at `rate` Hz, which came at `at` (`time.monotonic`, taken
    when it was read from the socket)."""

    turn: str
    at: float
    pcm16: bytes
    rate: int


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more comes of a turn. Optional: how long replies last is found from their sound
    where systems are compared."""

    turn: str
    latency: dict[str, float] = field(default_factory=dict)
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error or a warning that the system told of."""

    message: str


Event = Began | Stopped | Transcript | Sound | Over | Trouble


class Line(Protocol):
    """One conversation with a system, ready to be spoken to."""

    async def send(self, pcm16: bytes) -> None:
        """The next 20 ms of the microphone: PCM16 mono, 16 kHz."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]:
        """What the system says, in order, until the conversation ends."""
        ...


@dataclass(frozen=True, slots=True)
class System:
    """A running system whose models are loaded. `models` by role; `pids` are all the processes that do
    its work, none where somebody else started it; `connect` opens a conversation that is over when the
    block is left."""

    name: str
    models: dict[str, str]
    pids: tuple[int, ...]
    connect: Callable[[], AbstractAsyncContextManager[Line]]

    def cpu_seconds(self) -> float | None:
        """Processor time of its processes and their children so far, in seconds; None where that
        cannot be read."""
        ticks = os.sysconf("SC_CLK_TCK")
        found = [_stat(pid) for pid in family(self.pids)]
        times = [(int(fields[11]) + int(fields[12])) / ticks for fields in found if fields]
        return sum(times) if times else None

    def rss_bytes(self) -> int | None:
        """Resident memory of its processes and their children, shared pages counted in each; None
        where that cannot be read."""
        page = os.sysconf("SC_PAGE_SIZE")
        found = [_stat(pid) for pid in family(self.pids)]
        sizes = [int(fields[21]) * page for fields in found if fields]
        return sum(sizes) if sizes else None


def family(pids: Iterable[int]) -> list[int]:
    """`pids` and all their descendants, as far as /proc tells."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(entry.name)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the command's name: state, parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
