"""The store over a local folder and over HTTP: real files, a real server, real processes."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from model_helpers import (
    FileServer,
    Heard,
    content,
    described,
    hub,
    hub_path,
    leftovers,
    manifest,
    until,
)

from app.models import Manifest, ModelStore, ModelUnavailable, web

BODY = content(300_000)
OTHER = content(50_000, 7)
FILES = {"big.bin": BODY, "sub/config.json": OTHER}
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def hosted(server: FileServer) -> FileServer:
    server.files.update({hub_path(path): body for path, body in FILES.items()})
    return server


def store(tmp_path: Path, server: FileServer, described: Manifest | None = None) -> ModelStore:
    return ModelStore(tmp_path / "root", hub_url=server.url, manifest=described or manifest(FILES, hub()))


async def test_the_hub_gives_all_files(tmp_path: Path, hosted: FileServer) -> None:
    models = store(tmp_path, hosted)
    heard = Heard()
    folder = await models.fetch("thing", heard)
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert models.present("thing") == folder
    assert models.verify("thing") == []
    assert heard.fractions[-1] == 1
    assert any("from 127.0.0.1" in message for message in heard.messages)
    before = len(hosted.requests)
    again = Heard()
    assert await models.fetch("thing", again) == folder
    assert again.fractions == [1.0]
    assert len(hosted.requests) == before


async def test_a_broken_connection_is_resumed(tmp_path: Path, hosted: FileServer) -> None:
    hosted.break_after = [100_000, 50_000]
    models = store(tmp_path, hosted)
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == BODY
    assert hosted.starts("big.bin") == [0, 100_000, 150_000]


async def test_a_server_without_ranges_starts_again(tmp_path: Path, hosted: FileServer) -> None:
    hosted.break_after = [100_000]
    hosted.ranges = False
    models = store(tmp_path, hosted)
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == BODY


async def test_a_connection_that_only_breaks_is_given_up(tmp_path: Path, hosted: FileServer) -> None:
    hosted.break_after = [0] * 20
    with pytest.raises(ModelUnavailable, match=r"127.0.0.1:.*connection keeps breaking"):
        await store(tmp_path, hosted).fetch("thing", Heard())
    assert len(hosted.break_after) > 10


async def test_cancelling_leaves_nothing_in_place_and_the_next_fetch_goes_on(
    tmp_path: Path, hosted: FileServer
) -> None:
    hosted.slow = {"big.bin": 100}
    models = store(tmp_path, hosted)
    heard = Heard()
    fetching = asyncio.create_task(models.fetch("thing", heard))
    await until(lambda: any(heard.fractions))
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert models.present("thing") is None
    assert not (models.root / "thing").exists()
    hosted.slow = {}
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == BODY
    first, second = hosted.starts("big.bin")
    assert first == 0 < second


@pytest.mark.parametrize("body", [BODY[:-1] + b"?", BODY[:-1], BODY + b"?"], ids=["other", "short", "long"])
async def test_wrong_content_is_refused_and_leaves_nothing(
    tmp_path: Path, hosted: FileServer, body: bytes
) -> None:
    models = store(tmp_path, hosted, manifest({"big.bin": BODY}, hub()))
    hosted.files[hub_path("big.bin")] = body
    with pytest.raises(ModelUnavailable) as failure:
        await models.fetch("thing", Heard())
    if len(body) == len(BODY):
        assert f"instead of {described('', BODY).sha256}" in failure.value.message
    else:
        assert f"has {len(body)} bytes" in failure.value.message
        assert f"instead of {len(BODY)}" in failure.value.message
    assert "MODELS_LOCAL" in failure.value.message
    assert "big.bin" in failure.value.message
    assert models.present("thing") is None
    assert leftovers(models.root) == []


async def test_a_file_the_hub_lacks_is_told(tmp_path: Path, server: FileServer) -> None:
    with pytest.raises(ModelUnavailable, match="answered 404"):
        await store(tmp_path, server).fetch("thing", Heard())


async def test_local_files_go_first(tmp_path: Path, hosted: FileServer) -> None:
    local = tmp_path / "local"
    (local / "thing" / "sub").mkdir(parents=True)
    (local / "thing" / "big.bin").write_bytes(BODY)
    (local / "thing" / "sub" / "config.json").write_bytes(OTHER)
    models = ModelStore(tmp_path / "root", local=local, hub_url=hosted.url, manifest=manifest(FILES, hub()))
    heard = Heard()
    folder = await models.fetch("thing", heard)
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert heard.fractions[-1] == 1
    assert hosted.requests == []


async def test_a_wrong_local_file_comes_from_elsewhere(
    tmp_path: Path, hosted: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "big.bin").write_bytes(b"?" * len(BODY))
    (local / "sub" / "config.json").write_bytes(OTHER)
    monkeypatch.setenv("MODELS_LOCAL", str(local))
    folder = await store(tmp_path, hosted).fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == BODY
    assert [path for path, _ in hosted.requests] == [hub_path("big.bin")]


async def test_every_source_that_failed_is_named(tmp_path: Path, server: FileServer) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "big.bin").write_bytes(b"?" * len(BODY))
    models = ModelStore(tmp_path / "root", local=local, hub_url=server.url, manifest=manifest(FILES, hub()))
    with pytest.raises(ModelUnavailable) as failure:
        await models.fetch("thing", Heard())
    for words in (
        f"{local}: big.bin has the wrong content",
        f"{local}: does not hold big.bin, sub/config.json",
        "127.0.0.1",
        "answered 404",
    ):
        assert words in failure.value.message


async def test_a_hub_that_does_not_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT", httpx.Timeout(0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        models = ModelStore(tmp_path / "root", hub_url=url, manifest=manifest(FILES, hub()))
        with pytest.raises(ModelUnavailable, match="cannot be reached"):
            await models.fetch("thing", Heard())


async def test_a_redirect_keeps_the_range(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.redirects = {hub_path("big.bin"): "/elsewhere/big.bin?signed=1"}
    server.files = {"/elsewhere/big.bin?signed=1": BODY}
    server.break_after = [100_000]
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    models = ModelStore(tmp_path / "root", manifest=manifest({"big.bin": BODY}, hub()))
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == BODY
    assert server.starts("signed=1") == [0, 100_000]


async def test_without_the_hub_only_packages_are_tried(tmp_path: Path, hosted: FileServer) -> None:
    models = ModelStore(tmp_path / "root", hub=False, hub_url=hosted.url, manifest=manifest(FILES, hub()))
    with pytest.raises(ModelUnavailable, match="Tried: nothing"):
        await models.fetch("thing", Heard())
    assert hosted.requests == []


async def test_calls_at_once_share_one_download(tmp_path: Path, hosted: FileServer) -> None:
    hosted.slow = {"config.json": 2048}
    models = store(tmp_path, hosted)
    heard = [Heard() for _ in range(3)]
    folders = await asyncio.gather(*(models.fetch("thing", each) for each in heard))
    assert len(set(folders)) == 1
    assert len(hosted.requests) == len(FILES)
    for each in heard:
        assert each.fractions[-1] == 1
        assert any(0 < fraction < 1 for fraction in each.fractions)
        assert not any("another process" in message for message in each.messages)


async def test_when_the_call_that_downloads_is_cancelled_the_other_goes_on(
    tmp_path: Path, hosted: FileServer
) -> None:
    hosted.slow = {"big.bin": 100}
    models = store(tmp_path, hosted)
    heard = Heard()
    first = asyncio.create_task(models.fetch("thing", heard))
    second = asyncio.create_task(models.fetch("thing", Heard()))
    await until(lambda: any(heard.fractions))
    first.cancel()
    hosted.slow = {}
    folder = await second
    assert first.cancelled()
    assert (folder / "big.bin").read_bytes() == BODY
    assert hosted.starts("big.bin")[1] > 0


SCRIPT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from app.models import ModelStore
from model_helpers import content, hub, manifest
files = {{"big.bin": content(300_000), "sub/config.json": content(50_000, 7)}}
models = ModelStore(Path({root!r}), hub_url={url!r}, manifest=manifest(files, hub()))
def heard(fraction, message):
    print(f"{{fraction:.3f}} {{message}}", flush=True)
try:
    asyncio.run(models.fetch("thing", heard))
except Exception as error:
    print(error.message, flush=True)
"""


