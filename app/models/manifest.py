"""What each model is made of and where it can be had: `manifest.toml` as frozen values."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter

from app.roles.errors import Misconfigured

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Bytes = Annotated[int, Field(gt=0)]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file: `path` inside the model's folder, `sha256` in hex, `size` in bytes."""

    __pydantic_config__ = _STRICT

    path: Text
    sha256: Sha256
    size: Bytes


@dataclass(frozen=True, slots=True)
class HubSource:
    """Files in `folder` of a repository on the model hub, at a pinned commit. Empty `paths` means that
    all of the model's files are there."""

    __pydantic_config__ = _STRICT

    kind: Literal["hub"]
    repo: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    folder: str = ""
    paths: tuple[str, ...] = ()

    def base(self, hub_url: str) -> str:
        """The URL that a file's path is appended to, on the hub at `hub_url`."""
        folder = f"{self.folder}/" if self.folder else ""
        return f"{hub_url.rstrip('/')}/{self.repo}/resolve/{self.revision}/{folder}"


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Files below a publisher's own `url`, which ends in a slash. `paths` as for the hub."""

    __pydantic_config__ = _STRICT

    kind: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://.*/$")]
    paths: tuple[str, ...] = ()

    def base(self, hub_url: str) -> str:
        """The URL that a file's path is appended to; the hub has no part in it."""
        return self.url


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel: the pinned `requirement` ("name==version") and the `path` in it."""

    requirement: str
    path: str


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Files that are members of wheels; a file with several members is those joined in order.

    In the manifest a member is written `name==version/path/in/wheel`.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["packages"]
    members: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]

    @property
    def paths(self) -> tuple[str, ...]:
        """The model's files that this source holds."""
        return tuple(self.members)

    def parts(self, path: str) -> tuple[Member, ...]:
        """The members that make the file `path`, in order."""
        split = (text.partition("/") for text in self.members[path])
        return tuple(Member(requirement, inner) for requirement, _, inner in split)


Source = HubSource | UrlSource | PackageSource


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel: download `size` in bytes and the `licence` it declares. `platform` and `python` are the
    tags to ask for where wheels are built per platform; empty where one wheel serves all."""

    __pydantic_config__ = _STRICT

    size: Bytes
    licence: Text
    platform: str = ""
    python: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model: `role` it plays, `licence` of its weights, total `size` in bytes, its files, and its
    sources in the order in which they are tried."""

    __pydantic_config__ = _STRICT

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    role: Text
    licence: Text
    size: Bytes
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    sources: Annotated[tuple[Annotated[Source, Field(discriminator="kind")], ...], Field(min_length=1)]
    licence_note: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All models, and the packages that their sources speak of by `name==version`."""

    __pydantic_config__ = _STRICT

    packages: dict[str, Package]
    models: tuple[Model, ...]

    def model(self, name: str) -> Model:
        """The model called `name`; `Misconfigured` if there is none."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise Misconfigured(f"There is no model called {name!r}; the models are {known}.")


def load_manifest(path: Path | None = None) -> Manifest:
    """Read a manifest; without `path` the one that comes with the program. `ValueError` says what is
    wrong with it."""
    text = (path or Path(__file__).with_name("manifest.toml")).read_text(encoding="utf-8")
    manifest = TypeAdapter(Manifest).validate_python(tomllib.loads(text))
    for model in manifest.models:
        _check(model, manifest)
    return manifest


def _check(model: Model, manifest: Manifest) -> None:
    paths = {file.path for file in model.files}
    if sum(file.size for file in model.files) != model.size:
        raise ValueError(f"{model.name}: the sizes of its files do not add up to {model.size}")
    for path in paths:
        # Paths become places on disk: nothing may climb out of the model's folder.
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path:
            raise ValueError(f"{model.name}: {path!r} is not a path inside the model's folder")
    for source in model.sources:
        if stray := set(source.paths) - paths:
            raise ValueError(f"{model.name}: a source names {sorted(stray)}, which the model does not have")
        if isinstance(source, PackageSource):
            for member in (member for path in source.paths for member in source.parts(path)):
                if member.requirement not in manifest.packages or not member.path:
                    raise ValueError(f"{model.name}: {member} is in no package of the manifest")
