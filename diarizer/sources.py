"""Where a model comes from: a local folder or the hub at a pinned commit; what to do when it is not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.roles import Misconfigured
from diarizer.settings import ECAPA, PIPELINE

PINNED = {
    PIPELINE: "3533c8cf8e369892e6b79ff1bf80f7b0286a54ee",
    ECAPA: "0f99f2d0ebe89ac095bcc5903c4dd8f72b367286",
}
"""The commits that the defaults name: what is loaded can run code, so it must not change by itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """`name` on the hub at `revision`, or a local folder, which has none. `setting` is what messages name."""

    name: str
    revision: str | None
    setting: str

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision[:12]}"


def source_of(name: str, revision: str, setting: str, holds: str) -> Source:
    """What the setting `setting` names. `holds` is the file that makes a folder a model.

    Raises `Misconfigured` for a folder that is none, and for a name on the hub without a commit.
    """
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        if not folder.exists():
            raise Misconfigured(
                f"{setting}={name}: there is no such folder, and it is no name on the hub (OWNER/NAME)"
            )
        if not (folder / holds).is_file():
            raise Misconfigured(f"{setting}={name}: there is no {holds} in this folder")
        return Source(str(folder.resolve()), None, setting)
    revision = revision or PINNED.get(name, "")
    if not revision:
        raise Misconfigured(
            f"{setting}={name} is on the hub: set {setting.removesuffix('_SOURCE')}_REVISION "
            "to the commit to use"
        )
    return Source(name, revision, setting)


def unavailable(source: Source, error: Exception) -> str:
    """Why `source` could not be loaded, and what to do, for a person."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return (
            f"the hub does not give out {source}: accept its conditions at "
            f"https://huggingface.co/{source.name} and set HF_TOKEN to a token of that account"
        )
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | OSError) and source.revision:
        return (
            f"{source} could not be fetched from the hub ({type(error).__name__}): is there a network? "
            f"Or copy it into a folder and set {source.setting} to that"
        )
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{source.setting}: {source} could not be loaded ({what}): is it a model of this kind, and whole?"
