"""`colloquy models`: list, fetch, verify."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import typer
from rich.console import Console
from rich.table import Table

from app.cli.errors import load_settings
from app.cli.loading import progress_lines
from app.cli.needs import needed_models
from app.models import ModelStore
from app.models.progress import fetch_all_with_bar
from app.settings import Settings

_MB = 1_000_000


def _store(settings: Settings) -> ModelStore:
    return ModelStore(settings.models_dir, local=settings.models_local, hub=settings.models_hub)


def list_all() -> None:
    """Print a table of all models; those that the settings use are marked."""
    settings = load_settings()
    store = _store(settings)
    used = set(asyncio.run(needed_models(settings)).values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("model", "role", "licence"):
        table.add_column(column)
    table.add_column("size", justify="right")
    table.add_column("here")
    table.add_column("used")
    for model in store.manifest.models:
        here = "yes" if store.present(model.name) else "no"
        size = f"{model.size / _MB:.0f} MB"
        table.add_row(model.name, model.role, model.licence, size, here, "yes" if model.name in used else "")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # lines for grep, not for eyes
    console.print(table)
    console.print(f"Models are kept in {store.root}", soft_wrap=True)


def fetch(names: list[str]) -> None:
    """Fetch `names`, or what the settings use. `Misconfigured` for an unknown name, `ModelUnavailable`
    for one that cannot be had."""
    settings = load_settings()
    store = _store(settings)
    names = list(dict.fromkeys(names)) or list(dict.fromkeys(asyncio.run(needed_models(settings)).values()))
    missing = [name for name in names if store.present(name) is None]
    if missing:
        console = Console(stderr=True, highlight=False)
        work = fetch_all_with_bar if console.is_terminal else _fetch_with_lines
        asyncio.run(work(store, missing, console))
    for name in names:
        typer.echo(f"{name}: {'fetched' if name in missing else 'is here'}")


async def _fetch_with_lines(store: ModelStore, names: list[str], console: Console) -> None:
    tell: Callable[[str, float, str], None] = progress_lines(names, console)
    for name in names:
        await store.fetch(name, partial(tell, name))


def verify(names: list[str]) -> int:
    """Hash `names`, or all that are here; 1 if one is not what it should be."""
    store = _store(load_settings())
    known = [model.name for model in store.manifest.models]
    names = list(dict.fromkeys(names)) or [name for name in known if store.present(name)]
    if not names:
        typer.echo(f"There are no models in {store.root}.")
    bad = False
    for name in names:
        problems = store.verify(name)
        bad |= bool(problems)
        typer.echo("\n".join(problems) if problems else f"{name}: every byte is right")
    return 1 if bad else 0
