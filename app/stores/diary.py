"""What a store of a wearer's days can do: conversations in segments, and what was made of them.

Rules of `interfaces` hold here too. A conversation is `in_progress` until somebody claims it to make
something of it (`processing`), and then `completed`. Of several processes one gets the claim.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, Protocol

from app.roles import Vector

Status = Literal["in_progress", "processing", "completed"]
Whose = tuple[bool, str | None]
"""Whether it is the user's, and the id of the person whose it is; neither if nobody knows."""
_VOICES = uuid.UUID("6f3b7c52-0d5e-4b7e-9a55-6c1f0b1f6d3a")


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """A conversation of `owner`. `finished_at` is where its last words end; silence until `ends_at` ends it.
    `touched_at`: when it was last written. `structured` is what was made of it. `voices` is what another
    process needs to tell the speakers apart as before, while it goes on."""

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
    voices: dict[str, Any] | None = None


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
class VoiceRecord:
    """A voice that is known: the owner's own, or with `person_id` somebody's whom they know. `vector` is
    where `encoder` places it, of `seconds` of speech; `audio_key` is the recording, if there is one."""

    owner: str
    person_id: str | None
    encoder: str
    vector: list[float]
    seconds: float
    updated_at: datetime
    audio_key: str | None = None

    @property
    def id(self) -> str:
        """One a person."""
        return str(uuid.uuid5(_VOICES, f"{self.owner}/{self.person_id or ''}"))


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Something worth knowing later. `vector` is where `encoder` places its content; None if nothing did."""

    id: str
    owner: str
    conversation_id: str
    content: str
    created_at: datetime
    encoder: str | None = None
    vector: Vector | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ActionItemRecord:
    """Something to be done."""

    id: str
    owner: str
    conversation_id: str
    description: str
    created_at: datetime
    completed: bool = False
    completed_at: datetime | None = None
    due_at: datetime | None = None


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
        progress any more: then only the segments are kept. Its `voices` are kept as they were if they are
        None; people who are not known any more are left out of segments."""
        ...

    async def conversation(self, owner: str, conversation_id: str) -> ConversationRecord:
        """One conversation, or `NotFound`."""
        ...

    async def conversations(
        self, owner: str, statuses: Sequence[str] = (), limit: int = 100, offset: int = 0
    ) -> list[ConversationRecord]:
        """`owner`'s conversations, newest first; all, or those that are in one of `statuses`."""
        ...

    async def owners(self, conversation_ids: Sequence[str]) -> dict[str, str]:
        """Whose these conversations are, as far as they are there."""
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
        *,
        again: bool = False,
    ) -> None:
        """What was made of a conversation, and that it is completed. `again`: it was before, and this takes
        the place of what was made of it then; what the user has done already stays."""
        ...

    async def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """Delete it with everything made of it, or `NotFound`."""
        ...

    async def assign(
        self, owner: str, segment_ids: Sequence[str], person_id: str | None, user: bool
    ) -> list[SegmentRecord]:
        """Who said these segments, of conversations of `owner`; others are left as they are. Gives them."""
        ...

    async def relabel(
        self,
        conversation_id: str,
        speaker: int,
        new_speaker: int,
        was: Whose | None = None,
        now: Whose | None = None,
    ) -> list[SegmentRecord]:
        """The segments of `speaker` in a conversation (of those only such that are whose `was` says) are
        `new_speaker`'s, and whose `now` says; None leaves that. Gives those that it changed."""
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

    async def voices(self, owner: str) -> list[VoiceRecord]:
        """The voices that `owner` had made known."""
        ...

    async def set_voice(self, voice: VoiceRecord) -> None:
        """Make a voice known, instead of the one that was. `NotFound` if there is no such person."""
        ...

    async def delete_voice(self, owner: str, person_id: str | None) -> None:
        """Forget it; it is no error if there is none."""
        ...

    async def listened(self, owner: str, day: date, seconds: float) -> float:
        """Add to how long `owner` was listened to on a day; gives how long that is."""
        ...

    async def memories(
        self, owner: str, limit: int = 100, offset: int = 0, *, vectors: bool = False
    ) -> list[MemoryRecord]:
        """`owner`'s memories, newest first; their vectors only if asked for."""
        ...

    async def place_memories(self, records: Sequence[MemoryRecord]) -> None:
        """Keep the vectors of these; a memory whose content is another's meanwhile is left as it is."""
        ...

    async def nearest_memories(
        self, owner: str, encoder: str, vector: Vector, limit: int
    ) -> list[tuple[MemoryRecord, float]]:
        """`owner`'s memories that `encoder` placed nearest to `vector`, and the cosine of each, nearest
        first; without their vectors."""
        ...

    async def change_memory(self, owner: str, memory_id: str, content: str) -> MemoryRecord:
        """Write a memory anew, or `NotFound`."""
        ...

    async def delete_memory(self, owner: str, memory_id: str) -> None:
        """Forget it, or `NotFound`."""
        ...

    async def delete_memories(self, owner: str) -> None:
        """Forget all that is known of `owner`."""
        ...

    async def action_items(
        self,
        owner: str,
        limit: int = 100,
        offset: int = 0,
        completed: bool | None = None,
        conversation_id: str | None = None,
    ) -> list[ActionItemRecord]:
        """`owner`'s action items, newest first."""
        ...

    async def items_of(self, conversation_ids: Sequence[str]) -> dict[str, ActionItemRecord]:
        """The action items of these conversations, by id."""
        ...

    async def action_item(self, owner: str, item_id: str) -> ActionItemRecord:
        """One of them, or `NotFound`."""
        ...

    async def change_item(self, item: ActionItemRecord) -> None:
        """Write its description, when it is due and whether it is done, or `NotFound`."""
        ...

    async def delete_item(self, owner: str, item_id: str) -> None:
        """Delete it, or `NotFound`."""
        ...

    async def user(self, owner: str) -> UserRecord:
        """`owner`'s settings; empty ones if nothing was set."""
        ...

    async def set_user(self, user: UserRecord) -> None:
        """Replace the settings."""
        ...
