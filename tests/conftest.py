"""Real parts for the tests: models from the manifest, recordings of people, a running server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres_server
from serving import Server, make_settings, running

from app.engines.workers import Workers
from app.models.store import ModelStore
from app.roles import RoleSet
from app.runtime import Runtime
from app.settings import Settings
from app.stores.database import sqlite_url
from app.stores.migrate import migrate

MODELS = Path(os.environ["COLLOQUY_MODELS_DIR"]) if "COLLOQUY_MODELS_DIR" in os.environ else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that hear real models may fail once.

    A voice never says a sentence twice alike, and what is heard of it, and when, depends on what else the
    cores do. What is broken fails twice; `-ra` lists what failed once."""
    for item in items:
        if isinstance(item, pytest.Function) and "models_dir" in item.fixturenames:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where models are kept between test runs."""
    return MODELS or Settings(_env_file=None).models_dir  # type: ignore[call-arg]


@pytest.fixture(scope="session")
def model_dir(models_dir: Path) -> Callable[[str], Path]:
    """Gives the folder of a model, fetched if need be."""
    store = ModelStore(models_dir)

    def folder(name: str) -> Path:
        return store.present(name) or asyncio.run(store.fetch(name, lambda done, message: None))

    return folder


@pytest.fixture
def settings(models_dir: Path, tmp_path: Path) -> Settings:
    """The embedded defaults with data of their own."""
    return make_settings(models_dir, tmp_path)


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Two worker threads."""
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
async def roles(settings: Settings) -> AsyncIterator[RoleSet]:
    """All embedded engines, loaded for one test."""
    runtime = Runtime(settings)
    runtime.start()
    try:
        yield await runtime.roles()
    finally:
        await runtime.close()


@pytest.fixture(scope="session")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One embedded server with all models, for the whole test run."""
    settings = make_settings(models_dir, tmp_path_factory.mktemp("server"), max_sessions=8)
    with running(settings) as server:
        context = server.app.state.context
        deadline = time.monotonic() + 600
        while not context.runtime.ready:
            failed = [s.message for s in context.runtime.status.values() if s.state == "failed"]
            if failed or time.monotonic() > deadline:
                raise RuntimeError(f"models are not ready: {failed or context.runtime.status}")
            time.sleep(0.1)
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that let it run."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """A database with our schema and nothing in it."""
    name = postgres.database()
    migrate(postgres.url(name), "head")
    return name


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database of the test's own, with our schema."""
    name = postgres.database(postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of the test's own; the test runs with each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "data" / "colloquy.db")
    url: str = request.getfixturevalue("postgres_url")
    return url
