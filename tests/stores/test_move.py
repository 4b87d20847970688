"""Objects moved from one real store to another, also with interruptions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from s3_server import S3Server, s3_server

from app.cli.objects import move
from app.roles import Misconfigured
from app.stores.folder import open_folder
from app.stores.interfaces import ObjectStore, StoreFailed
from app.stores.move import Moved, copy_objects
from app.stores.s3 import S3Objects, open_bucket

ROOT = Path(__file__).parents[2]


async def contents(store: ObjectStore) -> dict[str, bytes]:
    return {key: await store.get(key) for key in [info.key async for info in store.list()]}


async def some(store: ObjectStore, count: int = 30) -> dict[str, bytes]:
    for n in range(count):
        await store.put(f"raw_inputs/2026/11/{n % 9 + 10}/{n}.wav", os.urandom(100 + n))
    return await contents(store)


def bucket(s3: S3Server) -> S3Objects:
    return open_bucket(f"{s3.bucket(f'm-{uuid4().hex}')}/kept", s3.access)


async def test_all_is_copied_and_a_second_time_nothing(tmp_path: Path, s3: S3Server) -> None:
    source, target, journal = await open_folder(tmp_path / "a"), bucket(s3), tmp_path / "journal"
    kept = await some(source)
    told: list[int] = []
    moved = await copy_objects(source, target, journal, tell=lambda m: told.append(m.done))
    assert moved == Moved(30, sum(map(len, kept.values())), copied=30)
    assert sorted(told) == told and told[-1] == 30
    assert await contents(target) == kept == await contents(source)
    assert (await copy_objects(source, target, journal)).same == 30
    assert (await copy_objects(source, target, tmp_path / "another")).same == 30, "by what they hold"
    back = await open_folder(tmp_path / "b")
    assert (await copy_objects(target, back, tmp_path / "third")).copied == 30
    assert await contents(back) == kept


async def test_a_copy_that_is_cut_off_goes_on(tmp_path: Path) -> None:
    source, journal = await open_folder(tmp_path / "a"), tmp_path / "journal"
    kept = await some(source, 60)
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as server:
        target = open_bucket(server.bucket("moved"), server.access)

        def stop(moved: Moved) -> None:
            if moved.done >= 20:
                server.stop()

        with pytest.raises(StoreFailed):
            await copy_objects(source, target, journal, tell=stop, delete=True)
        assert await contents(source) == kept, "nothing is deleted before all is there"
        server.start()
        moved = await copy_objects(source, target, journal, delete=True)
        assert moved.copied + moved.same == 60 and moved.same >= 20 and moved.copied > 0
        assert await contents(target) == kept
        assert await contents(source) == {}


async def test_what_is_wrong_there_is_put_right_and_what_is_newer_stays(tmp_path: Path, s3: S3Server) -> None:
    target, source, journal = bucket(s3), await open_folder(tmp_path / "a"), tmp_path / "journal"
    await target.put("a/old", b"half")
    await asyncio.sleep(1.1)  # S3 tells times in seconds
    await source.put("a/old", b"whole")
    await source.put("a/new", b"before")
    await asyncio.sleep(1.1)
    await target.put("a/new", b"after")
    moved = await copy_objects(source, target, journal)
    assert (moved.copied, moved.newer) == (1, 1)
    assert await contents(target) == {"a/old": b"whole", "a/new": b"after"}


async def test_what_the_journal_names_and_is_not_there_is_copied(tmp_path: Path, s3: S3Server) -> None:
    target, source, journal = bucket(s3), await open_folder(tmp_path / "a"), tmp_path / "journal"
    kept = await some(source, 3)
    await copy_objects(source, target, journal)
    await target.delete(min(kept))
    assert (await copy_objects(source, target, journal)).copied == 1
    await source.put(min(kept), b"other")
    await copy_objects(source, target, journal)
    assert await target.get(min(kept)) == b"other"


async def test_the_command(tmp_path: Path, s3: S3Server) -> None:
    source = await open_folder(tmp_path / "data" / "objects")
    kept = await some(source)
    url = f"{s3.bucket(f'm-{uuid4().hex}')}/kept"
    given = {"DATA_DIR": str(tmp_path / "data"), "MASTER_KEY_FILE": str(tmp_path / "key"), **s3.environment}

    def colloquy(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from app.cli import main; main()", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **given, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    done = colloquy("objects", "move", "--to", url)
    assert done.returncode == 0, done.stderr
    assert "30 copied and verified" in done.stdout and f"OBJECT_STORE_URL={url}" in done.stdout
    assert "30 of 30" in done.stderr
    assert await contents(open_bucket(url, s3.access)) == kept
    again = colloquy("objects", "move", "--to", url, "--delete")
    assert "30 were there already" in again.stdout and await contents(source) == {}
    swept = colloquy("sweep", "--dry-run", OBJECT_STORE_URL=url, RAW_RETENTION_DAYS="0.0001")
    assert swept.returncode == 0, swept.stderr
    assert "would be deleted" in swept.stdout
    assert len(await contents(open_bucket(url, s3.access))) == 30


def test_where_they_are_already_is_nowhere_to_move_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(Misconfigured, match="already"):
        move(to=f"{tmp_path}/objects/", from_=None, delete=True)
