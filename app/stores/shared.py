"""Sessions that outlive a server process: what another one needs to go on, in Redis.

One process holds a session and writes down what happens in it; when the client comes back to
another process, that one claims the session and reads it. A claim takes effect at once: every
write names its holder, and the server refuses those of a process that no longer is. Layout, per
session: a hash (holder, owner, wish, state), a list of events and a list of sound.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.roles import ColloquyError, Misconfigured, NotFound

Entry = tuple[int, bytes]
"""An event with its number, or sound with the position of its first sample."""

_APPEND = """
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
local at = 5
for _ = 1, tonumber(ARGV[3]) do redis.call('RPUSH', KEYS[2], ARGV[at]); at = at + 1 end
for _ = 1, tonumber(ARGV[4]) do redis.call('RPUSH', KEYS[3], ARGV[at]); at = at + 1 end
if tonumber(ARGV[at]) > 0 then redis.call('LTRIM', KEYS[2], ARGV[at], -1) end
if tonumber(ARGV[at + 1]) > 0 then redis.call('LTRIM', KEYS[3], ARGV[at + 1], -1) end
if ARGV[at + 2] ~= '' then redis.call('HSET', KEYS[1], 'state', ARGV[at + 2]) end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
"""
_CLAIM = """
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner or owner ~= ARGV[1] then return {} end
redis.call('HSET', KEYS[1], 'holder', ARGV[2])
return {redis.call('HGET', KEYS[1], 'wish'), redis.call('HGET', KEYS[1], 'state'),
  redis.call('LRANGE', KEYS[2], 0, -1), redis.call('LRANGE', KEYS[3], 0, -1)}
"""
_FORGET = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('DEL', unpack(KEYS)) end
"""


class Unavailable(ColloquyError):
    """The shared state cannot be reached now."""

    code = "SHARED_STATE_UNAVAILABLE"
    http_status = 503
    retryable = True


@dataclass(frozen=True, slots=True)
class Kept:
    """A session as its last holder left it. `events` and `sound` in order."""

    wish: dict[str, Any]
    state: dict[str, Any]
    events: tuple[Entry, ...]
    sound: tuple[Entry, ...]


class SharedSessions:
    """The sessions of all processes that use the Redis server at `url`; `holder` names this one."""

    def __init__(self, url: str, holder: str, keep_s: float) -> None:
        """Does not connect yet. `keep_s`: how long a session is kept after its last write."""
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import ExponentialBackoff
        except ImportError as error:
            raise Misconfigured(
                "SHARED_STATE_URL needs the redis package: install colloquy[redis]"
            ) from error
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=5,
                socket_connect_timeout=2,
                retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
            )
        except ValueError as error:
            raise Misconfigured(f"SHARED_STATE_URL is no Redis address: {error}") from error
        self._holder = holder
        self._ttl = int(keep_s) + 1
        self._append = self._redis.register_script(_APPEND)
        self._claim = self._redis.register_script(_CLAIM)
        self._forget = self._redis.register_script(_FORGET)

    async def create(self, session_id: str, owner: str, wish: dict[str, Any]) -> None:
        """A new session, held by this process. Raises `Unavailable`."""
        key = _keys(session_id)[0]
        fields: dict[Any, Any] = {
            "holder": self._holder,
            "owner": owner,
            "wish": json.dumps(wish),
            "state": "{}",
        }
        async with _reaching(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=fields)
            pipe.expire(key, self._ttl)
            await pipe.execute()

    async def append(
        self,
        session_id: str,
        events: Sequence[Entry] = (),
        sound: Sequence[Entry] = (),
        *,
        drop_events: int = 0,
        drop_sound: int = 0,
        state: dict[str, Any] | None = None,
    ) -> bool:
        """Write down what happened, and let the oldest `drop_…` entries go. False if another
        process holds the session by now, or it is gone. Raises `Unavailable`."""
        args: list[Any] = [self._holder, self._ttl, len(events), len(sound)]
        args += [_packed(entry) for entry in (*events, *sound)]
        args += [drop_events, drop_sound, json.dumps(state) if state is not None else ""]
        async with _reaching():
            return bool(await self._append(keys=_keys(session_id), args=args))

    async def claim(self, session_id: str, owner: str) -> Kept:
        """Take `owner`'s session over: from here on this process holds it. Raises `NotFound` or
        `Unavailable`."""
        async with _reaching():
            found = await self._claim(keys=_keys(session_id), args=[owner, self._holder])
        if not found:
            raise NotFound("there is no such session; it may have ended: create a new one")
        wish, state, events, sound = found
        return Kept(
            json.loads(wish),
            json.loads(state),
            tuple(_unpacked(entry) for entry in events),
            tuple(_unpacked(entry) for entry in sound),
        )

    async def forget(self, session_id: str) -> None:
        """The session has ended; no error if another process holds it."""
        async with _reaching():
            await self._forget(keys=_keys(session_id), args=[self._holder])

    async def erase(self, owner: str) -> int:
        """Delete all sessions of `owner`, whoever holds them; how many. Raises `Unavailable`."""
        gone = 0
        async with _reaching():
            async for name in self._redis.scan_iter("colloquy:session:*", count=500, _type="HASH"):
                if await self._redis.hget(name, "owner") == owner.encode():
                    gone += 1
                    await self._redis.delete(*_keys(name.decode().rpartition(":")[2]))
        return gone

    async def close(self) -> None:
        """Leave the server."""
        await self._redis.aclose()


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    """Tells of a server that is not there as `Unavailable`."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(f"the shared state cannot be reached: {error}") from error


def _keys(session_id: str) -> list[str]:
    return [f"colloquy:session:{session_id}{part}" for part in ("", ":events", ":sound")]


def _packed(entry: Entry) -> bytes:
    return entry[0].to_bytes(8, "big") + entry[1]


def _unpacked(data: bytes) -> Entry:
    return int.from_bytes(data[:8], "big"), data[8:]
