"""What an owner has in the database, in each kind of it: named, and deleted without what is another's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from uuid import uuid4

from sqlalchemy import func, insert, select
from store_records import EARLY, a_session, spoken, typed

from app.stores.crypt import MasterKeys, UserKeys
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
    UserRecord,
    VoiceRecord,
)
from app.stores.sql import SqlConversations, open_conversations
from app.stores.sql_diary import SqlDiary
from app.stores.sql_keys import SqlKeys
from app.stores.sql_owned import Span, SqlOwned, owned
from app.stores.tables import metadata, prosody_scores, synthesized_audios, voice_profiles


def _id() -> str:
    return str(uuid4())


async def fill(store: SqlConversations, owner: str) -> str:
    """A row in every table that is an owner's, and a session without turns. Gives the other one's id."""
    await UserKeys(MasterKeys([bytes(32)]), SqlKeys(store.engine)).cipher(owner)
    session, turn = a_session(owner=owner), spoken("")
    turn = replace(turn, session_id=session.id, audio_key=f"raw_inputs/{owner}.wav")
    await store.add_session(session)
    await store.add_session(a_session(owner=owner))
    await store.add_turn(turn)
    later = EARLY + timedelta(days=2)
    await store.add_turn(typed(session.id, 2, created_at=later))
    diary = SqlDiary(store.engine)
    times = dict.fromkeys(("started_at", "finished_at", "touched_at", "ends_at"), EARLY)
    talk = ConversationRecord(id=_id(), owner=owner, **times)
    person = PersonRecord(_id(), owner, "Zoë", EARLY)
    await diary.add_person(person)
    await diary.keep(talk, [SegmentRecord(_id(), talk.id, "Hello", 0.0, 1.0, person_id=person.id)])
    memory, item = (_id(), owner, talk.id, "A thing", EARLY), (_id(), owner, talk.id, "To do", EARLY)
    await diary.complete(talk, [MemoryRecord(*memory)], [ActionItemRecord(*item)])
    voice = VoiceRecord(owner, person.id, "e", [1.0], 1.0, EARLY, f"speech_profiles/{owner}/a.wav")
    await diary.set_voice(voice)
    await diary.set_user(UserRecord(owner, "en", f"speech_profiles/{owner}/b.wav", 1.0))
    await diary.listened(owner, date(2026, 11, 21), 2.0)
    profile = {"id": _id(), "owner": owner, "name": "Me", "seconds": 1.0, "created_at": EARLY}
    made = {"id": _id(), "turn_id": turn.id, "mode": "hq", "audio_seconds": 1.0, "synthesis_ms": 1.0}
    scores = {"confidence": 1.0, "stability": 1.0, "affability": 1.0, "features": {}}
    async with store.engine.begin() as connection:
        profile_key, made_key = f"voices/{owner}.wav", f"synthesized/{owner}.wav"
        await connection.execute(insert(voice_profiles).values(**profile, audio_key=profile_key))
        mine = {"audio_key": made_key, "created_at": EARLY, "voice_profile_id": profile["id"]}
        await connection.execute(insert(synthesized_audios).values(**made, **mine))
        said = {"id": _id(), "transcription_id": turn.transcription_id, "created_at": EARLY}
        await connection.execute(insert(prosody_scores).values(**scores, **said))
    return session.id


async def rows(store: SqlConversations) -> Counter[str]:
    async with store.engine.connect() as connection:
        counts = {
            table.name: await connection.scalar(select(func.count()).select_from(table))
            for table in metadata.sorted_tables
        }
    return Counter({name: count or 0 for name, count in counts.items()})


async def test_all_of_one_owner_and_nothing_of_another(database: str) -> None:
    store = await open_conversations(database)
    held = SqlOwned(store.engine)
    session_id = await fill(store, "ann")
    of_one = await rows(store)
    await fill(store, "ben")
    assert {name for name, count in of_one.items() if count} == {table.name for table in owned()}

    assert await held.object_keys("ann") == {
        *("raw_inputs/ann.wav", "voices/ann.wav", "synthesized/ann.wav"),
        *("speech_profiles/ann/a.wav", "speech_profiles/ann/b.wav"),
    }
    spans = await held.spans("ann")
    assert len(spans) == 2
    assert Span(session_id, EARLY.date(), (EARLY + timedelta(days=3)).date()) in spans
    assert await held.listened("ann") == [(date(2026, 11, 21), 2.0)]

    erased = await held.erase("ann")
    await held.scrub()
    del of_one["user_keys"]
    assert erased == +of_one
    assert await held.erase("ann") == Counter()
    left = await rows(store)
    assert left.pop("user_keys") == 2 and left == of_one
    assert len(await store.sessions("ben")) == 2
    await store.close()


def test_every_table_is_somebodys() -> None:
    assert set(metadata.tables) - {table.name for table in owned()} == {"system_logs"}
