"""What every `Diary` does, in each kind of database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import pytest_asyncio
from store_records import EARLY

from app.roles import BadInput, NotFound, Vector
from app.stores.crypt import MasterKeys, UserKeys
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    Diary,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
    UserRecord,
    VoiceRecord,
)
from app.stores.sealed_diary import SealedDiary
from app.stores.sql import open_conversations
from app.stores.sql_diary import SqlDiary
from app.stores.sql_keys import SqlKeys

ANN, BOB = "ann", "bob"


@pytest_asyncio.fixture(params=["clear", "sealed"])
async def diary(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Diary]:
    store = await open_conversations(database)
    diary = SqlDiary(store.engine)
    keys = UserKeys(MasterKeys([bytes(32)]), SqlKeys(store.engine))
    yield diary if request.param == "clear" else SealedDiary(diary, keys)
    await store.close()


def _id() -> str:
    return str(uuid4())


def talk(owner: str = ANN, minute: int = 0, **given: Any) -> ConversationRecord:
    at = EARLY + timedelta(minutes=minute)
    return ConversationRecord(
        **{"id": _id(), "owner": owner, "started_at": at, "finished_at": at, "touched_at": at, "ends_at": at}
        | given
    )


def said(conversation: ConversationRecord, start: float = 0.0, **given: Any) -> SegmentRecord:
    return SegmentRecord(
        **{
            "id": _id(),
            "conversation_id": conversation.id,
            "text": "Ça va? 你好 🎙",
            "start_s": start,
            "end_s": start + 0.7,
        }
        | given
    )


def noted(conversation: ConversationRecord, second: int = 0, **given: Any) -> MemoryRecord:
    at = EARLY + timedelta(seconds=second)
    return MemoryRecord(
        **{
            "id": _id(),
            "owner": conversation.owner,
            "conversation_id": conversation.id,
            "content": f"fact {second}",
            "created_at": at,
        }
        | given
    )


def to_do(conversation: ConversationRecord, second: int = 0, **given: Any) -> ActionItemRecord:
    at = EARLY + timedelta(seconds=second)
    return ActionItemRecord(
        **{
            "id": _id(),
            "owner": conversation.owner,
            "conversation_id": conversation.id,
            "description": f"task {second}",
            "created_at": at,
        }
        | given
    )


async def kept(diary: Diary, *segments: SegmentRecord, **given: Any) -> ConversationRecord:
    conversation = talk(**given)
    assert await diary.keep(conversation, segments)
    return conversation


async def somebody(diary: Diary, name: str = "Zoë", owner: str = ANN) -> PersonRecord:
    person = PersonRecord(_id(), owner, name, EARLY)
    await diary.add_person(person)
    return person


async def test_a_conversation_comes_back_whole_and_grows(diary: Diary) -> None:
    first = talk(language="zh", source="friend", voices={"a": [0.1, 0.2]})
    one = said(first, 1.5, speaker=2, is_user=True, provider="whisper")
    assert await diary.keep(first, [one])
    grown = replace(first, finished_at=EARLY + timedelta(minutes=1), voices=None)
    two = said(first, 0.5)
    assert await diary.keep(grown, [replace(one, text="Longer"), two])
    assert await diary.conversation(ANN, first.id) == replace(grown, voices={"a": [0.1, 0.2]})
    assert (await diary.segments([first.id]))[first.id] == [two, replace(one, text="Longer")]
    last = await diary.segments([first.id, "x"], last=1)
    assert last == {first.id: [replace(one, text="Longer")], "x": []}
    for owner, id_ in ((BOB, first.id), (ANN, _id()), (ANN, "x")):
        with pytest.raises(NotFound):
            await diary.conversation(owner, id_)


async def test_nobody_can_keep_anothers_conversation(diary: Diary) -> None:
    mine = await kept(diary)
    assert not await diary.keep(replace(mine, owner=BOB), [])
    assert (await diary.conversation(ANN, mine.id)).owner == ANN
    assert await diary.conversations(BOB) == []


async def test_the_same_conversation_kept_at_once_is_one(diary: Diary) -> None:
    conversation = talk()
    lines = [said(conversation, n) for n in range(6)]
    assert all(await asyncio.gather(*(diary.keep(conversation, [line]) for line in lines)))
    assert (await diary.segments([conversation.id]))[conversation.id] == lines


async def test_conversations_are_listed_newest_first_by_status(diary: Diary) -> None:
    made = [await kept(diary, minute=n) for n in (2, 0, 1)]
    newest = [made[0], made[2], made[1]]
    assert await diary.conversations(ANN) == newest
    assert await diary.conversations(ANN, limit=1, offset=1) == newest[1:2]
    assert await diary.claim(made[0].id)
    assert [c.id for c in await diary.conversations(ANN, ["in_progress"])] == [c.id for c in newest[1:]]
    assert [c.id for c in await diary.conversations(ANN, ["processing", "completed"])] == [made[0].id]


async def test_one_of_many_gets_the_claim(diary: Diary) -> None:
    conversation = await kept(diary)
    assert sorted(await asyncio.gather(*(diary.claim(conversation.id) for _ in range(6)))) == [False] * 5 + [
        True
    ]
    assert not await diary.keep(conversation, [said(conversation)])
    held = await diary.conversation(ANN, conversation.id)
    assert held.status == "processing"
    assert not await diary.claim(conversation.id, EARLY)
    assert await diary.claim(conversation.id, held.touched_at)


async def test_what_is_overdue_is_found(diary: Diary) -> None:
    over, going_on = await kept(diary), await kept(diary, ends_at=EARLY + timedelta(hours=1))
    claimed = await kept(diary, ends_at=EARLY + timedelta(hours=1))
    await diary.claim(claimed.id)
    soon, long_ago, one_day = EARLY + timedelta(minutes=1), EARLY.replace(year=2020), EARLY.replace(year=2120)
    assert [c.id for c in await diary.overdue(soon, long_ago)] == [over.id]
    assert {c.id for c in await diary.overdue(soon, one_day)} == {over.id, claimed.id}
    assert going_on.id in {c.id for c in await diary.overdue(one_day, long_ago)}


async def test_what_was_made_of_a_conversation(diary: Diary) -> None:
    conversation = await kept(diary)
    made = replace(conversation, structured={"title": "Zoë", "n": [1.5, None]})
    done = to_do(conversation, 1, completed=True, completed_at=EARLY, due_at=EARLY)
    await diary.complete(made, [noted(conversation)], [done, to_do(conversation, 2)])
    again = to_do(conversation, 3)
    await diary.complete(made, [noted(conversation, 9)], [again], again=True)
    found = await diary.conversation(ANN, conversation.id)
    assert (found.status, found.structured, found.voices) == (
        "completed",
        {"title": "Zoë", "n": [1.5, None]},
        None,
    )
    assert [m.content for m in await diary.memories(ANN)] == ["fact 9"]
    assert await diary.action_items(ANN) == [again, done], "what is done stays"
    assert await diary.items_of([conversation.id, "x"]) == {done.id: done, again.id: again}
    await diary.complete(talk(), [], [])  # deleted meanwhile: nothing happens


async def test_a_conversation_goes_with_all_that_was_made_of_it(diary: Diary) -> None:
    conversation = talk()
    await diary.keep(conversation, [said(conversation)])
    await diary.complete(conversation, [noted(conversation)], [to_do(conversation)])
    with pytest.raises(NotFound):
        await diary.delete_conversation(BOB, conversation.id)
    await diary.delete_conversation(ANN, conversation.id)
    assert (await diary.segments([conversation.id]))[conversation.id] == []
    assert await diary.memories(ANN) == [] and await diary.action_items(ANN) == []


async def test_who_said_what_can_be_changed_by_its_owner(diary: Diary) -> None:
    zoe = await somebody(diary)
    conversation = talk()
    lines = [said(conversation, n, speaker=n % 2) for n in range(4)]
    await diary.keep(conversation, lines)
    assert await diary.assign(BOB, [lines[0].id], None, True) == []
    changed = await diary.assign(ANN, [lines[0].id, "x"], zoe.id, False)
    assert changed == [replace(lines[0], person_id=zoe.id)]
    assert (await diary.assign(ANN, [lines[1].id], _id(), True))[0].person_id is None
    moved = await diary.relabel(conversation.id, 0, 5, was=(False, zoe.id), now=(True, None))
    assert moved == [replace(lines[0], speaker=5, is_user=True)]
    moved = await diary.relabel(conversation.id, 0, 6, now=(False, zoe.id))
    assert moved == [replace(lines[2], speaker=6, person_id=zoe.id)]
    assert [s.id for s in await diary.relabel(conversation.id, 1, 1, was=(False, None))] == [lines[3].id]
    await diary.delete_person(ANN, zoe.id)
    assert {s.person_id for s in (await diary.segments([conversation.id]))[conversation.id]} == {None}


async def test_a_person_who_is_not_known_any_more_is_left_out(diary: Diary) -> None:
    theirs = await somebody(diary, owner=BOB)
    conversation = talk()
    await diary.keep(
        conversation, [said(conversation, person_id=theirs.id), said(conversation, 1, person_id="x")]
    )
    assert {s.person_id for s in (await diary.segments([conversation.id]))[conversation.id]} == {None}


async def test_people_and_their_voices(diary: Diary) -> None:
    ben, ada = await somebody(diary, "Ben"), await somebody(diary, "Ada" + "a" * 1000)
    await diary.add_person(replace(ben, name="Benno"))
    assert {p.name for p in await diary.people(ANN)} == {"Benno", ada.name}
    with pytest.raises(BadInput):
        await diary.add_person(replace(ben, owner=BOB))
    own = VoiceRecord(ANN, None, "ecapa", [0.1, -1e-9, 0.30000001], 12.5, EARLY, "speech_profiles/a.wav")
    his = replace(own, person_id=ben.id, audio_key=None)
    for voice in (own, his, replace(own, seconds=13.0)):
        await diary.set_voice(voice)
    assert sorted(await diary.voices(ANN), key=lambda v: v.person_id or "") == [
        replace(own, seconds=13.0),
        his,
    ]
    with pytest.raises(NotFound):
        await diary.set_voice(replace(his, owner=BOB))
    await diary.delete_person(ANN, ben.id)
    assert [v.person_id for v in await diary.voices(ANN)] == [None]
    for _ in range(2):
        await diary.delete_voice(ANN, None)
    assert await diary.voices(ANN) == []
    with pytest.raises(NotFound):
        await diary.delete_person(ANN, ben.id)


async def test_how_long_somebody_was_listened_to(diary: Diary) -> None:
    day = date(2026, 11, 21)
    await asyncio.gather(*(diary.listened(ANN, day, 0.5) for _ in range(8)))
    assert await diary.listened(ANN, day, 1.0) == 5.0
    assert await diary.listened(ANN, day + timedelta(days=1), 2.0) == 2.0
    assert await diary.listened(BOB, day, 3.0) == 3.0


def _vector(*numbers: float) -> Vector:
    return np.array(numbers, np.float32)


async def test_vectors_come_back(diary: Diary) -> None:
    """To the bit, unless they were turned."""
    clear = isinstance(diary, SqlDiary)
    conversation = await kept(diary)
    dice = np.random.default_rng(5)
    vectors = [dice.normal(size=size).astype(np.float32) for size in (1, 384, 4096)]
    vectors.append(_vector(1e-38, -3.4e38 if clear else 1.0, 0.1, 1 / 3))
    memories = [noted(conversation, n, encoder="e", vector=v) for n, v in enumerate(vectors)]
    await diary.complete(conversation, memories)
    found = await diary.memories(ANN, vectors=True)
    for memory, vector in zip(found[::-1], vectors, strict=True):
        assert memory.vector is not None and memory.vector.dtype == np.float32
        if clear:
            assert memory.vector.tobytes() == vector.tobytes()
        else:
            assert np.allclose(memory.vector, vector, atol=1e-4)
    assert [m.vector for m in await diary.memories(ANN)] == [None] * len(vectors)


async def test_the_nearest_memories(diary: Diary) -> None:
    conversation, theirs = await kept(diary), await kept(diary, owner=BOB)
    places = {
        "near": _vector(0.9, 0.1, 0),
        "same": _vector(2, 0, 0),
        "far": _vector(-1, 0, 0),
        "aside": _vector(0, 1, 0),
        "short": _vector(1, 0),
        "nowhere": _vector(0, 0, 0),
        "none": None,
    }
    made = [
        noted(conversation, n, content=name, encoder=None if place is None else "e", vector=place)
        for n, (name, place) in enumerate(places.items())
    ]
    made.append(noted(conversation, 60, content="another's", encoder="f", vector=_vector(1, 0, 0)))
    await diary.complete(conversation, made)
    await diary.complete(theirs, [noted(theirs, encoder="e", vector=_vector(1, 0, 0))])
    found = await diary.nearest_memories(ANN, "e", _vector(1, 0, 0), 10)
    assert [m.content for m, _ in found] == ["same", "near", "aside", "far"]
    assert [round(cosine, 4) for _, cosine in found] == [1.0, 0.9939, 0.0, -1.0]
    assert found[0][0] == made[1] and found[0][0].vector is None
    assert len(await diary.nearest_memories(ANN, "e", _vector(1, 0, 0), 2)) == 2
    assert await diary.nearest_memories(ANN, "g", _vector(1, 0, 0), 2) == []


async def test_memories_are_placed_changed_and_forgotten(diary: Diary) -> None:
    conversation = await kept(diary)
    one, two = noted(conversation, 1), noted(conversation, 2)
    await diary.complete(conversation, [one, two])
    assert await diary.memories(ANN) == [two, one]
    placed = replace(one, encoder="e", vector=_vector(1, 0))
    await diary.place_memories(
        [placed, replace(two, content="older words", encoder="e", vector=_vector(0, 1))]
    )
    assert [m.encoder for m in await diary.memories(ANN)] == [None, "e"]
    changed = await diary.change_memory(ANN, one.id, "anew")
    assert (changed.content, changed.encoder, changed.vector) == ("anew", None, None)
    for act in (diary.change_memory(BOB, one.id, "x"), diary.delete_memory(BOB, one.id)):
        with pytest.raises(NotFound):
            await act
    await diary.delete_memory(ANN, one.id)
    await diary.delete_memories(BOB)
    assert [m.id for m in await diary.memories(ANN)] == [two.id]
    await diary.delete_memories(ANN)
    assert await diary.memories(ANN) == []


async def test_action_items(diary: Diary) -> None:
    conversation, other = await kept(diary), await kept(diary)
    items = [to_do(conversation, n) for n in range(3)]
    await diary.complete(conversation, [], items)
    await diary.complete(other, [], [to_do(other, 9)])
    done = replace(items[1], completed=True, completed_at=EARLY, due_at=EARLY, description="done")
    await diary.change_item(done)
    assert await diary.action_item(ANN, done.id) == done
    assert await diary.action_items(ANN, completed=True) == [done]
    assert await diary.action_items(ANN, conversation_id=conversation.id) == [items[2], done, items[0]]
    assert await diary.action_items(ANN, conversation_id="x") == []
    with pytest.raises(NotFound):
        await diary.change_item(replace(done, owner=BOB))
    await diary.delete_item(ANN, done.id)
    with pytest.raises(NotFound):
        await diary.action_item(ANN, done.id)


async def test_settings_of_a_user(diary: Diary) -> None:
    assert await diary.user(ANN) == UserRecord(ANN)
    settings = [UserRecord(ANN, "de"), UserRecord(ANN, "zh", "speech_profiles/a.wav", 12.5)]
    await asyncio.gather(*(diary.set_user(settings[0]) for _ in range(6)))
    await diary.set_user(settings[1])
    assert await diary.user(ANN) == settings[1]


async def test_what_no_database_takes_is_replaced(diary: Diary) -> None:
    """A language model may write anything, and no turn must be lost for it."""
    conversation = talk()
    await diary.keep(conversation, [said(conversation, text="a\0b\ud800c\U0001f399")])
    assert (await diary.segments([conversation.id]))[conversation.id][0].text == "a\ufffdb\ufffdc\U0001f399"


async def test_a_value_that_does_not_fit_is_refused_without_being_told(diary: Diary) -> None:
    with pytest.raises(Exception) as refused:
        await diary.keep(talk(source="\ud800 a secret"), [])
    error: BaseException | None = refused.value
    while error is not None and not isinstance(error, UnicodeEncodeError):
        assert "secret" not in str(error)
        error = error.__cause__
