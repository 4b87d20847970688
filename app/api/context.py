"""What the doors of one server share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any
from weakref import WeakValueDictionary

import numpy as np
from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from app.api.ears import Ears
from app.api.known import KnownVoices
from app.api.wearable.conversations import Conversations
from app.dialogue.config import SessionConfig, TurnConfig, default_instructions
from app.dialogue.events import (
    Event,
    Failed,
    Interrupted,
    Named,
    ReplyPaused,
    ReplyResumed,
    StreamEnded,
    ToolEnded,
)
from app.dialogue.manager import SessionManager
from app.dialogue.session import Session
from app.dialogue.speakers import Person
from app.dialogue.turn import Turn
from app.dialogue.who import Who
from app.insights.memories import Memories
from app.observability.metrics import Metrics
from app.roles import ColloquyError, Vector
from app.runtime import Runtime
from app.security.access import Access
from app.security.links import Links
from app.settings import Settings
from app.stores.crypt import UserKeys
from app.stores.diary import Diary
from app.stores.interfaces import (
    ConversationStore,
    ObjectStore,
    SessionRecord,
    StoreFailed,
    TurnRecord,
)
from app.stores.keeper import Keeper
from app.stores.landing import session_entry, turn_entry
from app.stores.shared import SharedSessions
from app.stores.sql_owned import SqlOwned
from app.stores.vault import Vault
from app.tools.toolbox import Toolbox

log = logging.getLogger(__name__)

_USERS = 1000


@dataclass(slots=True)
class Context:
    """Everything that `main.create_app` wires for the doors."""

    settings: Settings
    runtime: Runtime
    metrics: Metrics
    access: Access
    links: Links
    sessions: SessionManager
    conversations: ConversationStore
    objects: ObjectStore
    keys: UserKeys
    """What seals the data of each user."""
    vault: Vault
    """What of users lies among the objects."""
    owned: SqlOwned
    """What of users lies in the database."""
    keeper: Keeper
    diary: Diary
    """What wearables heard."""
    days: Conversations
    """What their connections share."""
    memories: Memories
    known: KnownVoices
    """Voices of people who were made known."""
    tools: Toolbox
    """Functions that language models may call."""
    shared: SharedSessions | None = None
    """Where sessions are written down for other processes."""
    ears: dict[str, Ears] = field(default_factory=dict)
    """What each open session's client asked for and has sent, by session id."""
    around: dict[str, Who] = field(default_factory=dict)
    """What labels the speakers around a user, by user; who was heard last is last."""
    talks: dict[str, Any] = field(default_factory=dict)
    """What a door keeps of a session from one connection to the next, by session id."""
    talking: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """Held while a conversation by REST has a turn, by its id: turns are numbered one by one."""

    def default_config(self) -> SessionConfig:
        """What a session is like whose client asked for nothing."""
        s = self.settings
        language = None if s.language == "auto" else s.language
        drafts = s.llm_drafts if s.llm_drafts is not None else 1 if s.llm_provider == "openai" else 3
        return SessionConfig(
            language=language,
            instructions=s.llm_system_prompt or default_instructions(language),
            max_reply_tokens=s.llm_max_tokens,
            temperature=s.llm_temperature,
            turn=TurnConfig(speculations=drafts),
        )

    def count(self, event: Event) -> None:
        """Count what sessions tell their clients."""
        if isinstance(event, Failed):
            self.metrics.errors_total.labels(event.code).inc()
        elif isinstance(event, Interrupted):
            self.metrics.interruptions_total.labels(event.reason).inc()
        elif isinstance(event, ReplyPaused):
            self.metrics.reply_pauses_total.labels("held").inc()
        elif isinstance(event, ReplyResumed):
            self.metrics.reply_pauses_total.labels("resumed").inc()
        elif isinstance(event, ToolEnded):
            outcome = "ok" if event.ok else "failed"
            self.metrics.tool_seconds.labels(event.name, outcome).observe(event.ms / 1000)
        elif isinstance(event, StreamEnded):
            self.metrics.stt_streams_total.labels(event.provider, event.outcome).inc()

    def count_speculation(self, outcome: str) -> None:
        """Count a reply that was begun before the turn was over."""
        self.metrics.speculations_total.labels(outcome).inc()

    def who(self, session_id: str, owner: str) -> Who:
        """What labels the speakers of a session, and knows those among them whom `owner` knows."""
        return Who(
            lambda: self.runtime.on_demand("speaker"),
            self.runtime.new_speakers(),
            session_id,
            lambda engine: self.known.people(owner, engine),
            known_s=self.settings.speaker_known_s,
        )

    def who_around(self, owner: str) -> Who:
        """The same for all that a user hears, from one connection to the next: labels last."""
        who = self.around.pop(owner, None) or self.who_heard(owner)
        self.around[owner] = who
        if len(self.around) > _USERS:
            del self.around[next(iter(self.around))]
        return who

    def who_heard(self, owner: str) -> Who:
        """New ones; what they learn changes the conversation that `owner` hears, and who is known."""
        who = self.who(owner, owner)
        who.on_change = lambda change: self.days.learnt(owner, change)
        who.on_learnt = lambda *found: self.days.background(self._learn(owner, who, *found))
        return who

    async def _learn(self, owner: str, who: Who, named: Named, voice: Vector, seconds: float) -> None:
        try:
            record = await self.known.learn(owner, named, voice, seconds)
        except ColloquyError as error:
            log.warning("a voice was not learnt: %s", error.message)
            return
        if record is not None:
            who.enrol(Person(named.id, named.name, np.asarray(record.vector, np.float32)))

    def moved(self, session: Session) -> None:
        """Another process has the session."""
        self.ears.pop(session.id, None)
        self.sessions.release(session.id)

    async def ended(self, session: Session) -> None:
        """A session is over: note when."""
        self.ears.pop(session.id, None)
        if self.shared is not None:
            with contextlib.suppress(ColloquyError):
                await self.shared.forget(session.id)
        await self.conversations.end_session(session.id)

    async def note(self, record: SessionRecord) -> None:
        """A session has begun. If the database is away, it is told later."""
        try:
            await self.conversations.add_session(record)
        except StoreFailed as error:
            log.warning("a session is noted later: %s", error.message)
            await self.keeper.keep(session_entry(record))

    def keep(self, owner: str) -> Callable[[Session, Turn, bool], Awaitable[None]]:
        """What hands the turns of a session of `owner` to the keeper, and counts those that are over."""

        async def keep(session: Session, turn: Turn, complete: bool) -> None:
            if complete:
                count_turn(self.metrics, turn)
            if turn.number or not complete:
                record = record_of(session.id, turn)
                # The recording is copied, which may take a moment.
                entry = await asyncio.to_thread(
                    turn_entry, owner, record, turn.recording, provisional=not complete
                )
                await self.keeper.keep(entry)

        return keep


