"""`colloquy sweep` and `colloquy objects move`: recordings, by hand."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from hashlib import sha256

import typer

from app.cli.bar import counting
from app.cli.errors import load_settings
from app.roles import Misconfigured
from app.runtime import database_url, rules, s3_access
from app.settings import Settings
from app.stores.crypt import UserKeys, load_master_keys
from app.stores.move import Moved, copy_objects
from app.stores.objects import open_objects
from app.stores.retention import Swept
from app.stores.retention import sweep as sweep_recordings
from app.stores.sql import open_conversations
from app.stores.sql_keys import SqlKeys
from app.stores.sql_recordings import SqlRecordings
from app.stores.vault import Vault


def sweep(*, dry_run: bool) -> int:
    """Sweep now and say what was done; 1 if another process does."""
    settings = load_settings()
    swept = asyncio.run(_sweep(settings, dry_run))
    if swept is None:
        typer.echo("Another process sweeps just now.", err=True)
        return 1
    would = "would be " if dry_run else ""
    typer.echo(f"{swept.raw} recordings {would}deleted, {swept.orphans} more that no turn names")
    typer.echo(f"{swept.synthesized} synthesized ones {would}deleted")
    saved = "" if dry_run else f" ({swept.saved / 1e6:.1f} MB saved)"
    typer.echo(f"{swept.opus} {would}made smaller{saved}")
    if swept.failed:
        typer.echo(f"{swept.failed} could not be read: see above")
    return 0


async def _sweep(settings: Settings, dry_run: bool) -> Swept | None:
    objects = await open_objects(settings.objects_url, s3_access(settings))
    conversations = await open_conversations(database_url(settings))
    try:
        given = [key.get_secret_value() for key in settings.master_keys]
        master = load_master_keys(given, settings.master_key_file)
        vault = Vault(objects, UserKeys(master, SqlKeys(conversations.engine)))
        recordings = SqlRecordings(conversations.engine)
        return await sweep_recordings(recordings, vault, rules(settings), dry_run=dry_run)
    finally:
        await conversations.close()
        await objects.close()


def move(*, to: str, from_: str | None, delete: bool) -> None:
    """Copy all objects to another store, and say what is to be done then."""
    settings = load_settings()
    from_ = from_ or settings.objects_url
    if from_.rstrip("/") == to.rstrip("/"):
        raise Misconfigured(f"the objects are at {to} already")
    moved = asyncio.run(_move(settings, from_, to, delete))
    typer.echo(f"{moved.found} objects, {moved.size / 1e6:.1f} MB: {moved.copied} copied and verified")
    for count, what in (
        (moved.same, "were there already"),
        (moved.newer, "are newer there and were left as they are"),
        (moved.gone, "were deleted meanwhile"),
    ):
        if count:
            typer.echo(f"{count} {what}")
    left = "They were deleted here." if delete else "They are still here as well."
    typer.echo(f"{left} Now set OBJECT_STORE_URL={to}")


async def _move(settings: Settings, from_: str, to: str, delete: bool) -> Moved:
    name = sha256(f"{from_} {to}".encode()).hexdigest()[:16]
    journal = settings.data_dir / f"objects-move-{name}.txt"
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = await open_objects(from_, s3_access(settings))
    target = await open_objects(to, s3_access(settings))
    try:
        with ExitStack() as stack:
            bar = counting(stack, "copying")

            def tell(moved: Moved) -> None:
                bar(moved.done, moved.found)

            moved = await copy_objects(source, target, journal, delete=delete, tell=tell)
        if delete:
            journal.unlink(missing_ok=True)  # else a second run need only look at what came since
        return moved
    finally:
        await source.close()
        await target.close()