def other_process(root: Path, server: FileServer, *prefix: str) -> subprocess.Popen[str]:
    script = SCRIPT.format(tests=str(Path(__file__).parent), root=str(root), url=server.url)
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", script], cwd=REPO, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_download_once(tmp_path: Path, hosted: FileServer) -> None:
    hosted.slow = {"config.json": 2048}
    both = [other_process(tmp_path / "root", hosted) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert all(text.endswith("1.000 ready\n") for text in said)
    assert len(hosted.requests) == len(FILES)


async def test_a_killed_fetch_goes_on_in_the_next(tmp_path: Path, hosted: FileServer) -> None:
    hosted.slow = {"big.bin": 1024}
    with other_process(tmp_path / "root", hosted) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if float(line.split()[0]) > 0.1:
                break
        process.kill()
    hosted.slow = {}
    models = store(tmp_path, hosted)
    assert models.present("thing") is None
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == BODY
    assert hosted.starts("big.bin")[1] > 0


def test_a_full_disk_is_told_and_left_as_it_was(tmp_path: Path, hosted: FileServer) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    on_small_disk = f'mount -t tmpfs -o size=$0 none "{root}" && "$@" && find "{root}" -type f'
    if subprocess.run([*mount, on_small_disk, "100k", "true"], capture_output=True).returncode:
        pytest.skip("no private mounts here")
    # Too small from the start; and large enough until something else takes the room.
    with other_process(root, hosted, *mount, on_small_disk, "100k") as process:
        said = process.communicate(timeout=60)[0]
    assert "There is no room for the model thing (0 MB)" in said
    assert "choose another folder" in said
    assert "MB are needed" in said
    assert hosted.requests == []
    assert ".staging" not in said

    hosted.slow = {"big.bin": 512}
    filled = on_small_disk.replace("&& find", f"; rm {root}/filler; find").replace(
        '"$@"',
        f'{{ (sleep 0.1; until find {root} -path "*web/big.bin" | grep -q .; do sleep 0.05; done; '
        f'dd if=/dev/zero of={root}/filler bs=1k 2>/dev/null) & "$@"; wait; }}',
    )
    with other_process(root, hosted, *mount, filled, "450k") as process:
        said = process.communicate(timeout=60)[0]
    assert "There is no room for the model thing (0 MB)" in said
    assert "No space left on device" in said
    assert len(hosted.starts("big.bin")) == 1
    assert "web/big.bin" not in said


async def test_a_root_that_cannot_be_written_is_told(tmp_path: Path, hosted: FileServer) -> None:
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(ModelUnavailable, match=r"could not be kept in .*root.*Make that folder writable"):
        await store(tmp_path, hosted).fetch("thing", Heard())


async def test_damage_is_found_and_only_what_is_damaged_is_fetched(
    tmp_path: Path, hosted: FileServer
) -> None:
    models = store(tmp_path, hosted)
    assert any("is missing" in problem for problem in models.verify("thing"))
    folder = await models.fetch("thing", Heard())
    (folder / "big.bin").write_bytes(b"?" + BODY[1:])
    assert models.present("thing") == folder
    (problem,) = models.verify("thing")
    assert "big.bin is not what it should be" in problem
    (folder / "big.bin").unlink()
    assert models.present("thing") is None
    hosted.requests.clear()
    await models.fetch("thing", Heard())
    assert [path for path, _ in hosted.requests] == [hub_path("big.bin")]
    assert models.verify("thing") == []


async def test_a_changed_manifest_makes_a_model_incomplete(tmp_path: Path, hosted: FileServer) -> None:
    await store(tmp_path, hosted).fetch("thing", Heard())
    newer = FILES | {"sub/config.json": content(50_000, 8)}
    hosted.files[hub_path("sub/config.json")] = newer["sub/config.json"]
    models = store(tmp_path, hosted, manifest(newer, hub()))
    assert models.present("thing") is None
    folder = await models.fetch("thing", Heard())
    assert (folder / "sub/config.json").read_bytes() == newer["sub/config.json"]
    assert hosted.starts("big.bin") == [0]


async def test_what_an_older_manifest_left_half_fetched_is_not_taken_along(
    tmp_path: Path, hosted: FileServer
) -> None:
    models = store(tmp_path, hosted)
    ready = models.root / ".staging/thing/ready"
    ready.mkdir(parents=True)
    (ready / "old.bin").write_bytes(b"from before")
    (ready / "big.bin").write_bytes(BODY[:-1])
    folder = await models.fetch("thing", Heard())
    assert not (folder / "old.bin").exists()
    assert models.verify("thing") == []


async def test_files_put_there_by_hand_are_taken_over(tmp_path: Path, hosted: FileServer) -> None:
    first = store(tmp_path / "a", hosted)
    folder = await first.fetch("thing", Heard())
    shutil.copytree(folder, tmp_path / "b/root/thing", ignore=shutil.ignore_patterns(".*"))
    second = store(tmp_path / "b", hosted)
    assert second.present("thing") is None
    assert any("take its files over" in problem for problem in second.verify("thing"))
    hosted.requests.clear()
    await second.fetch("thing", Heard())
    assert second.verify("thing") == []
    assert hosted.requests == []
