"""Completes conversations: something is made of each, and it is kept whatever the language model does.

Title, overview, emoji, category and events are kept with the conversation; action items and memories on their
own, each once. If the model fails or answers nonsense, the title is how the conversation begins.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.dialogue.agreement import join_words
from app.insights.made import NOTHING, Made
from app.insights.meaning import Meaning, fresh
from app.insights.memories import Memories
from app.insights.prompts import VERSION
from app.insights.reader import Reader
from app.roles import ColloquyError
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    Diary,
    MemoryRecord,
    SegmentRecord,
)

log = logging.getLogger(__name__)

_LITTLE = 25
"""Characters under which there is nothing to make anything of."""
_LATELY = timedelta(days=2)
_LATEST_ITEMS = 200

Outcome = Literal["made", "failed", "little"]


class Structurer:
    """Makes something of conversations and completes them in the diary. `on_outcome` is told how it went."""

    def __init__(
        self,
        diary: Diary,
        reader: Reader,
        meaning: Meaning,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._diary = diary
        self._reader = reader
        self._meaning = meaning
        self._memories = Memories(diary, meaning)
        self._on_outcome = on_outcome

    async def __call__(
        self, record: ConversationRecord, segments: Sequence[SegmentRecord]
    ) -> ConversationRecord | None:
        """Make something of a conversation and complete it; an empty one is deleted (None)."""
        text = _text(segments)
        if not text:
            await self._diary.delete_conversation(record.owner, record.id)
            return None
        made = NOTHING
        if len(text) < _LITTLE:
            self._on_outcome("little")
        else:
            try:
                made = await self._read(record, segments)
            except ColloquyError as error:
                log.warning("nothing was made of a conversation: %s", error.message)
            except Exception:
                # Whatever goes wrong in reading it, the transcript is kept.
                log.exception("nothing was made of a conversation")
        return await self._kept(record, text, made)

    async def again(
        self, record: ConversationRecord, segments: Sequence[SegmentRecord]
    ) -> ConversationRecord:
        """Make something else of a completed conversation. Raises why nothing was: then all stays."""
        return await self._kept(record, _text(segments), await self._read(record, segments), again=True)

    async def _read(self, record: ConversationRecord, segments: Sequence[SegmentRecord]) -> Made:
        try:
            names = {}
            if any(s.person_id for s in segments):
                names = {p.id: p.name for p in await self._diary.people(record.owner)}
            made = await self._reader.read(record.started_at, _lines(segments, names), f"read-{record.id}")
        except BaseException:
            self._on_outcome("failed")
            raise
        self._on_outcome("made")
        return made

    async def _kept(
        self, record: ConversationRecord, text: str, made: Made, *, again: bool = False
    ) -> ConversationRecord:
        now = datetime.now(UTC)
        items = await self._new_items(record, made.action_items, now)
        encoder, lines = await self._memories.fresh(record.owner, made.memories, [record.id] if again else ())
        memories = [
            MemoryRecord(str(uuid.uuid4()), record.owner, record.id, content, now, encoder, place)
            for content, place in lines
        ]
        structured = made.stored(text)
        structured["action_items"] = [
            {"id": i.id, "description": i.description, "completed": i.completed} for i in items
        ]
        structured["prompt"] = VERSION if made is not NOTHING else None
        done = replace(record, structured=structured, status="completed")
        await self._diary.complete(done, memories, items, again=again)
        return done

    async def _new_items(
        self, record: ConversationRecord, descriptions: Sequence[str], now: datetime
    ) -> list[ActionItemRecord]:
        """What was done of this conversation's already, and those that were not noted in the last days."""
        lately = await self._diary.action_items(record.owner, _LATEST_ITEMS)
        done = [i for i in lately if i.conversation_id == record.id and i.completed]
        known = [i for i in lately if i.conversation_id != record.id and now - i.created_at < _LATELY]
        known += done
        if not descriptions:
            return done
        _, places = await self._meaning.places([*descriptions, *(i.description for i in known)], record.owner)
        new, old = places[: len(descriptions)], places[len(descriptions) :]
        lines = fresh(
            zip(descriptions, new, strict=True),
            [(i.description, place) for i, place in zip(known, old, strict=True)],
        )
        return done + [
            ActionItemRecord(str(uuid.uuid4()), record.owner, record.id, line, now) for line, _ in lines
        ]


def _text(segments: Sequence[SegmentRecord]) -> str:
    return join_words([s.text.strip() for s in segments if s.text.strip()])


def _lines(segments: Sequence[SegmentRecord], names: dict[str, str]) -> list[str]:
    """ "Speaker: words", a line a segment."""
    return [f"{_who(s, names)}: {s.text.strip()}" for s in segments if s.text.strip()]


def _who(segment: SegmentRecord, names: dict[str, str]) -> str:
    if segment.is_user:
        return "User"
    return names.get(segment.person_id or "", f"Speaker {segment.speaker}")
