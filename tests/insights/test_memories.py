"""Memories in a real database: with their vectors, and what becomes of these when the encoder changes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest_asyncio
from dialogue.scripted import WordEmbedding

from app.insights.meaning import Meaning
from app.insights.memories import Memories
from app.roles import EngineFailed, EngineInfo, TextEmbedding
from app.stores.diary import ConversationRecord, MemoryRecord
from app.stores.sql import open_conversations
from app.stores.sql_diary import SqlDiary

OWNER = "somebody"
NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest_asyncio.fixture
async def diary(database: str) -> AsyncIterator[SqlDiary]:
    store = await open_conversations(database)
    yield SqlDiary(store.engine)
    await store.close()


class Other(WordEmbedding):
    info = EngineInfo("embedding", "other", "wide")
    dimensions = 5000


class Narrow(WordEmbedding):
    dimensions = 384


def memories(diary: SqlDiary, encoder: TextEmbedding | None) -> Memories:
    async def embedding() -> TextEmbedding:
        if encoder is None:
            raise EngineFailed("it is broken")
        return encoder

    return Memories(diary, Meaning(embedding))


async def conversation(diary: SqlDiary) -> ConversationRecord:
    record = ConversationRecord(str(uuid.uuid4()), OWNER, NOW, NOW, NOW, NOW)
    await diary.keep(record, ())
    return record


async def keep(diary: SqlDiary, encoder: TextEmbedding | None, contents: Sequence[str]) -> list[str]:
    """Notes what is new of `contents`, as it is done when a conversation is over."""
    by, lines = await memories(diary, encoder).fresh(OWNER, contents)
    record = await conversation(diary)
    made = [
        MemoryRecord(str(uuid.uuid4()), OWNER, record.id, text, NOW + timedelta(seconds=n), by, place)
        for n, (text, place) in enumerate(lines)
    ]
    await diary.complete(record, made)
    return [text for text, _ in lines]


async def test_vectors_are_kept(diary: SqlDiary) -> None:
    words = WordEmbedding()
    assert await keep(diary, words, ["She has a dog", "a dog she has", "He sings"]) == [
        "She has a dog",
        "He sings",
    ]
    placed = await diary.memories(OWNER, vectors=True)
    for memory in placed:
        assert memory.encoder == "words/crc32" and memory.vector is not None
        assert memory.vector.dtype == np.float32 and np.isclose(np.linalg.norm(memory.vector), 1)
    assert [m.vector for m in await diary.memories(OWNER)] == [None, None], "nobody asked for them"
    assert await keep(diary, words, ["He sings.", "Has she a dog?", "He dances"]) == ["He dances"]


async def test_another_encoder_places_them_anew(diary: SqlDiary) -> None:
    await keep(diary, WordEmbedding(), ["She has a dog", "He sings"])
    found = await memories(diary, Other()).search(OWNER, "who sings", 5)
    assert [m.content for m in found] == ["He sings"] and found[0].vector is None
    assert {m.encoder for m in await diary.memories(OWNER)} == {"other/wide"}
    assert await keep(diary, Other(), ["A dog has she"]) == []


async def test_what_was_noted_without_an_encoder_is_placed_later(diary: SqlDiary) -> None:
    assert await keep(diary, None, ["She has a dog", "A dog has she", "she has a DOG!"]) == [
        "She has a dog",
        "A dog has she",
    ]
    assert {m.encoder for m in await diary.memories(OWNER)} == {None}
    by_words = await memories(diary, None).search(OWNER, "dog", 5)
    assert len(by_words) == 2
    assert await memories(diary, None).search(OWNER, "cat", 5) == []
    assert await keep(diary, WordEmbedding(), ["Has a dog she"]) == []
    assert {m.encoder for m in await diary.memories(OWNER)} == {"words/crc32"}


async def test_a_memory_that_was_written_anew_meanwhile_keeps_no_old_vector(diary: SqlDiary) -> None:
    await keep(diary, WordEmbedding(), ["She has a dog"])
    (old,) = await diary.memories(OWNER, vectors=True)
    await diary.change_memory(OWNER, old.id, "She has a cat")
    await diary.place_memories([old])
    (new,) = await diary.memories(OWNER, vectors=True)
    assert new.content == "She has a cat" and new.vector is None and new.encoder is None


async def test_thousands_are_looked_through(diary: SqlDiary) -> None:
    record = await conversation(diary)
    words = Narrow()
    contents = [f"fact number{n} of many" for n in range(1100)]
    vectors = (await words.embed(contents, None)).vectors  # type: ignore[arg-type]
    made = [
        MemoryRecord(str(uuid.uuid4()), OWNER, record.id, c, NOW - timedelta(seconds=n), "words/crc32", v)
        for n, (c, v) in enumerate(zip(contents, vectors, strict=True))
    ]
    await diary.complete(record, made)
    found = await memories(diary, words).search(OWNER, "number1050", 1)
    assert [m.content for m in found] == ["fact number1050 of many"]
    assert await keep(diary, words, ["Many of fact: number7"]) == []
