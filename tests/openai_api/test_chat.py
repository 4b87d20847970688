"""`/v1/chat/completions` with OpenAI's own clients and the real language model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from dialogue.scripted import CountingStt, LoudVad, ToneTts
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, TypeAdapter
from serving import Server, make_settings, scripted

from app.engines.llama import Llama

KEY = "a-key-for-the-test"
MODEL = "gpt-4o-mini"
CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "get_time", "description": "Get the time"}}


@pytest.fixture(scope="module")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of whose models only the language model is real."""
    settings = make_settings(models_dir, tmp_path_factory.mktemp("chat"), api_keys=[KEY])
    with scripted(settings, vad=LoudVad(), stt=CountingStt(), tts=ToneTts()) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def later(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def llama(server: Server) -> Llama:
    engine = server.app.state.context.runtime._engines["llm"]
    assert isinstance(engine, Llama)
    return engine


def busy(server: Server) -> int:
    return sum(slot.busy for slot in llama(server)._slots)


# --- an answer --------------------------------------------------------------------------------------


def test_it_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, temperature=0, max_completion_tokens=40, user="u", metadata={"a": "b"}
    )
    choice = answer.choices[0]
    assert "Paris" in (choice.message.content or "") and choice.message.role == "assistant"
    assert (choice.index, choice.finish_reason, choice.message.tool_calls) == (0, "stop", None)
    assert (answer.object, answer.model, len(answer.choices)) == ("chat.completion", MODEL, 1)
    assert answer.id.startswith("chatcmpl-") and abs(answer.created - time.time()) < 600
    assert answer.system_fingerprint and answer._request_id
    usage = answer.usage
    assert usage and usage.prompt_tokens > 20 and 1 < usage.completion_tokens <= 40
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_what_is_sent_is_as_openai_has_it(client: openai.OpenAI) -> None:
    for wishes in ({}, {"tools": [WEATHER], "tool_choice": "required"}):
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=CAPITAL, temperature=0, max_tokens=40, **wishes
        )
        TypeAdapter(ChatCompletion).validate_json(raw.text, strict=True)
        lines = raw_stream(client, stream_options={"include_usage": True}, max_tokens=40, **wishes)
        for line in lines:
            TypeAdapter(ChatCompletionChunk).validate_json(line, strict=True)


def raw_stream(client: openai.OpenAI, **wishes: Any) -> list[str]:
    """The events of a stream; the end of it is checked."""
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=CAPITAL, stream=True, temperature=0, **wishes
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in raw.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [line.removeprefix("data: ") for line in lines[:-1]]


def test_messages_may_have_parts_and_a_developer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Answer with one word."}]},
            {"role": "user", "content": [{"type": "text", "text": "My name is Wolfgang."}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello, Wolfgang."}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "is my name?"}],
            },
        ],
        temperature=0,
        max_tokens=20,
    )
    assert "Wolfgang" in (answer.choices[0].message.content or "")


def test_a_reply_can_be_cut_short(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=40)
    text = whole.choices[0].message.content or ""
    cut = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=2)
    assert cut.choices[0].finish_reason == "length" and text.startswith(cut.choices[0].message.content or "?")
    assert cut.usage and cut.usage.completion_tokens == 2
    before = text.partition("Paris")[0]
    for stop in ("Paris", ["Berlin", "Paris"]):
        stopped = client.chat.completions.create(
            model=MODEL, messages=CAPITAL, temperature=0, max_tokens=40, stop=stop
        )
        assert (stopped.choices[0].message.content or "").strip() == before.strip() != text.strip()
        assert stopped.choices[0].finish_reason == "stop"


def test_a_seed_makes_it_repeatable(client: openai.OpenAI) -> None:
    told = [
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a story."}],
            temperature=1.5,
            top_p=0.99,
            seed=seed,
            max_tokens=16,
            n=1,
        )
        .choices[0]
        .message.content
        for seed in (5, 5, 6, 7)
    ]
    assert told[0] == told[1] and len(set(told)) > 1


# --- streamed ---------------------------------------------------------------------------------------


async def test_a_stream_is_the_same_answer(later: openai.AsyncOpenAI) -> None:
    wishes: dict[str, Any] = {"model": MODEL, "messages": CAPITAL, "temperature": 0, "max_tokens": 40}
    whole = await later.chat.completions.create(**wishes)
    chunks = [c async for c in await later.chat.completions.create(**wishes, stream=True)]
    first, *_, last = chunks
    assert first.choices[0].delta.role == "assistant" and not first.choices[0].delta.content
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert len(chunks) > 4 and text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert last.choices[0].finish_reason == "stop" and all(c.usage is None for c in chunks)
    assert len({c.id for c in chunks}) == 1 and {c.model for c in chunks} == {MODEL}

    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = [c async for c in await later.chat.completions.create(**wishes, **options)]
    assert not chunks[-1].choices and chunks[-1].usage == whole.usage
    assert all(c.usage is None for c in chunks[:-1])


