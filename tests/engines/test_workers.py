"""The threads that model work shares: order, fairness, and what gives way when they are full."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.engines.workers import SHED_S, Workers
from app.roles import Busy, Job, Urgency

FINAL, SPEECH, PARTIAL = Urgency.FINAL, Urgency.SPEECH, Urgency.PARTIAL


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def one(clock: Clock) -> Iterator[Workers]:
    """A single thread."""
    pool = Workers(1, now=clock)
    yield pool
    pool.close()


class Held:
    """Keeps the thread busy until let go."""

    def __init__(self, pool: Workers, owner: str = "holder") -> None:
        self._go, began = threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            self._go.wait(30)

        self.task = asyncio.ensure_future(pool.run(Job(owner, FINAL), work))
        self.began = asyncio.to_thread(began.wait, 30)

    async def let_go(self) -> None:
        self._go.set()
        await self.task


async def test_a_final_goes_ahead_of_a_partial(one: Workers) -> None:
    held = Held(one)
    await held.began
    done: list[str] = []
    tasks = [
        asyncio.ensure_future(one.run(Job("a", urgency), done.append, urgency.name))
        for urgency in (PARTIAL, SPEECH, FINAL)
    ]
    await asyncio.sleep(0)
    await held.let_go()
    await asyncio.gather(*tasks)
    assert done == ["FINAL", "SPEECH", "PARTIAL"]


async def test_among_equals_the_one_who_used_least_goes_first(one: Workers, clock: Clock) -> None:
    def costly() -> None:
        clock.at += 2.0

    await one.run(Job("greedy", FINAL), costly)
    held = Held(one)
    await held.began
    done: list[str] = []
    tasks = [
        asyncio.ensure_future(one.run(Job(owner, FINAL), done.append, owner))
        for owner in ("greedy", "greedy", "modest", "modest")
    ]
    await asyncio.sleep(0)
    await held.let_go()
    await asyncio.gather(*tasks)
    assert done == ["modest", "modest", "greedy", "greedy"]


async def test_partials_give_way_while_finals_wait(one: Workers, clock: Clock) -> None:
    shed: list[int] = []
    one._on_shed = lambda: shed.append(1)
    assert await one.run(Job("a", PARTIAL), lambda: 1) == 1
    held = Held(one)
    await held.began
    waiting = asyncio.ensure_future(one.run(Job("b", FINAL), lambda: 2))
    await asyncio.sleep(0)
    clock.at += SHED_S * 1.1
    assert one.pressure() > SHED_S
    with pytest.raises(Busy):
        await one.run(Job("a", PARTIAL), lambda: 3)
    assert shed == [1]
    await held.let_go()
    # What people wait for is never refused.
    assert await waiting == 2
    clock.at += 60
    assert one.pressure() < 0.01
    assert await one.run(Job("a", PARTIAL), lambda: 4) == 4


async def test_work_that_is_cancelled_before_its_turn_never_runs(one: Workers) -> None:
    held = Held(one)
    await held.began
    ran: list[int] = []
    task = asyncio.ensure_future(one.run(Job("a"), ran.append, 1))
    await asyncio.sleep(0)
    assert one.waiting == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.waiting == 0
    await held.let_go()
    await one.run(Job("a"), lambda: None)
    assert ran == []


async def test_a_reserved_thread_is_free_for_a_final_while_partials_fill_the_others() -> None:
    pool = Workers(2, reserved=1)
    try:
        go, began = threading.Event(), threading.Event()

        def slow() -> None:
            began.set()
            go.wait(30)

        slow_ones = [asyncio.ensure_future(pool.run(Job("a", PARTIAL), slow)) for _ in range(3)]
        await asyncio.to_thread(began.wait, 30)
        assert await asyncio.wait_for(pool.run(Job("b", FINAL), lambda: 5), 10) == 5
        go.set()
        await asyncio.gather(*slow_ones)
    finally:
        pool.close()


async def test_an_error_belongs_to_who_asked(one: Workers) -> None:
    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await one.run(Job("a"), broken)
    assert await one.run(Job("a"), lambda: 1) == 1


async def test_after_closing_nothing_is_taken() -> None:
    pool = Workers(1)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        await pool.run(Job("a"), lambda: None)
