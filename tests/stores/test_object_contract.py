"""What every `ObjectStore` does, and what a folder does besides."""

from __future__ import annotations

import asyncio
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from s3_server import S3Server, s3_server

from app.roles import BadInput, Misconfigured, NotFound
from app.stores.folder import FolderObjects, open_folder
from app.stores.interfaces import ObjectStore, StoreFailed, check_key
from app.stores.objects import open_objects
from app.stores.s3 import S3Access, S3Objects, open_bucket

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
    if isinstance(objects, FolderObjects) or missing == "other":  # the S3 server of the tests fails at it
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


async def test_writers_and_readers_at_once(objects: ObjectStore) -> None:
    contents = {f"many/{n % 5}/{n}": bytes([n]) * 20_000 for n in range(40)}
    await asyncio.gather(*(objects.put(key, data) for key, data in contents.items()))
    got = await asyncio.gather(*map(objects.get, contents))
    assert dict(zip(contents, got, strict=True)) == contents
    same = [bytes([n]) * 50_000 for n in range(8)]
    await asyncio.gather(*(objects.put(KEY, data) for data in same))
    assert await objects.get(KEY) in same


async def test_an_object_of_many_parts(objects: ObjectStore) -> None:
    data = os.urandom(1_000_000) * 17
    await objects.put(KEY, data)
    assert await objects.get(KEY) == data
    await objects.put(KEY, data[:-1])
    assert await objects.get(KEY) == data[:-1]
    assert [info.size for info in [info async for info in objects.list()]] == [len(data) - 1]


async def _keys(objects: ObjectStore, prefix: str = "") -> list[str]:
    return sorted([info.key async for info in objects.list(prefix)])


async def test_objects_are_listed_by_what_their_keys_begin_with(objects: ObjectStore) -> None:
    assert await _keys(objects) == []
    before = datetime.now(UTC) - timedelta(seconds=5)
    keys = ["a/1.wav", "a/b/2.wav", "a/b/c/3.wav", "ab/4.wav", "b", "c-d/e.f_g/5"]
    for size, key in enumerate(keys):
        await objects.put(key, b"x" * size)
    found = {info.key: info async for info in objects.list()}
    assert sorted(found) == keys
    assert [found[key].size for key in keys] == [0, 1, 2, 3, 4, 5]
    assert all(before < info.modified < datetime.now(UTC) + timedelta(seconds=5) for info in found.values())
    assert await _keys(objects, "a") == keys[:3]
    assert await _keys(objects, "a/b") == keys[1:3]
    assert await _keys(objects, "a/b/2.wav") == [], "it is itself, not below itself"
    assert await _keys(objects, "none") == []


async def test_long_lists_of_a_folder_are_whole(tmp_path: Path) -> None:
    await _long_list(await open_folder(tmp_path), tmp_path)


async def test_long_lists_of_a_bucket_are_whole(s3: S3Server) -> None:
    url = s3.bucket("rec-4")
    await _long_list(open_bucket(url, s3.access), s3.folder_of(url))


async def _long_list(objects: ObjectStore, folder: Path) -> None:
    keys = sorted(f"l/{n // 400}/{n}" for n in range(1001))
    for key in (*keys, "l/what somebody else put there", "l/0/.half"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()
    assert await _keys(objects) == keys
    assert await objects.delete_prefix("l") == 1001
    assert await _keys(objects) == []


async def test_a_prefix_is_deleted_and_nothing_else(objects: ObjectStore) -> None:
    for key in ("u/1", "u/2/3", "us/4", "t/u/5"):
        await objects.put(key, b"x")
    assert await objects.delete_prefix("u") == 2
    assert await objects.delete_prefix("u") == 0
    assert await _keys(objects) == ["t/u/5", "us/4"]


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
    attempts = [objects.put(key, b"x"), objects.get(key), objects.delete(key), objects.exists(key)]
    for attempt in (*attempts, objects.delete_prefix(key)):
        with pytest.raises(BadInput) as refused:
            await attempt
        assert refused.value.field == "key"
    if key:
        with pytest.raises(BadInput):
            await _keys(objects, key)


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
        attempts = (store.get("a"), store.exists("a"), store.delete("a"), store.delete_prefix("b"))
        for attempt in (*attempts, _keys(store), _keys(store, "b")):
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


# --- what a bucket does besides ---------------------------------------------------------------------


async def _all_fail(store: S3Objects, why: str) -> None:
    attempts = [store.put("a", b"1"), store.get("a"), store.exists("a"), store.delete("a")]
    for attempt in (*attempts, _keys(store), store.delete_prefix("b")):
        with pytest.raises(StoreFailed, match=why) as failed:
            await attempt
        assert failed.value.retryable
        assert "a-secret" not in failed.value.message and len(failed.value.message) < 600


async def test_a_server_that_is_down_is_a_failure_until_it_is_back(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        store = open_bucket(server.bucket("rec-1"), server.access)
        await store.put("a", b"1")
        server.stop()
        await _all_fail(store, "bucket for recordings")
        server.start()
        assert await store.get("a") == b"1"


async def test_a_bucket_that_is_not_there_is_a_failure_and_not_an_absence(s3: S3Server) -> None:
    await _all_fail(open_bucket("s3://not-there", s3.access), "NoSuchBucket")


async def test_a_wrong_secret_is_a_failure(s3: S3Server) -> None:
    access = S3Access(s3.access.endpoint_url, "us-east-1", s3.access.key_id, "a-secret-of-others")
    assert "a-secret" not in repr(access)
    store = open_bucket(s3.bucket("rec-2"), access)
    with pytest.raises(StoreFailed, match="SignatureDoesNotMatch"):
        await store.put("a", b"1")
    with pytest.raises(StoreFailed):
        await store.exists("a")


async def test_prefixes_keep_apart(s3: S3Server) -> None:
    url = s3.bucket("rec-3")
    one, other = (open_bucket(f"{url}/{name}/", s3.access) for name in ("one", "on"))
    await one.put("a/b", b"1")
    assert await _keys(other) == [] and await _keys(one) == ["a/b"]
    assert await _keys(open_bucket(url, s3.access)) == ["one/a/b"]
    assert await other.delete_prefix("a") == 0
    assert await one.get("a/b") == b"1"


async def test_where_objects_are_kept_is_a_folder_or_a_bucket(tmp_path: Path) -> None:
    assert isinstance(await open_objects(str(tmp_path / "a"), S3Access()), FolderObjects)
    assert isinstance(await open_objects(f"file://{tmp_path}/b", S3Access()), FolderObjects)
    assert (tmp_path / "b").is_dir()
    assert isinstance(await open_objects("s3://bucket/some/where", S3Access()), S3Objects)
    for url in ("s3://", "s3:///prefix", "s3://b?x=1", "gs://bucket", "file://host/a", "https://bucket.s3"):
        with pytest.raises(Misconfigured):
            await open_objects(url, S3Access())
    with pytest.raises(Misconfigured, match="S3_ENDPOINT_URL"):
        open_bucket("s3://bucket", S3Access("localhost:9000"))
