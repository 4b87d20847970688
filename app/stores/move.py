"""Copies all objects from one store to another, each verified, as they are stored: sealed ones stay sealed.

What was copied is noted in a journal, so that a copy that was cut off goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from app.roles import NotFound
from app.stores.interfaces import ObjectInfo, ObjectStore, StoreFailed

_AT_ONCE = 8


@dataclass(slots=True)
class Moved:
    """How many objects were there (`found`, of `size` bytes in all), and of these were `copied` now, were
    the `same` there already, were `newer` there and left alone, or have `gone` here meanwhile."""

    found: int = 0
    size: int = 0
    copied: int = 0
    same: int = 0
    newer: int = 0
    gone: int = 0

    @property
    def done(self) -> int:
        """Objects that are dealt with."""
        return self.copied + self.same + self.newer + self.gone


async def copy_objects(
    source: ObjectStore,
    target: ObjectStore,
    journal: Path,
    *,
    delete: bool = False,
    tell: Callable[[Moved], None] = lambda moved: None,
) -> Moved:
    """Copy what `source` has to `target`; what is there that was put later than here stays. Each object is
    read again from `target`, and its size and SHA-256 are compared. With `delete` they are deleted from
    `source` once all are there. `tell` hears how far it is. Raises `StoreFailed`; then call it again with
    the same `journal`."""
    there = {info.key: info async for info in target.list()}
    here = [info async for info in source.list()]
    moved = Moved(len(here), sum(info.size for info in here))
    known = await asyncio.to_thread(_read, journal)
    waiting = iter(here)

    async def work() -> None:
        for info in waiting:
            line = _line(info)
            twin = there.get(info.key)
            if line in known and twin is not None and twin.size == info.size:
                moved.same += 1
            else:
                await _copy(source, target, info, twin, moved)
                await asyncio.to_thread(_note, journal, line)
            tell(moved)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
    except* StoreFailed as several:
        raise several.exceptions[0] from None
    if delete:
        await _delete(source, frozenset(map(_line, here)))
    return moved


async def _copy(
    source: ObjectStore, target: ObjectStore, info: ObjectInfo, twin: ObjectInfo | None, moved: Moved
) -> None:
    try:
        data = await source.get(info.key)
    except NotFound:
        moved.gone += 1
        return
    if twin is not None:
        if await _holds(target, info.key, data):
            moved.same += 1
            return
        if twin.modified > info.modified:
            moved.newer += 1
            return
    await target.put(info.key, data)
    if not await _holds(target, info.key, data):
        raise StoreFailed(f"{info.key} is not there as it was sent: check the target, then try again.")
    moved.copied += 1


async def _holds(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        found = await store.get(key)
    except NotFound:
        return False
    return len(found) == len(data) and await asyncio.to_thread(_same, found, data)


def _same(one: bytes, other: bytes) -> bool:
    return sha256(one).digest() == sha256(other).digest()


async def _delete(store: ObjectStore, lines: frozenset[str]) -> None:
    """Delete what is still as it was when it was copied."""
    for key in [info.key async for info in store.list() if _line(info) in lines]:
        await store.delete(key)


def _line(info: ObjectInfo) -> str:
    return f"{info.size} {info.modified.timestamp():.6f} {info.key}"


def _read(journal: Path) -> frozenset[str]:
    return frozenset(journal.read_text().splitlines()) if journal.exists() else frozenset()


def _note(journal: Path, line: str) -> None:
    with journal.open("a") as file:
        file.write(f"{line}\n")
