"""How fetching a model fails."""

from __future__ import annotations

from app.roles.errors import EngineFailed


class ModelUnavailable(EngineFailed):
    """A model could not be had; the message names every source tried, why it failed, and what to do."""


class SourceFailed(Exception):
    """One source could not give a file; the next one is tried. Never leaves this package."""


class Unreachable(SourceFailed):
    """The source's host cannot be connected to, so asking it for another model would only cost time."""
