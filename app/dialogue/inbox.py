"""What a session has been given and has not looked at yet, in order: sound, and what clients ask for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from app.dialogue.config import Ask
from app.dialogue.turn import Turn
from app.roles import SAMPLE_RATE, Samples

_ROOM_S = 60.0


class Commit:
    """The utterance ends here."""


class Clear:
    """The utterance is not one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A reply is wanted, to all that was said before."""

    turn: Turn
    ask: Ask


Item = Samples | Commit | Clear | Asked


class Inbox:
    """A queue for one reader. Who brings sound waits while there is a minute of it."""

    def __init__(self) -> None:
        self.heard_to = 0
        """How many samples have come."""
        self.commits: deque[int] = deque()
        """Up to where there was sound when the client ended an utterance, for those still in here."""
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._seconds = 0.0
        self._room = asyncio.Event()
        self._closed = False

    async def room(self) -> bool:
        """Wait until there is room for more sound; whether any is wanted."""
        while self._seconds > _ROOM_S and not self._closed:
            self._room.clear()
            await self._room.wait()
        return not self._closed

    def sound(self, samples: Samples) -> None:
        """The next sound."""
        self.heard_to += len(samples)
        self._seconds += len(samples) / SAMPLE_RATE
        self._items.put_nowait(samples)

    def put(self, item: Commit | Clear | Asked) -> None:
        """What the client asks for, behind the sound that has come."""
        if isinstance(item, Commit):
            self.commits.append(self.heard_to)
        self._items.put_nowait(item)

    async def take(self) -> Item:
        """The next item, once there is one."""
        item = await self._items.get()
        if isinstance(item, Commit):
            self.commits.popleft()
        elif not isinstance(item, Clear | Asked):
            self._seconds -= len(item) / SAMPLE_RATE
            self._room.set()
        return item

    def refill(self, begin: int, sound: Iterable[tuple[int, Samples]], commits: Iterable[int]) -> None:
        """Take over what another inbox held: sound by position, from `begin` on, and the ends in it."""
        self.heard_to = begin
        ends = deque(commits)
        for at, samples in sound:
            self.heard_to = at
            self.sound(samples)
            while ends and ends[0] <= self.heard_to:
                self.put(Commit())
                self.commits[-1] = ends.popleft()

    def close(self) -> None:
        """Nobody takes sound any more: who waits goes on."""
        self._closed = True
        self._room.set()
