"""`colloquy keys`: the master keys that seal users' keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from app.cli.errors import load_settings
from app.runtime import database_url
from app.stores.crypt import MasterKeys, UserKeys, load_master_keys, new_key
from app.stores.sql import open_conversations
from app.stores.sql_keys import SqlKeys

_T = TypeVar("_T")


def new() -> None:
    """Print a new one."""
    typer.echo(new_key())


def list_all() -> int:
    """Print which there are, and how many users' keys each seals; 1 if one is missing."""
    return asyncio.run(_with_keys(_list))


def rotate() -> int:
    """Seal all users' keys with the first one, and say what is to be done then."""
    return asyncio.run(_with_keys(_rotate))


async def _with_keys(work: Callable[[MasterKeys, SqlKeys], Awaitable[_T]]) -> _T:
    settings = load_settings()
    given = [key.get_secret_value() for key in settings.master_keys]
    master = load_master_keys(given, settings.master_key_file)
    database = await open_conversations(database_url(settings))
    try:
        return await work(master, SqlKeys(database.engine))
    finally:
        await database.close()


async def _sealed(store: SqlKeys) -> Counter[str]:
    return Counter([key.master for _, key in await store.keys()])


async def _list(master: MasterKeys, store: SqlKeys) -> int:
    sealed = await _sealed(store)
    for name in master.names:
        does = "seals and opens" if name == master.name else "opens"
        typer.echo(f"{name}  {does:<15}  {sealed.pop(name, 0)} users")
    for name, users in sorted(sealed.items()):
        typer.echo(f"{name}  {'MISSING':<15}  {users} users, whose data cannot be read")
    return 1 if sealed else 0


async def _rotate(master: MasterKeys, store: SqlKeys) -> int:
    keys = UserKeys(master, store)
    await keys.check()
    moved = await keys.rotate()
    typer.echo(f"{moved} users' keys are sealed with {master.name} now; what they seal stays as it is")
    if others := [name for name in master.names if name != master.name]:
        typer.echo(
            f"Nothing needs {', '.join(others)} any more but backups from before, and what waits in the "
            "spool: once that is empty, leave it out of MASTER_KEYS or MASTER_KEY_FILE, restart, and keep it "
            "with the backups."
        )
    elif not moved:
        typer.echo(
            "There is one master key only. To change it: put a new one (`colloquy keys new`) before it in "
            "MASTER_KEYS, or in the first line of MASTER_KEY_FILE, restart all servers, and run this again."
        )
    return 0
