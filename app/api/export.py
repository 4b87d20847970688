"""Everything of a user as one ZIP, made while it is sent."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from app.api.context import Context
from app.roles import NotFound

_PAGE = 100
_README = """What this server kept of you, as of {now}.

user.json                    your settings
sessions/ID.json             a session: how it was set, and its turns: what was said, with the time of each
                             word (seconds), what was answered, how long each step took (ms)
audio/ID/NUMBER_....wav      what was heard in the turn of that number of session ID (or .opus)
conversations/ID.json        a conversation that your wearable heard: who said what (seconds), and what was
                             made of it
memories.json                what was thought worth knowing of you, with the vector by which it is found
action_items.json            what there is to be done
people.json                  whom you know
voices.json                  voices by which you and they are recognised: vectors, and where recordings lie
voices/NAME.wav              these recordings
listened.json                for how long you were listened to, by day (seconds)

Times are in UTC. Text is UTF-8.
"""


class _Sink(io.RawIOBase):
    """What is written to it, until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


async def export(context: Context, owner: str) -> AsyncIterator[bytes]:
    """The ZIP of `owner`'s data, in pieces: one file at a time is in memory."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        async for name, data in _files(context, owner):
            await asyncio.to_thread(_add, archive, name, data)
            yield sink.take()
    yield sink.take()


def _add(archive: zipfile.ZipFile, name: str, data: Any) -> None:
    if isinstance(data, bytes):
        archive.writestr(name, data, zipfile.ZIP_STORED)
    else:
        archive.writestr(name, json.dumps(data, ensure_ascii=False, indent=1, default=_json))


def _json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [round(float(v), 6) for v in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(type(value))


async def _files(context: Context, owner: str) -> AsyncIterator[tuple[str, Any]]:
    """Each file's name, and its bytes or what is its JSON."""
    diary = context.diary
    yield "README.txt", _README.format(now=datetime.now(UTC).isoformat(timespec="seconds")).encode()
    user = await diary.user(owner)
    yield "user.json", asdict(user)
    async for session in _all(lambda n: context.conversations.sessions(owner, _PAGE, n)):
        turns = [t async for t in _turns(context, session.id)]
        yield f"sessions/{session.id}.json", asdict(session) | {"turns": [asdict(t) for t in turns]}
        for turn in turns:
            async for sound in _sound(context, owner, f"audio/{session.id}/{turn.number}_", turn.audio_key):
                yield sound
    async for conversation in _all(lambda n: diary.conversations(owner, (), _PAGE, n)):
        segments = (await diary.segments([conversation.id]))[conversation.id]
        made = asdict(conversation) | {"segments": [asdict(s) for s in segments]}
        yield f"conversations/{conversation.id}.json", made
    memories = _all(lambda n: diary.memories(owner, _PAGE, n, vectors=True))
    yield "memories.json", [asdict(m) async for m in memories]
    yield "action_items.json", [asdict(i) async for i in _all(lambda n: diary.action_items(owner, _PAGE, n))]
    yield "people.json", [asdict(p) for p in await diary.people(owner)]
    voices = await diary.voices(owner)
    yield "voices.json", [asdict(v) for v in voices]
    for key in sorted({k for k in (user.profile_key, *(v.audio_key for v in voices)) if k is not None}):
        async for sound in _sound(context, owner, "voices/", key):
            yield sound
    listened = await context.owned.listened(owner)
    yield "listened.json", [{"day": day, "seconds": seconds} for day, seconds in listened]


def _turns(context: Context, session_id: str) -> AsyncIterator[Any]:
    return _all(lambda n: context.conversations.turns(session_id, _PAGE, n))


async def _all(page: Callable[[int], Awaitable[Sequence[Any]]]) -> AsyncIterator[Any]:
    """All items of all pages, by how many came before."""
    count = 0
    while found := await page(count):
        for item in found:
            yield item
        count += len(found)


async def _sound(
    context: Context, owner: str, where: str, key: str | None
) -> AsyncIterator[tuple[str, bytes]]:
    if key is not None:
        try:
            data = await context.vault.get(owner, key)
        except NotFound:
            return  # it was swept meanwhile
        yield f"{where}{key.rpartition('/')[2]}", data
