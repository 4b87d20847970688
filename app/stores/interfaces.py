"""What a store can do, whatever it is made of, and the records that go in and come out.

All times are aware datetimes and come back in UTC; all ids are UUIDs in canonical text form.
Failures: what is missing is `NotFound`, what cannot be stored as given is `BadInput`, and a
store that does not work just now is `StoreFailed`, after which the same call may be made again:
every write here may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from app.roles import BadInput, ColloquyError, Word


class StoreFailed(ColloquyError):
    """The database or object store does not work just now."""

    code = "STORE_FAILED"
    http_status = 503
    retryable = True


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session. `owner` is whose it is; `language` ISO 639-1; `settings` is what the client
    chose, as JSON."""

    id: str
    owner: str
    created_at: datetime
    ended_at: datetime | None = None
    language: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn: what the person said and what was answered.

    `number` counts from 1 within the session. `transcript` is what was said or typed. What
    comes of listening (`words`, `partials` as they were shown, `confidence` 0–1, `audio_key` and
    `audio_seconds` of the recording) belongs to the transcription `transcription_id`, which a
    typed turn does not have. `reply` is what the person heard, and what history keeps;
    `reply_full` is what the language model wrote. `latency` is milliseconds by stage.
    """

    id: str
    session_id: str
    number: int
    created_at: datetime
    source: Literal["speech", "text", "upload"]
    transcription_id: str | None = None
    transcript: str = ""
    words: tuple[Word, ...] = ()
    language: str | None = None
    confidence: float | None = None
    partials: tuple[str, ...] = ()
    reply: str = ""
    reply_full: str = ""
    interrupted: bool = False
    latency: dict[str, float] = field(default_factory=dict)
    audio_key: str | None = None
    audio_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be stored whole, where the mistake is made."""
        heard = (self.confidence, self.audio_key, self.audio_seconds)
        if self.transcription_id is None and (
            self.words or self.partials or any(value is not None for value in heard)
        ):
            raise ValueError("words, partials, confidence and audio of a turn need its transcription_id")


class ConversationStore(Protocol):
    """Sessions and their turns."""

    async def add_session(self, session: SessionRecord) -> None:
        """Keep a session; the same id again (of the same owner) updates it."""
        ...

    async def end_session(self, session_id: str, at: datetime | None = None) -> None:
        """Note that the session ended `at` (default: now); the first end stays."""
        ...

    async def get_session(self, session_id: str) -> SessionRecord:
        """The session, or `NotFound`."""
        ...

    async def sessions(self, owner: str, limit: int = 100, offset: int = 0) -> list[SessionRecord]:
        """`owner`'s sessions, newest first."""
        ...

    async def add_turn(self, turn: TurnRecord) -> None:
        """Keep a turn of a known session; the same id again updates it. On return it outlives
        a crash of this process. `BadInput` if another turn has its number."""
        ...

    async def get_turn(self, session_id: str, turn_id: str) -> TurnRecord:
        """One turn of the session, or `NotFound`."""
        ...

    async def turns(self, session_id: str, limit: int = 100, offset: int = 0) -> list[TurnRecord]:
        """The session's turns by number; none for an unknown session."""
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as it is stored: `size` in bytes, `modified` when it was put last."""

    key: str
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """Bytes under keys such as `raw_inputs/2026/11/21/a.wav` (see `check_key`)."""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data`, replacing what is there. Others see the old or the new, never a part;
        on return it outlives a crash."""
        ...

    async def get(self, key: str) -> bytes:
        """What is stored, or `NotFound`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove it; it is no error if it is not there."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether something is stored under `key`."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All objects whose keys begin with `prefix` and a slash (default: all there are), in no
        order. What is put or deleted meanwhile may be among them or not. What somebody else put there
        under a name that is no key is left out."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Remove all objects that `list` gives; how many there were. When it fails, some may be
        left: call it again."""
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...


# No segment starts with a dot: that bars "." and "..", and leaves such names to the stores.
_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}/)*[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def check_key(key: str) -> str:
    """`key` itself, if it may name an object: segments of letters, digits, `.`, `_`, `-` with
    single slashes between, at most 500 characters in all, none starting with a dot. Else
    `BadInput`."""
    if not is_key(key):
        raise BadInput(
            "An object's key must be a relative path of letters, digits, '.', '_' and '-' "
            "whose parts do not begin with a dot.",
            field="key",
        )
    return key


def is_key(name: str) -> bool:
    """Whether `name` may name an object."""
    return len(name) <= 500 and _KEY.fullmatch(name) is not None


def check_page(limit: int, offset: int) -> None:
    """`BadInput` unless `limit` is 1–1000 and `offset` is not negative."""
    if not 1 <= limit <= 1000:
        raise BadInput("limit must be between 1 and 1000.", field="limit")
    if offset < 0:
        raise BadInput("offset must not be negative.", field="offset")
