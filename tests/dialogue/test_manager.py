"""Who is served, who waits, who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts

from app.dialogue import manager as module
from app.dialogue.config import SessionConfig
from app.dialogue.manager import SessionManager
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.roles import Busy, NotFound, RoleSet


class House:
    """A manager, and what it told."""

    def __init__(self, limit: int = 2, waiting: int = 3, keep_s: float = 60.0) -> None:
        self.counts: list[int] = []
        self.ended: list[str] = []
        self.overload: str | None = None
        self.manager = SessionManager(
            limit,
            keep_s,
            on_count=self.counts.append,
            on_end=self._on_end,
            max_waiting=waiting,
            may_admit=lambda: self.overload,
        )

    async def _on_end(self, session: Session) -> None:
        self.ended.append(session.id)

    def new(self, *, here: bool = False) -> str:
        """A new session; with `here` its client is connected."""
        made = self.manager.create("me", self._make).id
        if here:
            self.manager.attach(made, "me", self)
        return made

    def go(self, session_id: str) -> None:
        """Its client is gone."""
        self.manager.detach(session_id, self)

    def _make(self, session_id: str) -> Session:
        async def roles() -> RoleSet:
            stt = CountingStt()
            return RoleSet(LoudVad(), stt, stt, ScriptedLlm(), ToneTts())

        async def keep(session: Session, turn: Turn, complete: bool) -> None:
            pass

        return Session(session_id, SessionConfig(), roles=roles, on_turn=keep)

    def positions(self, *sessions: str) -> list[int]:
        return [self.manager.position(s) for s in sessions]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.manager.close()


async def test_the_first_are_served_and_the_next_wait_in_order(house: House) -> None:
    served = [house.new(here=True) for _ in range(2)]
    waiting = [house.new(here=True) for _ in range(3)]
    assert house.positions(*served, *waiting) == [0, 0, 1, 2, 3]
    assert len(house.manager) == 2 and house.counts[-1] == 2
    with pytest.raises(Busy) as refused:
        house.new()
    assert refused.value.position == 3 and refused.value.retry_after >= 1
    assert "all 2 sessions are in use" in refused.value.message
    await house.manager.end(served[0])
    assert house.positions(*waiting) == [0, 1, 2]
    await house.manager.end(waiting[1])  # gives up
    assert house.positions(waiting[2]) == [1]
    await house.manager.end(served[1])
    assert house.positions(waiting[2]) == [0] and len(house.manager) == 2


async def test_a_session_that_waits_answers_what_was_said_meanwhile(house: House) -> None:
    served = [house.new(here=True) for _ in range(2)]
    waits = house.manager.get(house.new(here=True), "me")
    waits.say("Hello?")
    await asyncio.sleep(0.05)
    assert waits.state == "loading" and waits.outbox.last_seq == 0
    await house.manager.end(served[0])
    async with asyncio.timeout(5):
        while waits.outbox.last_seq == 0:
            await asyncio.sleep(0.01)


async def test_who_waits_but_is_not_here_is_overtaken_and_leaves(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_COMING_S", 0.2)
    served = [house.new(here=True) for _ in range(2)]
    absent, present = house.new(), house.new(here=True)
    await house.manager.end(served[0])
    assert house.positions(absent, present) == [1, 0]
    async with asyncio.timeout(5):
        while absent not in house.ended:
            await asyncio.sleep(0.02)
    with pytest.raises(NotFound):
        house.manager.get(absent, "me")


async def test_one_who_waits_may_lose_the_line_and_keeps_the_place() -> None:
    house = House(limit=1, keep_s=0.3)
    first = house.new(here=True)
    waits = house.new(here=True)
    house.go(waits)
    assert house.positions(waits) == [1]
    await house.manager.end(first)
    assert house.positions(waits) == [1]
    house.manager.attach(waits, "me", "another")
    assert house.positions(waits) == [0]
    house.manager.detach(waits, "another")
    async with asyncio.timeout(5):
        while waits not in house.ended:
            await asyncio.sleep(0.02)
    await house.manager.close()


async def test_overload_holds_newcomers_though_places_are_free(house: House) -> None:
    house.overload = "the cores are busy"
    first, second = house.new(here=True), house.new(here=True)
    assert house.positions(first, second) == [1, 2] and len(house.manager) == 0
    house.new()
    with pytest.raises(Busy, match="the cores are busy"):
        house.new()
    house.overload = None
    async with asyncio.timeout(5):
        while house.positions(first, second) != [0, 0]:
            await asyncio.sleep(0.02)


async def test_a_newcomer_does_not_overtake_who_is_here(house: House) -> None:
    house.overload = "busy"
    first = house.new(here=True)
    house.overload = None
    second = house.new()
    assert house.positions(first, second) == [0, 0]


async def test_who_has_gone_makes_room_for_who_is_here(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMING_S", 0.3)
    gone, stays = house.new(here=True), house.new(here=True)
    house.go(gone)
    waits = house.new(here=True)
    assert house.positions(waits) == [1]  # the client of `gone` may be on its way
    async with asyncio.timeout(5):
        while house.positions(waits) != [0]:
            await asyncio.sleep(0.02)
    assert house.manager.get(stays, "me")
    async with asyncio.timeout(5):
        while house.ended != [gone]:
            await asyncio.sleep(0.02)


async def test_a_taken_over_connection_is_displaced(house: House) -> None:
    session = house.new()
    house.manager.attach(session, "me", "old")
    assert not house.manager.is_displaced(session, "old")
    house.manager.attach(session, "me", "new")
    assert house.manager.is_displaced(session, "old")
    house.manager.detach(session, "old")
    assert not house.manager.is_displaced(session, "new")
    await house.manager.end(session)
    assert not house.manager.is_displaced(session, "old")  # nobody else has it


async def test_closing_ends_all_and_lets_nobody_in() -> None:
    house = House(limit=1)
    sessions = [house.new(here=True) for _ in range(3)]
    await house.manager.close()
    assert sorted(house.ended) == sorted(sessions)
    assert house.counts[-1] == 0
    await asyncio.sleep(0.6)
    assert len(house.manager) == 0
