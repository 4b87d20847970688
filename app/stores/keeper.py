"""Keeps finished turns and their recordings, off the reply's path.

One task works through a bounded queue in order: it stores the recording, then the turn that
points to it. When a store does not work, the turn stays first in line and is tried again until
it does; meanwhile the queue fills, and past its size `keep` waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial

from app.audio.wav import wav_bytes
from app.observability.logs import bind, current_trace_id
from app.observability.metrics import Metrics
from app.roles import SAMPLE_RATE, ColloquyError, Samples
from app.stores.interfaces import ConversationStore, ObjectStore, TurnRecord

logger = logging.getLogger(__name__)

_QUEUE_SIZE = 256


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after a failure: `first`, then twice as long each time, up to `longest`."""

    first: float = 0.5
    longest: float = 30.0

    def after(self, failures: int) -> float:
        """The wait after so many failures in a row (1 or more)."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class _Item:
    turn: TurnRecord
    recording: Samples | None
    trace_id: str | None


def recording_key(turn: TurnRecord) -> str:
    """Where a turn's recording lies: `raw_inputs/YYYY/MM/DD/{session}_{number}_{ts}.wav`, in UTC.
    The same for the same turn, so that storing it again replaces it."""
    at = turn.created_at.astimezone(UTC)
    return f"raw_inputs/{at:%Y/%m/%d}/{turn.session_id}_{turn.number}_{at:%Y%m%dT%H%M%S%fZ}.wav"


class Keeper:
    """Takes turns to the stores; belongs to one event loop.

    Counts in `kept_total`, by `what`: `recording` and `turn` stored; `waited`, when `keep` met a
    full queue; `refused`, what a store will never take; `lost`, turns that no store had taken
    when time ran out in `close`. The last two are logged with their ids.
    """

    def __init__(
        self,
        conversations: ConversationStore,
        objects: ObjectStore,
        metrics: Metrics,
        backoff: Backoff | None = None,
    ) -> None:
        self._conversations = conversations
        self._objects = objects
        self._metrics = metrics
        self._backoff = backoff or Backoff()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(_QUEUE_SIZE)
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def keep(self, turn: TurnRecord, recording: Samples | None) -> None:
        """Hand over a turn and what was heard (16 kHz; not copied, so not to be written to
        afterwards; needs the turn's `transcription_id`). Waits only while 256 are in line."""
        if self._closing.is_set():
            raise RuntimeError("the keeper is closed")
        if recording is not None and turn.transcription_id is None:
            raise ValueError("a turn with a recording needs its transcription_id")
        if self._task is None:
            # Of its own context: this one belongs to somebody's session.
            self._task = asyncio.create_task(self._work(), name="keeper", context=Context())
        if self._queue.full():
            self._count("waited")
        try:
            await self._queue.put(_Item(turn, recording, current_trace_id()))
        except asyncio.CancelledError:
            self._lose(turn)
            raise
        if self._task is None:  # closed while this turn waited for a place
            self._lose_rest()

    async def flush(self) -> None:
        """Wait until all that was handed over is stored (or refused)."""
        await self._queue.join()

    async def close(self, within: float = 10.0) -> None:
        """Store what is in line, for up to `within` seconds, and stop. Idempotent."""
        self._closing.set()
        if (task := self._task) is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self.flush()
        task.cancel()
        await asyncio.wait([task])
        self._task = None
        self._lose_rest()

    async def _work(self) -> None:
        while True:
            item = await self._queue.get()
            with bind(trace_id=item.trace_id, session_id=item.turn.session_id):
                try:
                    await self._store(item.turn, item.recording)
                except asyncio.CancelledError:
                    self._lose(item.turn)
                    raise
                finally:
                    self._queue.task_done()

    async def _store(self, turn: TurnRecord, recording: Samples | None) -> None:
        if recording is not None:
            key = recording_key(turn)

            async def put(samples: Samples = recording) -> None:
                await self._objects.put(key, await asyncio.to_thread(wav_bytes, samples, SAMPLE_RATE))

            if await self._insist("recording", turn, put):
                turn = replace(turn, audio_key=key, audio_seconds=len(recording) / SAMPLE_RATE)
        await self._insist("turn", turn, partial(self._conversations.add_turn, turn))

    async def _insist(self, what: str, turn: TurnRecord, write: Callable[[], Awaitable[None]]) -> bool:
        """Write until it succeeds; False when it never can."""
        failures = 0
        while True:
            try:
                await write()
            except Exception as error:
                if not (isinstance(error, ColloquyError) and error.retryable):
                    logger.exception("the %s can never be stored", what, extra=_ids(turn))
                    self._count("refused")
                    return False
                failures += 1
                wait = self._backoff.after(failures)
                logger.warning(
                    "storing the %s failed, trying again in %.1f s: %s",
                    what,
                    wait,
                    error,
                    extra=_ids(turn) | {"failures": failures, "queued": self._queue.qsize()},
                )
                await self._pause(wait)
                self._metrics.keep_retries_total.inc()
            else:
                self._count(what)
                return True

    async def _pause(self, seconds: float) -> None:
        """Sleep; when closing, time is short, so no longer than the first wait."""
        if self._closing.is_set():
            await asyncio.sleep(min(seconds, self._backoff.first))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closing.wait()

    def _lose(self, turn: TurnRecord) -> None:
        logger.error("a turn was not stored before the end", extra=_ids(turn))
        self._count("lost")

    def _lose_rest(self) -> None:
        while not self._queue.empty():
            self._lose(self._queue.get_nowait().turn)
            self._queue.task_done()

    def _count(self, what: str) -> None:
        self._metrics.kept_total.labels(what=what).inc()


def _ids(turn: TurnRecord) -> dict[str, object]:
    return {"session_id": turn.session_id, "turn_id": turn.id, "number": turn.number}
