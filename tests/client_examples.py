"""The programs of docs/clients.md, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from serving import Server

from app.security.access import Access

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
PACKAGES = Path(__file__).parent / "node" / "node_modules"
"""The vendors' JavaScript packages, which scripts/test installs."""


def _named(language: str) -> dict[str, str]:
    pattern = rf"^```{language}\n(?:#|//) ([^\n]+)\n(.*?)^```"
    blocks = re.findall(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(dict(blocks)) == len(blocks), "two programs have one name"
    return dict(blocks)


PROGRAMS = _named("python") | _named("js")
"""By their file names, which are in their first lines."""
COMMANDS = _named("sh")
"""By what they are said to do in their first lines."""


@contextmanager
def keyed(server: Server, key: str) -> Iterator[Server]:
    """A server that runs already wants `key` from everybody, for a while."""
    context = server.app.state.context
    before = context.access
    context.access = Access(server.settings.model_copy(update={"api_keys": [SecretStr(key)]}), b"secret")
    try:
        yield server
    finally:
        context.access = before
