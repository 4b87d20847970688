"""A client that stops reading costs a bounded amount of memory, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from serving import Server, make_settings, scripted
from websockets.client import ClientProtocol
from websockets.uri import parse_uri
from wire_client import new_session, talking

from app.api import closing
from app.api import socket as door
from app.roles import AudioChunk, EngineInfo

CLIENTS = 4
OUT = {"codec": "pcm16", "sample_rate": 48000, "binary": False}
KERNEL = 4096
"""Bytes of buffer asked of the kernel at both ends, which doubles it."""
TRANSPORT = 1 << 16
"""What asyncio's transport takes before it asks the writer to wait."""


class LongTts(ToneTts):
    """Two minutes of tone for whatever it is given, a second at a time."""

    info = EngineInfo("tts", "long")

    async def speak(self, text, options, job):  # type: ignore[no-untyped-def]
        for _ in range(120):
            yield AudioChunk(np.full(self.sample_rate, 0.5, np.float32), self.sample_rate)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(door, "_SEND_TIMEOUT_S", 1.5)
    settings = make_settings(tmp_path / "none", tmp_path, max_sessions=CLIENTS + 1)
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm("Hello there."), "tts": LongTts()}
    with scripted(settings, send_buffer=KERNEL, **engines) as server:
        yield server


class Deaf:
    """A WebSocket over a bare socket: reads only when told to."""

    def __init__(self, server: Server, session: dict[str, str]) -> None:
        url = f"{server.ws}{session['ws_url']}?token={session['token']}"
        self._protocol = ClientProtocol(parse_uri(url))
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
        self._socket.setblocking(False)
        self._address = "127.0.0.1", urlsplit(url).port
        self.close_code: int | None = None

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        while self._protocol.state.name == "CONNECTING":
            self._protocol.receive_data(await loop.sock_recv(self._socket, 1024))
        await self.say('{"type": "text", "text": "Tell me everything."}')

    async def say(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        await self._flush()

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read_to_the_end(self) -> int:
        """How many bytes had been waiting."""
        count = 0
        while data := await asyncio.get_running_loop().sock_recv(self._socket, 65536):
            count += len(data)
            self._protocol.receive_data(data)
            if self._protocol.close_rcvd is not None:
                self.close_code = self._protocol.close_rcvd.code
                break
        self._socket.close()
        return count


def buffered(server: Server) -> list[int]:
    """What the server's transports hold, in bytes."""
    connections = list(server.uvicorn.server_state.connections)
    return [c.transport.get_write_buffer_size() for c in connections]


@pytest.mark.parametrize("reads_again", [True, False])
async def test_who_does_not_read_is_closed_and_holds_little(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    reads_again: bool,
) -> None:
    monkeypatch.setattr(closing, "HANG_UP_S", 60.0 if reads_again else 1.0)
    caplog.set_level("INFO", door.__name__)
    context = server.app.state.context
    deaf = [Deaf(server, await new_session(server.url, audio_out=OUT)) for _ in range(CLIENTS)]
    async with talking(server.url, audio_out=OUT) as wire:
        for client in deaf:
            await client.connect()
        await wire.send("text", text="Hello?")
        largest, heard = 0, 0.0
        # Who reads gets all of its own meanwhile.
        async with asyncio.timeout(60):
            while caplog.text.count("does not read") < CLIENTS or heard < 2000:
                chunk = await wire.until("audio_chunk")
                assert chunk["offset_ms"] == pytest.approx(heard, abs=1)
                heard += chunk["duration_ms"]
                largest = max([largest, *buffered(server)])
            assert 0 < largest < TRANSPORT + (1 << 15)
            if reads_again:
                # It is told why, after the little that was on its way.
                assert max([await client.read_to_the_end() for client in deaf]) < TRANSPORT * 4
                assert {client.close_code for client in deaf} == {door.CLOSE_FELL_BEHIND}
            # In the end the server hangs up, told or not.
            while context.metrics.websocket_connections_active._value.get() > 1:
                await asyncio.sleep(0.05)
            # Their sessions wait for them to come back, as for anybody whose line broke.
            assert len(context.sessions) == CLIENTS + 1
            await wire.until("audio_chunk")
            if not reads_again:
                for client in deaf:
                    await client.read_to_the_end()
                    assert client.close_code is None
            while len(buffered(server)) > 1:
                await asyncio.sleep(0.05)
