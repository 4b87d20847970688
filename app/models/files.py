"""Work on big files in a thread: copying, unpacking, joining and hashing, in pieces that can be stopped."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from app.models.errors import SourceFailed

T = TypeVar("T")

PIECE = 1 << 20


class _Stopped(Exception):
    """The awaiting task was cancelled."""


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a thread. On cancellation `stop` is set and the thread waited for, so that
    nothing is still writing when the caller goes on; `work` looks at `stop` between pieces."""
    stop = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


def _pieces(source: IO[bytes], stop: threading.Event) -> Iterable[bytes]:
    while piece := source.read(PIECE):
        if stop.is_set():
            raise _Stopped
        yield piece


def sha256(path: Path, stop: threading.Event) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        for piece in _pieces(source, stop):
            digest.update(piece)
    return digest.hexdigest()


def copy(source: Path, target: Path, stop: threading.Event) -> None:
    """Copy a file's content; `target` appears only when it is whole."""
    join([source], target, stop, consume=False)


def join(parts: Sequence[Path], target: Path, stop: threading.Event, *, consume: bool = True) -> None:
    """Write `parts` one after the other into `target`, which appears only when it is whole. With
    `consume` each part is removed once it is written, so that two copies never fill the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if consume and len(parts) == 1:
        parts[0].replace(target)
        return
    growing = target.with_name(target.name + ".joining")
    try:
        with growing.open("wb") as out:
            for part in parts:
                with part.open("rb") as source:
                    for piece in _pieces(source, stop):
                        out.write(piece)
                if consume:
                    part.unlink()
        growing.replace(target)
    finally:
        growing.unlink(missing_ok=True)


def unpack(wheel: Path, members: dict[str, Path], limit: int, stop: threading.Event) -> None:
    """Unpack `members` (path in the wheel -> target) and nothing else. A target appears only when it is
    whole. `limit` is the most bytes that a member may have: the wheel has not been checked yet, and
    what it claims to hold is not believed."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, target in members.items():
                _unpack_one(archive, member, target, limit, stop)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceFailed(f"{wheel.name} is damaged ({error})") from error


def _unpack_one(
    archive: zipfile.ZipFile, member: str, target: Path, limit: int, stop: threading.Event
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    growing = target.with_name(target.name + ".unpacking")
    try:
        with archive.open(member) as source, growing.open("wb") as out:
            for piece in _pieces(source, stop):
                out.write(piece)
                if out.tell() > limit:
                    raise SourceFailed(f"{member} is larger than it should be")
        growing.replace(target)
    except KeyError:
        raise SourceFailed(f"there is no {member} in it") from None
    finally:
        growing.unlink(missing_ok=True)
