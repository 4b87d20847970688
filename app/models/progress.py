"""Progress bars in the terminal while models are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column

from app.models.store import ModelStore

Update = Callable[[str, float, str], None]


@contextmanager
def bars(store: ModelStore, names: Sequence[str], console: Console | None = None) -> Iterator[Update]:
    """A bar for each model and one for all, shown while the block runs. Feed it by calling what it
    gives with a model's name and what `ModelStore.fetch` reports."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[message]}", style="dim", table_column=Column(no_wrap=True, ratio=1)),
    )
    sizes = {name: store.manifest.model(name).size for name in names}
    done = dict.fromkeys(sizes, 0)
    with Progress(*columns, console=console or Console(stderr=True), expand=True) as progress:
        tasks = {name: progress.add_task(name, total=size, message="waiting") for name, size in sizes.items()}
        everything = progress.add_task("all models", total=sum(sizes.values()), message="")

        def update(name: str, fraction: float, message: str) -> None:
            done[name] = round(fraction * sizes[name])
            progress.update(tasks[name], completed=done[name], message=message)
            progress.update(everything, completed=sum(done.values()))

        yield update


async def fetch_all_with_bar(store: ModelStore, names: Sequence[str], console: Console | None = None) -> None:
    """Fetch the models one after the other (each uses the network as well as it can), with bars on
    standard error. `ModelUnavailable` at the first that cannot be had."""
    with bars(store, names, console) as update:
        for name in names:
            await store.fetch(name, partial(update, name))
