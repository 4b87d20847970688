"""What every `ObjectStore` does, and what a folder does besides."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.roles import BadInput, NotFound
from app.stores.folder import FolderObjects, open_folder
from app.stores.interfaces import ObjectStore, StoreFailed, check_key

KEY = "raw_inputs/2026/11/21/a-B_3.wav"


async def test_what_is_put_can_be_got(objects: ObjectStore) -> None:
    assert not await objects.exists(KEY)
    for data in (b"", bytes(range(256)) * 4000, b"shorter"):
        await objects.put(KEY, data)
        assert await objects.get(KEY) == data
        assert await objects.exists(KEY)


async def test_what_is_deleted_is_gone(objects: ObjectStore) -> None:
    await objects.put(KEY, b"1")
    await objects.put(KEY + "2", b"2")
    await objects.delete(KEY)
    await objects.delete(KEY)
    assert not await objects.exists(KEY)
    with pytest.raises(NotFound):
        await objects.get(KEY)
    assert await objects.get(KEY + "2") == b"2"


@pytest.mark.parametrize("missing", ["other", "raw_inputs", KEY + "/below"])
async def test_what_was_never_put_is_not_found(objects: ObjectStore, missing: str) -> None:
    await objects.put(KEY, b"1")
    with pytest.raises(NotFound):
        await objects.get(missing)
    assert not await objects.exists(missing)
    await objects.delete(missing)
    assert await objects.get(KEY) == b"1"


async def test_readers_see_the_old_or_the_new(objects: ObjectStore) -> None:
    """While a large object is replaced again and again, nobody reads a mixture."""
    versions = [bytes([n]) * 300_000 for n in range(10)]
    await objects.put(KEY, versions[0])

    async def write() -> None:
        for version in versions:
            await objects.put(KEY, version)

    writing = asyncio.create_task(write())
    reads = 0
    while not writing.done():
        data = await objects.get(KEY)
        assert len(data) == 300_000
        assert len(set(data)) == 1
        reads += 1
    await writing
    assert reads > 0


BAD_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "a\\b",
    "..\\a",
    "a\n",
    "a\x00b",
    "a b",
    "C:/a",
    "~/a",
    ".partial/a",
    "a/.hidden",
    "a%2e%2e/b",
    "é",
    "a/" * 249 + "ccc",
    "n" * 201,
]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_keys_that_are_no_keys_are_refused(objects: ObjectStore, key: str) -> None:
    for attempt in (objects.put(key, b"x"), objects.get(key), objects.delete(key), objects.exists(key)):
        with pytest.raises(BadInput) as refused:
            await attempt
        assert refused.value.field == "key"


_PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "a", "A9_-", ".a", "a.b", "~", "%2e", "\x00", "\n", " ", "：", "..a"]
)


@given(st.lists(_PIECES, max_size=8).map("".join) | st.text(max_size=30))
@example("a/..a")
@example("a..b/c..")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_key_that_passes_stays_inside(tmp_path: Path, key: str) -> None:
    try:
        check_key(key)
    except BadInput:
        return
    root = tmp_path.resolve()
    path = (root / key).resolve()
    assert path.is_relative_to(root)
    assert path != root
    assert path.relative_to(root).as_posix() == key, "two keys would name one file"
    assert re.fullmatch(r"[\w./-]+", key, re.ASCII)
    assert not any(part.startswith(".") for part in key.split("/"))


@given(st.from_regex(r"[a-z0-9_-][A-Za-z0-9._-]{0,20}(/[a-z0-9_-][A-Za-z0-9._-]{0,20}){0,4}", fullmatch=True))
@settings(max_examples=100, deadline=None)
def test_plain_keys_pass(key: str) -> None:
    assert check_key(key) == key


async def test_a_folder_that_is_not_there_is_a_failure_and_not_an_absence(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    store = await open_folder(root)
    await store.put("a", b"1")
    root.rename(tmp_path / "elsewhere")

    async def all_fail() -> None:
        for attempt in (store.get("a"), store.exists("a"), store.delete("a")):
            with pytest.raises(StoreFailed) as failed:
                await attempt
            assert failed.value.retryable

    await all_fail()
    root.write_text("in the way")
    await all_fail()
    with pytest.raises(StoreFailed, match="recordings"):
        await store.put("a", b"2")
    root.unlink()
    (tmp_path / "elsewhere").rename(root)
    assert await store.get("a") == b"1"


async def test_a_put_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = await open_folder(tmp_path)
    await store.put("a/b", b"1")
    with pytest.raises(StoreFailed):
        await store.put("a", b"2")  # a folder by now
    with pytest.raises(StoreFailed):
        await store.put("a/b/c", b"2")  # below a file
    files = [name for _, _, names in os.walk(tmp_path) for name in names]
    assert files == ["b"]


async def test_half_written_files_of_a_crash_are_removed_when_old(tmp_path: Path) -> None:
    await open_folder(tmp_path)
    old, new = (tmp_path / ".partial" / name for name in ("old", "new"))
    old.write_bytes(b"half a rec")
    new.write_bytes(b"somebody writes this now")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    await open_folder(tmp_path)
    assert [path.name for path in (tmp_path / ".partial").iterdir()] == ["new"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
async def test_recordings_are_for_this_user_only(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    store: FolderObjects = await open_folder(root)
    await store.put("x/y", b"1")
    assert (root / "x" / "y").stat().st_mode & 0o077 == 0
    assert (root / "x").stat().st_mode & 0o077 == 0
