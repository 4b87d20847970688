"""Recordings are kept for as long as the settings say, and made smaller when they are kept for long.

A sweep may be cut off anywhere and done again. A recording is deleted before the turn that names it
forgets it, so that no recording is left that nobody can find. One that is made smaller is written anew
first, then named, then the old one is deleted; what a crash leaves of that, the next sweep removes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from app.audio.smaller import as_opus
from app.observability.metrics import Metrics
from app.roles import BadAudio, NotFound
from app.stores.crypt import Unreadable
from app.stores.interfaces import ObjectInfo, StoreFailed
from app.stores.lock import alone
from app.stores.sql_recordings import Recording, SqlRecordings
from app.stores.vault import Vault

log = logging.getLogger(__name__)

_EVERY_S = 3600.0
_AGAIN_S = 300.0
_PACE = 3.0
_DAY = re.compile(r"raw_inputs/(\d{4})/(\d\d)/(\d\d)/.+")


@dataclass(frozen=True, slots=True)
class Rules:
    """After how many days; 0: never. `raw`: what people were heard to say is deleted; `synthesized`: what
    was synthesized is; `opus`: what people were heard to say becomes Opus."""

    raw: float = 30
    synthesized: float = 7
    opus: float = 7


@dataclass(slots=True)
class Swept:
    """What a sweep did: recordings deleted (`raw`, `synthesized`), deleted though nobody named them
    (`orphans`), made smaller (`opus`) by so many bytes (`saved`), and not to be read (`failed`)."""

    raw: int = 0
    synthesized: int = 0
    orphans: int = 0
    opus: int = 0
    failed: int = 0
    saved: int = 0


async def sweep(
    recordings: SqlRecordings,
    vault: Vault,
    rules: Rules,
    *,
    now: datetime | None = None,
    dry_run: bool = False,
    pace: float = 0.0,
) -> Swept | None:
    """Do what `rules` say; with `dry_run` only count. `pace`: after each recording that is made smaller,
    rest so many times as long as that took. None if another process sweeps. Raises `StoreFailed`."""
    async with alone(recordings.engine, "sweep") as mine:
        if not mine:
            return None
        work = _Sweep(recordings, vault, now or datetime.now(UTC), dry_run, pace)
        if rules.raw:
            await work.delete_raw(work.now - timedelta(days=rules.raw))
        if rules.opus:
            await work.shrink(work.now - timedelta(days=rules.opus))
        if rules.synthesized:
            await work.delete_synthesized(work.now - timedelta(days=rules.synthesized))
        return work.swept


class _Sweep:
    def __init__(
        self, recordings: SqlRecordings, vault: Vault, now: datetime, dry_run: bool, pace: float
    ) -> None:
        self._recordings = recordings
        self._vault = vault
        self._dry_run = dry_run
        self._pace = pace
        self.now = now
        self.swept = Swept()

    async def delete_raw(self, before: datetime) -> None:
        last: Recording | None = None
        named = set()
        while old := await self._recordings.older(before, after=last):
            last = old[-1]
            self.swept.raw += len(old)
            if self._dry_run:
                named |= {recording.key for recording in old}
                continue
            await asyncio.gather(*(self._vault.delete(recording.key) for recording in old))
            await self._recordings.forget(old)
        async for info in self._vault.objects.list("raw_inputs"):
            # By the day in its key: moving objects elsewhere makes them look new.
            if _over(info, before) and info.key not in named:
                await self._orphan(info.key)

    async def delete_synthesized(self, before: datetime) -> None:
        async for info in self._vault.objects.list("synthesized"):
            if info.modified < before:
                self.swept.synthesized += 1
                if not self._dry_run:
                    await self._vault.delete(info.key)

    async def shrink(self, before: datetime) -> None:
        last: Recording | None = None
        while some := await self._recordings.older(before, ending=".wav", after=last):
            last = some[-1]
            for recording in some:
                if self._dry_run:
                    self.swept.opus += 1
                    continue
                began = time.monotonic()
                await self._shrink(recording)
                await asyncio.sleep((time.monotonic() - began) * self._pace)
        if self._dry_run:
            return
        # What was made smaller and then not deleted any more.
        left = [i.key async for i in self._vault.objects.list("raw_inputs") if _over(i, before)]
        small = {key for key in left if key.endswith(".opus")}
        for key in left:
            if _small(key) in small and not key.endswith(".opus") and not await self._recordings.named(key):
                await self._orphan(key)

    async def _shrink(self, recording: Recording) -> None:
        owner, key = recording.owner, _small(recording.key)
        try:
            wav = await self._vault.get(owner, recording.key)
            opus = await as_opus(wav)
        except (BadAudio, NotFound, Unreadable) as error:
            log.warning("a recording cannot be made smaller (%s): %s", error.code, recording.key)
            self.swept.failed += 1
            return
        await self._vault.put(owner, key, opus)
        if await self._recordings.moved(recording, key):
            await self._vault.delete(recording.key)
            self.swept.opus += 1
            self.swept.saved += len(wav) - len(opus)
        elif not await self._recordings.named(key):
            await self._vault.delete(key)  # its turn was erased meanwhile

    async def _orphan(self, key: str) -> None:
        self.swept.orphans += 1
        if not self._dry_run:
            await self._vault.delete(key)


def _small(key: str) -> str:
    return f"{key.removesuffix('.wav')}.opus"


def _over(info: ObjectInfo, before: datetime) -> bool:
    """Whether it is of a day that was over `before`."""
    if day := _DAY.fullmatch(info.key):
        with suppress(ValueError):
            year, month, date = map(int, day.groups())
            return datetime(year, month, date, tzinfo=UTC) + timedelta(days=1) <= before
    return info.modified < before


class Sweeper:
    """Sweeps at the start and then every hour, in the background of one event loop."""

    def __init__(self, recordings: SqlRecordings, vault: Vault, rules: Rules, metrics: Metrics) -> None:
        self._recordings = recordings
        self._vault = vault
        self._rules = rules
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._work(), name="sweeper")

    async def close(self) -> None:
        """Stop, in the middle of a sweep if need be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _work(self) -> None:
        while True:
            wait = _AGAIN_S
            try:
                swept = await sweep(self._recordings, self._vault, self._rules, pace=_PACE)
            except StoreFailed as error:
                log.warning("the sweep was cut off, and is done again in 5 minutes: %s", error.message)
            except Exception:
                log.exception("the sweep failed")
            else:
                wait = _EVERY_S
                if swept is not None:
                    self._note(swept)
            await asyncio.sleep(wait)

    def _note(self, swept: Swept) -> None:
        done = asdict(swept)
        self._metrics.swept_bytes_total.inc(done.pop("saved"))
        for what, count in done.items():
            self._metrics.swept_total.labels(what).inc(count)
        self._metrics.last_sweep_timestamp_seconds.set_to_current_time()
        if any(done.values()):
            log.info("swept recordings", extra=asdict(swept))
