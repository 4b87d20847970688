"""What every `ConversationStore` does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from store_records import EARLY, a_session, spoken, typed

from app.roles import BadInput, NotFound
from app.stores.interfaces import ConversationStore, SessionRecord, TurnRecord


async def _session(store: ConversationStore, **given: Any) -> SessionRecord:
    session = a_session(**given)
    await store.add_session(session)
    return session


async def test_a_session_comes_back_whole(conversations: ConversationStore) -> None:
    session = await _session(
        conversations, language="zh", settings={"voice": None, "speed": 1.1, "vocabulary": ["Zoë", "你"]}
    )
    assert await conversations.get_session(session.id) == session


async def test_times_come_back_in_utc(conversations: ConversationStore) -> None:
    local = EARLY.astimezone(timezone(timedelta(hours=8)))
    session = await _session(conversations, created_at=local)
    kept = (await conversations.get_session(session.id)).created_at
    assert kept == EARLY
    assert kept.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "unknown", [str(uuid4()), "", "x", "1; drop table sessions", "{" + str(uuid4()) + "}", "\x00", "é" * 4000]
)
async def test_an_unknown_session_is_not_found(conversations: ConversationStore, unknown: str) -> None:
    with pytest.raises(NotFound):
        await conversations.get_session(unknown)
    with pytest.raises(NotFound):
        await conversations.end_session(unknown)
    assert await conversations.turns(unknown) == []


async def test_an_upper_case_id_is_no_other_name_for_a_session(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    with pytest.raises(NotFound):
        await conversations.get_session(session.id.upper())
    with pytest.raises(BadInput) as refused:
        await conversations.add_session(replace(session, id=session.id.upper()))
    assert refused.value.field == "id"


async def test_the_first_end_of_a_session_stays(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    end = EARLY + timedelta(minutes=3)
    await conversations.end_session(session.id, end)
    await conversations.end_session(session.id, end + timedelta(hours=1))
    await conversations.add_session(session)
    assert (await conversations.get_session(session.id)).ended_at == end


async def test_a_session_ends_now_unless_told_otherwise(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    before = datetime.now(UTC)
    await conversations.end_session(session.id)
    ended = (await conversations.get_session(session.id)).ended_at
    assert ended is not None
    assert before <= ended <= datetime.now(UTC)


async def test_a_session_added_again_is_updated_but_never_changes_hands(
    conversations: ConversationStore,
) -> None:
    session = await _session(conversations)
    changed = replace(session, language="de", settings={"voice": "joe"})
    await conversations.add_session(changed)
    with pytest.raises(BadInput):
        await conversations.add_session(replace(session, owner="bob"))
    assert await conversations.get_session(session.id) == changed
    assert await conversations.sessions("bob") == []


async def test_sessions_are_listed_for_their_owner_newest_first(conversations: ConversationStore) -> None:
    mine = [await _session(conversations, created_at=EARLY + timedelta(seconds=n)) for n in (2, 0, 3, 1)]
    await _session(conversations, owner="bob")
    newest_first = sorted(mine, key=lambda session: session.created_at, reverse=True)
    assert await conversations.sessions("ann") == newest_first
    assert await conversations.sessions("ann", limit=2, offset=1) == newest_first[1:3]
    assert await conversations.sessions("ann", offset=4) == []
    assert await conversations.sessions("' or 1=1 --") == []


@pytest.mark.parametrize("make", [typed, spoken])
async def test_a_turn_comes_back_whole(conversations: ConversationStore, make: Any) -> None:
    session = await _session(conversations)
    turn: TurnRecord = make(session.id)
    await conversations.add_turn(turn)
    assert await conversations.turns(session.id) == [turn]


async def test_turns_are_listed_by_number(conversations: ConversationStore) -> None:
    session, other = await _session(conversations), await _session(conversations)
    await conversations.add_turn(typed(other.id))
    turns = {number: spoken(session.id, number) for number in (11, 2, 1, 10)}
    for turn in turns.values():
        await conversations.add_turn(turn)
    assert [turn.number for turn in await conversations.turns(session.id)] == [1, 2, 10, 11]
    assert await conversations.turns(session.id, limit=2, offset=1) == [turns[2], turns[10]]


async def test_a_turn_written_again_is_updated(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    first = spoken(session.id, words=(), audio_key=None, audio_seconds=None, latency={})
    await conversations.add_turn(first)
    await conversations.add_turn(first)
    second = spoken(session.id, 7, id=first.id, transcription_id=first.transcription_id)
    await conversations.add_turn(second)
    assert await conversations.turns(session.id) == [second]
    heard_anew = replace(second, transcription_id=str(uuid4()))
    await conversations.add_turn(heard_anew)
    assert await conversations.turns(session.id) == [heard_anew]
    as_text = typed(session.id, 7, id=first.id)
    await conversations.add_turn(as_text)
    assert await conversations.turns(session.id) == [as_text]


async def test_the_same_turn_written_at_once_is_kept_once(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    turn = spoken(session.id)
    await asyncio.gather(*(conversations.add_turn(turn) for _ in range(8)))
    assert await conversations.turns(session.id) == [turn]


async def test_many_writers_and_readers_do_not_fail_each_other(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    turns = [spoken(session.id, number) for number in range(1, 31)]
    await asyncio.gather(
        *(conversations.add_turn(turn) for turn in turns), *(conversations.turns(session.id) for _ in turns)
    )
    assert await conversations.turns(session.id) == turns


async def test_two_turns_cannot_have_one_number_nor_one_transcription(
    conversations: ConversationStore,
) -> None:
    session = await _session(conversations)
    turn = spoken(session.id)
    await conversations.add_turn(turn)
    with pytest.raises(BadInput) as refused:
        await conversations.add_turn(typed(session.id))
    assert refused.value.field == "number"
    with pytest.raises(BadInput):
        await conversations.add_turn(spoken(session.id, 2, transcription_id=turn.transcription_id))
    assert await conversations.turns(session.id) == [turn]


async def test_a_turn_needs_its_session_and_stays_there(conversations: ConversationStore) -> None:
    with pytest.raises(NotFound):
        await conversations.add_turn(typed(str(uuid4())))
    session, other = await _session(conversations), await _session(conversations)
    turn = spoken(session.id)
    await conversations.add_turn(turn)
    with pytest.raises(BadInput):
        await conversations.add_turn(replace(turn, session_id=other.id))
    assert await conversations.turns(other.id) == []
    assert await conversations.turns(session.id) == [turn]


@pytest.mark.parametrize("name", ["id", "session_id", "transcription_id"])
async def test_ids_are_uuids(conversations: ConversationStore, name: str) -> None:
    session = await _session(conversations)
    with pytest.raises(BadInput) as refused:
        await conversations.add_turn(replace(spoken(session.id), **{name: "../1"}))
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("limit", "offset", "field"), [(0, 0, "limit"), (1001, 0, "limit"), (1, -1, "offset")]
)
async def test_pages_have_bounds(
    conversations: ConversationStore, limit: int, offset: int, field: str
) -> None:
    for ask in (conversations.turns, conversations.sessions):
        with pytest.raises(BadInput) as refused:
            await ask(str(uuid4()), limit, offset)
        assert refused.value.field == field


async def test_a_time_without_zone_is_refused(conversations: ConversationStore) -> None:
    with pytest.raises(Exception, match="time zone"):
        await conversations.add_session(a_session(created_at=EARLY.replace(tzinfo=None)))


async def test_a_cancelled_write_leaves_the_store_usable(conversations: ConversationStore) -> None:
    session = await _session(conversations)
    turns = [spoken(session.id, number) for number in range(1, 21)]
    for steps, turn in enumerate(turns):
        task = asyncio.create_task(conversations.add_turn(turn))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    for turn in turns:
        await conversations.add_turn(turn)
    assert await conversations.turns(session.id) == turns


async def test_closing_twice_is_fine(conversations: ConversationStore) -> None:
    await conversations.close()
    await conversations.close()


def test_what_was_heard_needs_a_transcription() -> None:
    for heard in ({"confidence": 0.0}, {"audio_key": "a"}, {"partials": ("a",)}, {"audio_seconds": 0.0}):
        with pytest.raises(ValueError, match="transcription_id"):
            typed(str(uuid4()), **heard)
