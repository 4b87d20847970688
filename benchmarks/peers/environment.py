"""A peer's own Python environment: its packages do not meet ours.

Made once in the cache folder by `venv` and `pip`, as pip is configured on this machine, and used again
as long as the peer's requirements stay the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import shutil
import sys
import time
from asyncio.subprocess import STDOUT, create_subprocess_exec
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from app.roles import EngineFailed
from benchmarks.common.report import note

_MB = 1_000_000
_TELL_S = 5.0
_LOG_CHARACTERS = 2000


def folder_of(requirements: Path) -> Path:
    """Where the environment for a requirements file lies: another file or another Python, another
    folder."""
    stamp = hashlib.sha256(requirements.read_bytes())
    stamp.update(f"{platform.python_version()} {platform.machine()} {sys.platform}".encode())
    name = requirements.name.removesuffix(".requirements.txt")
    return platformdirs.user_cache_path("colloquy") / "peers" / f"{name}-{stamp.hexdigest()[:12]}"


async def environment(requirements: Path) -> Path:
    """The interpreter of an environment that holds `requirements`, made first if it is not there yet.
    What pip says goes to `install.log` there. Raises `EngineFailed` with the end of it."""
    folder = folder_of(requirements)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"
    if complete.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            note(f"another process makes {folder}")
            await asyncio.sleep(_TELL_S)
    try:
        if not complete.exists():
            await _make(folder, python, requirements)
            complete.touch()
    finally:
        lock.release()
    return python


async def _make(folder: Path, python: Path, requirements: Path) -> None:
    note(f"making an environment for {requirements.name} (once): {folder}")
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    await asyncio.to_thread(folder.mkdir)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    await _run(folder, sys.executable, "-m", "venv", str(folder))
    await _run(
        folder,
        *pip,
        "install",
        "--no-deps",
        "--progress-bar",
        "off",
        "--require-hashes",
        "-r",
        str(requirements),
    )
    note(f"made in {time.monotonic() - began:.0f} s, {_size(folder) / _MB:.0f} MB")


async def _run(folder: Path, *command: str) -> None:
    """Run one step, saying every few seconds how far it is."""
    log = folder / "install.log"
    with log.open("ab") as out:
        process = await create_subprocess_exec(*command, stdout=out, stderr=STDOUT)
    try:
        while True:
            try:
                await asyncio.wait_for(process.wait(), _TELL_S)
                break
            except TimeoutError:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                doing = lines[-1].strip()[:80] if lines else ""
                note(f"  {_size(folder) / _MB:.0f} MB  {doing}")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:]
        raise EngineFailed(f"the environment could not be made; pip's last lines, of {log}:\n{last}")


def _size(folder: Path) -> int:
    """Bytes on the disk, of files that may come and go meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_size
            except OSError:
                continue
    return total
