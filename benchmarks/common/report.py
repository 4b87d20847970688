"""What machine this is, percentiles, tables, JSON; and how a command ends."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from app import __version__
from app.cli.errors import explained
from corpus.fetch import CorpusUnavailable

_PACKAGES = "numpy onnxruntime faster-whisper ctranslate2 xllamacpp websockets uvicorn".split()
_WIDTH = 118

console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)


def note(line: str) -> None:
    """Say on stderr what is going on, so that stdout holds nothing but results."""
    print(line, file=sys.stderr, flush=True)


def run(main: Callable[..., None]) -> None:
    """Run `main` as a command; a failure that is no bug ends it with one line."""
    try:
        typer.run(main)
    except Exception as error:
        told = (str(error), 1) if isinstance(error, CorpusUnavailable) else explained(error)
        if told is None:
            raise
        note(told[0])
        sys.exit(told[1])


def machine() -> dict[str, Any]:
    """Where a figure comes from: processor, cores this process may use, load (1 min) before the
    run, versions."""
    versions = {"python": platform.python_version(), "colloquy": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_machine(info: dict[str, Any]) -> None:
    """The machine in two lines."""
    console.print(
        f"{info['processor']}, {info['cores']} cores, load {info['load_before']} before, {info['system']}"
    )
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    console.print(versions, soft_wrap=True)


def spread(values: Iterable[float]) -> dict[str, float]:
    """n, mean, p50, p95, min and max; only n = 0 where there are none."""
    data = np.array(list(values), np.float64)
    if not len(data):
        return {"n": 0}
    p50, p95 = np.percentile(data, [50, 95])
    found = {"mean": data.mean(), "p50": p50, "p95": p95, "min": data.min(), "max": data.max()}
    return {"n": len(data)} | {name: round(float(value), 4) for name, value in found.items()}


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """An aligned table: text in the first column, figures in the others."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_header=any(columns),
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def ms(seconds: float | None) -> str:
    """Seconds as whole milliseconds, "–" for None."""
    return "–" if seconds is None else f"{seconds * 1000:.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0–1) as per cent, "–" for None."""
    return "–" if share is None else f"{share * 100:.{digits}f}"


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Everything that was measured, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        note(f"written to {path}")
