"""What the doors of one server share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from app.api.ears import Ears
from app.api.wearable.conversations import Conversations
from app.dialogue.config import SessionConfig, TurnConfig, default_instructions
from app.dialogue.events import Event, Failed, Interrupted, ReplyPaused, ReplyResumed
from app.dialogue.manager import SessionManager
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.dialogue.who import Who
from app.observability.metrics import Metrics
from app.roles import ColloquyError, Samples
from app.runtime import Runtime
from app.security.access import Access
from app.settings import Settings
from app.stores.diary import Diary
from app.stores.interfaces import ConversationStore, ObjectStore, TurnRecord
from app.stores.keeper import Keeper
from app.stores.shared import SharedSessions

Labels = Callable[[Samples], Awaitable[str]]
"""Gives the label of who said something (`Who.label`)."""
_USERS = 1000


@dataclass(slots=True)
class Context:
    """Everything that `main.create_app` wires for the doors."""

    settings: Settings
    runtime: Runtime
    metrics: Metrics
    access: Access
    sessions: SessionManager
    conversations: ConversationStore
    objects: ObjectStore
    keeper: Keeper
    diary: Diary
    """What wearables heard."""
    days: Conversations
    """What their connections share."""
    shared: SharedSessions | None = None
    """Where sessions are written down for other processes."""
    ears: dict[str, Ears] = field(default_factory=dict)
    """What each open session's client asked for and has sent, by session id."""
    around: dict[str, Labels] = field(default_factory=dict)
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

    def count_speculation(self, outcome: str) -> None:
        """Count a reply that was begun before the turn was over."""
        self.metrics.speculations_total.labels(outcome).inc()

    def who(self, owner: str) -> Labels:
        """What labels the speakers of a session of its own."""
        return Who(lambda: self.runtime.on_demand("speaker"), self.runtime.new_speakers(), owner).label

    def who_around(self, owner: str) -> Labels:
        """The same for all that a user hears, from one connection to the next: labels last."""
        labels = self.around.pop(owner, None) or self.who(owner)
        self.around[owner] = labels
        if len(self.around) > _USERS:
            del self.around[next(iter(self.around))]
        return labels

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

    async def keep(self, session: Session, turn: Turn) -> None:
        """Hand a finished turn to the keeper, and count it."""
        count_turn(self.metrics, turn)
        if turn.number:
            await self.keeper.keep(record_of(session.id, turn), turn.recording)


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
