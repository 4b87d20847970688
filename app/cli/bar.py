"""How far something is: a bar in a terminal, else a line for each tenth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def counting(stack: ExitStack, what: str) -> Callable[[int, int], None]:
    """Shows what it is given, how many are done of how many, as long as `stack` is open."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        told = 0

        def line(done: int, of: int) -> None:
            nonlocal told
            if done * 10 // of > told:
                told = done * 10 // of
                console.print(f"{done} of {of}", soft_wrap=True)

        return line
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    progress = stack.enter_context(Progress(*columns, console=console))
    task = progress.add_task(what, total=None)
    return lambda done, of: progress.update(task, total=of, completed=done)