def count_turn(metrics: Metrics, turn: Turn) -> None:
    """Feed the turn's clock into the metrics."""
    outcome = "failed" if turn.failed else "interrupted" if turn.interrupted else "answered"
    metrics.turns_total.labels(outcome).inc()
    latency = turn.latency
    for stage, ms in latency.items():
        metrics.turn_stage_seconds.labels(stage).observe(max(0.0, ms / 1000))
    if (first := latency.get("first_audio_sent")) is not None:
        metrics.conversation_e2e_latency_seconds.observe(max(0.0, first / 1000))


def record_of(session_id: str, turn: Turn) -> TurnRecord:
    """The turn as it is kept."""
    recording = turn.recording
    return TurnRecord(
        id=turn.id,
        session_id=session_id,
        number=turn.number,
        created_at=turn.created_at,
        source=turn.source,
        transcription_id=turn.transcription_id,
        transcript=turn.transcript,
        words=turn.words,
        language=turn.language,
        confidence=turn.confidence,
        partials=turn.partials,
        reply=turn.heard,
        reply_full=turn.reply_text,
        interrupted=turn.interrupted,
        latency=turn.latency,
        audio_seconds=len(recording) / 16000 if recording is not None else None,
    )


def context_of(connection: HTTPConnection) -> Context:
    """The server's context."""
    context: Context = connection.app.state.context
    return context


def owner_of(request: Request) -> str:
    """Whose request it is; refuses strangers."""
    return context_of(request).access.owner(request.headers)


Ctx = Annotated[Context, Depends(context_of)]
Owner = Annotated[str, Depends(owner_of)]
