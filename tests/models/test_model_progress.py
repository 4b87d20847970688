from __future__ import annotations

import io
from pathlib import Path

import pytest
from model_helpers import FileServer, content, hub, hub_path, manifest
from rich.console import Console

from app.models import Manifest, ModelStore, ModelUnavailable
from app.models.progress import fetch_all_with_bar


@pytest.fixture
def models(tmp_path: Path, server: FileServer) -> ModelStore:
    both = [
        manifest({f"{name}.bin": content(size)}, hub(), name=name)
        for name, size in (("first", 1_500_000), ("second", 2_500_000))
    ]
    described = Manifest({}, both[0].models + both[1].models)
    return ModelStore(tmp_path, hub_url=server.url, manifest=described)


async def test_the_bars_show_names_sizes_and_a_total(models: ModelStore, server: FileServer) -> None:
    server.files = {hub_path("first.bin"): content(1_500_000), hub_path("second.bin"): content(2_500_000)}
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    await fetch_all_with_bar(models, ["first", "second"], console)
    last = screen.getvalue().rsplit("first", 1)[1]
    assert "1.5/1.5 MB" in last
    assert "2.5/2.5 MB" in last
    assert "4.0/4.0 MB" in last
    assert last.count("ready") == 2
    assert models.present("first") and models.present("second")


async def test_the_first_model_that_cannot_be_had_ends_it(models: ModelStore, server: FileServer) -> None:
    with pytest.raises(ModelUnavailable, match="first"):
        await fetch_all_with_bar(models, ["first", "second"], Console(file=io.StringIO()))
    assert server.starts("second.bin") == []
