"""What the app's first screen asks for: conversations, people. `profiles` has voices, `notes` the rest."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, Field

from app.api.context import Context, Ctx, Owner
from app.api.wearable.profiles import forget_voice
from app.api.wearable.segments import Json
from app.api.wearable.shapes import conversation_json, person_json
from app.roles import NotFound
from app.stores.diary import ConversationRecord, PersonRecord

router = APIRouter(tags=["wearable"])

Limit = Annotated[int, Query(ge=1), AfterValidator(lambda limit: min(limit, 1000))]
"""Some versions of the app ask for thousands; who gets fewer asks again."""
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
    return await _told(context, found)


@router.post("/v1/conversations")
async def end_conversation(context: Ctx, owner: Owner) -> Json:
    """End the conversation that goes on, and give what was made of it. `NOT_FOUND` if there is none, or
    nothing was said in it."""
    made = await context.days.end(owner)
    if made is None:
        raise NotFound("no conversation goes on in which something was said")
    return {"conversation": (await _told(context, [made]))[0], "messages": []}


@router.get("/v1/conversations/{conversation_id}")
async def conversation(conversation_id: str, context: Ctx, owner: Owner) -> Json:
    """One conversation."""
    return (await _told(context, [await context.diary.conversation(owner, conversation_id)]))[0]


@router.post("/v1/conversations/{conversation_id}/reprocess")
async def reprocess(conversation_id: str, context: Ctx, owner: Owner) -> Json:
    """Make something of a completed conversation once more, instead of what was made of it. What you have
    ticked off already stays. If the language model fails, so does this, and all stays as it was."""
    return (await _told(context, [await context.days.again(owner, conversation_id)]))[0]


@router.delete("/v1/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, context: Ctx, owner: Owner) -> Response:
    """Delete a conversation, and what was made of it."""
    context.days.drop(owner, conversation_id)
    await context.diary.delete_conversation(owner, conversation_id)
    return Response(status_code=204)


async def _told(context: Context, records: Sequence[ConversationRecord]) -> list[Json]:
    ids = [record.id for record in records]
    segments, items = await context.diary.segments(ids), await context.diary.items_of(ids)
    return [conversation_json(record, segments[record.id], items) for record in records]


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
    await forget_voice(context, owner, person_id)
    return Response(status_code=204)


async def _person(context: Context, owner: str, person_id: str) -> PersonRecord:
    for found in await context.diary.people(owner):
        if found.id == person_id:
            return found
    raise NotFound("you know nobody with this id", field="person_id")
