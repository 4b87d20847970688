"""Our models for a peer: the same files."""

from __future__ import annotations

from pathlib import Path

from app.models.store import ModelStore
from app.settings import Settings
from benchmarks.common.report import note


async def model(name: str, settings: Settings) -> Path:
    """The folder of a model of our manifest, fetched first if it is not here yet."""
    store = ModelStore(settings.models_dir, local=settings.models_local, hub=settings.models_hub)
    if (folder := store.present(name)) is not None:
        return folder
    note(f"fetching {name}")
    return await store.fetch(name, lambda done, message: None)
