"""Functions as operators write them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from datetime import date
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.tools import Caller


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Place(BaseModel):
    """Somewhere."""

    city: str
    country: str | None = None
    title: str = "plain"


def book(
    place: Place,
    size: Size,
    days: Annotated[list[date], Field(description="which days", min_length=1)],
    board: Literal["half", "full"] = "half",
    note: str | None = None,
    *,
    json: bool = False,
) -> dict[str, object]:
    """Book a room.

    Only after the person has agreed to it."""
    return {"city": place.city, "size": size, "days": days, "board": board, "note": note, "json": json}


async def whose(caller: Caller, thing: str) -> str:
    """Whose thing it is."""
    return f"{thing} of {caller.owner} in {caller.session_id}"


def thread() -> str:
    """Where it runs."""
    return threading.current_thread().name


def sleep(seconds: float) -> None:
    """Sleep on a thread."""
    time.sleep(seconds)


async def stubborn() -> None:
    """Does not heed its cancelling."""
    for _ in range(20):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


def refuse() -> None:
    """Refuses."""
    raise ValueError("there are no rooms left")


def broken() -> None:
    """Has a bug."""
    raise RuntimeError("password=hunter2")


def leave() -> None:
    """Tries to end the server."""
    sys.exit(1)


def stop() -> None:
    """Raises what futures do not take."""
    raise StopIteration


def long() -> str:
    """Says much."""
    return "x" * 100_000


def _hidden() -> None:
    """Not for models."""
