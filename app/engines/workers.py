"""The few threads on which all in-process model work runs.

Sessions share one copy of each model and a handful of cores, so work queues here rather than
piling up in threads: the most urgent first, and among equals the session that has used the
least time lately. When what people wait for has to queue for long, what is only nice to have
(PARTIAL and BACKGROUND work) is refused. Work that is cancelled before its turn never runs; work
already on a core runs to its end (model calls are short) but nobody waits for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from app.roles import Busy, Job, Urgency

T = TypeVar("T")

SHED_S = 0.3
"""Finals and speech that wait this long, on average, leave no room for partials."""
_PRESSURE_S = 3.0
"""Half-life of what was seen of it."""
_FORGET_AFTER_S = 5.0
"""Half-life of a session's used time: fairness looks at the last seconds, not at a whole day."""


@dataclass(slots=True)
class _Task:
    job: Job
    fn: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]
    queued_at: float
    order: int
    cancelled: bool = False


@dataclass(slots=True)
class _Usage:
    seconds: float
    at: float

    def now(self, t: float) -> float:
        return float(self.seconds * 0.5 ** ((t - self.at) / _FORGET_AFTER_S))


class Workers:
    """A pool of `threads` threads with priorities and fairness between owners.

    `reserved` of them never take PARTIAL or BACKGROUND work, so that a final transcript finds
    a free thread at once (used when there is more than one thread). `on_wait(urgency, seconds)`
    is told how long each task queued.
    """

    def __init__(
        self,
        threads: int,
        *,
        reserved: int = 0,
        on_wait: Callable[[Urgency, float], None] | None = None,
        on_shed: Callable[[], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._condition = threading.Condition()
        self._tasks: list[_Task] = []
        self._usage: dict[str, _Usage] = {}
        self._order = 0
        self._closed = False
        self._on_wait = on_wait
        self._on_shed = on_shed
        self._now = now
        self._waited, self._waited_at = 0.0, now()
        self._threads = [
            threading.Thread(
                target=self._work, args=(i < reserved < threads,), name=f"engine-{i}", daemon=True
            )
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Tasks queued and not yet running."""
        return len(self._tasks)

    def pressure(self) -> float:
        """How long urgent work (FINAL, SPEECH) has to wait for a thread these seconds, in s: what
        was seen lately, or what one task has been waiting by now."""
        now = self._now()
        with self._condition:
            urgent = [t.queued_at for t in self._tasks if t.job.urgency <= Urgency.SPEECH]
            return max(self._remembered(now), now - min(urgent, default=now))

    def _remembered(self, now: float) -> float:
        return float(self._waited * 0.5 ** ((now - self._waited_at) / _PRESSURE_S))

    async def run(self, job: Job, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` on a worker thread and return its result or raise its error.

        Cancelling the caller drops the task if it has not begun. Raises `Busy` for work that can be
        done without while urgent work has to wait.
        """
        if job.urgency > Urgency.SPEECH and self.pressure() > SHED_S:
            if self._on_shed is not None:
                self._on_shed()
            raise Busy("the machine is too busy for what can be done without", retry_after=1.0)
        loop = asyncio.get_running_loop()
        task = _Task(job, lambda: fn(*args), loop, loop.create_future(), self._now(), self._order)
        with self._condition:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            self._order += 1
            self._tasks.append(task)
            # Every thread is woken: the one that `notify` would pick may be a reserved one.
            self._condition.notify_all()
        try:
            return await task.done  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            with self._condition:
                task.cancelled = True
                if task in self._tasks:
                    self._tasks.remove(task)
            raise

    def close(self) -> None:
        """Stop the threads after the task each is at; queued tasks are cancelled."""
        with self._condition:
            self._closed = True
            tasks, self._tasks = self._tasks, []
            self._condition.notify_all()
        for task in tasks:
            _tell(task, lambda f: f.cancel())
        for thread in self._threads:
            thread.join(timeout=10)

    def _take(self, urgent_only: bool) -> _Task | None:
        candidates = [t for t in self._tasks if not urgent_only or t.job.urgency <= Urgency.SPEECH]
        if not candidates:
            return None
        now = self._now()

        def rank(task: _Task) -> tuple[int, float, int]:
            usage = self._usage.get(task.job.owner)
            # Rounded, so that owners who are about even are served in order of arrival.
            return (task.job.urgency, round(usage.now(now), 1) if usage else 0.0, task.order)

        best = min(candidates, key=rank)
        self._tasks.remove(best)
        return best

    def _work(self, urgent_only: bool) -> None:
        while True:
            with self._condition:
                while (task := self._take(urgent_only)) is None:
                    if self._closed:
                        return
                    self._condition.wait()
            began = self._now()
            waited = began - task.queued_at
            if self._on_wait:
                self._on_wait(task.job.urgency, waited)
            if task.job.urgency <= Urgency.SPEECH:
                with self._condition:
                    # Rises quickly and falls slowly: a moment's queue is no reason to shed.
                    self._waited = 0.7 * self._remembered(began) + 0.3 * waited
                    self._waited_at = began
            try:
                result = task.fn()
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                _fail(task, error)
            else:
                _finish(task, result)
                del result
            self._charge(task.job.owner, began)
            del task

    def _charge(self, owner: str, began: float) -> None:
        now = self._now()
        with self._condition:
            usage = self._usage.setdefault(owner, _Usage(0.0, now))
            usage.seconds, usage.at = usage.now(now) + now - began, now
            if len(self._usage) > 256:
                self._usage = {k: u for k, u in self._usage.items() if u.now(now) > 0.05}


def _tell(task: _Task, what: Callable[[asyncio.Future[Any]], Any]) -> None:
    def apply() -> None:
        if not task.done.done():
            what(task.done)

    if not task.cancelled and not task.loop.is_closed():
        task.loop.call_soon_threadsafe(apply)


def _finish(task: _Task, result: Any) -> None:
    _tell(task, lambda f: f.set_result(result))


def _fail(task: _Task, error: BaseException) -> None:
    _tell(task, lambda f: f.set_exception(error))
