"""What was made of conversations, as the app shows it: memories and action items."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from app.api.context import Ctx, Owner
from app.api.wearable.rest import Limit, Offset
from app.api.wearable.segments import Json
from app.api.wearable.shapes import item_json, memory_json

router = APIRouter(tags=["wearable"])


class ItemChange(BaseModel):
    """What is to be changed of an action item; what is not named stays."""

    description: str | None = Field(None, min_length=1, max_length=2000)
    completed: bool | None = None
    due_at: AwareDatetime | None = None


# --- memories -------------------------------------------------------------------------------------


@router.get("/v3/memories")
async def memories(
    context: Ctx,
    owner: Owner,
    limit: Limit = 100,
    offset: Offset = 0,
    query: Annotated[str | None, Query(min_length=1, max_length=500)] = None,
) -> list[Json]:
    """What is worth knowing of you, newest first; with `query` only what has to do with it, nearest first."""
    if query is None:
        found = await context.diary.memories(owner, limit, offset)
    else:
        found = (await context.memories.search(owner, query, limit + offset))[offset:]
    return [memory_json(m) for m in found]


@router.patch("/v3/memories/{memory_id}")
async def change_memory(
    memory_id: str, context: Ctx, owner: Owner, value: Annotated[str, Query(min_length=1, max_length=2000)]
) -> Json:
    """Write a memory anew."""
    return memory_json(await context.diary.change_memory(owner, memory_id, value))


# The app takes 200 for a memory that is gone, and 204 for an action item or a conversation.
@router.delete("/v3/memories/{memory_id}")
async def delete_memory(memory_id: str, context: Ctx, owner: Owner) -> Json:
    """Forget something."""
    await context.diary.delete_memory(owner, memory_id)
    return {"status": "ok"}


@router.delete("/v3/memories")
async def delete_memories(context: Ctx, owner: Owner) -> Json:
    """Forget everything that is known of you."""
    await context.diary.delete_memories(owner)
    return {"status": "ok"}


# --- action items ---------------------------------------------------------------------------------


@router.get("/v1/action-items")
async def action_items(
    context: Ctx,
    owner: Owner,
    limit: Limit = 50,
    offset: Offset = 0,
    completed: bool | None = None,
    include_completed: bool = True,
    conversation_id: str | None = None,
) -> Json:
    """What is to be done, newest first. `include_completed=false` is an older `completed=false`."""
    if completed is None and not include_completed:
        completed = False
    found = await context.diary.action_items(owner, limit, offset, completed, conversation_id)
    more = bool(await context.diary.action_items(owner, 1, offset + limit, completed, conversation_id))
    return {"action_items": [item_json(i) for i in found], "has_more": more}


@router.get("/v1/action-items/{item_id}")
async def action_item(item_id: str, context: Ctx, owner: Owner) -> Json:
    """One action item."""
    return item_json(await context.diary.action_item(owner, item_id))


@router.patch("/v1/action-items/{item_id}")
async def change_item(item_id: str, wish: ItemChange, context: Ctx, owner: Owner) -> Json:
    """Change an action item. `due_at: null` says that it is not due at any time."""
    item = await context.diary.action_item(owner, item_id)
    if wish.description is not None:
        item = replace(item, description=" ".join(wish.description.split()) or item.description)
    if wish.completed is not None and wish.completed != item.completed:
        done = datetime.now(UTC) if wish.completed else None
        item = replace(item, completed=wish.completed, completed_at=done)
    if "due_at" in wish.model_fields_set:
        item = replace(item, due_at=wish.due_at)
    await context.diary.change_item(item)
    return item_json(item)


@router.patch("/v1/action-items/{item_id}/completed")
async def complete_item(item_id: str, context: Ctx, owner: Owner, completed: bool = True) -> Json:
    """Note that something is done, or is not."""
    wish = ItemChange.model_validate({"completed": completed})
    return await change_item(item_id, wish, context, owner)


@router.delete("/v1/action-items/{item_id}", status_code=204)
async def delete_item(item_id: str, context: Ctx, owner: Owner) -> Response:
    """Delete an action item."""
    await context.diary.delete_item(owner, item_id)
    return Response(status_code=204)
