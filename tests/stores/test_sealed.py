"""What sealed stores write holds no text, and what they read is what was written."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from store_records import EARLY, a_session, spoken, typed

from app.stores.crypt import MasterKeys, Unreadable, UserKeys
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
    VoiceRecord,
)
from app.stores.sealed import SealedConversations
from app.stores.sealed_diary import SealedDiary
from app.stores.sql import SqlConversations, open_conversations
from app.stores.sql_diary import SqlDiary
from app.stores.sql_keys import SqlKeys
from app.stores.tables import metadata, people, segments, sessions, user_keys

MARK = "Marmalade"
MASTER = os.urandom(32)


@dataclass
class Rig:
    database: SqlConversations
    keys: UserKeys
    clear: SqlDiary
    conversations: SealedConversations
    diary: SealedDiary

    @property
    def engine(self) -> AsyncEngine:
        return self.database.engine

    async def dump(self) -> str:
        """All that the database holds."""
        found = []
        async with self.engine.connect() as connection:
            for table in metadata.sorted_tables:
                for row in await connection.execute(select(table)):
                    found.append(f"{table.name} {[str(value) for value in row]}")
        return "\n".join(found)


@pytest_asyncio.fixture
async def rig(database: str) -> AsyncIterator[Rig]:
    store = await open_conversations(database)
    keys = UserKeys(MasterKeys([MASTER]), SqlKeys(store.engine))
    clear = SqlDiary(store.engine)
    yield Rig(store, keys, clear, SealedConversations(store, keys), SealedDiary(clear, keys))
    await store.close()


def new_id() -> str:
    return str(uuid.uuid4())


def a_conversation(**given: Any) -> ConversationRecord:
    times = dict.fromkeys(("started_at", "finished_at", "touched_at", "ends_at"), EARLY)
    return ConversationRecord(**{"id": new_id(), "owner": "ann", **times, **given})


def a_memory(conversation: ConversationRecord, n: int, **given: Any) -> MemoryRecord:
    content, at = f"{MARK} is good for {n}", EARLY + timedelta(seconds=n)
    return MemoryRecord(new_id(), conversation.owner, conversation.id, content, at, **given)


async def test_turns_and_sessions(rig: Rig) -> None:
    session = a_session(settings={"instructions": f"Call me {MARK}."})
    turn = spoken(session.id, transcript=MARK, partials=(f"{MARK} a", MARK), reply=MARK, reply_full=MARK)
    turn = replace(turn, words=(replace(turn.words[0], text=MARK), turn.words[1]))
    await rig.conversations.add_session(session)
    await rig.conversations.add_turn(turn)
    await rig.conversations.add_turn(typed(session.id, 2, transcript=MARK))
    assert MARK not in await rig.dump()
    fresh = SealedConversations(rig.database, rig.keys)
    assert (await fresh.turns(session.id))[0] == turn
    assert await fresh.get_turn(session.id, turn.id) == turn
    assert await fresh.sessions("ann") == [session]


async def test_a_wearers_day(rig: Rig) -> None:
    conversation = a_conversation(voices={"by": "me", "who": {"names": [MARK]}})
    said = [SegmentRecord(new_id(), conversation.id, f"{MARK} {n}", n, n + 1.0, speaker=n) for n in range(3)]
    assert await rig.diary.keep(conversation, said)
    person = PersonRecord(new_id(), "ann", MARK, EARLY)
    await rig.diary.add_person(person)
    kept = await rig.diary.conversation("ann", conversation.id)
    assert kept.voices == conversation.voices
    structured = {"title": MARK, "overview": MARK, "events": [{"title": MARK}]}
    memory = a_memory(conversation, 1)
    item = ActionItemRecord(new_id(), "ann", conversation.id, f"Buy {MARK}", EARLY)
    renamed = await rig.diary.relabel(conversation.id, 1, 2)
    assert [s.text for s in renamed] == [f"{MARK} 1"]
    assigned = await rig.diary.assign("ann", [said[0].id], person.id, False)
    assert [(s.text, s.person_id) for s in assigned] == [(f"{MARK} 0", person.id)]
    await rig.diary.complete(replace(kept, structured=structured), [memory], [item])
    assert MARK not in await rig.dump()

    fresh = SealedDiary(rig.clear, rig.keys)
    assert [s.text for s in (await fresh.segments([conversation.id, new_id()]))[conversation.id]] == [
        f"{MARK} {n}" for n in range(3)
    ]
    assert (await fresh.conversations("ann"))[0].structured == structured
    assert await fresh.memories("ann") == [memory]
    assert await fresh.items_of([conversation.id]) == {item.id: item}
    assert await fresh.people("ann") == [person]
    changed = await rig.diary.change_memory("ann", memory.id, f"{MARK} is bad")
    assert changed == (await fresh.memories("ann"))[0] and changed.content == f"{MARK} is bad"
    await rig.diary.change_item(replace(item, description=f"Sell {MARK}", completed=True))
    assert (await fresh.action_item("ann", item.id)).description == f"Sell {MARK}"
    assert MARK not in await rig.dump()


async def test_people_are_in_order_of_their_names_however_long(rig: Rig) -> None:
    names = ["Zoë", "Ann", "你好" * 100, "Bob", "m" * 255]
    for name in names:
        await rig.diary.add_person(PersonRecord(new_id(), "ann", name, EARLY))
    assert [p.name for p in await rig.diary.people("ann")] == sorted(names)


async def test_vectors_are_turned_and_found(rig: Rig) -> None:
    rng = np.random.default_rng(3)
    made = rng.standard_normal((20, 48)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    conversation = a_conversation()
    await rig.diary.keep(conversation, [])
    memories = [a_memory(conversation, n, encoder="e/m", vector=v) for n, v in enumerate(made)]
    await rig.diary.complete(conversation, memories[:15])
    bare = [replace(m, encoder=None, vector=None) for m in memories[15:]]
    await rig.diary.complete(conversation, bare)
    await rig.diary.place_memories(memories[15:])
    stored = {m.id: m for m in await rig.clear.memories("ann", vectors=True)}
    found = {m.id: m for m in await rig.diary.memories("ann", vectors=True)}
    for memory, vector in zip(memories, made, strict=True):
        kept, opened = stored[memory.id].vector, found[memory.id].vector
        assert kept is not None and opened is not None and found[memory.id].encoder == "e/m"
        assert abs(float(kept @ vector)) < 0.9 and np.allclose(opened, vector, atol=1e-5)
    query = made[4] + 0.2 * made[7]
    nearest = await rig.diary.nearest_memories("ann", "e/m", query, 2)
    assert [m.id for m, _ in nearest] == [memories[4].id, memories[7].id]
    cosine = float(made[4] @ query / np.linalg.norm(query))
    assert nearest[0][1] == pytest.approx(cosine, abs=1e-4)
    assert nearest[0][0] == replace(memories[4], vector=None)


async def test_a_memory_that_changed_meanwhile_is_not_placed(rig: Rig) -> None:
    conversation = a_conversation()
    await rig.diary.keep(conversation, [])
    old, other = a_memory(conversation, 1), a_memory(conversation, 2)
    await rig.diary.complete(conversation, [old, other])
    await rig.diary.change_memory("ann", old.id, "Something else")
    vector = np.ones(8, np.float32)
    await rig.diary.place_memories([replace(m, encoder="e/m", vector=vector) for m in (old, other)])
    placed = {m.id: m.encoder for m in await rig.diary.memories("ann")}
    assert placed == {old.id: None, other.id: "e/m"}


async def test_voices_are_sealed(rig: Rig) -> None:
    vector = [round(float(v), 6) for v in np.random.default_rng(1).standard_normal(192)]
    voice = VoiceRecord("ann", None, "campplus/x", vector, 12.0, EARLY)
    await rig.diary.set_voice(voice)
    (stored,), (opened,) = await rig.clear.voices("ann"), await rig.diary.voices("ann")
    assert opened == voice and stored.id == voice.id
    assert all(v in range(256) for v in stored.vector) and len(stored.vector) > 8 * len(vector)
    empty = replace(voice, encoder="", vector=[])
    await rig.diary.set_voice(empty)
    assert await rig.diary.voices("ann") == [empty]


async def test_what_was_written_in_clear_is_read(rig: Rig) -> None:
    session, conversation = a_session(settings={"voice": "joe"}), a_conversation(voices={"by": "me"})
    turn = spoken(session.id)
    one_word = spoken(session.id, 2, words=turn.words[:1], partials=("Ça",))
    await rig.database.add_session(session)
    for t in (turn, one_word):
        await rig.database.add_turn(t)
    person = PersonRecord(new_id(), "ann", "Zoë", EARLY)
    segment = SegmentRecord(new_id(), conversation.id, "Hello", 0.0, 1.0)
    vector = np.ones(8, np.float32)
    memory = a_memory(conversation, 1, encoder="e/m", vector=vector)
    voice = VoiceRecord("ann", None, "e/m", [1.0, 2.0], 1.0, EARLY)
    await rig.clear.keep(conversation, [segment])
    await rig.clear.add_person(person)
    await rig.clear.set_voice(voice)
    assert await rig.conversations.turns(session.id) == [turn, one_word]
    assert await rig.conversations.get_session(session.id) == session
    assert await rig.diary.conversation("ann", conversation.id) == conversation
    assert await rig.diary.segments([conversation.id]) == {conversation.id: [segment]}
    assert await rig.diary.people("ann") == [person]
    assert await rig.diary.voices("ann") == [voice]
    await rig.clear.complete(replace(conversation, structured={"title": "A"}), [memory])
    assert (await rig.diary.conversation("ann", conversation.id)).structured == {"title": "A"}
    (found,) = await rig.diary.memories("ann", vectors=True)
    assert found == memory and found.vector is not None and np.array_equal(found.vector, vector)
    ((nearest, alike),) = await rig.diary.nearest_memories("ann", "e/m", vector, 5)
    assert nearest == memory and alike == pytest.approx(1.0, abs=1e-5)


async def test_values_do_not_stand_in_for_each_other(rig: Rig) -> None:
    """Who can write the database, but has no key, can swap what lies there."""
    conversation = a_conversation()
    said = [SegmentRecord(new_id(), conversation.id, f"{MARK} {n}", n, n + 1.0) for n in range(2)]
    await rig.diary.keep(conversation, said)
    ann, bob = (PersonRecord(new_id(), owner, "Zoë", EARLY) for owner in ("ann", "bob"))
    for person in (ann, bob):
        await rig.diary.add_person(person)
    stored = {s.id: s.text for s in (await rig.clear.segments([conversation.id]))[conversation.id]}
    async with rig.engine.begin() as connection:
        swap = update(segments).where(segments.c.id == said[0].id).values(text=stored[said[1].id])
        await connection.execute(swap)
        name = select(people.c.name).where(people.c.id == ann.id).scalar_subquery()
        await connection.execute(update(people).where(people.c.id == bob.id).values(name=name))
    with pytest.raises(Unreadable):
        await rig.diary.segments([conversation.id])
    with pytest.raises(Unreadable):
        await rig.diary.people("bob")
    assert (await rig.diary.people("ann")) == [ann]


async def test_without_the_key_nothing_is_read(rig: Rig) -> None:
    session = a_session(settings={"a": 1})
    await rig.conversations.add_session(session)
    turn = typed(session.id, transcript=MARK)
    await rig.conversations.add_turn(turn)
    await rig.keys.destroy("ann")
    with pytest.raises(Unreadable):
        await rig.conversations.turns(session.id)
    async with rig.engine.connect() as connection:
        rows = (await connection.execute(select(sessions.c.settings, sessions.c.owner))).all()
        left = (await connection.execute(select(user_keys.c.owner))).all()
    assert [row.owner for row in rows] == ["ann"] and json.dumps(rows[0].settings).count("enc1:") == 1
    assert [row.owner for row in left] == ["ann"], "a new key, which opens nothing of before"
