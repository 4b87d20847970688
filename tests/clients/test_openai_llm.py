"""The OpenAI-compatible client against llama.cpp's own server and a real model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dialogue.scripted import CountingStt, LoudVad, ToneTts
from serving import make_settings, running, scripted
from wire_client import talking

from app.clients.openai_llm import OpenAiLlm
from app.roles import (
    BadInput,
    ChatMessage,
    ContextTooLong,
    EngineFailed,
    Job,
    LlmEnd,
    LlmOptions,
    LlmPiece,
    Misconfigured,
    Tool,
    ToolCall,
    ToolCallPiece,
)

KEY = "a-key-for-the-test"
QUESTION = [ChatMessage("user", "What is the capital of France? Answer with one word.")]


@pytest.fixture(scope="module")
def api(model_dir: Callable[[str], Path]) -> Iterator[str]:
    """Base URL of a server that speaks OpenAI's protocol."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(next(model_dir("qwen2.5-coder-0.5b-instruct-q4_k_m").glob("*.gguf")))
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    params.api_keys = [KEY]
    params.port = 0
    params.endpoint_slots = True
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def client(url: str, **changes: Any) -> OpenAiLlm:
    given: dict[str, Any] = {"base_url": url, "api_key": KEY, "context_tokens": 2048, "timeout_s": 30.0}
    return OpenAiLlm("qwen", **(given | changes))


async def written(llm: OpenAiLlm, messages: list[ChatMessage], tokens: int = 32) -> list[str]:
    try:
        return [p async for p in llm.reply(messages, LlmOptions(tokens, 0.0), Job()) if isinstance(p, str)]
    finally:
        await llm.close()


async def test_a_reply_streams(api: str) -> None:
    pieces = await written(
        client(api), [*QUESTION[:-1], ChatMessage("user", "Count from one to ten in words.")]
    )
    assert len(pieces) > 5 and "three" in "".join(pieces).lower()


async def test_closing_the_generator_stops_the_server(api: str) -> None:
    llm = client(api)
    stream = llm.reply([ChatMessage("user", "Tell me a very long story.")], LlmOptions(1500), Job())
    assert await anext(stream)
    await stream.aclose()
    async with httpx.AsyncClient(
        base_url=api.removesuffix("/v1"), headers={"Authorization": f"Bearer {KEY}"}
    ) as http:
        until = time.monotonic() + 10
        while any(slot["is_processing"] for slot in (await http.get("/slots")).json()):
            assert time.monotonic() < until, "the server went on writing"
            await asyncio.sleep(0.05)
    await llm.close()


async def test_a_wrong_key_says_which_setting(api: str) -> None:
    with pytest.raises(Misconfigured, match="LLM_API_KEY"):
        await written(client(api, api_key="wrong"), QUESTION)


async def test_a_server_that_is_not_there_says_so() -> None:
    with pytest.raises(EngineFailed, match="LLM_BASE_URL"):
        await written(client("http://127.0.0.1:9/v1"), QUESTION)


async def test_a_server_that_hangs_is_given_up() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    with pytest.raises(EngineFailed, match="did not answer"):
        await written(client(url, timeout_s=0.2), QUESTION)
    assert len(writers) == 3  # it was tried again while nothing had come
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


WEATHER = Tool(
    "get_weather",
    "Get the current weather in a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(scope="module")
def ours(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server of ours; of its models only the language model is real."""
    settings = make_settings(models_dir, tmp_path_factory.mktemp("ours"), api_keys=[KEY])
    with scripted(settings, vad=LoudVad(), stt=CountingStt(), tts=ToneTts()) as server:
        yield f"{server.url}/v1"


async def all_of(url: str, messages: list[ChatMessage], **options: Any) -> list[LlmPiece]:
    llm = client(url)
    try:
        given = LlmOptions(**({"max_tokens": 60, "temperature": 0.0} | options))
        return [piece async for piece in llm.reply(messages, given, Job())]
    finally:
        await llm.close()


async def test_a_reply_ends_with_why_and_what_it_cost(ours: str) -> None:
    *_, end = await all_of(ours, QUESTION)
    assert isinstance(end, LlmEnd) and end.reason == "stop"
    assert end.prompt_tokens > 20 and end.completion_tokens > 0
    *_, end = await all_of(ours, QUESTION, max_tokens=1, seed=3, top_p=0.9)
    assert isinstance(end, LlmEnd) and (end.reason, end.completion_tokens) == ("length", 1)
    pieces = await all_of(ours, QUESTION, max_tokens=0, stop=("a",))
    assert not any("a" in p for p in pieces if isinstance(p, str))


async def test_a_tool_is_called_and_its_result_told(ours: str) -> None:
    asked = [ChatMessage("user", "What is the weather in Paris?")]
    for choice in ("auto", "required", "get_weather"):
        *parts, end = await all_of(ours, asked, tools=(WEATHER, Tool("get_time")), tool_choice=choice)
        calls = [part for part in parts if isinstance(part, ToolCallPiece)]
        assert calls and calls[0].id and isinstance(end, LlmEnd) and end.reason == "tool_calls"
    arguments = "".join(call.arguments for call in calls)
    assert calls[0].name == "get_weather" and "Paris" in json.loads(arguments)["city"]
    told = [
        *asked,
        ChatMessage("assistant", "", (ToolCall(calls[0].id, "get_weather", arguments),)),
        ChatMessage("tool", "sunny, 21 degrees", (), calls[0].id),
    ]
    said = await all_of(ours, told, tools=(WEATHER,))
    assert "sunny" in "".join(p for p in said if isinstance(p, str))


async def test_a_schema_is_kept(ours: str) -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["blue"]}}, "required": ["mood"]}
    for wanted in (schema, {}):
        pieces = await all_of(ours, [ChatMessage("user", "How are you?")], json_schema=wanted)
        found = json.loads("".join(p for p in pieces if isinstance(p, str)))
        assert isinstance(found, dict)
        assert wanted == {} or found["mood"] == "blue"


async def test_what_the_server_cannot_do_is_the_askers_fault(ours: str, api: str) -> None:
    with pytest.raises(BadInput, match="schema"):
        await all_of(ours, QUESTION, json_schema={"type": "nonsense"})
    for url in (ours, api):
        with pytest.raises(ContextTooLong):
            await all_of(url, [ChatMessage("user", "word " * 3000)])


async def test_a_whole_turn_with_a_hosted_model(api: str, models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(
        models_dir, tmp_path, llm_provider="openai", llm_model_name="qwen", llm_base_url=api, llm_api_key=KEY
    )
    with running(settings) as server:
        async with talking(server.url) as wire:
            await wire.send("text", text="What is the capital of France?")
            done = await wire.until("turn_complete")
    assert "Paris" in done["reply"] and done["audio_ms"] > 300
