"""The life of conversations: across connections and servers, into silence, and what is made of them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from app_simulator import App, app, check_conversation, pcm
from dialogue.scripted import silence, speech
from serving import Server, make_settings, scripted

PAUSE = pcm(silence(1.5))


def words(count: int) -> list[bytes]:
    """Packets in which the scripted recogniser hears so many words."""
    return pcm(speech(count / 4))


@asynccontextmanager
async def rest(server: Server, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


async def listed(server: Server, key: str, **query: Any) -> list[dict[str, Any]]:
    async with rest(server, key) as client:
        answer = await client.get("/v1/conversations", params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
    for conversation in found:
        check_conversation(conversation)
    return found


async def test_silence_ends_a_conversation_and_the_next_begins_anew(small: Server, key: str) -> None:
    async with app(small, key, source="friend", conversation_timeout=120) as phone:
        await phone.status("ready")
        await phone.play([*pcm(silence(3)), *words(10), *PAUSE])
        await phone.until(lambda: phone.text.endswith("ten"))
        (first,) = phone.shown
        assert first["start"] < 0.5, "times run from the start of the conversation"
        (going_on,) = await listed(small, key)
        assert going_on["status"] == "in_progress" and going_on["source"] == "friend"
        await phone.play(pcm(silence(121), 3200))
        started = await phone.event("memory_processing_started")
        assert started["memory"]["id"] == going_on["id"]
        made = (await phone.event("memory_created"))["memory"]
        assert made["structured"]["title"] == "Counting"
        assert [i["description"] for i in made["structured"]["action_items"]] == ["Count to ten"]
        assert [s["text"] for s in made["transcript_segments"]] == [first["text"]]
        phone.segments.clear()
        await phone.play([*words(3), *PAUSE])
        await phone.until(lambda: phone.text == "one two three")
        assert phone.shown[0]["start"] < 0.5 and phone.shown[0]["id"] != first["id"]
    newest, oldest = await listed(small, key)
    assert (newest["status"], oldest["status"]) == ("in_progress", "completed")
    assert oldest["id"] == going_on["id"]


async def test_a_long_gap_of_fast_sound_ends_it_too(small: Server, key: str) -> None:
    """The clock that ends conversations is that of what was said, not ours."""
    async with app(small, key) as phone:
        await phone.status("ready")
        await phone.play([*words(8), *pcm(silence(130), 3200), *words(9), *PAUSE])
        await phone.until(lambda: phone.text.count("eight") == 2)
        await phone.event("memory_created")
    assert [len(c["transcript_segments"]) for c in await listed(small, key)] == [1, 1]


async def test_a_conversation_goes_on_across_sockets(small: Server, key: str) -> None:
    async with app(small, key, scale=1000) as phone:
        await phone.status("ready")
        await phone.play([*words(5), *PAUSE, *words(4)])
        await phone.until(lambda: len(phone.text.split()) >= 6)
        await phone.drop()
        # The real app comes back after 15 s: by then what it had sent is heard.
        async with asyncio.timeout(30):
            while len(small.app.state.context.sessions):
                await asyncio.sleep(0.02)
        await phone.come_back()
        await phone.until(lambda: phone.statuses.count("ready") == 2)
        await phone.play([*words(3), *PAUSE])
        heard = "one two three four five one two three four one two three"
        await phone.until(lambda: phone.text == heard)
        (segment,) = phone.shown
        assert segment["end"] > 4.5
    (kept,) = await listed(small, key)
    assert [s["text"] for s in kept["transcript_segments"]] == [heard]
    assert kept["transcript_segments"][0]["id"] == segment["id"]


async def test_a_conversation_goes_on_in_another_process(
    tmp_path: Path, engines: dict[str, Any], key: str
) -> None:
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=[key], speaker_provider="none")
    with scripted(settings, **engines) as one, scripted(settings, **engines) as other:
        async with app(one, key) as phone:
            await phone.status("ready")
            await phone.play([*words(5), *PAUSE])
            await phone.until(lambda: phone.text.endswith("five"))
            before = phone.shown
            # Words are kept moments after they are shown.
            async with asyncio.timeout(30):
                while [s["text"] for c in await listed(one, key) for s in c["transcript_segments"]] != [
                    before[0]["text"]
                ]:
                    await asyncio.sleep(0.05)
            # The first server is not told: its process may be gone.
            await phone.drop()
            phone.server = other
            phone.segments.clear()
            await phone.connect()
            await phone.until(lambda: phone.segments)
            assert phone.shown == before, "the app is told again what it may have missed"
            await phone.until(lambda: phone.statuses.count("ready") == 2)
            await phone.play([*words(3), *PAUSE])
            await phone.until(lambda: phone.text.endswith("five one two three"))
            assert len(phone.segments) == 1
            async with rest(one, key) as client:
                ended = await client.post("/v1/conversations")
            assert ended.status_code == 200 and ended.json()["conversation"]["id"]
            # The one that holds the connection learns of it by the next words.
            phone.segments.clear()
            await phone.play([*words(2), *PAUSE])
            await phone.until(lambda: phone.text.endswith("one two"))
            await phone.play([*words(6), *PAUSE])
            await phone.until(lambda: any(s["text"].endswith("six") for s in phone.shown))
        assert [c["status"] for c in await listed(other, key)] == ["in_progress", "completed"]


async def test_the_app_ends_a_conversation(small: Server, key: str) -> None:
    async with app(small, key) as phone, rest(small, key) as client:
        await phone.status("ready")
        assert (await client.post("/v1/conversations")).status_code == 404
        await phone.play([*words(9), *PAUSE])
        await phone.until(lambda: phone.text.endswith("nine"))
        answer = (await client.post("/v1/conversations")).json()
        check_conversation(answer["conversation"])
        assert answer["messages"] == []
        assert answer["conversation"]["structured"]["category"] == "education"
        told = await phone.event("memory_created")
        assert told["memory"] == answer["conversation"]
        assert (await client.get("/v3/memories")).json()[0]["content"] == "The user can count"
        assert (await client.post("/v1/conversations")).status_code == 404
    async with app(small, key) as phone:
        last = await phone.event("last_memory")
        assert last["memory_id"] == answer["conversation"]["id"]


async def test_little_is_kept_without_memories(small: Server, key: str) -> None:
    async with app(small, key) as phone, rest(small, key) as client:
        await phone.status("ready")
        await phone.play([*words(2), *PAUSE])
        await phone.until(lambda: phone.text == "one two")
        made = (await client.post("/v1/conversations")).json()["conversation"]
        assert made["structured"]["title"] == "one two"
        assert (await client.get("/v3/memories")).json() == []
        assert (await client.get("/v1/action-items")).json() == {"action_items": [], "has_more": False}


@contextmanager
def saying(engines: dict[str, Any], text: str, *, fails: bool = False) -> Iterator[None]:
    llm = engines["llm"]
    before = llm.text, llm.fails_after
    llm.text, llm.fails_after = text, 0 if fails else None
    try:
        yield
    finally:
        llm.text, llm.fails_after = before


LONG = '{"title": "' + "word " * 30 + '", "category": "nonsense", "emoji": "x", '
ITEMS = '"action_items": ["a", 3, null, "A!"]}'
HEARD = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("text", "fails", "title"),
    [
        ("", True, HEARD),
        ("This is no JSON.", False, HEARD),
        ("[1, 2]", False, HEARD),
        (
            '{"title": 7, "events": [{"start": "soon"}, 5]}',
            False,
            HEARD,
        ),
        (LONG + ITEMS, False, " ".join(["word"] * 10)),
    ],
)
async def test_a_conversation_is_kept_whatever_the_model_says(
    small: Server, key: str, engines: dict[str, Any], text: str, fails: bool, title: str
) -> None:
    with saying(engines, text, fails=fails):
        async with app(small, key) as phone, rest(small, key) as client:
            await phone.status("ready")
            await phone.play([*words(10), *PAUSE])
            await phone.until(lambda: phone.text.endswith("ten"))
            made = (await client.post("/v1/conversations")).json()["conversation"]
            check_conversation(made)
            assert made["structured"]["title"] == title
            assert made["structured"]["category"] == "other"
            assert made["structured"]["events"] == []
            assert made["status"] == "completed" and made["transcript_segments"][0]["text"].endswith("ten")
            if "action_items" in text:
                assert [i["description"] for i in made["structured"]["action_items"]] == ["a"]


async def test_what_is_to_be_done_is_noted_once(small: Server, key: str) -> None:
    async with app(small, key) as phone, rest(small, key) as client:
        await phone.status("ready")
        for _ in range(2):
            phone.segments.clear()
            await phone.play([*words(10), *PAUSE])
            await phone.until(lambda: phone.text.endswith("ten"))
            assert (await client.post("/v1/conversations")).status_code == 200
        (item,) = (await client.get("/v1/action-items")).json()["action_items"]
        assert len((await client.get("/v3/memories")).json()) == 1
        done = await client.patch(f"/v1/action-items/{item['id']}/completed", params={"completed": True})
        assert done.json()["completed"] is True
        assert (await client.get("/v1/action-items", params={"completed": False})).json()[
            "action_items"
        ] == []


async def test_a_long_conversation_is_read_in_parts(small: Server, key: str, engines: dict[str, Any]) -> None:
    llm = engines["llm"]
    llm.asked.clear()
    said = [{"text": "all work and no play " * 40, "start": n * 10.0, "end": n * 10.0 + 9} for n in range(30)]
    async with app(small, key, custom_stt="enabled") as phone, rest(small, key) as client:
        await phone.status("ready")
        await phone.say(type="suggested_transcript", segments=said)
        await phone.until(lambda: phone.text.count("play") == 1200)
        with saying(engines, "They say that work is all."):
            made = (await client.post("/v1/conversations")).json()["conversation"]
    assert len(made["transcript_segments"]) > 5
    assert made["structured"]["title"] == "all work and no play all work and no play"
    assert len(llm.asked) > 3
    assert max(sum(len(m.content.split()) for m in asked) for asked in llm.asked) < llm.context_tokens


async def test_the_user_says_who_speaks(small: Server, key: str) -> None:
    async with app(small, key) as phone, rest(small, key) as client:
        ada = (await client.post("/v1/users/people", json={"name": "Ada"})).json()
        await phone.status("ready")
        await phone.play([*words(4), *PAUSE])
        await phone.until(lambda: phone.text.endswith("four"))
        (segment,) = phone.shown
        message = {"type": "speaker_assigned", "speaker_id": 0, "segment_ids": [segment["id"]]}
        await phone.say(**message, person_id="somebody else's", person_name="Eve")
        await phone.say(**message, person_id=ada["id"], person_name="Ada")
        await phone.play([*words(3), *PAUSE])
        await phone.until(lambda: phone.text.endswith("four one two three"))
        assert phone.shown[0]["person_id"] == ada["id"]
        (kept,) = await listed(small, key)
        assert {s["person_id"] for s in kept["transcript_segments"]} == {ada["id"]}
        await phone.say(**message, person_id="user", person_name="Me")
        await phone.play([*words(2), *PAUSE])
        await phone.until(lambda: phone.shown[-1]["is_user"])
        assert (await client.delete(f"/v1/users/people/{ada['id']}")).status_code == 204


async def test_a_conversation_can_be_deleted_while_it_goes_on(small: Server, key: str) -> None:
    async with app(small, key) as phone, rest(small, key) as client:
        await phone.status("ready")
        await phone.play([*words(4), *PAUSE])
        await phone.until(lambda: phone.text.endswith("four"))
        (kept,) = await listed(small, key)
        assert (await client.delete(f"/v1/conversations/{kept['id']}")).status_code == 204
        assert await listed(small, key) == []
        phone.segments.clear()
        await phone.play([*words(3), *PAUSE])
        await phone.until(lambda: phone.text == "one two three")
        (new,) = await listed(small, key)
        assert new["id"] != kept["id"]


async def test_a_server_ends_what_another_left(
    tmp_path: Path, engines: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody comes back, and the process that heard it is gone; or it died while it made something of it."""
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=[key], speaker_provider="none")
    with scripted(settings, **engines) as server:
        async with app(server, key) as phone:
            await phone.status("ready")
            for _ in range(2):
                phone.segments.clear()
                await phone.play([*words(10), *pcm(silence(125), 3200)])
                await phone.until(lambda: phone.text.endswith("ten"))
                await phone.event("memory_created")
                phone.events.clear()
    long_ago = str(datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1))
    database = sqlite3.connect(tmp_path / "data" / "colloquy.db")
    ids = [row[0] for row in database.execute("SELECT id FROM conversations ORDER BY started_at")]
    change = "UPDATE conversations SET status=?, structured=NULL, ends_at=?, touched_at=? WHERE id=?"
    database.execute(change, ("in_progress", long_ago, long_ago, ids[0]))
    database.execute(change, ("processing", long_ago, long_ago, ids[1]))
    database.commit()
    database.close()
    with scripted(settings, **engines) as server:
        async with asyncio.timeout(30):
            while [c["status"] for c in await listed(server, key)] != ["completed"] * 2:
                await asyncio.sleep(0.1)
        assert [c["structured"]["title"] for c in await listed(server, key)] == ["Counting"] * 2


