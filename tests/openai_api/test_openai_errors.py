"""OpenAI's shape of an error, as its client raises it; and the list of models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Server, make_settings, running, scripted

from app import runtime
from app.api.openai.errors import MAX_JSON_BYTES
from app.roles import ContextTooLong, EngineInfo

KEY = "a-key-for-the-test"
MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "Hello."}]


class NamedLlm(ScriptedLlm):
    info = EngineInfo("llm", "scripted", "small-writer")


class NamedStt(CountingStt):
    info = EngineInfo("stt", "scripted", "keen-ear")


@pytest.fixture(scope="module")
def llm() -> NamedLlm:
    return NamedLlm("First word second.")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, llm: NamedLlm) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("errors")
    given = make_settings(folder / "none", folder, api_keys=[KEY])
    with scripted(given, vad=LoudVad(), stt=NamedStt(), llm=llm, tts=ToneTts()) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def body_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, whose shape is checked."""
    assert set(answer.json()) == {"error"} and answer.headers["x-request-id"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


def test_a_wrong_key(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client:
        for ask in (lambda: client.chat.completions.create(model=MODEL, messages=HELLO), client.models.list):
            with pytest.raises(openai.AuthenticationError) as caught:
                ask()
            assert caught.value.code == "invalid_api_key" and caught.value.status_code == 401
    answer = httpx.get(f"{server.url}/v1/models")
    assert answer.status_code == 401 and body_of(answer)["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_p": float("1e400")}, "top_p"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 7}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "tool", "content": "21"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "user", "content": "half \ud800 of it"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0]",
        ),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: openai.OpenAI, changes: dict[str, Any], param: str
) -> None:
    given = {"model": MODEL, "messages": HELLO} | changes
    content = json.dumps(given).replace("Infinity", "1e400")
    answer = httpx.post(
        f"{client.base_url}chat/completions",
        content=content,
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    error = body_of(answer)
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] is not None and error["param"].startswith(param), error


def test_the_client_sees_what_is_wrong(client: openai.OpenAI, llm: NamedLlm) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="keen-ear", messages=HELLO)
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    assert "small-writer" in missing.value.message
    assert client.chat.completions.create(model="small-writer", messages=HELLO).model == "small-writer"


def test_a_reply_that_fails(client: openai.OpenAI, llm: NamedLlm) -> None:
    try:
        llm.fails_after = 0
        for stream in (True, False):
            with pytest.raises(openai.InternalServerError, match="broken") as caught:
                client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
            assert caught.value.type == "server_error"
        llm.fails_after = 2
        chunks = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        assert [next(chunks).choices[0].delta.content for _ in range(3)] == ["", "First", " word"]
        with pytest.raises(openai.APIError, match="broken"):
            next(chunks)
    finally:
        llm.fails_after = None
    assert client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content == llm.text


def test_a_conversation_that_is_too_long(
    client: openai.OpenAI, llm: NamedLlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> Any:
        raise ContextTooLong("3000 tokens are too many")
        yield

    monkeypatch.setattr(llm, "reply", refuse)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")


def test_a_bug_is_not_shown(client: openai.OpenAI, llm: NamedLlm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug(*_: object) -> Any:
        raise ZeroDivisionError("a secret of the inside")
        yield

    monkeypatch.setattr(llm, "reply", bug)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert "secret" not in str(caught.value) and caught.value.response.headers["x-should-retry"] == "false"


def test_what_is_no_json_is_too_large_or_is_not_there(server: Server) -> None:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
        path = "/v1/chat/completions"
        for content, kind in [
            (b"{", "application/json"),
            (b"[" * 100_000, "application/json"),
            (b"\xff\xfe", "application/json"),
            (b'"text"', "application/json"),
            (b"", "application/json"),
            (b"a=b", "application/x-www-form-urlencoded"),
            (json.dumps({"model": MODEL, "messages": HELLO}).encode(), "text/plain"),
        ]:
            answer = http.post(path, content=content, headers={"Content-Type": kind})
            assert answer.status_code == 400, content[:20]
            assert body_of(answer)["type"] == "invalid_request_error"

        def endless() -> Iterator[bytes]:
            yield b'{"model": "'
            for _ in range(MAX_JSON_BYTES // 65536 + 2):
                yield b"x" * 65536

        answer = http.post(path, content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413 and "MB" in body_of(answer)["message"]
        for method, url in [("GET", path), ("POST", "/v1/models"), ("POST", "/v1/edits"), ("GET", "/v1/")]:
            answer = http.request(method, url)
            assert answer.status_code == 404 and url in body_of(answer)["message"]


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "refusal"]) | _JSON, "text": _JSON}
)
_MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]) | _JSON,
        "content": st.text(max_size=5) | st.lists(_PART, max_size=2) | _JSON,
        "tool_calls": st.lists(st.fixed_dictionaries({"id": _JSON, "function": _JSON}), max_size=2) | _JSON,
        "tool_call_id": _JSON,
    },
)
_FIELDS: Any = dict.fromkeys(
    (
        "model stream stream_options max_tokens temperature top_p seed stop n tools tool_choice "
        "parallel_tool_calls response_format logprobs modalities functions anything"
    ).split(),
    _JSON,
)
_BODY = st.fixed_dictionaries(
    {},
    optional=_FIELDS | {"messages": st.lists(_MESSAGE, max_size=3) | _JSON, "model": st.just(MODEL) | _JSON},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_BODY)
def test_whatever_is_sent_is_answered_or_refused(server: Server, body: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=json.dumps(body),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    assert answer.status_code in (200, 400), (answer.status_code, answer.text, body)
    if answer.status_code == 400:
        body_of(answer)


async def test_a_model_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Any) -> Any:
        await asyncio.Event().wait()

    for key in list(runtime.PROVIDERS):
        monkeypatch.setitem(runtime.PROVIDERS, key, never)
    with (
        running(make_settings(tmp_path / "none", tmp_path)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="not ready") as caught:
            client.chat.completions.create(model=MODEL, messages=HELLO)
        assert caught.value.status_code == 503 and int(caught.value.response.headers["retry-after"]) > 0


# --- models -----------------------------------------------------------------------------------------


def test_the_models_that_there_are(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {"small-writer", "keen-ear", "text-embedding"} <= set(found)
    assert all(m.object == "model" and m.owned_by == "colloquy" and m.created > 1e9 for m in found.values())
    assert client.models.retrieve("small-writer") == found["small-writer"]


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "whisper-1", "tts-1", "text-embedding-3-small", "gpt-realtime", "o4-mini"]
)
def test_openais_names_are_known(client: openai.OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == name


def test_other_models_are_not_there(client: openai.OpenAI) -> None:
    for name in ("llama-9", "someone/else", "gpt 4"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"
