"""The client library against a running server, with a network that fails."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest
from cutting_proxy import cutting_proxy
from pydantic import SecretStr
from rich.console import Console
from serving import Server
from websockets.asyncio.client import connect as raw_connect

from app.api.messages import (
    LlmToken,
    Notice,
    ServerMessage,
    SessionReady,
    TranscriptionFinal,
    TurnComplete,
)
from app.audio.codecs import unpack_pcm16
from app.cli.server import embedded
from app.roles import BadInput, Busy, ColloquyError, NotAllowed, NotFound
from app.settings import Settings
from app.talk import NoServer, Pace, Recording, Sound, Talk, connect, health
from app.talk.client import KEPT_S
from corpus import load, recordings, wer

OUT = {"codec": "pcm16", "sample_rate": 24000, "binary": True}


async def until_complete(talk: Talk, turns: int = 1) -> list[ServerMessage]:
    """Everything up to the end of so many turns."""
    seen: list[ServerMessage] = []
    async with asyncio.timeout(120):
        async for message in talk:
            seen.append(message)
            turns -= isinstance(message, TurnComplete)
            if not turns:
                break
    return seen


def sound_of(messages: list[ServerMessage]) -> np.ndarray:
    packets = [p for m in messages if isinstance(m, Sound) for p in m.packets]
    return unpack_pcm16(b"".join(packets))


def only(messages: list[ServerMessage], kind: type) -> list:
    return [m for m in messages if isinstance(m, kind)]


def assert_in_order(messages: list[ServerMessage]) -> None:
    """Every event once, in order, none left out."""
    numbers = [m.seq for m in messages if not isinstance(m, SessionReady | Notice)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("binary", [True, False])
async def test_a_typed_turn_comes_whole(server: Server, binary: bool) -> None:
    async with connect(server.url, {"audio_out": OUT | {"binary": binary}}) as talk:
        await talk.text("What is your name?")
        messages = await until_complete(talk)
    assert_in_order(messages)
    [done] = only(messages, TurnComplete)
    assert "".join(m.token for m in only(messages, LlmToken)).strip() == done.reply
    sound = sound_of(messages)
    assert len(sound) / 24 == pytest.approx(done.audio_ms, abs=2)
    assert np.abs(sound).max() > 0.05
    assert talk.received_at > 0


async def test_a_spoken_turn_is_understood(server: Server) -> None:
    recording = next(r for r in recordings("reading") if r.id == "austen-880")
    async with connect(server.url) as talk:
        await talk.ready()
        pace = Pace(Recording(load(recording)))
        speaking = asyncio.create_task(pace.run(talk.send_audio, trailing=3.0))
        messages = await until_complete(talk)
        ended = await speaking
    [final] = only(messages, TranscriptionFinal)
    assert wer(recording.text, final.text) <= 0.4
    assert ended is not None and ended < talk.received_at


async def test_the_end_of_the_block_ends_the_session(server: Server) -> None:
    async with connect(server.url) as talk:
        session = talk.session_id
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.get(f"/api/v1/sessions/{session}")).json()["state"] == "ended"


async def test_a_reply_goes_on_after_a_lost_connection(server: Server) -> None:
    async with cutting_proxy(server.url) as proxy, connect(proxy.url, {"audio_out": OUT}) as talk:
        await talk.text("Tell me a long story about a fox and a crow, please.")
        messages = []
        async with asyncio.timeout(120):
            async for message in talk:
                messages.append(message)
                if len(only(messages, Sound)) == 3 and proxy.accepted < 3:
                    proxy.cut()
                if isinstance(message, TurnComplete):
                    break
    assert proxy.accepted >= 3  # REST, the first socket, and at least one more
    assert any(m.code == "RECONNECTING" for m in only(messages, Notice))
    first, *later = [m.resumed for m in only(messages, SessionReady)]
    assert not first and later and all(later)
    assert_in_order(messages)
    done = messages[-1]
    assert isinstance(done, TurnComplete)
    assert len(sound_of(messages)) / 24 == pytest.approx(done.audio_ms, abs=2)


async def test_what_is_said_while_the_connection_is_lost_is_heard(server: Server) -> None:
    recording = next(r for r in recordings("reading") if r.id == "austen-870")
    async with cutting_proxy(server.url) as proxy, connect(proxy.url) as talk:
        await talk.ready()
        speaking = asyncio.create_task(Pace(Recording(load(recording))).run(talk.send_audio, trailing=3.0))
        await asyncio.sleep(2.0)
        proxy.down = True
        proxy.cut()
        await asyncio.sleep(1.5)
        proxy.down = False
        messages = await until_complete(talk)
        await speaking
    assert talk.lost_s == 0
    said = " ".join(m.text for m in only(messages, TranscriptionFinal))
    assert wer(recording.text, said) <= 0.3


async def test_of_long_silence_on_the_line_the_newest_minute_is_kept(server: Server) -> None:
    second = bytes(32000)
    async with cutting_proxy(server.url) as proxy, connect(proxy.url) as talk:
        await talk.ready()
        proxy.down = True
        proxy.cut()
        async for message in talk:
            if isinstance(message, Notice):
                break
        await talk.text("still there?")
        for _ in range(int(KEPT_S) + 5):
            async with asyncio.timeout(5):
                await talk.send_audio(second)
        assert talk.lost_s == pytest.approx(5)
        proxy.down = False
        # Words and commands stay, however much sound there is.
        messages = await until_complete(talk)
    assert messages[-1].transcript == "still there?"  # type: ignore[union-attr]


async def test_a_session_that_is_ended_ends_the_iteration(server: Server) -> None:
    async with connect(server.url) as talk, httpx.AsyncClient(base_url=server.url) as http:
        await talk.ready()
        await http.delete(f"/api/v1/sessions/{talk.session_id}")
        async with asyncio.timeout(20):
            assert [m async for m in talk] == []


async def test_coming_back_to_an_ended_session_says_so(server: Server) -> None:
    async with cutting_proxy(server.url) as proxy, connect(proxy.url) as talk:
        await talk.ready()
        proxy.down = True
        proxy.cut()
        async with httpx.AsyncClient(base_url=server.url) as http:
            await http.delete(f"/api/v1/sessions/{talk.session_id}")
        proxy.down = False
        with pytest.raises(NotFound, match="no such session"):
            async with asyncio.timeout(30):
                async for message in talk:
                    assert isinstance(message, Notice)


async def test_a_displaced_client_is_told(server: Server) -> None:
    async with connect(server.url) as talk:
        await talk.ready()
        async with raw_connect(talk._url) as other:
            await other.send(json.dumps({"type": "text", "text": "Hello."}))
            with pytest.raises(ColloquyError, match="took over"):
                async with asyncio.timeout(60):
                    async for _ in talk:
                        pass


async def test_a_full_server_says_when_to_come_again(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        made = []
        while (answer := await http.post("/api/v1/sessions")).status_code == 201:
            made.append(answer.json()["session_id"])
        try:
            with pytest.raises(Busy, match="in use") as caught:
                async with connect(server.url):
                    pass
            assert caught.value.retry_after >= 1
        finally:
            for session in made:
                await http.delete(f"/api/v1/sessions/{session}")


async def test_a_key_is_needed_where_one_is_set(settings: Settings) -> None:
    locked = settings.model_copy(update={"api_keys": [SecretStr("open-sesame")]})
    async with embedded(locked, Console(stderr=True)) as url:
        for key in (None, "wrong"):
            with pytest.raises(NotAllowed, match="needs an API key"):
                async with connect(url, api_key=key):
                    pass
        async with connect(url, api_key="open-sesame") as talk:
            assert talk.session_id


async def test_refused_settings_name_the_field(server: Server) -> None:
    with pytest.raises(BadInput) as caught:
        async with connect(server.url, {"voice": "nobody"}):
            pass
    assert caught.value.field == "voice"
    with pytest.raises(BadInput) as caught:
        async with connect(server.url, {"audio_out": {"codec": "mp3"}}):
            pass
    assert caught.value.field == "audio_out.codec"


async def test_no_server_is_said_clearly() -> None:
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    with pytest.raises(NoServer, match="no server answers"):
        await health(url)
    listener.close()
    with pytest.raises(NoServer, match="colloquy serve"):
        async with connect(url):
            pass


async def test_another_program_is_not_taken_for_the_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    with pytest.raises(NoServer, match="not Colloquy"):
        await health(url)
    with pytest.raises(NoServer, match="not Colloquy"):
        async with connect(url):
            pass
    listener.close()


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://a b", "http://host:port", "http://h:0"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        await health(url)
    assert caught.value.field == "url"


async def test_health_takes_the_address_without_a_scheme(server: Server) -> None:
    answer = await health(server.url.removeprefix("http://"))
    assert answer["status"] == "healthy"
