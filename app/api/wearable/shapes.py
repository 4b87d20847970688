"""Conversations, people, memories and action items as the app reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.api.wearable.segments import Json, Segment, Who, segment_json
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
)

NOTHING_MADE: Json = {
    "title": "",
    "overview": "",
    "emoji": "🧠",
    "category": "other",
    "action_items": [],
    "events": [],
}
"""What is made of a conversation before anything is."""


def conversation_json(
    record: ConversationRecord,
    segments: Sequence[SegmentRecord] = (),
    items: Mapping[str, ActionItemRecord] | None = None,
) -> Json:
    """A conversation. `items`: its action items as they are now, by id; without, as they were made."""
    made = dict(record.structured or {})
    if items is not None:
        noted = [items[i["id"]] for i in made.get("action_items", ()) if i.get("id") in items]
        made["action_items"] = [
            {"id": i.id, "description": i.description, "completed": i.completed} for i in noted
        ]
    return {
        "id": record.id,
        "created_at": record.started_at.isoformat(),
        "started_at": record.started_at.isoformat(),
        "finished_at": record.finished_at.isoformat(),
        "status": record.status,
        "discarded": False,
        "source": record.source or "omi",
        "language": record.language,
        "structured": {key: made.get(key, value) for key, value in NOTHING_MADE.items()},
        "transcript_segments": [segment_json(of_record(s)) for s in segments],
        "photos": [],
        "geolocation": None,
        "apps_results": [],
        "plugins_results": [],
        "deleted": False,
    }


def of_record(record: SegmentRecord) -> Segment:
    """A segment as it was stored."""
    who = Who(f"SPEAKER_{record.speaker:02d}", record.is_user, record.person_id)
    return Segment(record.text, who, record.start_s, record.end_s, record.provider, id=record.id)


def to_record(segment: Segment, conversation_id: str) -> SegmentRecord:
    """The firm words of a segment as they are stored."""
    return SegmentRecord(
        id=segment.id,
        conversation_id=conversation_id,
        text=segment.text,
        start_s=round(segment.start, 3),
        end_s=round(segment.end, 3),
        speaker=segment.who.number,
        is_user=segment.who.is_user,
        person_id=segment.who.person_id,
        provider=segment.provider,
    )


def person_json(person: PersonRecord) -> Json:
    """Somebody whom the user knows."""
    created = person.created_at.isoformat()
    return {
        "id": person.id,
        "name": person.name,
        "created_at": created,
        "updated_at": created,
        "speech_samples": [],
    }


def memory_json(memory: MemoryRecord) -> Json:
    """Something worth knowing later."""
    created = memory.created_at.isoformat()
    return {
        "id": memory.id,
        "uid": memory.owner,
        "content": memory.content,
        "category": "system",
        "visibility": "private",
        "conversation_id": memory.conversation_id,
        "created_at": created,
        "updated_at": created,
        "reviewed": False,
        "user_review": None,
        "manually_added": False,
        "edited": False,
        "deleted": False,
        "tags": [],
        "layer": None,
    }


def item_json(item: ActionItemRecord) -> Json:
    """Something to be done."""
    told: dict[str, Any] = {
        "id": item.id,
        "description": item.description,
        "completed": item.completed,
        "conversation_id": item.conversation_id,
        "created_at": item.created_at.isoformat(),
        "updated_at": (item.completed_at or item.created_at).isoformat(),
        "due_at": item.due_at and item.due_at.isoformat(),
        "completed_at": item.completed_at and item.completed_at.isoformat(),
    }
    return told
