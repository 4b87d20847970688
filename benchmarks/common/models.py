"""Models for a benchmark, fetched if need be, as the server loads them."""

from __future__ import annotations

from pathlib import Path

from app.models.store import ModelStore
from app.settings import Settings
from benchmarks.common.report import note


async def model_folder(settings: Settings, name: str) -> Path:
    """Where the files of model `name` are."""
    store = ModelStore(settings.models_dir, local=settings.models_local, hub=settings.models_hub)
    if store.present(name) is None:
        note(f"fetching {name}")
    return await store.fetch(name, lambda done, message: None)
