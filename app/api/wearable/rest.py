"""What the app's first screen asks for: conversations, people, memories, action items, a voice profile."""

from __future__ import annotations

import io
import uuid
import wave
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, Response, UploadFile
from pydantic import BaseModel, Field

from app.api.context import Context, Ctx, Owner
from app.api.wearable.segments import Json
from app.api.wearable.shapes import conversation_json, item_json, memory_json, person_json
from app.roles import BadAudio, NotFound, TooLarge
from app.stores.diary import PersonRecord

router = APIRouter(tags=["wearable"])

_PROFILE_RATE = 16_000
_PROFILE_S = 5, 120
_PROFILE_BYTES = 16 << 20

Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=255)]


class Language(BaseModel):
    """The language that a user speaks."""

    language: str = Field(pattern=r"^([A-Za-z]{2,3}([-_][A-Za-z0-9]+)*|multi|auto)$", max_length=16)


class Named(BaseModel):
    """Somebody's name."""

    name: Name


# --- conversations --------------------------------------------------------------------------------


@router.get("/v1/conversations")
async def conversations(
    context: Ctx,
    owner: Owner,
    limit: Limit = 100,
    offset: Offset = 0,
    statuses: str = "",
    include_discarded: bool = True,
) -> list[Json]:
    """Your conversations, newest first; `statuses` names some, with commas between. None is discarded."""
    wanted = [s for s in (part.strip() for part in statuses.split(",")) if s]
    found = await context.diary.conversations(owner, wanted, limit, offset)
    segments = await context.diary.segments([r.id for r in found])
    return [conversation_json(r, segments[r.id]) for r in found]


@router.post("/v1/conversations")
async def end_conversation(context: Ctx, owner: Owner) -> Json:
    """End the conversation that goes on, and give what was made of it. `NOT_FOUND` if there is none, or
    nothing was said in it."""
    made = await context.days.end(owner)
    if made is None:
        raise NotFound("no conversation goes on in which something was said")
    segments = await context.diary.segments([made.id])
    return {"conversation": conversation_json(made, segments[made.id]), "messages": []}


@router.get("/v1/conversations/{conversation_id}")
async def conversation(conversation_id: str, context: Ctx, owner: Owner) -> Json:
    """One conversation."""
    found = await context.diary.conversation(owner, conversation_id)
    return conversation_json(found, (await context.diary.segments([found.id]))[found.id])


