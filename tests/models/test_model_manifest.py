from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.models import load_manifest
from app.models.manifest import HubSource, PackageSource
from app.roles import Misconfigured

MANIFEST = load_manifest()
GOOD = """
[packages]
"a==1" = { size = 10, licence = "MIT" }
[[models]]
name = "m"
role = "vad"
licence = "MIT"
size = 3
[[models.files]]
path = "x.bin"
sha256 = "%s"
size = 3
[[models.sources]]
kind = "packages"
members = { "x.bin" = ["a==1/a/x.bin"] }
""" % ("0" * 64)


@pytest.mark.parametrize("model", MANIFEST.models, ids=lambda model: model.name)
def test_every_model_is_fully_described(model) -> None:
    assert model.role in {"vad", "end of turn", "stt", "llm", "tts", "embedding", "speaker"}
    assert re.fullmatch(r"MIT|Apache-2\.0|BSD-2-Clause", model.licence)
    assert sum(file.size for file in model.files) == model.size
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in model.files)
    assert len(model.sources) >= 2
    for file in model.files:
        # Places without the hub are common: packages alone must do.
        assert any(isinstance(s, PackageSource) and file.path in s.paths for s in model.sources)
    for source in model.sources:
        if isinstance(source, HubSource):
            assert (
                source.base("https://hub/")
                == "/".join(
                    part
                    for part in ("https://hub", source.repo, "resolve", source.revision, source.folder)
                    if part
                )
                + "/"
            )
        if isinstance(source, PackageSource):
            for path in source.paths:
                for member in source.parts(path):
                    assert re.fullmatch(r"[a-z0-9-]+==[\d.]+", member.requirement)
                    assert MANIFEST.packages[member.requirement].size > 0


def test_names_are_distinct() -> None:
    names = [model.name for model in MANIFEST.models]
    assert len(set(names)) == len(names)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Misconfigured, match=r"no model called 'nothing'.*silero-vad"):
        MANIFEST.model("nothing")


def test_a_good_manifest_loads(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(GOOD)
    (model,) = load_manifest(path).models
    assert model.files[0].path == "x.bin"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("size = 3\n[[models.files]]", "size = 4\n[[models.files]]", "do not add up"),
        ("x.bin", "../x.bin", "not a path inside"),
        ("x.bin", "/x.bin", "not a path inside"),
        ('"x.bin" = ["a', '"y.bin" = ["a', "does not have"),
        ("a==1/a", "b==1/a", "in no package"),
        ("0" * 64, "0" * 63, "pattern"),
        ('licence = "MIT"\nsize', 'licence = ""\nsize', "at least 1 character"),
        ('role = "vad"\n', "", "role"),
        ('role = "vad"', 'role = "vad"\nrolle = "vad"', "rolle"),
        ('name = "m"', 'name = "../m"', "pattern"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "m.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=complaint):
        load_manifest(path)
