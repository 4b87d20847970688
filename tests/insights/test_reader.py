"""Conversations are read through LangChain over a real socket: a real model, and servers that fail."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from insights.llm_server import Answer, LlmServer, llm_server
from insights.test_made import GOOD
from serving import Server

from app.clients.openai_llm import OpenAiLlm
from app.insights.made import CATEGORIES, Made
from app.insights.reader import Reader
from app.roles import EngineFailed, LanguageModel, Misconfigured

BEGAN = datetime(2026, 11, 19, 9, 30, tzinfo=UTC)
LINES = [
    "User: Hi Maria, the report for Novak is due on Monday.",
    "Maria: I know. Could you send me the figures by tomorrow?",
    "User: Yes, I will send you the figures tomorrow morning. And let us meet on Monday at nine.",
    "Maria: Fine, Monday at nine in my office. By the way, how is your dog Rex?",
    "User: Rex is well again, thank you.",
]


@contextmanager
def client(url: str, **changes: Any) -> Iterator[OpenAiLlm]:
    given: dict[str, Any] = {"api_key": "key", "context_tokens": 2048, "timeout_s": 30.0}
    yield OpenAiLlm("m", base_url=url, **(given | changes))


def reader(llm: LanguageModel) -> Reader:
    async def there() -> LanguageModel:
        return llm

    return Reader(there)


@asynccontextmanager
async def answering(
    folder: Path, *answers: Answer, **changes: Any
) -> AsyncIterator[tuple[Reader, LlmServer]]:
    with llm_server(folder, *answers) as server, client(server.url, **changes) as llm:
        yield reader(llm), server
        await llm.close()


async def test_a_real_model_over_our_own_api(server: Server) -> None:
    with client(f"{server.url}/v1", timeout_s=120.0) as llm:
        made = await reader(llm).read(BEGAN, LINES, "test")
        await llm.close()
    assert 1 <= len(made.title.split()) <= 10
    assert made.overview and made.category in CATEGORIES
    assert Made.model_validate(made.model_dump()) == made


async def test_what_is_asked(tmp_path: Path) -> None:
    async with answering(tmp_path, json.dumps(GOOD)) as (read, server):
        made = await read.read(BEGAN, LINES, "test")
    assert json.loads(made.model_dump_json()) == GOOD
    (asked,) = server.asked
    system, user = asked["messages"]
    assert system["role"] == "system" and user["role"] == "user"
    assert user["content"].splitlines()[2:] == LINES and "2026-11-19T09:30+00:00" in user["content"]
    schema = asked["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == set(GOOD) == set(schema["properties"])
    assert asked["temperature"] == 0.0


@pytest.mark.parametrize(
    "first",
    ["Sure! They had a nice talk.", "[1, 2]", '{"title": 7, "category": []}', "", 400, "break"],
)
async def test_nonsense_is_asked_about_once_more(tmp_path: Path, first: Answer) -> None:
    """In another way: JSON of any form, which is told in words. Servers that know no schemas answer 400."""
    async with answering(tmp_path, first, f"```json\n{json.dumps(GOOD)}\n```") as (read, server):
        made = await read.read(BEGAN, LINES, "test")
    assert made.title == GOOD["title"]
    again = server.asked[-1]
    assert again["response_format"] == {"type": "json_object"}
    assert '"action_items": ["…"]' in again["messages"][0]["content"]


async def test_of_an_answer_that_was_cut_the_rest_is_used(tmp_path: Path) -> None:
    whole = json.dumps(GOOD)
    async with answering(tmp_path, whole[: whole.index('"events"')]) as (read, server):
        made = await read.read(BEGAN, LINES, "test")
    assert (made.title, made.events, made.memories) == (GOOD["title"], [], [])
    assert len(server.asked) == 1


@pytest.mark.parametrize("answer", ["nonsense", "{}", '{"title": "', 500, 401, "break"])
async def test_what_fails_twice_is_given_up(tmp_path: Path, answer: Answer) -> None:
    async with answering(tmp_path, answer) as (read, server):
        with pytest.raises((EngineFailed, Misconfigured)):
            await read.read(BEGAN, LINES, "test")
    # The client of the API tries thrice where that may help.
    assert len(server.asked) <= 6


async def test_a_server_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with answering(tmp_path, "hang", timeout_s=0.2) as (read, _):
        with pytest.raises(EngineFailed):
            await read.read(BEGAN, LINES, "test")


async def test_a_long_conversation_is_read_part_by_part(tmp_path: Path) -> None:
    lines = [f"Speaker {n % 2}: {'all work and no play ' * 20}" for n in range(60)]
    async with answering(tmp_path, json.dumps(GOOD)) as (read, server):
        server.notes = "They say that all is work."
        made = await read.read(BEGAN, lines, "test")
    assert made.title == GOOD["title"]
    sizes = [sum(len(m["content"]) for m in asked["messages"]) for asked in server.asked]
    assert len(sizes) > 10 and max(sizes) < 2048 * 3
    final = server.asked[-1]["messages"][1]["content"]
    assert server.notes in final and "no play" not in final


async def test_words_with_braces_are_words(tmp_path: Path) -> None:
    async with answering(tmp_path, json.dumps(GOOD)) as (read, server):
        await read.read(BEGAN, ["User: write {said} and {{form}} and {0}"], "test")
    assert "write {said} and {{form}} and {0}" in server.asked[0]["messages"][1]["content"]


async def test_nothing_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set these for another program did not mean what people say at home."""
    with llm_server(tmp_path / "tracer", 500) as tracer:
        for name, value in {"TRACING": "true", "API_KEY": "key", "ENDPOINT": tracer.url}.items():
            monkeypatch.setenv(f"LANGSMITH_{name}", value)
        from langsmith import run_trees, utils

        utils.get_env_var.cache_clear()
        clients: list[Any] = []
        monkeypatch.setattr(run_trees, "get_cached_client", lambda **given: clients.append(given))
        async with answering(tmp_path, json.dumps(GOOD)) as (read, _):
            await read.read(BEGAN, LINES, "test")
        assert clients == []
    utils.get_env_var.cache_clear()


async def test_without_langchain_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.insights import chat_model

    chat_model._class.cache_clear()
    for name in list(sys.modules):
        if name.startswith("langchain_core"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    async with answering(tmp_path, json.dumps(GOOD)) as (read, server):
        with pytest.raises(Misconfigured, match=r"colloquy\[insights\]"):
            await read.read(BEGAN, LINES, "test")
    assert server.asked == []
