"""Everything of a user is erased: their key first, so that whatever happens then nobody can read the rest.

What is begun is noted on this machine's disk, and finished at the next start if this process dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

from app.api.context import Context
from app.api.known import voices_folder
from app.roles import ColloquyError
from app.stores.interfaces import ObjectInfo

log = logging.getLogger(__name__)

_PASSES = 5
_AT_ONCE = 16
_NOTE = ".owner"


async def erase(context: Context, owner: str) -> dict[str, int]:
    """Erase all of `owner`'s data; gives how many things of each kind that were. May be called again, after
    a failure as well. Raises `StoreFailed` and the like: then some is left."""
    note = _notes(context) / f"{sha256(owner.encode()).hexdigest()}{_NOTE}"
    await asyncio.to_thread(_write, note, owner)
    gone: Counter[str] = Counter()
    # What was on its way to a store meanwhile is found the next time, until nothing is.
    for _ in range(_PASSES):
        found = await _pass(context, owner)
        gone += found
        if not found:
            break
    await context.owned.scrub()
    await asyncio.to_thread(note.unlink, missing_ok=True)
    log.info("a user was erased", extra={"erased": dict(gone)})
    return dict(gone)


async def finish(context: Context) -> None:
    """Finish what a process that died had begun."""
    for note in await asyncio.to_thread(lambda: list(_notes(context).glob(f"*{_NOTE}"))):
        try:
            await erase(context, await asyncio.to_thread(note.read_text))
        except ColloquyError as error:
            log.warning("a user is erased at the next start: %s", error.message)


def _notes(context: Context) -> Path:
    return context.settings.data_dir / "erasures"


def _write(note: Path, owner: str) -> None:
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = note.with_suffix(".partial")
    partial.write_text(owner)
    partial.replace(note)


async def _pass(context: Context, owner: str) -> Counter[str]:
    gone: Counter[str] = Counter()
    gone["keys"] += await context.keys.destroy(owner)
    gone["open_sessions"] += await context.sessions.end_all(owner)
    gone["connections"] += await context.days.forget(owner)
    gone["voices_in_memory"] += context.around.pop(owner, None) is not None
    if context.shared is not None:
        gone["shared_sessions"] += await context.shared.erase(owner)
    gone["spool"] += await context.keeper.erase(owner)
    gone["objects"] += await _objects(context, owner)
    return +(gone + await context.owned.erase(owner))


async def _objects(context: Context, owner: str) -> int:
    """What rows name, and what a process that died had no time to name: its key begins with its session."""
    objects = context.vault.objects
    keys = await context.owned.object_keys(owner)
    days: dict[date, set[str]] = {}
    for span in await context.owned.spans(owner):
        for n in range((span.last - span.first).days + 1):
            days.setdefault(span.first + timedelta(days=n), set()).add(span.session_id)
    for day, ids in days.items():
        async for info in objects.list(f"raw_inputs/{day:%Y/%m/%d}"):
            if _session(info) in ids:
                keys.add(info.key)
    gone, wanted = 0, sorted(keys)
    for n in range(0, len(wanted), _AT_ONCE):
        some = wanted[n : n + _AT_ONCE]
        gone += sum(await asyncio.gather(*map(objects.exists, some)))
        await asyncio.gather(*map(objects.delete, some))
    return gone + await objects.delete_prefix(voices_folder(owner))


def _session(info: ObjectInfo) -> str:
    return info.key.rpartition("/")[2].partition("_")[0]
