"""Objects as files in a folder."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from app.roles import NotFound
from app.stores.interfaces import ObjectInfo, StoreFailed, check_key, is_key

_PARTIAL = ".partial"
"""Where files are written before they are whole; no key can name it."""

_STALE_S = 3600.0
_LISTED = 500
"""Objects that are looked at in one go, in a thread."""


async def open_folder(root: Path) -> FolderObjects:
    """Objects under `root`, which is made if missing, readable only by this user. What a crash
    left half-written an hour or more ago is removed: nobody could find it to erase it."""
    store = FolderObjects(root)
    await asyncio.to_thread(store.prepare)
    return store


class FolderObjects:
    """An `ObjectStore`; made by `open_folder`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Make the folder and clean up in it. Blocks."""
        with self._failures():
            # A mode given to `mkdir` is not for the parents that it makes on the way.
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = self._root / _PARTIAL
            partial.mkdir(mode=0o700, exist_ok=True)
            for left in partial.iterdir():
                # Another process may be writing there, or cleaning up as well.
                with suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > _STALE_S:
                        left.unlink()

    async def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore`."""
        await asyncio.to_thread(self._put, self._root / check_key(key), data)

    async def get(self, key: str) -> bytes:
        """See `ObjectStore`."""
        return await asyncio.to_thread(self._get, key, self._root / check_key(key))

    async def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        await asyncio.to_thread(self._delete, self._root / check_key(key))

    async def exists(self, key: str) -> bool:
        """See `ObjectStore`."""
        return await asyncio.to_thread(self._exists, self._root / check_key(key))

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore`."""
        found = self._list(self._root / check_key(prefix) if prefix else self._root)
        while some := await asyncio.to_thread(lambda: list(islice(found, _LISTED))):
            for info in some:
                yield info

    async def delete_prefix(self, prefix: str) -> int:
        """See `ObjectStore`."""
        return await asyncio.to_thread(self._delete_all, self._root / check_key(prefix))

    async def close(self) -> None:
        """See `ObjectStore`."""

    def _put(self, path: Path, data: bytes) -> None:
        with self._failures():
            _make_folder(self._root / _PARTIAL)
            _make_folder(path.parent)
            handle, name = tempfile.mkstemp(dir=self._root / _PARTIAL)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def _get(self, key: str, path: Path) -> bytes:
        with self._failures():
            if self._is_object(path):
                with suppress(FileNotFoundError):
                    return path.read_bytes()
        raise NotFound(f"There is no object {key!r}.", field="key")

    def _delete(self, path: Path) -> None:
        with self._failures():
            if self._is_object(path):
                path.unlink(missing_ok=True)
                _sync_folder(path.parent)

    def _exists(self, path: Path) -> bool:
        with self._failures():
            return self._is_object(path)

    def _list(self, folder: Path) -> Iterator[ObjectInfo]:
        with self._failures():
            if not self._root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            waiting = [folder]
            while waiting:
                try:
                    entries = list(os.scandir(waiting.pop()))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # nothing was ever put there, or it was removed meanwhile
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(Path(entry.path))
                        continue
                    with suppress(FileNotFoundError):
                        state = entry.stat()
                        key = Path(entry.path).relative_to(self._root).as_posix()
                        if is_key(key):
                            yield ObjectInfo(key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

    def _delete_all(self, folder: Path) -> int:
        keys = [info.key for info in self._list(folder)]
        for key in keys:
            self._delete(self._root / key)
        return len(keys)

    def _is_object(self, path: Path) -> bool:
        """Whether there is an object; an error if there is no store, such as a disk that is
        not mounted, of which nothing can be said."""
        if path.is_file():
            return True
        if not self._root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return False

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreFailed(
                f"The folder for recordings cannot be used ({error.strerror or error}): "
                "check that it is there, may be written, and that its disk is not full."
            ) from error


def _make_folder(path: Path) -> None:
    """Make `path` with its parents, each safely entered in its own parent: a synced file in a
    folder that is forgotten is lost."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows, where folders cannot be synced
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
