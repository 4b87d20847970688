"""The stores that keep the contracts; a new implementation is added to `params`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.stores.folder import open_folder
from app.stores.interfaces import ConversationStore, ObjectStore
from app.stores.sql import open_conversations, sqlite_url


@pytest_asyncio.fixture(params=["sqlite"])
async def conversations(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    store = await open_conversations(sqlite_url(tmp_path / "data" / "colloquy.db"))
    yield store
    await store.close()


@pytest_asyncio.fixture(params=["folder"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return await open_folder(tmp_path / "data" / "objects")