@router.delete("/v1/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, context: Ctx, owner: Owner) -> Response:
    """Delete a conversation, and what was made of it."""
    context.days.drop(owner, conversation_id)
    await context.diary.delete_conversation(owner, conversation_id)
    return Response(status_code=204)


# --- the user -------------------------------------------------------------------------------------


@router.get("/v1/users/language")
async def language(context: Ctx, owner: Owner) -> Json:
    """The language you speak; null if you did not say."""
    return {"language": (await context.diary.user(owner)).language}


@router.patch("/v1/users/language")
async def set_language(wish: Language, context: Ctx, owner: Owner) -> Json:
    """Say which language you speak."""
    user = await context.diary.user(owner)
    await context.diary.set_user(replace(user, language=wish.language))
    return {"status": "ok", "language": wish.language}


@router.get("/v3/speech-profile")
async def speech_profile(context: Ctx, owner: Owner) -> Json:
    """Whether there is a recording of your voice."""
    return {"has_profile": (await context.diary.user(owner)).profile_key is not None}


@router.post("/v3/upload-audio")
async def upload_profile(context: Ctx, owner: Owner, file: Annotated[UploadFile, File()]) -> Json:
    """Keep a recording of your voice: a WAV file at 16 kHz, 5 to 120 s long."""
    data = await file.read(_PROFILE_BYTES + 1)
    if len(data) > _PROFILE_BYTES:
        raise TooLarge(f"a voice profile has at most {_PROFILE_S[1]} seconds", field="file")
    seconds = _seconds(data)
    key = f"speech_profiles/{sha256(owner.encode()).hexdigest()[:32]}/profile.wav"
    await context.objects.put(key, data)
    user = await context.diary.user(owner)
    await context.diary.set_user(replace(user, profile_key=key, profile_seconds=seconds))
    return {"url": key}


def _seconds(data: bytes) -> float:
    """The length of a WAV file that may be a voice profile. Raises `BadAudio`."""
    try:
        with wave.open(io.BytesIO(data)) as reader:
            rate, frames, width = reader.getframerate(), reader.getnframes(), reader.getsampwidth()
            held = len(reader.readframes(frames)) // (width * reader.getnchannels())
    except (wave.Error, EOFError, ZeroDivisionError, ValueError) as error:
        raise BadAudio("a voice profile is a WAV file with PCM samples", field="file") from error
    if rate != _PROFILE_RATE:
        raise BadAudio(f"a voice profile is recorded at {_PROFILE_RATE} Hz, not {rate}", field="file")
    seconds: float = held / rate
    if not _PROFILE_S[0] <= seconds <= _PROFILE_S[1]:
        raise BadAudio(
            f"a voice profile is {_PROFILE_S[0]} to {_PROFILE_S[1]} seconds long, not {seconds:.1f}",
            field="file",
        )
    return seconds


# --- people ---------------------------------------------------------------------------------------


@router.get("/v1/users/people")
async def people(context: Ctx, owner: Owner) -> list[Json]:
    """Whom you know."""
    return [person_json(p) for p in await context.diary.people(owner)]


@router.post("/v1/users/people")
async def add_person(wish: Named, context: Ctx, owner: Owner) -> Json:
    """Add somebody; who has the name already is given back."""
    name = " ".join(wish.name.split())
    for person in await context.diary.people(owner):
        if person.name.casefold() == name.casefold():
            return person_json(person)
    person = PersonRecord(str(uuid.uuid4()), owner, name, datetime.now(UTC))
    await context.diary.add_person(person)
    return person_json(person)


@router.get("/v1/users/people/{person_id}")
async def person(person_id: str, context: Ctx, owner: Owner) -> Json:
    """One person."""
    return person_json(await _person(context, owner, person_id))


@router.patch("/v1/users/people/{person_id}/name")
async def rename_person(
    person_id: str, context: Ctx, owner: Owner, value: Annotated[str, Query(min_length=1, max_length=255)]
) -> Json:
    """Change a name."""
    found = await _person(context, owner, person_id)
    await context.diary.add_person(replace(found, name=" ".join(value.split())))
    return {"status": "ok"}


@router.delete("/v1/users/people/{person_id}", status_code=204)
async def delete_person(person_id: str, context: Ctx, owner: Owner) -> Response:
    """Forget somebody; what they said stays."""
    await context.diary.delete_person(owner, person_id)
    return Response(status_code=204)


async def _person(context: Context, owner: str, person_id: str) -> PersonRecord:
    for found in await context.diary.people(owner):
        if found.id == person_id:
            return found
    raise NotFound("you know nobody with this id", field="person_id")


# --- what was made of conversations ----------------------------------------------------------------


@router.get("/v3/memories")
async def memories(context: Ctx, owner: Owner, limit: Limit = 100, offset: Offset = 0) -> list[Json]:
    """What is worth knowing of you, newest first."""
    return [memory_json(m) for m in await context.diary.memories(owner, limit, offset)]


@router.get("/v1/action-items")
async def action_items(
    context: Ctx, owner: Owner, limit: Limit = 50, offset: Offset = 0, completed: bool | None = None
) -> Json:
    """What is to be done, newest first."""
    found = await context.diary.action_items(owner, min(limit + 1, 1000), offset, completed)
    return {"action_items": [item_json(i) for i in found[:limit]], "has_more": len(found) > limit}


@router.patch("/v1/action-items/{item_id}/completed")
async def complete_item(item_id: str, context: Ctx, owner: Owner, completed: bool = True) -> dict[str, Any]:
    """Note that something is done, or is not."""
    return item_json(await context.diary.mark_item(owner, item_id, completed))