def test_text_comes_while_it_is_written(server: Server, client: openai.OpenAI) -> None:
    story: Any = [{"role": "user", "content": "Tell me a long story."}]
    with client.chat.completions.create(model=MODEL, messages=story, stream=True, max_tokens=300) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                assert busy(server) == 1
                break


# --- JSON -------------------------------------------------------------------------------------------


class Person(BaseModel):
    name: str
    age: int
    mood: Literal["happy", "sad"]


async def test_json_is_parsed(client: openai.OpenAI, later: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Tell me about a person, as JSON."}]
    answer = client.chat.completions.parse(
        model=MODEL, messages=messages, response_format=Person, temperature=0, max_tokens=100
    )
    assert isinstance(answer.choices[0].message.parsed, Person)
    async with later.chat.completions.stream(
        model=MODEL, messages=messages, response_format=Person, temperature=0, max_tokens=100
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed
    plain = client.chat.completions.create(
        model=MODEL, messages=messages, response_format={"type": "json_object"}, temperature=0, max_tokens=150
    )
    assert isinstance(json.loads(plain.choices[0].message.content or ""), dict)


# --- tools ------------------------------------------------------------------------------------------


def test_a_tool_is_called_and_its_result_told(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "You are a friendly assistant. Answer in one short sentence."},
        {"role": "user", "content": "What is the weather in Paris?"},
    ]
    tools = [WEATHER, CLOCK]
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, tools=tools, temperature=0, parallel_tool_calls=False
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert choice.message.tool_calls and len(choice.message.tool_calls) == 1
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] == "Paris"
    messages += [
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "sunny"}'},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools, temperature=0)
    assert answer.choices[0].finish_reason == "stop" and not answer.choices[0].message.tool_calls
    said = answer.choices[0].message.content or ""
    assert "21" in said and "sunny" in said and "{" not in said


async def test_a_call_is_streamed(later: openai.AsyncOpenAI) -> None:
    wishes: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [WEATHER],
        "temperature": 0,
    }
    deltas = []
    async for chunk in await later.chat.completions.create(**wishes, stream=True):
        deltas += chunk.choices[0].delta.tool_calls or []
    assert chunk.choices[0].finish_reason == "tool_calls"
    assert deltas[0].id and deltas[0].function and deltas[0].function.name == "get_weather"
    pieces = [(d.function and d.function.arguments) or "" for d in deltas]
    assert len([p for p in pieces if p]) > 2 and not any(d.id for d in deltas[1:])
    async with later.chat.completions.stream(**wishes) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls and json.loads(calls[0].function.arguments) == json.loads("".join(pieces)) == {
        "city": "Paris"
    }


@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "get_weather"}}],
    ids=["required", "named"],
)
def test_a_call_can_be_demanded(client: openai.OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell me a joke."}],
        tools=[WEATHER, CLOCK],
        tool_choice=choice,
        temperature=0,
    )
    calls = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and calls and calls[0].type == "function"
    assert calls[0].function.name == "get_weather" or choice == "required"
    assert isinstance(json.loads(calls[0].function.arguments), dict)


def test_no_call_where_none_is_wanted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_tokens=40,
    )
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


# --- who waits for whom -----------------------------------------------------------------------------


def asked_of_all(client: openai.OpenAI, place: str) -> str:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"Say the word {place}."}],
        temperature=0,
        max_tokens=12,
    )
    return answer.choices[0].message.content or ""


def test_many_at_once_take_one_place(server: Server, client: openai.OpenAI) -> None:
    places = ["Oslo", "Lima", "Cairo", "Delhi", "Quito"]
    with ThreadPoolExecutor(len(places)) as pool:
        said = list(pool.map(lambda place: asked_of_all(client, place), places))
    assert all(place in text for place, text in zip(places, said, strict=True))
    owners = [slot.owner for slot in llama(server)._slots]
    assert sum(owner.startswith("chat-") for owner in owners) == 1, "conversations keep theirs"


async def idle(server: Server) -> None:
    async with asyncio.timeout(30):
        while busy(server) or llama(server)._waiting:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_work(server: Server, stream: bool) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a very long story."}]}
    body |= {"stream": stream, "max_tokens": 1500, "temperature": 0}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as http:

        async def ask() -> None:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for _ in answer.aiter_raw():
                    begun.set()

        for _ in range(2):
            begun = asyncio.Event()
            asking = asyncio.create_task(ask())
            async with asyncio.timeout(60):
                await (begun.wait() if stream else until_busy(server))
            assert busy(server) == 1
            behind = asyncio.create_task(ask())  # waits for the same place
            async with asyncio.timeout(30):
                while not llama(server)._waiting:
                    await asyncio.sleep(0.01)
            began = time.monotonic()
            for task in (behind, asking):
                task.cancel()
            await asyncio.wait([behind, asking])
            await idle(server)
            assert time.monotonic() - began < 15, "1500 tokens take longer"


async def until_busy(server: Server) -> None:
    while not busy(server):
        await asyncio.sleep(0.01)
