"""The folder of models on this machine, and how it is filled."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from app.models.errors import ModelUnavailable
from app.models.files import in_thread, sha256
from app.models.manifest import Manifest, Model, load_manifest
from app.models.obtain import MB, OnProgress, Places, obtain

MARKER = ".complete.json"
HUB_URL = "https://huggingface.co"


class ModelStore:
    """Models below `root`, one folder each, named as in the manifest.

    A file's sha256 is checked when it is fetched, whatever place it comes from, and a model's folder
    appears only when all its files are there and right. Files are looked for in `local` first (in a
    folder named like the model, or in `local` itself), then in the manifest's sources in order; with
    `hub` false only the packages of those. Interrupted downloads go on where they stopped. One process
    at a time fetches a model; others wait for it.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        local: Path | None = None,
        hub: bool = True,
        hub_url: str | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        """`root` is the user's cache folder and `local` is `MODELS_LOCAL` if not given.
        `hub_url` is `HF_ENDPOINT`, which the hub's other clients know too, or the hub itself."""
        self.root = root or platformdirs.user_cache_path("colloquy") / "models"
        folder = os.environ.get("MODELS_LOCAL")
        self.local = local or (Path(folder).expanduser() if folder else None)
        self.manifest = manifest or load_manifest()
        self._hub_url = (hub_url or os.environ.get("HF_ENDPOINT") or HUB_URL) if hub else None
        self._unreachable: dict[str, str] = {}
        self._flights: dict[str, _Flight] = {}

    def present(self, name: str) -> Path | None:
        """The model's folder if it is complete: fetched and checked as the manifest has it now, and all
        sizes as they should be. `Misconfigured` for an unknown name."""
        model = self.manifest.model(name)
        folder = self.root / name
        try:
            marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            whole = all((folder / file.path).stat().st_size == file.size for file in model.files)
        except (OSError, ValueError):
            return None
        return folder if whole and marker == _marker(model) else None

    def verify(self, name: str) -> list[str]:
        """Read and hash every file of the model; what is wrong, in sentences. Slow: not for the event
        loop."""
        model = self.manifest.model(name)
        folder = self.root / name
        problems = []
        for file in model.files:
            path = folder / file.path
            if not path.is_file():
                problems.append(f"{path} is missing: fetch {name} again.")
            elif path.stat().st_size != file.size or sha256(path, threading.Event()) != file.sha256:
                problems.append(f"{path} is not what it should be: delete it and fetch {name} again.")
        if not problems and self.present(name) is None:
            problems.append(f"{folder} was not put there by a fetch: fetch {name} to take its files over.")
        return problems

    async def fetch(self, name: str, on_progress: OnProgress) -> Path:
        """The model's folder, fetched first if it is not here yet.

        `on_progress` is called with a fraction that never falls and ends at 1, and a short message.
        `ModelUnavailable` says what was tried. Calls for the same model share one download; if the one
        that downloads is cancelled, the next goes on where it stopped.
        """
        model = self.manifest.model(name)
        flight = self._flights.setdefault(name, _Flight())
        listener = _Listener(on_progress)
        flight.listeners.append(listener)
        try:
            async with flight.turn:
                folder = self.present(name) or await self._fetch_alone(name, flight.report)
        except OSError as error:
            raise ModelUnavailable(_disk_trouble(model, self.root, error)) from error
        finally:
            flight.listeners.remove(listener)
            if not flight.listeners:
                del self._flights[name]
        listener(1.0, "ready")
        return folder

    async def _fetch_alone(self, name: str, report: OnProgress) -> Path:
        model = self.manifest.model(name)
        folder, staging = self.root / name, self.root / ".staging" / name
        places = Places(folder, self.local, self._hub_url, self.manifest.packages, self._unreachable)
        async with _only_process(self.root / ".locks" / f"{name}.lock", report):
            # Another process may have fetched it while this one waited.
            if self.present(name) is None:
                try:
                    ready = await obtain(model, staging, places, report)
                    await in_thread(lambda stop: _install(model, ready, staging, folder))
                except OSError as error:
                    if error.errno in _DISK_FULL:
                        shutil.rmtree(staging, ignore_errors=True)
                    raise
        return folder


class _Listener:
    """Keeps one caller's progress from falling, and from being told the same twice."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._last: tuple[float, str] = (-1.0, "")

    def __call__(self, fraction: float, message: str) -> None:
        now = (max(self._last[0], min(1.0, fraction)), message)
        if now != self._last:
            self._last = now
            self._on_progress(*now)


@dataclass
class _Flight:
    """The calls that want one model: `turn` lets one of them work, all hear of the progress."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    listeners: list[_Listener] = field(default_factory=list)

    def report(self, fraction: float, message: str) -> None:
        for listener in list(self.listeners):
            listener(fraction, message)


@asynccontextmanager
async def _only_process(path: Path, report: OnProgress) -> AsyncIterator[None]:
    """Hold a lock that other processes see; it goes when the process does, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            report(0.0, "another process is fetching it")
            await asyncio.sleep(0.25)
    try:
        yield
    finally:
        lock.release()


def _marker(model: Model) -> dict[str, str]:
    return {file.path: file.sha256 for file in model.files}


def _install(model: Model, ready: Path, staging: Path, folder: Path) -> None:
    """Put the checked files in place at once: who looks sees all of them, or what was there before."""
    (ready / MARKER).write_text(json.dumps(_marker(model), indent=1), encoding="utf-8")
    if folder.exists():
        folder.replace(staging / "old")
    ready.replace(folder)
    shutil.rmtree(staging)


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _disk_trouble(model: Model, root: Path, error: OSError) -> str:
    if error.errno in _DISK_FULL:
        return (
            f"There is no room for the model {model.name} ({model.size / MB:.0f} MB) in {root}: "
            f"{error.strerror}. Free some space there, or choose another folder for models."
        )
    return (
        f"The model {model.name} could not be kept in {root}: {error}. Make that folder writable, or "
        "choose another folder for models."
    )
