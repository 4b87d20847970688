"""What is made of a conversation: title, overview, emoji, category, action items, events, memories.

A language model is asked for JSON by a schema. Whatever it answers, or if it does not, the conversation is
kept: then its title is how it begins.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.api.wearable.segments import Json
from app.api.wearable.shapes import NOTHING_MADE
from app.dialogue.agreement import join_words, split_words
from app.roles import ChatMessage, ColloquyError, Job, LanguageModel, LlmOptions, Urgency
from app.stores.diary import ActionItemRecord, ConversationRecord, Diary, MemoryRecord, SegmentRecord

log = logging.getLogger(__name__)

CATEGORIES = (
    "personal education health finance legal philosophy spiritual science entrepreneurship parenting "
    "romantic travel inspiration technology business social work sports politics literature history "
    "architecture music weather news entertainment psychology design family economics environment other"
).split()

_TITLE_WORDS = 10
_LITTLE = 25
"""Characters under which there is nothing to make anything of."""
_MOST_ITEMS, _MOST_EVENTS, _MOST_MEMORIES = 10, 5, 4
_ANSWER_TOKENS = 600
_NOTES_TOKENS = 160
_MOST_PARTS = 40
_LATELY = timedelta(days=2)
_TRIES = 2
_BARE = re.compile(r"[\W_]+")

_TEXT: Json = {"type": "string"}
_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "title": _TEXT,
        "overview": _TEXT,
        "emoji": _TEXT,
        "category": {"type": "string", "enum": CATEGORIES},
        "action_items": {"type": "array", "items": _TEXT, "maxItems": _MOST_ITEMS},
        "events": {
            "type": "array",
            "maxItems": _MOST_EVENTS,
            "items": {
                "type": "object",
                "properties": {"title": _TEXT, "description": _TEXT, "start": _TEXT},
                "required": ["title", "description", "start"],
                "additionalProperties": False,
            },
        },
        "memories": {"type": "array", "items": _TEXT, "maxItems": _MOST_MEMORIES},
    },
    "required": ["title", "overview", "emoji", "category", "action_items", "events", "memories"],
    "additionalProperties": False,
}
_ASK = (
    "You are given the transcript of a conversation that a wearable device heard. Answer in JSON, in the "
    "language of the conversation. title: at most ten words. overview: one to three sentences on what "
    "was said. emoji: one that fits. category: one of the list. action_items: what somebody has to do, only "
    "if it was said. events: appointments that were agreed on; start as an ISO 8601 time. memories: up to "
    "four lasting facts about the user that are worth knowing later; often there are none. Make nothing up."
)
_NOTE = (
    "Note in a few short sentences what is said in this part of a conversation, with names, tasks and dates."
)


class Structurer:
    """Completes conversations in the diary. `llm` gives the language model, once it is there."""

    def __init__(self, diary: Diary, llm: Callable[[], Awaitable[LanguageModel]]) -> None:
        self._diary = diary
        self._llm = llm

    async def __call__(
        self, record: ConversationRecord, segments: Sequence[SegmentRecord]
    ) -> ConversationRecord | None:
        """Make something of a conversation and complete it; an empty one is deleted (None)."""
        text = join_words([s.text.strip() for s in segments if s.text.strip()])
        if not text:
            await self._diary.delete_conversation(record.owner, record.id)
            return None
        answer: Json = {}
        if len(text) >= _LITTLE:
            answer = await self._asked(record, segments)
        now = datetime.now(UTC)
        items = await self._new_items(record, _texts(answer.get("action_items"), _MOST_ITEMS), now)
        memories = await self._new_memories(record, _texts(answer.get("memories"), _MOST_MEMORIES), now)
        structured = _structured(answer, text)
        structured["action_items"] = [
            {"id": i.id, "description": i.description, "completed": False} for i in items
        ]
        made = replace(record, structured=structured, status="completed")
        await self._diary.complete(made, memories, items)
        return made

    async def _asked(self, record: ConversationRecord, segments: Sequence[SegmentRecord]) -> Json:
        """The model's answer; empty if there is none that can be read."""
        job = Job(f"structure-{record.id}", Urgency.BACKGROUND)
        for _ in range(_TRIES):
            try:
                llm = await self._llm()
                lines = await self._short_enough(llm, _lines(segments), job)
                when = f"The conversation began at {record.started_at.isoformat(timespec='minutes')}.\n\n"
                messages = [ChatMessage("system", _ASK), ChatMessage("user", when + "\n".join(lines))]
                options = LlmOptions(max_tokens=_ANSWER_TOKENS, temperature=0.0, json_schema=_SCHEMA)
                answer = json.loads(await _written(llm, messages, options, job))
                if isinstance(answer, dict):
                    return answer
                log.warning("the language model's answer about a conversation is no object")
            except ColloquyError as error:
                log.warning("nothing was made of a conversation: %s", error.message)
            except (ValueError, RecursionError):
                log.warning("the language model's answer about a conversation is no JSON")
        return {}

    async def _short_enough(self, llm: LanguageModel, lines: list[str], job: Job) -> list[str]:
        """`lines`, or notes on them, part by part, if they are more than the model reads at once."""
        room = llm.context_tokens - _ANSWER_TOKENS - llm.count_tokens(_ASK) - 100
        while llm.count_tokens("\n".join(lines)) > room:
            parts = _parts(lines, llm, max(room // 2, 200))
            notes = [
                await _written(
                    llm,
                    [ChatMessage("system", _NOTE), ChatMessage("user", "\n".join(part))],
                    LlmOptions(max_tokens=_NOTES_TOKENS, temperature=0.0),
                    job,
                )
                for part in parts[:_MOST_PARTS]
            ]
            if len(parts) == 1 or llm.count_tokens("\n".join(notes)) >= llm.count_tokens("\n".join(lines)):
                return notes[:1]
            lines = notes
        return lines

    async def _new_items(
        self, record: ConversationRecord, texts: list[str], now: datetime
    ) -> list[ActionItemRecord]:
        """Those that were not noted in the last days already."""
        lately = [i for i in await self._diary.action_items(record.owner) if now - i.created_at < _LATELY]
        known = {_bare(i.description) for i in lately}
        return [
            ActionItemRecord(str(uuid.uuid4()), record.owner, record.id, t, now) for t in _new(texts, known)
        ]

    async def _new_memories(
        self, record: ConversationRecord, texts: list[str], now: datetime
    ) -> list[MemoryRecord]:
        known = {_bare(m.content) for m in await self._diary.memories(record.owner, 1000)}
        return [MemoryRecord(str(uuid.uuid4()), record.owner, record.id, t, now) for t in _new(texts, known)]


async def _written(llm: LanguageModel, messages: Sequence[ChatMessage], options: LlmOptions, job: Job) -> str:
    async with aclosing(llm.reply(messages, options, job)) as pieces:
        return "".join([piece async for piece in pieces if isinstance(piece, str)])


def _lines(segments: Sequence[SegmentRecord]) -> list[str]:
    return [
        f"{'User' if s.is_user else f'Speaker {s.speaker}'}: {s.text}" for s in segments if s.text.strip()
    ]


def _parts(lines: Iterable[str], llm: LanguageModel, room: int) -> list[list[str]]:
    parts: list[list[str]] = []
    used = 0
    for line in lines:
        size = llm.count_tokens(line) + 1
        if not parts or used + size > room:
            parts.append([])
            used = 0
        parts[-1].append(line)
        used += size
    return parts


def _structured(answer: Json, text: str) -> Json:
    """What the model answered, as far as it is what it was asked for."""
    made = dict(NOTHING_MADE)
    made["title"] = _short(_text(answer.get("title")) or text)
    made["overview"] = _text(answer.get("overview"))
    emoji = _text(answer.get("emoji"))
    if emoji and len(emoji) <= 8 and not emoji.isascii():
        made["emoji"] = emoji
    if answer.get("category") in CATEGORIES:
        made["category"] = answer["category"]
    made["events"] = [e for e in map(_event, _list(answer.get("events"))[:_MOST_EVENTS]) if e is not None]
    return made


def _event(given: Any) -> Json | None:
    """An appointment that has a time."""
    if not isinstance(given, dict):
        return None
    try:
        start = datetime.fromisoformat(_text(given.get("start")))
    except ValueError:
        return None
    start = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
    title = _text(given.get("title"))
    if not title:
        return None
    return {
        "title": title,
        "description": _text(given.get("description")),
        "start": start.isoformat(),
        "duration": 30,
        "created": False,
    }


def _short(text: str) -> str:
    words = split_words(text)
    return join_words(words[:_TITLE_WORDS]).rstrip(" ,;:，；：")


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any, most: int) -> list[str]:
    return [t for t in map(_text, _list(value)) if t][:most]


def _bare(text: str) -> str:
    return _BARE.sub(" ", text.lower()).strip()


def _new(texts: Iterable[str], known: set[str]) -> list[str]:
    fresh = []
    for text in texts:
        if (bare := _bare(text)) and bare not in known:
            known.add(bare)
            fresh.append(text)
    return fresh
