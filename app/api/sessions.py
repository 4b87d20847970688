"""`/api/v1/sessions`: create a session, read back what was said in it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.context import Context, Ctx, Owner
from app.api.messages import SessionCreated, SessionSettings, TurnOut, WordOut
from app.api.objects import serve_object
from app.api.opening import open_session
from app.roles import BadInput, NotFound, Word
from app.stores.interfaces import SessionRecord, TurnRecord

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])


class SessionOut(BaseModel):
    """A session: open ones have a `state`, ended ones an `ended_at`."""

    session_id: str
    created_at: str
    ended_at: str | None
    language: str | None
    state: str


def check_formats(wish: SessionSettings) -> None:
    """Refuse sound formats that contradict themselves."""
    for name, format_ in (("audio_in", wish.audio_in), ("audio_out", wish.audio_out)):
        if format_.codec == "opus" and format_.sample_rate == 44100:
            raise BadInput(
                "Opus has no 44100 Hz: use 48000, 24000, 16000 or 8000", field=f"{name}.sample_rate"
            )
    if wish.audio_out.codec == "opus" and not wish.audio_out.binary:
        raise BadInput("Opus is sent as binary frames: set audio_out.binary", field="audio_out.binary")


async def check_voice(context: Context, wish: SessionSettings) -> None:
    """Refuse a voice that there is not, if that can be known yet."""
    if wish.voice is not None and context.runtime.ready:
        names = [v.name for v in (await context.runtime.role("tts")).voices()]
        if wish.voice not in names:
            raise BadInput(f"there is no voice {wish.voice!r}; there are: {', '.join(names)}", field="voice")


@router.post("", status_code=201)
async def create(context: Ctx, owner: Owner, settings: SessionSettings | None = None) -> SessionCreated:
    """Open a session, or let it wait for a place. It ends a minute after its client has gone."""
    wish = settings or SessionSettings()
    check_formats(wish)
    await check_voice(context, wish)
    session = await open_session(context, owner, wish)
    given, language = wish.model_dump(exclude_unset=True), session.config.language
    record = SessionRecord(session.id, owner, datetime.now(UTC), None, language, given)
    await context.note(record)
    return SessionCreated(
        session_id=session.id,
        ws_url=f"/ws/{session.id}",
        token=context.access.session_token(session.id, owner),
        queue_position=context.sessions.position(session.id),
    )


@router.get("")
async def list_sessions(
    context: Ctx,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[SessionOut]:
    """Your sessions, newest first."""
    return [_session_out(context, r) for r in await context.conversations.sessions(owner, limit, offset)]


@router.get("/{session_id}")
async def read(session_id: str, context: Ctx, owner: Owner) -> SessionOut:
    """One session."""
    return _session_out(context, await own_session(context, session_id, owner))


@router.delete("/{session_id}", status_code=204)
async def end(session_id: str, context: Ctx, owner: Owner) -> Response:
    """End a session now; what was said in it stays."""
    await own_session(context, session_id, owner)
    await context.sessions.end(session_id)
    return Response(status_code=204)


@router.get("/{session_id}/turns")
async def turns(
    session_id: str,
    context: Ctx,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[TurnOut]:
    """The turns of a session in order. A turn is kept moments after it is over. Each `audio_url` works for
    an hour."""
    await own_session(context, session_id, owner)
    return [turn_out(context, owner, t) for t in await context.conversations.turns(session_id, limit, offset)]


@router.get("/{session_id}/turns/{turn_id}/audio", response_class=Response)
async def recording(session_id: str, turn_id: str, request: Request, context: Ctx, owner: Owner) -> Response:
    """What the person said in a turn: WAV, after a week Opus in Ogg. `Range` gives a part of it."""
    await own_session(context, session_id, owner)
    turn = await context.conversations.get_turn(session_id, turn_id)
    if turn.audio_key is None:
        raise NotFound("nothing was recorded in that turn", field="turn_id")
    return await serve_object(context, request, owner, turn.audio_key)


async def own_session(context: Context, session_id: str, owner: str) -> SessionRecord:
    """`owner`'s session as it is kept. For somebody else's the answer is the same `NotFound` as
    for none: whether it exists is nobody else's business."""
    with contextlib.suppress(NotFound):
        record = await context.conversations.get_session(session_id)
        if record.owner == owner:
            return record
    raise NotFound("there is no such session", field="session_id")


def _session_out(context: Context, record: SessionRecord) -> SessionOut:
    state = "ended"
    with contextlib.suppress(NotFound):
        state = context.sessions.get(record.id, record.owner).state
        if context.sessions.position(record.id):
            state = "queued"
    return SessionOut(
        session_id=record.id,
        created_at=record.created_at.isoformat(),
        ended_at=record.ended_at.isoformat() if record.ended_at else None,
        language=record.language,
        state=state,
    )


def words_out(words: tuple[Word, ...]) -> list[WordOut]:
    """Words as JSON has them: times to the millisecond."""
    return [
        WordOut(text=w.text, start=round(w.start, 3), end=round(w.end, 3), confidence=round(w.confidence, 3))
        for w in words
    ]


def turn_out(context: Context, owner: str, turn: TurnRecord) -> TurnOut:
    """A kept turn as JSON, for its owner."""
    return TurnOut(
        turn_id=turn.id,
        number=turn.number,
        created_at=turn.created_at.isoformat(),
        source=turn.source,
        transcript=turn.transcript,
        reply=turn.reply,
        interrupted=turn.interrupted,
        confidence=turn.confidence,
        words=words_out(turn.words),
        latency=turn.latency,
        audio_key=turn.audio_key,
        audio_seconds=turn.audio_seconds,
        audio_url=context.links.link(turn.audio_key, owner) if turn.audio_key else None,
    )