async def test_others_see_nothing_of_it(small: Server, key: str, _keys: Iterator[str]) -> None:
    stranger = next(_keys)
    async with app(small, key) as phone:
        await phone.status("ready")
        await phone.play([*words(4), *PAUSE])
        await phone.until(lambda: phone.text.endswith("four"))
        (kept,) = await listed(small, key)
    assert await listed(small, stranger) == []
    async with rest(small, stranger) as client:
        assert (await client.get(f"/v1/conversations/{kept['id']}")).status_code == 404
        assert (await client.delete(f"/v1/conversations/{kept['id']}")).status_code == 404
        assert (await client.post("/v1/conversations")).status_code == 404
    assert len(await listed(small, key)) == 1


async def test_pages_of_conversations(small: Server, key: str) -> None:
    async with app(small, key) as phone, rest(small, key) as client:
        await phone.status("ready")
        for n in range(3):
            phone.segments.clear()
            await phone.play([*words(n + 2), *PAUSE])
            await phone.until(lambda: phone.text.startswith("one two"))
            await asyncio.sleep(0.7)
            await client.post("/v1/conversations")
    everything = await listed(small, key)
    assert len(everything) == 3
    assert await listed(small, key, limit=1, offset=1) == everything[1:2]
    assert await listed(small, key, statuses="completed,processing", include_discarded="false") == everything
    assert await listed(small, key, statuses="in_progress") == []
    async with rest(small, key) as client:
        one = await client.get(f"/v1/conversations/{everything[0]['id']}")
        assert one.json() == everything[0]
        assert (await client.get("/v1/conversations", params={"limit": 0})).status_code == 422
        assert (await client.get("/v1/conversations/nonsense")).status_code == 404


