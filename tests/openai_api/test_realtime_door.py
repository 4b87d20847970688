"""Who gets in at `/v1/realtime`, what happens to nonsense, and how a broken line is taken up again."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from realtime_client import STRICT, realtime
from serving import Server, make_settings, scripted
from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection, connect

KEY = "a-key-for-the-test"
AUTH = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a key, and two places."""
    made = make_settings(models_dir, tmp_path_factory.mktemp("door"), api_keys=[KEY], max_sessions=2)
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}
    with scripted(made, **engines) as server:
        yield server


async def frames(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """All that comes until the other side closes, and the code."""
    seen = []
    try:
        while True:
            frame = json.loads(await socket.recv())
            STRICT.validate_python(frame)
            seen.append(frame)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return seen, closed.rcvd.code


async def until(socket: ClientConnection, type_: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            STRICT.validate_python(frame)
            if frame["type"] == type_:
                return frame


def session_of(created: dict[str, Any]) -> uuid.UUID:
    return uuid.UUID(created["session"]["id"].removeprefix("sess_"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"additional_headers": {"Authorization": "Bearer wrong"}},
        {"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]},
    ],
)
async def test_strangers_are_told_why_and_sent_away(server: Server, options: dict[str, Any]) -> None:
    async with connect(f"{server.ws}/v1/realtime", **options) as socket:
        [error], code = await frames(socket)
    assert code == 1008 and error["error"]["code"] == "invalid_api_key"


async def test_browsers_show_their_key_as_a_subprotocol(server: Server) -> None:
    offered: Any = ["realtime", f"openai-insecure-api-key.{KEY}"]
    async with connect(
        f"{server.ws}/v1/realtime", subprotocols=offered, origin="https://elsewhere.example"
    ) as s:  # type: ignore[arg-type]
        assert s.subprotocol == "realtime"
        await until(s, "session.created")
    async with connect(f"{server.ws}/v1/realtime", additional_headers=AUTH) as s:
        assert s.subprotocol is None
        await until(s, "session.created")


async def test_a_full_server_says_try_later(server: Server) -> None:
    url = f"{server.ws}/v1/realtime"
    async with connect(url, additional_headers=AUTH) as one, connect(url, additional_headers=AUTH) as two:
        await until(one, "session.created")
        await until(two, "session.created")
        async with connect(url, additional_headers=AUTH) as three:
            [error], code = await frames(three)
        assert code == 1013 and "sessions are in use" in error["error"]["message"]
    # Who closes leaves at once, and makes room.
    async with asyncio.timeout(10):
        while True:
            async with connect(url, additional_headers=AUTH) as three:
                first = json.loads(await three.recv())
            if first["type"] == "session.created":
                break
            await asyncio.sleep(0.1)


async def test_a_conversation_goes_on_after_the_line_broke(server: Server) -> None:
    """With the SDK: the token comes with `session.created`, and goes into `extra_query`."""
    async with realtime(server, KEY) as talk:
        created = await talk.until("session.created")
        await talk.update(output_modalities=["text"])
        await talk.say("remember me")
        added = await talk.until("conversation.item.done")
        await talk.send("response.create")
        await talk.until("response.created")
        talk.sdk._connection.transport.abort()
        talk._reading.cancel()
    token = created["session"]["resume_token"]
    resume = {"resume": token, "last_event_id": added["event_id"]}
    async with realtime(server, KEY, extra_query=resume) as talk:
        done = await talk.until("response.done")
        assert done["response"]["status"] == "completed"
        # Each event once, from behind the one that was named.
        numbers = [int(e["event_id"].rpartition("_")[2]) for e in talk.seen]
        first = int(added["event_id"].rpartition("_")[2]) + 1
        assert numbers == list(range(first, first + len(numbers)))
        said = "".join(e["delta"] for e in talk.of("response.output_text.delta"))
        assert said == done["response"]["output"][0]["content"][0]["text"]
    async with connect(f"{server.ws}/v1/realtime?resume=nonsense") as socket:
        [error], code = await frames(socket)
    assert code == 1008 and error["type"] == "error"


async def test_ended_sessions_cannot_be_resumed(server: Server) -> None:
    async with realtime(server, KEY) as talk:
        created = await talk.until("session.created")
        token, session = created["session"]["resume_token"], session_of(created)
    async with asyncio.timeout(10):
        while server.app.state.context.talks:
            await asyncio.sleep(0.05)
    async with connect(f"{server.ws}/v1/realtime?resume={token}") as socket:
        [error], code = await frames(socket)
    assert code == 1008 and "has ended" in error["error"]["message"]
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH) as http:
        turns = await http.get(f"/api/v1/sessions/{session}/turns")
    assert turns.status_code == 200


async def test_what_is_too_large_is_refused_and_the_session_lives(server: Server) -> None:
    async with connect(f"{server.ws}/v1/realtime", additional_headers=AUTH, max_size=None) as socket:
        await until(socket, "session.created")
        for wrong in ("x" * (5 << 20), b"\x00" * 640, "{", "[]", "null", '"text"', "[" * 100_000, ""):
            await socket.send(wrong)
            error = await until(socket, "error")
            assert error["error"]["type"] == "invalid_request_error" and error["error"]["message"]
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
        await until(socket, "session.updated")


# --- nonsense -----------------------------------------------------------------------------------------

TYPES = [
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
    "no.such.event",
]
NAMES = [
    *("session", "audio", "item", "item_id", "previous_item_id", "response", "audio_end_ms", "content_index"),
    *("id", "type", "role", "content", "text", "call_id", "output", "name", "arguments", "input", "format"),
    *("turn_detection", "tools", "tool_choice", "instructions", "output_modalities", "metadata", "voice"),
]
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["message", "user", "input_text", "server_vad", "audio/pcm", "AAAAAAAA", "root", "none"]),
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)}, optional={name: values for name in NAMES if name != "type"}
)
good = st.sampled_from(
    [
        {"type": "response.create"},
        {"type": "response.cancel"},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {
            "type": "session.update",
            "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}},
        },
        {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}},
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        },
        {"type": "input_audio_buffer.append", "audio": "AAAA" * 400},
    ]
)
messages = st.one_of(
    events.map(json.dumps),
    good.map(json.dumps),
    st.tuples(events.map(json.dumps), st.integers(1, 40)).map(lambda t: t[0][: -t[1]]),
    st.binary(max_size=64),
    st.text(max_size=64),
)


