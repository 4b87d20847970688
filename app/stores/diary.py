"""What a store of a wearer's days can do: conversations in segments, and what was made of them.

Rules of `interfaces` hold here too. A conversation is `in_progress` until somebody claims it to make
something of it (`processing`), and then `completed`. Of several processes one gets the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

Status = Literal["in_progress", "processing", "completed"]


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """A conversation of `owner`. `finished_at` is where its last words end; silence until `ends_at` ends it.
    `touched_at`: when it was last written. `structured` is what was made of it."""

    id: str
    owner: str
    started_at: datetime
    finished_at: datetime
    touched_at: datetime
    ends_at: datetime
    status: Status = "in_progress"
    language: str | None = None
    source: str | None = None
    structured: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What one person said in a row; times in seconds of the conversation. `speaker` is the number of a
    voice within it."""

    id: str
    conversation_id: str
    text: str
    start_s: float
    end_s: float
    speaker: int = 0
    is_user: bool = False
    person_id: str | None = None
    provider: str = ""


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """Somebody whom `owner` knows by name."""

    id: str
    owner: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Something worth knowing later."""

    id: str
    owner: str
    conversation_id: str
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ActionItemRecord:
    """Something to be done."""

    id: str
    owner: str
    conversation_id: str
    description: str
    created_at: datetime
    completed: bool = False


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user's settings, and where a recording of their voice lies."""

    owner: str
    language: str | None = None
    profile_key: str | None = None
    profile_seconds: float | None = None


class Diary(Protocol):
    """Conversations, people, memories and action items. Somebody else's are `NotFound`."""

    async def keep(self, conversation: ConversationRecord, segments: Sequence[SegmentRecord]) -> bool:
        """Add or update a conversation in progress and these of its segments, at once. False if it is not in
        progress any more: then only the segments are kept."""
        ...

    async def conversation(self, owner: str, conversation_id: str) -> ConversationRecord:
        """One conversation, or `NotFound`."""
        ...

    async def conversations(
        self, owner: str, statuses: Sequence[str] = (), limit: int = 100, offset: int = 0
    ) -> list[ConversationRecord]:
        """`owner`'s conversations, newest first; all, or those that are in one of `statuses`."""
        ...

    async def segments(
        self, conversation_ids: Sequence[str], last: int | None = None
    ) -> dict[str, list[SegmentRecord]]:
        """The segments of these conversations in order of time; with `last`, so many of the end of each."""
        ...

    async def overdue(self, ended: datetime, stale: datetime) -> list[ConversationRecord]:
        """Conversations in progress that should have ended before `ended`, and such that somebody claimed
        before `stale` and did not complete."""
        ...

    async def claim(self, conversation_id: str, touched_at: datetime | None = None) -> bool:
        """A conversation in progress is `processing` from here on; with `touched_at` one that is processing,
        last written then, is claimed again. Whether it was."""
        ...

    async def complete(
        self,
        conversation: ConversationRecord,
        memories: Sequence[MemoryRecord] = (),
        items: Sequence[ActionItemRecord] = (),
    ) -> None:
        """What was made of a conversation, and that it is completed."""
        ...

    async def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """Delete it with everything made of it, or `NotFound`."""
        ...

    async def assign(self, owner: str, segment_ids: Sequence[str], person_id: str | None, user: bool) -> None:
        """Who said these segments, of conversations of `owner`; others are left as they are."""
        ...

    async def people(self, owner: str) -> list[PersonRecord]:
        """Whom `owner` knows, by name."""
        ...

    async def add_person(self, person: PersonRecord) -> None:
        """Add somebody, or change the name."""
        ...

    async def delete_person(self, owner: str, person_id: str) -> None:
        """Forget somebody, or `NotFound`; what they said stays."""
        ...

    async def memories(self, owner: str, limit: int = 100, offset: int = 0) -> list[MemoryRecord]:
        """`owner`'s memories, newest first."""
        ...

    async def action_items(
        self, owner: str, limit: int = 100, offset: int = 0, completed: bool | None = None
    ) -> list[ActionItemRecord]:
        """`owner`'s action items, newest first."""
        ...

    async def mark_item(self, owner: str, item_id: str, completed: bool) -> ActionItemRecord:
        """Note that it is done, or is not; `NotFound` if there is none."""
        ...

    async def user(self, owner: str) -> UserRecord:
        """`owner`'s settings; empty ones if nothing was set."""
        ...

    async def set_user(self, user: UserRecord) -> None:
        """Replace the settings."""
        ...
