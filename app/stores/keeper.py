"""Keeps what was said, off the reply's path, whatever becomes of the stores or of this process.

What is to be kept is first an entry on this machine's disk (`spool`), and only then told to anybody. One task
takes the entries to the stores in order, each by the one who knows its kind, and removes them. When a store
does not work, the entry stays first in line and is tried again until it does. What another process left when
it died comes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from app.observability.logs import bind, current_trace_id
from app.observability.metrics import Metrics
from app.roles import ColloquyError
from app.stores.crypt import Unreadable
from app.stores.spool import Entry, Spool, SpoolFull

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

Land = Callable[[Entry], Awaitable[None]]
"""Stores an entry. It may be called again for one that is stored already. A retryable `ColloquyError` is
trouble with the store; anything else means that the entry can never be stored."""

_IN_MEMORY = 256
"""Entries that the disk did not take."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after a failure: `first`, then twice as long each time, up to `longest`."""

    first: float = 0.5
    longest: float = 30.0

    def after(self, failures: int) -> float:
        """The wait after so many failures in a row (1 or more)."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30))


class Keeper:
    """Takes entries to the stores, by `land` for each kind; belongs to one event loop.

    Counts in `kept_total`, by `what`: each kind, when it is stored; `left`, taken over from a process that
    died; `refused`, what a store will never take; `lost`, what neither the disk nor, until the end, a store
    had taken. The last two are logged with their ids.
    """

    def __init__(
        self, spool: Spool, land: Mapping[str, Land], metrics: Metrics, backoff: Backoff | None = None
    ) -> None:
        self._spool, self._land, self._metrics = spool, land, metrics
        self._backoff = backoff or Backoff()
        # One thread: entries are written in the order in which they are given.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._line: deque[Path | Entry | FileLock] = deque()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._landing = asyncio.Lock()
        self._dropped: dict[int, Entry] = {}

    async def start(self) -> None:
        """Begin, with what dead processes left."""
        await self._on_disk(self._spool.open)
        for paths, lock in await self._on_disk(lambda: list(self._spool.left())):
            if paths:
                logger.warning("a process died before all was stored", extra={"entries": len(paths)})
                self._metrics.kept_total.labels(what="left").inc(len(paths))
            self._put(*paths, lock)
        # Of its own context: this one belongs to somebody's session.
        self._task = asyncio.create_task(self._work(), name="keeper", context=Context())

    async def keep(self, entry: Entry) -> None:
        """Hand over an entry. On return it outlives this process, unless the disk refuses it."""
        if self._closing.is_set():
            raise RuntimeError("the keeper is closed")
        entry = replace(entry, trace_id=current_trace_id())
        try:
            path = await self._on_disk(self._spool.write, entry)
        except SpoolFull as error:
            logger.error("not written to disk: %s", error.message, extra=_ids(entry))
            if entry.provisional:
                return
            if len(self._line) >= _IN_MEMORY:
                self._lose(entry)
                return
            self._put(entry)
        else:
            if not entry.provisional:
                self._put(path)

    async def flush(self) -> None:
        """Wait until all that was handed over is stored (or refused)."""
        await self._idle.wait()

    async def erase(self, owner: str) -> int:
        """Remove all entries of `owner`; how many. None is on its way to a store any more on return."""
        async with self._landing:
            paths = await self._on_disk(self._spool.of, owner)
            for path in paths:
                await self._on_disk(self._spool.remove, path)
            held = [e for e in self._line if isinstance(e, Entry) and e.owner == owner]
            held = [e for e in held if id(e) not in self._dropped]
            self._dropped.update((id(e), e) for e in held)
        return len(paths) + len(held)

    async def close(self, within: float = 10.0) -> None:
        """Store what is in line, for up to `within` seconds, and stop: the rest waits on the disk for the
        next start. Idempotent."""
        self._closing.set()
        if (task := self._task) is None:
            return
        self._task = None
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self.flush()
        task.cancel()
        await asyncio.wait([task])
        for left in self._line:
            if isinstance(left, Entry):
                self._lose(left)
            elif isinstance(left, FileLock):
                left.release()
        self._line.clear()
        self._idle.set()
        await self._on_disk(self._spool.close)
        self._disk.shutdown()

    async def _on_disk(self, work: Callable[..., _T], *given: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *given)

    def _put(self, *items: Path | Entry | FileLock) -> None:
        self._line += items
        self._idle.clear()
        self._news.set()

    async def _work(self) -> None:
        while True:
            while not self._line:
                self._idle.set()
                self._news.clear()
                await self._news.wait()
            item = self._line[0]
            if isinstance(item, Entry):
                await self._insist(item)
            elif isinstance(item, FileLock):
                await self._on_disk(self._spool.done, item)
            else:
                await self._take(item)
            # Only now: what is cancelled on the way is still in line.
            self._line.popleft()

    async def _take(self, path: Path) -> None:
        try:
            entry = await self._on_disk(self._spool.read, path)
        except FileNotFoundError:
            return  # its owner has had it erased
        except Unreadable as error:
            # It is kept: with the key that it was written with it can be read.
            logger.error("an entry of the spool is left where it is: %s", error.message)
            await self._on_disk(path.rename, path.with_suffix(".unreadable"))
            self._count("refused")
            return
        await self._insist(entry, path)
        await self._on_disk(self._spool.remove, path)

    async def _insist(self, entry: Entry, path: Path | None = None) -> None:
        """Store it, however often that takes, unless it is erased meanwhile."""
        failures = 0
        with bind(trace_id=entry.trace_id):
            while True:
                try:
                    async with self._landing:
                        if self._dropped.pop(id(entry), None) is not None:
                            return  # its owner has had it erased
                        if path is not None and not await self._on_disk(path.exists):
                            return
                        await self._land[entry.kind](entry)
                except Exception as error:
                    if not (isinstance(error, ColloquyError) and error.retryable):
                        logger.exception("the %s can never be stored", entry.kind, extra=_ids(entry))
                        self._count("refused")
                        return
                    failures += 1
                    wait = self._backoff.after(failures)
                    told = _ids(entry) | {"failures": failures, "queued": len(self._line)}
                    logger.warning(
                        "storing the %s failed, trying again in %.1f s: %s",
                        entry.kind,
                        wait,
                        error,
                        extra=told,
                    )
                    await self._pause(wait)
                    self._metrics.keep_retries_total.inc()
                else:
                    self._count(entry.kind)
                    return

    async def _pause(self, seconds: float) -> None:
        """Sleep; when closing, time is short, so no longer than the first wait."""
        if self._closing.is_set():
            await asyncio.sleep(min(seconds, self._backoff.first))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closing.wait()

    def _lose(self, entry: Entry) -> None:
        logger.error("the %s was not stored before the end", entry.kind, extra=_ids(entry))
        self._count("lost")

    def _count(self, what: str) -> None:
        self._metrics.kept_total.labels(what=what).inc()


def _ids(entry: Entry) -> dict[str, object]:
    return {"kind": entry.kind, "entry_id": entry.id}
