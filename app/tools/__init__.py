"""Functions that the language model may call in a turn: Python functions that operators register, and
those of MCP servers. `docs/tools.md` says how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a function is called. A parameter that is annotated with it is given it, and the
    language model neither sees nor fills it."""

    owner: str
    """The user, as the doors know them."""
    session_id: str
