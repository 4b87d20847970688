"""Three hundred sessions and a thousand interruptions later, the server is as large as before."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import Server, make_settings, scripted
from wire_client import Wire, join

import corpus
from app.api.socket import Connection
from app.dialogue.reply import Reply
from app.dialogue.session import Session
from app.dialogue.utterance import Utterance
from benchmarks.common.instant_engines import InstantLlm, InstantStt, InstantTts

SESSIONS, WAVE, TOGETHER = 300, 30, 10
INTERRUPTIONS = 1000
KEPT_MB = 6.0
"""What the process may have grown by after the first two waves. A session that stayed would hold 0.13 MB
(by keeping them all on purpose), so 240 would hold 31; a wave by itself moves the size by 2, for what the
allocator cannot give back."""

POOL = min(32, (os.cpu_count() or 1) + 4)
"""The loop's own pool makes a thread when all it has are busy, up to so many, and keeps it."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts by /proc")


@pytest.fixture
def server(models_dir: Path, tmp_path: Path) -> Iterator[Server]:
    """Real voice detection; recogniser, language model and voice answer at once. A session whose client
    has gone is kept for a few seconds."""
    settings = make_settings(models_dir, tmp_path, max_sessions=WAVE, session_keep_s=4)
    with scripted(settings, stt=InstantStt(), llm=InstantLlm(), tts=InstantTts(seconds=4)) as server:
        yield server


def question() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Two seconds of a person, and the silence that ends the turn."""
    [found] = [r for r in corpus.recordings() if r.id == "card-5"]
    return np.concatenate([corpus.load(found)[: 2 * 16000], np.zeros(12800, np.float32)])


@dataclass(frozen=True)
class Size:
    """What there is of the process."""

    tasks: Counter[str]
    objects: int
    """Sessions, connections, replies and utterances."""
    threads: int
    files: int
    mb: float


def ours() -> list[object]:
    """What there is of sessions in this process."""
    return [o for o in gc.get_objects() if isinstance(o, Session | Connection | Reply | Utterance)]


def size(server: Server) -> Size:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    [listening] = server.uvicorn.servers
    tasks = asyncio.all_tasks(listening.get_loop())  # type: ignore[arg-type]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Size(
        Counter(t.get_coro().__qualname__ for t in tasks),  # type: ignore[union-attr]
        len(ours()),
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a path object for each would be work of our own
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    )


async def talk(server: Server, http: httpx.AsyncClient, number: int, sound: np.ndarray[Any, Any]) -> None:
    """A session that is interrupted three or four times, in turn by typing, by its client and by voice, and
    ends in one of three ways while a reply is being spoken."""
    wish = {"audio_out": {"binary": True}, "turn_detection": {"adaptive": False, "echo": False}}
    session = (await http.post("/api/v1/sessions", json=wish)).raise_for_status().json()
    # Without a limit: else its library stops reading while nobody asks for messages, and closing waits.
    async with join(server.url, session, compression=None, max_queue=None) as wire:
        await wire.until("session_ready")
        await ask(wire)
        for i in range(INTERRUPTIONS // SESSIONS + (number % 3 == 0)):
            kind = ("text", "client", "speech")[(number + i) % 3]
            if kind == "client":
                await wire.send("interrupt")
            elif kind == "speech":
                await wire.play(sound)
            else:
                await wire.send("text", text="And what else?")
            interrupted = await wire.until("interrupted")
            assert interrupted["reason"] == kind
            if kind == "client":
                await ask(wire)
            else:
                await wire.until("audio_chunk")
        if number % 3 == 0:
            wire.socket.transport.abort()
    if number % 3 == 1:
        await http.delete(f"/api/v1/sessions/{session['session_id']}")


async def ask(wire: Wire) -> None:
    """Type something, and wait until the reply is being spoken."""
    await wire.send("text", text="Tell me.")
    await wire.until("audio_chunk")


async def wave(server: Server, first: int, sound: np.ndarray[Any, Any]) -> None:
    """A few sessions at once, until nothing of them is left to be done."""
    numbers = iter(range(first, first + WAVE))
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http, asyncio.TaskGroup() as group:

        async def talk_on() -> None:
            for number in numbers:
                await talk(server, http, number, sound)

        for _ in range(TOGETHER):
            group.create_task(talk_on())
    context, [listening] = server.app.state.context, server.uvicorn.servers
    until = time.monotonic() + 30
    while len(context.sessions) or server.uvicorn.server_state.connections:
        assert time.monotonic() < until, "sessions do not end"
        await asyncio.sleep(0.05)
    kept = asyncio.run_coroutine_threadsafe(context.keeper.flush(), listening.get_loop())
    await asyncio.wrap_future(kept)
    # Ends are still noted in the database, and its connections put back.
    await asyncio.sleep(0.5)


async def test_nothing_is_left_of_sessions_and_interruptions(server: Server) -> None:
    until = time.monotonic() + 10
    while left := ours():
        # Of other tests, whose servers may be about to end.
        assert time.monotonic() < until, f"left by other tests: {[(o, gc.get_referrers(o)) for o in left]}"
        del left
        await asyncio.sleep(0.2)
        gc.collect()
    sound = question()
    sizes: list[Size] = []
    for first in range(0, SESSIONS, WAVE):
        await wave(server, first, sound)
        sizes.append(size(server))
        now = sizes[-1]
        print(  # noqa: T201 - the curve, for `pytest -s`
            f"{first + WAVE:4} sessions: {now.tasks.total()} tasks, {now.objects} objects, "
            f"{now.threads} threads, {now.files} files, {now.mb:.1f} MB"
        )
    ended = time.monotonic()
    metrics = server.app.state.context.metrics
    by_reason = {r: metrics.interruptions_total.labels(r)._value.get() for r in ("text", "client", "speech")}
    print(by_reason)  # noqa: T201
    assert sum(by_reason.values()) >= INTERRUPTIONS
    assert min(by_reason.values()) > INTERRUPTIONS / 4
    # Timers of the last replies still know them: three seconds at most.
    while (last := size(server)).objects:
        kept = [(o, gc.get_referrers(o)) for o in ours()]
        assert time.monotonic() - ended < 10, f"kept: {kept}"
        del kept
        await asyncio.sleep(0.5)
    warm = sizes[1]
    assert last.tasks == warm.tasks
    assert last.threads <= warm.threads + POOL
    assert last.files <= warm.files
    assert last.mb - warm.mb < KEPT_MB
