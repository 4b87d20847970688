"""Sessions in Redis: a real server on loopback, two processes' worth of holders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, redis_server

from app.roles import Misconfigured, NotFound
from app.stores.shared import SharedSessions, Unavailable


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def two(redis: RedisServer) -> AsyncIterator[tuple[SharedSessions, SharedSessions]]:
    pair = SharedSessions(redis.url, "first", 60), SharedSessions(redis.url, "second", 60)
    yield pair
    for one in pair:
        await one.close()


async def test_another_process_reads_what_was_written_in_order(
    two: tuple[SharedSessions, SharedSessions],
) -> None:
    first, second = two
    await first.create("s", "anna", {"language": "en"})
    assert await first.append("s", [(1, b"one"), (2, b"two")], [(0, b"\x00\xff\n")], state={"turns": 1})
    assert await first.append("s", [(3, b"three")], [(320, b"b"), (640, b"c")], drop_sound=1)
    assert await first.append("s", drop_events=1)
    kept = await second.claim("s", "anna")
    assert kept.wish == {"language": "en"} and kept.state == {"turns": 1}
    assert kept.events == ((2, b"two"), (3, b"three"))
    assert kept.sound == ((320, b"b"), (640, b"c"))


async def test_who_lost_the_session_writes_no_more(two: tuple[SharedSessions, SharedSessions]) -> None:
    first, second = two
    await first.create("s", "anna", {})
    await second.claim("s", "anna")
    assert not await first.append("s", [(1, b"late")])
    await first.forget("s")
    assert await second.append("s", [(1, b"mine")])
    assert (await second.claim("s", "anna")).events == ((1, b"mine"),)


async def test_only_its_owner_can_claim_a_session(two: tuple[SharedSessions, SharedSessions]) -> None:
    first, second = two
    await first.create("s", "anna", {})
    for session, owner in (("s", "ben"), ("t", "anna")):
        with pytest.raises(NotFound):
            await second.claim(session, owner)
    # An attempt changes nothing.
    assert await first.append("s", [(1, b"x")])
    await first.forget("s")
    with pytest.raises(NotFound):
        await first.claim("s", "anna")


async def test_a_session_nobody_writes_to_is_gone_after_a_while(redis: RedisServer) -> None:
    shared = SharedSessions(redis.url, "first", 0.0)
    await shared.create("s", "anna", {})
    await redis.wait_until_gone("colloquy:session:s")
    assert not await shared.append("s", [(1, b"x")])
    await shared.close()


async def test_a_server_that_is_not_there_is_told_as_such(redis: RedisServer) -> None:
    shared = SharedSessions(redis.url, "first", 60)
    await shared.create("s", "anna", {})
    redis.stop()
    with pytest.raises(Unavailable):
        await shared.append("s", [(1, b"x")])
    redis.start()
    await shared.create("s", "anna", {})
    assert await shared.append("s", [(1, b"x")])
    await shared.close()


def test_an_address_that_is_none_stops_the_start() -> None:
    with pytest.raises(Misconfigured, match="SHARED_STATE_URL"):
        SharedSessions("http://somewhere", "first", 60)


async def test_a_users_sessions_are_erased_whoever_holds_them(
    two: tuple[SharedSessions, SharedSessions],
) -> None:
    first, second = two
    for name, owner, holder in (("a", "anna", first), ("b", "anna", second), ("c", "ben", first)):
        await holder.create(name, owner, {})
        assert await holder.append(name, [(1, b"one")], [(0, b"x")])
    assert await first.erase("anna") == 2
    assert await first.erase("anna") == 0
    assert not await second.append("b", [(2, b"two")]), "its holder lets go of it"
    assert await first.append("c", [(2, b"two")])
    with pytest.raises(NotFound):
        await first.claim("a", "anna")
    assert (await first.claim("c", "ben")).events == ((1, b"one"), (2, b"two"))
    left = [key async for key in first._redis.scan_iter("*")]
    assert sorted(left) == [b"colloquy:session:c" + part for part in (b"", b":events", b":sound")]
