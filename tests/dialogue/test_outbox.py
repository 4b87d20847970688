from __future__ import annotations

import asyncio

import numpy as np
import pytest

from app.dialogue.events import Notice, ReplyAudio
from app.dialogue.outbox import FellBehind, Outbox


async def test_readers_get_everything_in_order_from_where_they_were() -> None:
    outbox = Outbox()
    for i in range(5):
        outbox.put(Notice(str(i), ""))
    seen: list[tuple[int, str]] = []

    async def read(after: int) -> None:
        async for seq, event in outbox.follow(after):
            assert isinstance(event, Notice)
            seen.append((seq, event.code))

    reader = asyncio.create_task(read(3))
    await asyncio.sleep(0)
    outbox.put(Notice("5", ""))
    await asyncio.sleep(0)
    outbox.close()
    await reader
    assert seen == [(4, "3"), (5, "4"), (6, "5")]


async def test_the_log_is_bounded_in_events_and_in_sound() -> None:
    outbox = Outbox(max_events=10, max_seconds=1.0)
    for i in range(100):
        outbox.put(Notice(str(i), ""))
    assert outbox.has(90) and outbox.has(100) and not outbox.has(89)
    for _ in range(30):
        outbox.put(ReplyAudio("t", np.zeros(1600, np.float32), 16000, 0.0))
    assert outbox.has(outbox.last_seq - 9) and not outbox.has(outbox.last_seq - 12)


async def test_a_reader_that_fell_behind_is_told() -> None:
    outbox = Outbox(max_events=10)
    for i in range(100):
        outbox.put(Notice(str(i), ""))
    with pytest.raises(FellBehind):
        async for _ in outbox.follow(0):
            pass
