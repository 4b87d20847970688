"""Other voice systems, to be measured beside ours with the same recordings and models.

A peer is a module here, `benchmarks/peers/NAME.py`, that defines `PEER`, and a name in `NAMES`. Beside
it lie `NAME.requirements.txt`, every package pinned, which `benchmarks.peers.environment` installs
into an environment of its own, and usually `NAME_bot.py`, which runs there and therefore imports
nothing of ours. To write one:

* `serve(python, settings)` is a context manager: it starts the peer with the environment's `python`,
  waits until its models are loaded, gives a `System`, and stops everything at the end.
  `benchmarks.common.process.started` starts a process, `benchmarks.peers.llm.serving` the language
  model behind an OpenAI endpoint, `benchmarks.peers.models.model` finds our models' folders.
* `System.connect` opens one conversation and gives a `Line`: see `benchmarks.common.system`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from app.roles import Misconfigured
from app.settings import Settings
from benchmarks.common.system import System

NAMES = ("pipecat", "speech_to_speech")


@dataclass(frozen=True, slots=True)
class Peer:
    """How to get and run a peer. `requirements` are installed into its own environment, whose
    interpreter `serve` is given."""

    name: str
    requirements: Path
    serve: Callable[[Path, Settings], AbstractAsyncContextManager[System]]


def peer(name: str) -> Peer:
    """The peer called `name` (`-` or `_`). `Misconfigured` if there is none."""
    name = name.replace("-", "_")
    if name not in NAMES:
        raise Misconfigured(f"there is no peer {name!r}; there are: {', '.join(NAMES)}")
    found: Peer = import_module(f"{__name__}.{name}").PEER
    return found
