"""`colloquy db move`: what was said, from one database to another."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import typer

from app.cli.bar import counting
from app.cli.errors import load_settings
from app.roles import Misconfigured
from app.runtime import database_url
from app.stores.database import sqlite_url
from app.stores.transfer import transfer


def move(*, to: str | None, from_: str | None) -> None:
    """Copy everything to an empty database, and say what is to be done then."""
    settings = load_settings()
    own = sqlite_url(settings.data_dir / "colloquy.db")
    source, target = from_ or database_url(settings), to or own
    if source == target:
        raise Misconfigured("the data is there already: say where --to")
    with ExitStack() as stack:
        counts = asyncio.run(transfer(source, target, counting(stack, "copying")))
    for name, count in counts.items():
        if count:
            typer.echo(f"{count:9} {name}")
    typer.echo(f"{sum(counts.values())} rows copied and verified. They are still there as well.")
    typer.echo("Now set DATABASE_URL to where they are." if target != own else "Now unset DATABASE_URL.")
