"""What is made of conversations, over REST: made again, kept once, found, changed and forgotten."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from app_simulator import app, check_conversation
from insights.llm_server import LlmServer, llm_server
from serving import Server, make_settings, scripted

from app.clients.openai_llm import OpenAiLlm

GOOD: dict[str, Any] = {
    "title": "Lunch on Friday",
    "overview": "They agree to have lunch.",
    "emoji": "🍜",
    "category": "social",
    "action_items": ["Book a table for Friday", "Send the report to Anna"],
    "events": [{"title": "Lunch", "description": "", "start": "2026-11-20T12:00:00+01:00"}],
    "memories": ["The user likes spicy noodles", "The user has a dog"],
}
SAID = "Let us have lunch on Friday, and please send the report to Anna"


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlmServer]:
    with llm_server(tmp_path_factory.mktemp("llm"), "nonsense") as server:
        yield server


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, engines: dict[str, Any], llm: LlmServer, keys: list[str]
) -> Iterator[Server]:
    """A server whose language model is a client of `llm`."""
    data: Path = tmp_path_factory.mktemp("made")
    client = OpenAiLlm("m", base_url=llm.url, api_key="key", context_tokens=4096, timeout_s=0.3)
    settings = make_settings(data / "none", data, api_keys=keys, speaker_provider="none")
    with scripted(settings, **(engines | {"llm": client})) as server:
        yield server


@asynccontextmanager
async def rest(server: Server, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


async def said(server: Server, key: str, text: str = SAID) -> dict[str, Any]:
    """A conversation of `text`, after it ended."""
    async with app(server, key, custom_stt="enabled") as phone, rest(server, key) as client:
        await phone.status("ready")
        await phone.say(type="suggested_transcript", segments=[{"text": text, "start": 0.0, "end": 5.0}])
        await phone.until(lambda: phone.text == text)
        answer = await client.post("/v1/conversations")
    assert answer.status_code == 200, answer.text
    conversation: dict[str, Any] = answer.json()["conversation"]
    check_conversation(conversation)
    assert conversation["status"] == "completed"
    assert [s["text"] for s in conversation["transcript_segments"]] == [text]
    return conversation


def items(conversation: dict[str, Any]) -> list[str]:
    return [i["description"] for i in conversation["structured"]["action_items"]]


@pytest.mark.parametrize(
    "failure", ["nonsense", '{"title', "[]", '{"title": {}, "memories": 7}', 500, "hang"]
)
async def test_a_conversation_is_kept_and_can_be_made_again(
    small: Server, llm: LlmServer, key: str, failure: Any
) -> None:
    llm.answers = [failure]
    kept = await said(small, key)
    assert kept["structured"]["title"] == "Let us have lunch on Friday, and please send the"
    assert kept["structured"]["emoji"] == "🧠" and kept["structured"]["events"] == []
    async with rest(small, key) as client:
        path = f"/v1/conversations/{kept['id']}"
        again = await client.post(f"{path}/reprocess")
        assert again.status_code == 502 and again.json()["code"] == "ENGINE_FAILED"
        assert (await client.get(path)).json() == kept
        assert (await client.get("/v3/memories")).json() == []
        llm.answers = [json.dumps(GOOD)]
        made = (await client.post(f"{path}/reprocess")).json()
        check_conversation(made)
        assert (await client.get(path)).json() == made
        assert made["structured"]["title"] == GOOD["title"] and items(made) == GOOD["action_items"]
        assert made["transcript_segments"] == kept["transcript_segments"]
        assert {m["content"] for m in (await client.get("/v3/memories")).json()} == set(GOOD["memories"])


async def test_made_again_takes_the_place_of_what_was(small: Server, llm: LlmServer, key: str) -> None:
    llm.answers = [json.dumps(GOOD)]
    made = await said(small, key)
    done, other = made["structured"]["action_items"]
    async with rest(small, key) as client:
        await client.patch(f"/v1/action-items/{done['id']}/completed")
        llm.answers = [
            json.dumps(
                GOOD
                | {
                    "title": "Anna's report",
                    "action_items": ["Book a table for Friday", "Call Anna"],
                    "memories": ["The user has a dog"],
                }
            )
        ]
        again = (await client.post(f"/v1/conversations/{made['id']}/reprocess")).json()
        assert again["structured"]["title"] == "Anna's report"
        assert items(again) == ["Book a table for Friday", "Call Anna"]
        assert again["structured"]["action_items"][0] == {**done, "completed": True}
        listed = (await client.get("/v1/action-items")).json()["action_items"]
        assert {i["description"] for i in listed} == set(items(again))
        assert other["id"] not in {i["id"] for i in listed}
        assert [m["content"] for m in (await client.get("/v3/memories")).json()] == ["The user has a dog"]


async def test_what_is_known_is_not_noted_twice(small: Server, llm: LlmServer, key: str) -> None:
    llm.answers = [json.dumps(GOOD)]
    await said(small, key)
    other = GOOD | {
        "action_items": ["Send to Anna the report", "Book a table for Sunday"],
        "memories": ["the user has a dog.", "The user has a cat"],
    }
    llm.answers = [json.dumps(other)]
    assert items(await said(small, key)) == ["Book a table for Sunday"]
    async with rest(small, key) as client:
        contents = [m["content"] for m in (await client.get("/v3/memories")).json()]
        assert sorted(contents) == sorted([*GOOD["memories"], "The user has a cat"])


async def test_memories_are_found_by_what_they_mean(small: Server, llm: LlmServer, key: str) -> None:
    llm.answers = [json.dumps(GOOD)]
    await said(small, key)
    async with rest(small, key) as client:

        async def found(query: str, **more: Any) -> list[str]:
            answer = await client.get("/v3/memories", params={"query": query, **more})
            assert answer.status_code == 200, answer.text
            return [m["content"] for m in answer.json()]

        assert await found("noodles spicy") == ["The user likes spicy noodles"]
        assert (await found("the user has what"))[0] == "The user has a dog"
        assert len(await found("the user", limit=1)) == 1
        assert await found("the user", offset=2) == []
        assert await found("quantum") == []
        (memory,) = (await client.get("/v3/memories", params={"query": "dog"})).json()
        change = await client.patch(f"/v3/memories/{memory['id']}", params={"value": "The user has a parrot"})
        assert change.json()["content"] == "The user has a parrot"
        # What was changed is placed anew when somebody looks for it.
        assert await found("parrot") == ["The user has a parrot"] and await found("dog") == []
        assert (await client.delete(f"/v3/memories/{memory['id']}")).status_code == 200
        assert await found("parrot") == []
        assert (await client.delete("/v3/memories")).status_code == 200
        assert (await client.get("/v3/memories")).json() == []


async def test_action_items_are_changed(small: Server, llm: LlmServer, key: str) -> None:
    llm.answers = [json.dumps(GOOD)]
    made = await said(small, key)
    async with rest(small, key) as client:
        first, second = made["structured"]["action_items"]
        path = f"/v1/action-items/{first['id']}"
        item = (await client.get(path)).json()
        assert item["completed"] is False and item["completed_at"] is item["due_at"] is None
        assert datetime.fromisoformat(item["created_at"]).tzinfo is not None
        change = {"completed": True, "description": "Book  the table", "due_at": "2026-11-20T09:00:00.000Z"}
        item = (await client.patch(path, json=change)).json()
        assert item == (await client.get(path)).json()
        assert item["description"] == "Book the table" and item["completed"]
        assert datetime.fromisoformat(item["due_at"]) == datetime.fromisoformat("2026-11-20T09:00:00+00:00")
        assert datetime.fromisoformat(item["completed_at"]).tzinfo is not None
        again = (await client.patch(path, json={"due_at": None, "completed": False})).json()
        assert again["due_at"] is again["completed_at"] is None and again["description"] == "Book the table"
        for wrong in ({"due_at": "soon"}, {"due_at": "2026-11-20T09:00:00"}, {"completed": 7}):
            assert (await client.patch(path, json=wrong)).status_code == 422
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404
        told = (await client.get(f"/v1/conversations/{made['id']}")).json()
        assert items(told) == [second["description"]]
        page = (await client.get("/v1/action-items", params={"limit": 5000})).json()
        assert [i["id"] for i in page["action_items"]] == [second["id"]] and page["has_more"] is False


async def test_pages_of_action_items(small: Server, llm: LlmServer, key: str) -> None:
    llm.answers = [json.dumps(GOOD)]
    made = await said(small, key)
    async with rest(small, key) as client:

        async def page(**query: Any) -> tuple[int, bool]:
            answer = (await client.get("/v1/action-items", params=query)).json()
            return len(answer["action_items"]), answer["has_more"]

        done = made["structured"]["action_items"][0]["id"]
        await client.patch(f"/v1/action-items/{done}/completed", params={"completed": "true"})
        assert await page(limit=1) == (1, True)
        assert await page(limit=1, offset=1) == (1, False)
        assert await page(limit=2) == (2, False)
        assert await page(completed="true") == (1, False)
        assert await page(include_completed="false") == (1, False)
        assert await page(conversation_id=made["id"]) == (2, False)
        assert await page(conversation_id=str(uuid.uuid4())) == await page(conversation_id="x") == (0, False)


async def test_what_is_somebody_elses_is_not_there(
    small: Server, llm: LlmServer, key: str, _keys: Iterator[str]
) -> None:
    llm.answers = [json.dumps(GOOD)]
    made = await said(small, key)
    async with rest(small, key) as client:
        (memory, _) = (await client.get("/v3/memories")).json()
    paths = [
        ("POST", f"/v1/conversations/{made['id']}/reprocess"),
        *((m, f"/v3/memories/{memory['id']}?value=mine") for m in ("PATCH", "DELETE")),
        *(
            (m, f"/v1/action-items/{made['structured']['action_items'][0]['id']}")
            for m in ("GET", "PATCH", "DELETE")
        ),
    ]
    async with rest(small, next(_keys)) as stranger:
        for method, path in [*paths, *((m, p.replace(p.split("/")[3][:36], "nonsense")) for m, p in paths)]:
            body = {"completed": True} if method == "PATCH" else None
            assert (await stranger.request(method, path, json=body)).status_code == 404, path
        assert (await stranger.delete("/v3/memories")).status_code == 200
    async with rest(small, key) as client:
        assert len((await client.get("/v3/memories")).json()) == 2
        assert (await client.get(f"/v1/conversations/{made['id']}")).json() == made


async def test_what_goes_on_cannot_be_made_again(small: Server, key: str) -> None:
    async with app(small, key, custom_stt="enabled") as phone, rest(small, key) as client:
        await phone.status("ready")
        await phone.say(type="suggested_transcript", segments=[{"text": SAID, "start": 0.0, "end": 5.0}])
        await phone.until(lambda: phone.text == SAID)
        # Words are kept moments after they are shown.
        async with asyncio.timeout(30):
            while not (kept := (await client.get("/v1/conversations")).json()):
                await asyncio.sleep(0.05)
        (going_on,) = kept
        answer = await client.post(f"/v1/conversations/{going_on['id']}/reprocess")
        assert answer.status_code == 422 and answer.json()["field"] == "conversation_id"
