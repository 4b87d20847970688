"""What is to be stored, on this machine's disk until it is: it outlives the process, and a store that is
away.

An entry is a file, sealed, named by the time it was written, so that names are in order. Each process has a
folder of its own, which it holds locked; what a dead one left is taken up by the next that starts. A
provisional entry holds what is known of something that is still going on: the final one of the same id
replaces it.

Written files survive the end of the process at any moment. They are not forced to the disk: the power may
fail only on machines that can bear it.
"""

from __future__ import annotations

import json
import os
import struct
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.roles import ColloquyError
from app.stores.crypt import Cipher, Unreadable

_FINAL, _PROVISIONAL, _PARTIAL = ".entry", ".heard", ".partial"
_LOCK = ".lock"


class SpoolFull(ColloquyError):
    """There is no room for an entry, or the disk takes none."""

    code = "SPOOL_FULL"
    http_status = 503


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind` says who knows how to store it; `body` is JSON, `blob` bytes that go with it. `provisional`: it
    was to be replaced by a final one."""

    kind: str
    owner: str
    id: str
    body: dict[str, Any]
    blob: bytes = b""
    trace_id: str | None = None
    provisional: bool = False


class Spool:
    """Entries below `root`, at most `most` bytes of them in this process's folder. Blocks: for a thread."""

    def __init__(self, root: Path, keys: Sequence[bytes], most: int) -> None:
        """The first of `keys` seals, all of them open."""
        self._root, self._ciphers, self._most = root, [Cipher(key) for key in keys], most
        self._folder = root / uuid.uuid4().hex
        self._lock = FileLock(self._folder / _LOCK)
        self._size = 0
        self._last = 0
        self._open = False

    def open(self) -> None:
        """Make this process's folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        self._open = True

    def close(self) -> None:
        """Let go of the folder; what is in it is for whoever starts next. Idempotent."""
        if not self._open:
            return
        self._open = False
        if any(p.name != _LOCK for p in self._folder.iterdir()):
            self._lock.release()
            return
        with suppress(OSError):
            (self._folder / _LOCK).unlink()
            self._folder.rmdir()
        self._lock.release()

    def write(self, entry: Entry) -> Path:
        """Keep an entry; on return it outlives this process. `SpoolFull` if that cannot be."""
        meta = {"kind": entry.kind, "owner": entry.owner, "id": entry.id, "trace": entry.trace_id}
        head = json.dumps({"meta": meta, "body": entry.body}).encode()
        sealed = self._ciphers[0].seal(struct.pack("<I", len(head)) + head + entry.blob, "spool")
        if self._size + len(sealed) > self._most:
            raise SpoolFull(f"{self._size / 1e6:.0f} MB wait to be stored, and there may be no more")
        # Two entries of one moment are in order, too.
        self._last = max(self._last + 1, time.time_ns())
        name = f"{self._last:020d}-{entry.id}"
        path = self._folder / (name + (_PROVISIONAL if entry.provisional else _FINAL))
        partial = self._folder / (name + _PARTIAL)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(sealed)
            partial.rename(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise SpoolFull(f"the spool cannot be written: {error}") from error
        self._size += len(sealed)
        if not entry.provisional:
            for old in self._folder.glob(f"*-{entry.id}{_PROVISIONAL}"):
                self.remove(old)
        return path

    def read(self, path: Path) -> Entry:
        """An entry. `Unreadable` if it is none of ours."""
        data = self._opened(path.read_bytes())
        try:
            (size,) = struct.unpack_from("<I", data)
            head = json.loads(data[4 : 4 + size])
            meta = head["meta"]
            return Entry(
                meta["kind"],
                meta["owner"],
                meta["id"],
                head["body"],
                data[4 + size :],
                meta["trace"],
                path.suffix == _PROVISIONAL,
            )
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise Unreadable("an entry of the spool is not what it should be") from error

    def _opened(self, sealed: bytes) -> bytes:
        for cipher in self._ciphers[:-1]:
            with suppress(Unreadable):
                return cipher.open(sealed, "spool")
        return self._ciphers[-1].open(sealed, "spool")

    def remove(self, path: Path) -> None:
        """It is stored."""
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            if path.parent == self._folder:
                self._size -= size

    def left(self) -> Iterator[tuple[list[Path], FileLock]]:
        """The entries of each process that is no more, in order; final ones, then provisional ones. The lock
        is held, and is to be given to `done`."""
        if not self._root.is_dir():
            return
        for folder in sorted(p for p in self._root.iterdir() if p.is_dir() and p != self._folder):
            lock = FileLock(folder / _LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            final = sorted(folder.glob(f"*{_FINAL}"))
            # Who died between writing the final one and removing the other has both.
            done = {p.stem.partition("-")[2] for p in final}
            heard = [
                p for p in sorted(folder.glob(f"*{_PROVISIONAL}")) if p.stem.partition("-")[2] not in done
            ]
            yield final + heard, lock

    def done(self, lock: FileLock) -> None:
        """All of a dead process's entries were taken care of."""
        folder = Path(lock.lock_file).parent
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.unlink()
        (folder / _LOCK).unlink()
        lock.release()
        folder.rmdir()

    def of(self, owner: str) -> list[Path]:
        """All entries of `owner`, of every process, to be removed."""
        found = []
        for path in [*self._root.glob(f"*/*{_FINAL}"), *self._root.glob(f"*/*{_PROVISIONAL}")]:
            with suppress(FileNotFoundError, Unreadable):
                if self.read(path).owner == owner:
                    found.append(path)
        return found