async def test_a_server_that_stops_hears_the_last_words(
    tmp_path: Path, engines: dict[str, Any], key: str
) -> None:
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=[key], speaker_provider="none")
    with scripted(settings, **engines) as server:
        phone = App(server, headers={"Authorization": f"Bearer {key}"})
        await phone.connect()
        await phone.status("ready")
        await phone.play([*words(5), *PAUSE, *words(4)])
        await phone.until(lambda: len(phone.text.split()) >= 6)
        server.uvicorn.should_exit = True
        assert await phone.closed() == 1001
    with scripted(settings, **engines) as server:
        (kept,) = await listed(server, key)
        assert kept["status"] == "in_progress"
        assert kept["transcript_segments"][0]["text"] == "one two three four five one two three four"


async def test_without_the_database_the_last_words_of_a_connection_wait_on_the_disk(
    small: Server, key: str
) -> None:
    database = small.settings.data_dir / "colloquy.db"
    async with app(small, key) as phone:
        await phone.status("ready")
        await phone.play([*words(2), *PAUSE])
        await phone.until(lambda: phone.text == "one two")
        await asyncio.to_thread(renamed, database, "segments", "away")
        try:
            await phone.play([*words(4), *PAUSE])
            await phone.until(lambda: phone.text.endswith("three four"))
            await phone.leave()
            async with asyncio.timeout(20):
                while not any(p.suffix == ".entry" for p in (small.settings.data_dir / "spool").rglob("*")):
                    await asyncio.sleep(0.05)
        finally:
            await asyncio.to_thread(renamed, database, "away", "segments")
    async with asyncio.timeout(30):
        while True:
            kept = await listed(small, key)
            if " ".join(s["text"] for c in kept for s in c["transcript_segments"]).endswith("three four"):
                break
            await asyncio.sleep(0.1)


def renamed(database: Path, old: str, new: str) -> None:
    connection = sqlite3.connect(database, timeout=30)
    connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
    connection.close()
