"""What is seen in the terminal while models are fetched and loaded."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console

from app.models import ModelStore
from app.models.progress import Update, bars
from app.runtime import Runtime

_POLL_S = 0.1


async def show_loading(runtime: Runtime, console: Console) -> list[str]:
    """Show how far the models of a started runtime are, until each is ready or has failed; gives what
    failed, in sentences."""
    with ExitStack() as stack:
        update: Update | None = None
        if console.is_terminal:
            stack.enter_context(console.status("loading models ..."))
            stack.enter_context(logs_above())
        while any(s.state not in ("ready", "failed") for s in runtime.status.values()):
            fetching = [s for s in runtime.status.values() if s.state == "fetching"]
            if fetching and update is None:
                # Only one live display at a time: the bars take the place of "loading".
                stack.close()
                names = list(dict.fromkeys(s.model for s in fetching))
                console.print(
                    f"Fetching {len(names)} models into {runtime.settings.models_dir}", soft_wrap=True
                )
                update = stack.enter_context(_shown(runtime, names, console))
            if update is not None:
                for status in runtime.status.values():
                    update(status.model, status.progress, status.message)
            await asyncio.sleep(_POLL_S)
    return [f"{s.role}: {s.message}" for s in runtime.status.values() if s.state == "failed"]


@contextmanager
def _shown(runtime: Runtime, names: list[str], console: Console) -> Iterator[Update]:
    """Bars in a terminal, lines elsewhere, for the models called `names`; others are ignored."""
    if not console.is_terminal:
        yield progress_lines(names, console)
        return
    known = set(names)
    with bars(ModelStore(runtime.settings.models_dir), names, console) as bar, logs_above():
        yield lambda name, done, message: bar(name, done, message) if name in known else None


def progress_lines(names: Sequence[str], console: Console) -> Update:
    """Like `models.progress.bars`, as a line for each tenth of each of `names`."""
    told = dict.fromkeys(names, -1)

    def line(name: str, done: float, message: str) -> None:
        tenth = int(done * 10)
        if name in told and tenth > told[name]:
            told[name] = tenth
            console.print(f"{name}: {done:.0%} {message}".rstrip(), soft_wrap=True)

    return line


@contextmanager
def logs_above() -> Iterator[None]:
    """Log lines go above a live display instead of through it. Enter after the display, which has by
    then put its own stream in the place of stderr."""
    ours = [
        h
        for h in logging.getLogger().handlers
        if isinstance(h, logging.StreamHandler) and h.stream is sys.__stderr__
    ]
    for handler in ours:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in ours:
            handler.setStream(sys.__stderr__)
