"""What is worth knowing of a user: each thing once, and found again by what it means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from app.insights.meaning import NEAR, Line, Meaning, bare, fresh
from app.roles import Urgency, Vector
from app.stores.diary import Diary, MemoryRecord

_PAGE = 1000
_MOST = 5000
_PLACED_AT_ONCE = 200
"""Memories that another encoder placed are placed anew when they are looked at, so many each time."""


class Memories:
    """The memories of the diary's owners."""

    def __init__(self, diary: Diary, meaning: Meaning) -> None:
        self._diary = diary
        self._meaning = meaning

    async def fresh(
        self, owner: str, contents: Sequence[str], but: Iterable[str] = ()
    ) -> tuple[str | None, list[Line]]:
        """Those of `contents` that are not known yet, placed; and who placed them. `but`: ids of
        conversations whose memories do not count."""
        if not contents:
            return None, []
        encoder, places = await self._meaning.places(contents, owner)
        known = await self._placed(owner, encoder)
        kept = [m for m in known if m.conversation_id not in set(but)]
        lines = zip(contents, places, strict=True)
        # Thousands are compared one by one, so not on the event loop.
        return encoder, await asyncio.to_thread(fresh, lines, [(m.content, _by(encoder, m)) for m in kept])

    async def search(self, owner: str, query: str, limit: int) -> list[MemoryRecord]:
        """What has to do with `query`, nearest first; without an encoder for it what holds its words."""
        encoder, (place,) = await self._meaning.places([query], owner, Urgency.SPEECH)
        known = await self._known(owner)
        alike: dict[str, float] = {}
        if encoder is not None and place is not None:
            await self._place(owner, encoder, known)
            near = await self._diary.nearest_memories(owner, encoder, place, limit)
            alike = {memory.id: cosine for memory, cosine in near}
        found = await asyncio.to_thread(_ranked, query, None if place is None else alike, known)
        return [replace(memory, vector=None) for memory in found[:limit]]

    async def _known(self, owner: str, *, vectors: bool = False) -> list[MemoryRecord]:
        """All that is known, newest first."""
        known: list[MemoryRecord] = []
        while len(known) < _MOST:
            page = await self._diary.memories(owner, _PAGE, len(known), vectors=vectors)
            known += page
            if len(page) < _PAGE:
                break
        return known

    async def _placed(self, owner: str, encoder: str | None) -> list[MemoryRecord]:
        """All that is known, newest first, with vectors of `encoder` as far as there are."""
        known = await self._known(owner, vectors=encoder is not None)
        if encoder is not None:
            await self._place(owner, encoder, known)
        return known

    async def _place(self, owner: str, encoder: str, known: list[MemoryRecord]) -> None:
        """Place those that are not."""
        missing = [n for n, m in enumerate(known) if m.encoder != encoder][:_PLACED_AT_ONCE]
        by, places = await self._meaning.places([known[n].content for n in missing], owner)
        if by == encoder:
            for n, place in zip(missing, places, strict=True):
                known[n] = replace(known[n], encoder=encoder, vector=place)
            await self._diary.place_memories([known[n] for n in missing])


def _by(encoder: str | None, memory: MemoryRecord) -> Vector | None:
    return memory.vector if encoder is not None and memory.encoder == encoder else None


def _ranked(
    query: str, alike: Mapping[str, float] | None, known: Sequence[MemoryRecord]
) -> list[MemoryRecord]:
    """What has to do with `query`, nearest first; `alike` is how near by id, None if nobody can tell."""
    asked = bare(query)
    words = set(asked.split())
    ranks = []
    for memory in known:
        content = bare(memory.content)
        rank = 0.0
        if asked in content:  # who asks for a word wants what holds it first
            rank = 1.0
        elif alike is None:
            rank = len(words & set(content.split())) / max(1, len(words))
        else:
            rank = alike.get(memory.id, 0.0)
        ranks.append(rank)
    order = sorted(range(len(known)), key=lambda n: -ranks[n])
    return [known[n] for n in order if ranks[n] >= NEAR]
