"""The stores that keep the contracts; a new implementation is added to `params`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from s3_server import S3Server, s3_server

from app.stores.crypt import MasterKeys, UserKeys
from app.stores.folder import open_folder
from app.stores.interfaces import ConversationStore, ObjectStore
from app.stores.s3 import open_bucket
from app.stores.sealed import SealedConversations
from app.stores.sql import open_conversations
from app.stores.sql_keys import SqlKeys


@pytest_asyncio.fixture(params=["clear", "sealed"])
async def conversations(request: pytest.FixtureRequest, database: str) -> AsyncIterator[ConversationStore]:
    store = await open_conversations(database)
    keys = UserKeys(MasterKeys([bytes(32)]), SqlKeys(store.engine))
    yield store if request.param == "clear" else SealedConversations(store, keys)
    await store.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests that let it run; each makes a bucket of its own."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest_asyncio.fixture(params=["folder", "s3"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return await open_folder(tmp_path / "data" / "objects")
    server: S3Server = request.getfixturevalue("s3")
    return open_bucket(f"{server.bucket(f'b-{uuid4().hex}')}/a/prefix", server.access)
