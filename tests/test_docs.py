"""The documentation says what is: generated parts are fresh, links lead somewhere, commands exist."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from serving import Server

import app
import corpus
from app.api import socket
from app.cli import app as cli
from app.main import create_app
from app.observability.metrics import Metrics
from app.roles import ColloquyError
from app.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("*/README.md")),
]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}


def doc(name: str) -> str:
    return TEXT[ROOT / "docs" / name]


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


# --- what is generated or must be complete --------------------------------------------------------


def test_generated_parts_are_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "scripts/protocol_doc.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_setting_is_told() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in doc("settings.md")
        assert f"\n#{name.upper()}=" in example


def test_every_other_variable_is_told() -> None:
    read = re.compile(r"""(?:environ(?:\.get\(|\[)|envvar=)["'](\w+)["']""")
    found = {name for path in (ROOT / "app").rglob("*.py") for name in read.findall(path.read_text())}
    assert found
    # Those of the desktop say where a browser would be seen; nobody sets them for us.
    assert {name for name in found if f"`{name}`" not in doc("settings.md")} <= {"DISPLAY", "WAYLAND_DISPLAY"}


def test_every_metric_is_told() -> None:
    names = re.findall(
        r"^# TYPE (\w+) (?:counter|gauge|histogram)$", Metrics().render().decode(), re.MULTILINE
    )
    own = {name for name in names if not name.endswith("_created")}
    assert len(own) > 20
    assert {name for name in own if f"| `{name}` |" not in doc("operations.md")} == set()


def error_codes() -> Iterator[tuple[str, int]]:
    """Code and HTTP status of every error that a server can answer."""
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.startswith(("app.cli", "app.talk", "app.stores.migrations")):
            importlib.import_module(module.name)
    classes = [ColloquyError]
    for error in classes:
        classes += error.__subclasses__()
        if not error.__module__.startswith(("app.cli", "app.talk", "test")):
            yield error.code, error.http_status


def test_every_error_code_is_told() -> None:
    codes = set(error_codes())
    assert ("STORE_FAILED", 503) in codes
    assert {c for c, status in codes if f"| `{c}` | {status} |" not in doc("operations.md")} == set()


def test_every_notice_and_close_code_is_told() -> None:
    notices: set[str] = set()
    for path in (ROOT / "app").rglob("*.py"):
        if "talk" not in path.parts:  # the client has notices of its own
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Notice" and node.args:
                    assert isinstance(node.args[0], ast.Constant)
                    notices.add(str(node.args[0].value))
    assert "EVENTS_LOST" in notices
    assert {n for n in notices if f"`{n}`" not in doc("protocol.md")} == set()
    closes = {value for name, value in vars(socket).items() if name.startswith("CLOSE_")}
    assert len(closes) >= 4
    assert {code for code in closes if f"| {code} |" not in doc("protocol.md")} == set()


# --- links ----------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXT[page])):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


# --- commands -------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Each line of a code block that starts something of ours: the line, the variables set before it,
    the words."""
    for text in TEXT.values():
        for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                if not re.match(r"(?:[A-Z_]+=\S* )*(?:\S*scripts/\w+|\S*\bcolloquy) ?", line):
                    continue
                words = shlex.split(line, comments=True)
                given = {}
                while "=" in words[0]:
                    name, _, given[name] = words.pop(0).partition("=")
                yield line, given, words


def test_commands_exist() -> None:
    seen = set()
    root = typer.main.get_command(cli)
    for line, given, words in commands():
        assert {name.lower() for name in given} <= set(Settings.model_fields), line
        program = Path(words[0]).name
        if "scripts" in words[0]:
            assert (ROOT / "scripts" / program).stat().st_mode & 0o100, line
        if program == "test":
            assert all((ROOT / word).exists() for word in words[1:] if word.startswith("tests/")), line
        if program in ("run", "colloquy"):
            seen.add(" ".join(words[1:2]))
            check_arguments(root, words[1:], line)
    assert {"", "talk", "doctor", "models", "bench", "serve"} <= seen


def check_arguments(command: Any, words: list[str], line: str) -> None:
    """Subcommands and options must be there; a benchmark must be a file."""
    words = [word for word in words if word != "&"]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    if command.name == "bench":
        assert not words or (ROOT / "benchmarks" / f"{words[0]}.py").is_file(), line
        return
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, line


def test_curl_examples_fit_the_api(settings: Settings) -> None:
    schema = create_app(settings).openapi()
    lines = re.findall(r"^curl (.*)$", TEXT[ROOT / "README.md"], re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        found = re.search(r"http://127\.0\.0\.1:8710(/\S*)", line)
        assert found and found[1] in schema["paths"], line
        body = schema["paths"][found[1]]["post"]["requestBody"]["content"]
        [reference] = re.findall(r"schemas/(\w+)", str(body))
        sent = re.findall(r"-[dF] (\w+)=", line) or re.findall(r'"(\w+)":', line)
        assert sent and set(sent) <= set(schema["components"]["schemas"][reference]["properties"]), line


def test_the_example_program_talks(server: Server, tmp_path: Path) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", doc("protocol.md"), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    [said] = [r for r in corpus.recordings() if r.id == "austen-930"]
    done = subprocess.run(
        [sys.executable, "example.py", server.url, str(said.path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heard = re.search(r"^you: (.+)$", done.stdout, re.MULTILINE)
    assert heard and corpus.wer(said.text, heard[1]) < 0.3
    assert re.search(r"^reply: \w+", done.stdout, re.MULTILINE)
    with wave.open(str(tmp_path / "reply.wav")) as reply:
        assert reply.getnframes() > reply.getframerate() // 2
