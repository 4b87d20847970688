"""How what the keeper holds gets into the stores, by its kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from app.audio.wav import wav_bytes
from app.roles import SAMPLE_RATE, NotFound, Samples
from app.stores.diary import ConversationRecord, Diary, SegmentRecord
from app.stores.interfaces import ConversationStore, SessionRecord, TurnRecord
from app.stores.keeper import Land
from app.stores.spool import Entry
from app.stores.vault import Vault


def session_entry(session: SessionRecord) -> Entry:
    """A session, to be kept."""
    return Entry(
        "session", session.owner, session.id, _adapter(SessionRecord).dump_python(session, mode="json")
    )


def turn_entry(
    owner: str, turn: TurnRecord, recording: Samples | None, *, provisional: bool = False
) -> Entry:
    """A turn and what was heard of it (16 kHz), to be kept. `provisional`: nothing is answered yet."""
    if recording is not None and turn.transcription_id is None:
        raise ValueError("a turn with a recording needs its transcription_id")
    body = _adapter(TurnRecord).dump_python(turn, mode="json")
    sound = b"" if recording is None else wav_bytes(recording, SAMPLE_RATE)
    return Entry("turn", owner, turn.id, body, sound, provisional=provisional)


def segments_entry(conversation: ConversationRecord, segments: list[SegmentRecord]) -> Entry:
    """A conversation in progress and segments of it, to be kept."""
    body = {
        "conversation": _adapter(ConversationRecord).dump_python(conversation, mode="json"),
        "segments": _adapter(list[SegmentRecord]).dump_python(segments, mode="json"),
    }
    return Entry("segments", conversation.owner, conversation.id, body)


def recording_key(turn: TurnRecord) -> str:
    """Where a turn's recording lies: `raw_inputs/YYYY/MM/DD/{session}_{turn}_{ts}.wav`, in UTC.
    The same for the same turn, so that storing it again replaces it."""
    at = turn.created_at.astimezone(UTC)
    return f"raw_inputs/{at:%Y/%m/%d}/{turn.session_id}_{turn.id}_{at:%Y%m%dT%H%M%S%fZ}.wav"


def landings(conversations: ConversationStore, vault: Vault, diary: Diary) -> dict[str, Land]:
    """What stores each kind of entry."""

    async def session(entry: Entry) -> None:
        await conversations.add_session(_adapter(SessionRecord).validate_python(entry.body))

    async def turn(entry: Entry) -> None:
        record: TurnRecord = _adapter(TurnRecord).validate_python(entry.body)
        if entry.provisional:
            try:
                await conversations.get_turn(record.session_id, record.id)
            except NotFound:
                # The process died over the answer: what was said has the next number.
                number = await _last_number(conversations, record) + 1
                record = replace(record, number=number, interrupted=True)
            else:
                return
        if entry.blob:
            key = recording_key(record)
            await vault.put(entry.owner, key, entry.blob)
            record = replace(record, audio_key=key, audio_seconds=_seconds(entry.blob))
        await conversations.add_turn(record)

    async def segments(entry: Entry) -> None:
        conversation = _adapter(ConversationRecord).validate_python(entry.body["conversation"])
        await diary.keep(conversation, _adapter(list[SegmentRecord]).validate_python(entry.body["segments"]))

    return {"session": session, "turn": turn, "segments": segments}


async def _last_number(conversations: ConversationStore, turn: TurnRecord) -> int:
    count = last = 0
    while page := await conversations.turns(turn.session_id, 1000, count):
        count += len(page)
        last = page[-1].number
    return last


def _seconds(wav: bytes) -> float:
    return (len(wav) - 44) / 2 / SAMPLE_RATE


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
