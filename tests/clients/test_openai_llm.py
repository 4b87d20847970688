"""The OpenAI-compatible client against llama.cpp's own server and a real model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import make_settings, running
from wire_client import talking

from app.clients.openai_llm import OpenAiLlm
from app.roles import ChatMessage, EngineFailed, Job, LlmOptions, Misconfigured

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
        return [piece async for piece in llm.reply(messages, LlmOptions(tokens, 0.0), Job())]
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


async def test_a_whole_turn_with_a_hosted_model(api: str, models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(
        models_dir, tmp_path, llm_provider="openai", llm_model_name="qwen", llm_base_url=api, llm_api_key=KEY
    )
    with running(settings) as server:
        async with talking(server.url) as wire:
            await wire.send("text", text="What is the capital of France?")
            done = await wire.until("turn_complete")
    assert "Paris" in done["reply"] and done["audio_ms"] > 300