@given(st.lists(messages, max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_nonsense_is_answered_and_the_session_lives(server: Server, sent: list[str | bytes]) -> None:
    async with connect(f"{server.ws}/v1/realtime", additional_headers=AUTH) as socket:
        await until(socket, "session.created")
        for message in sent:
            await socket.send(message)
        await socket.send(
            json.dumps({"type": "session.update", "event_id": "last", "session": {"type": "realtime"}})
        )
        await until(socket, "session.updated")
        await socket.send(json.dumps({"type": "no.such.event", "event_id": "at the end"}))
        async with asyncio.timeout(30):
            while (await until(socket, "error"))["error"]["event_id"] != "at the end":
                pass
    async with asyncio.timeout(20):
        while len(server.app.state.context.sessions):
            await asyncio.sleep(0.01)


async def test_each_wrong_event_gets_one_error_with_its_id(server: Server) -> None:
    async with connect(f"{server.ws}/v1/realtime", additional_headers=AUTH) as socket:
        await until(socket, "session.created")
        voice = {"type": "realtime", "audio": {"output": {"voice": "x"}}}
        image = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "x"}]}
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"type": "input_audio_buffer.append", "audio": "not base64!"}, "audio"),
            ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio"),
            ({"type": "input_audio_buffer.append"}, "audio"),
            ({"type": "session.update", "session": voice}, "session.audio.output.voice"),
            ({"type": "conversation.item.delete", "item_id": "nobody"}, "item_id"),
            ({"type": "conversation.item.create", "item": image}, "item.content[0]"),
        ]
        for i, (event, param) in enumerate(wrong):
            await socket.send(json.dumps(event | {"event_id": f"e{i}"}))
            error = (await until(socket, "error"))["error"]
            assert (error["event_id"], error["param"]) == (f"e{i}", param), error


async def test_what_was_said_before_leaving_is_kept(server: Server) -> None:
    async with realtime(server, KEY) as talk:
        session = session_of(await talk.until("session.created"))
        await talk.play(np.concatenate([silence(0.2), speech(1.0), silence(1.5)]))
        await talk.until("response.done")
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH) as http, asyncio.timeout(20):
        while not (turns := (await http.get(f"/api/v1/sessions/{session}/turns")).json()):
            await asyncio.sleep(0.05)
        sound = await http.get(f"/api/v1/sessions/{session}/turns/{turns[0]['turn_id']}/audio")
    assert turns[0]["transcript"].startswith("one two three") and turns[0]["reply"]
    assert sound.status_code == 200 and len(sound.content) > 32000
