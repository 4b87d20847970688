"""A session with scripted roles, and everything it said."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts

from app.dialogue import events
from app.dialogue.config import SessionConfig, TurnConfig
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.roles import RoleSet, Samples


class Rig:
    """A session, its roles, and everything it said."""

    def __init__(
        self,
        config: SessionConfig | None = None,
        quick: CountingStt | None = None,
        session_id: str = "s",
        **options: Any,
    ) -> None:
        self.stt, self.llm, self.tts = CountingStt(), ScriptedLlm(), ToneTts()
        self.roles = RoleSet(LoudVad(), self.stt, quick or self.stt, self.llm, self.tts)
        self.kept: list[Turn] = []
        self.said: list[str] = []
        self.recordings: list[int] = []
        self.events: list[events.Event] = []
        self.guesses: list[str] = []
        self.voice_broke = False
        self.session = Session(
            session_id,
            config or SessionConfig(turn=TurnConfig(end_ms=300, echo=False)),
            roles=self._ready,
            on_turn=self._keep,
            on_event=self.events.append,
            on_speculation=self.guesses.append,
            **options,
        )
        self.session.start()

    async def _ready(self) -> RoleSet:
        return self.roles

    async def _keep(self, session: Session, turn: Turn, complete: bool) -> None:
        if complete:
            self.kept.append(turn)
            self.recordings.append(len(turn.recording) if turn.recording is not None else 0)
        else:
            self.said.append(turn.transcript)

    async def hear(self, *parts: Samples) -> None:
        """Give sound in 20 ms pieces, as fast as it is taken."""
        for part in parts:
            for at in range(0, len(part), 320):
                await self.session.hear(part[at : at + 320])
        while self.session._inbox._seconds > 0.001:
            await asyncio.sleep(0.001)

    async def until(
        self, kind: type[events.Event], count: int = 1, *, seconds: float = 10
    ) -> list[events.Event]:
        """Wait for the `count`-th event of a kind; gives those so far."""
        async with asyncio.timeout(seconds):
            while len(found := self.all(kind)) < count:
                await asyncio.sleep(0.002)
        return found

    def all(self, kind: type[events.Event]) -> list[events.Event]:
        return [e for e in self.events if isinstance(e, kind)]

    def names(self) -> list[str]:
        """Event names in order, repeats folded."""
        return [k for k, _ in itertools.groupby(type(e).__name__ for e in self.events)]
