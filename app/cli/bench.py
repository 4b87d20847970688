"""`colloquy bench`: the benchmarks of a checkout, which are modules with a command line of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import typer

ROOT = Path(__file__).parents[2]


def run(name: str | None, arguments: list[str]) -> int:
    """Run `benchmarks.NAME`, or list them; gives the exit code."""
    folder = ROOT / "benchmarks"
    found = {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}
    if not found:
        typer.echo(
            "colloquy: the benchmarks are not installed with the package: clone the repository and run "
            "`scripts/run bench` there",
            err=True,
        )
        return 1
    if name is None:
        width = max(map(len, found))
        for stem, path in found.items():
            typer.echo(f"{stem:<{width}}  {_about(path)}")
        return 0
    if name not in found:
        typer.echo(f"colloquy: there is no benchmark {name!r}; there are: {', '.join(found)}", err=True)
        return 2
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _about(path: Path) -> str:
    """The first line of the module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
