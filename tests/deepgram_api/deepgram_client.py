"""Deepgram's own client against a server of ours, and sound as people send it."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlencode

import av
import httpx
import numpy as np
import numpy.typing as npt
import soxr
from pydantic import TypeAdapter
from serving import Server
from websockets.asyncio.client import ClientConnection, connect

import corpus

with warnings.catch_warnings():  # the client imports what is deprecated in `websockets`
    warnings.simplefilter("ignore")
    import websockets.legacy.client  # noqa: F401
    from deepgram import AsyncDeepgramClient, DeepgramClient
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.listen.v1.client import V1Client  # noqa: F401
    from deepgram.listen.v1.media.client import MediaClient  # noqa: F401
    from deepgram.listen.v1.socket_client import V1SocketClientResponse

Sound = npt.NDArray[np.float32]
Json = dict[str, Any]

_MESSAGES: Any = TypeAdapter(V1SocketClientResponse)


def environment(server: Server) -> DeepgramClientEnvironment:
    return DeepgramClientEnvironment(
        base=server.url, production=server.ws, agent=server.ws, agent_rest=server.url
    )


@contextmanager
def client(server: Server, key: str = "unused") -> Iterator[DeepgramClient]:
    with httpx.Client(timeout=60) as http:  # its own is never closed
        yield DeepgramClient(api_key=key, environment=environment(server), httpx_client=http)


@asynccontextmanager
async def async_client(server: Server, key: str = "unused") -> AsyncIterator[AsyncDeepgramClient]:
    async with httpx.AsyncClient(timeout=60) as http:
        yield AsyncDeepgramClient(api_key=key, environment=environment(server), httpx_client=http)


def recording(*names: str, gap: float = 0.0, tail: float = 1.5) -> Sound:
    """Recordings of people, `gap` seconds of silence before each and `tail` behind the last."""
    found = {r.id: r for r in corpus.recordings()}
    silence = np.zeros(int(gap * 16000), np.float32)
    pieces = [piece for name in names for piece in (silence, corpus.load(found[name]))]
    return np.concatenate([*pieces, np.zeros(int(tail * 16000), np.float32)])


def text_of(*names: str) -> str:
    found = {r.id: r.text for r in corpus.recordings()}
    return " ".join(found[name] for name in names)


def pcm(sound: Sound) -> bytes:
    return (sound * 32767).astype("<i2").tobytes()


def at_rate(sound: Sound, rate: int) -> Sound:
    moved: Sound = soxr.resample(sound, 16000, rate)
    return moved


def container(sound: Sound, format_: str, codec: str, rate: int = 48000) -> bytes:
    """`sound` in a container, written without seeking back, as a recorder streams it."""
    file = io.BytesIO()

    class Writer:
        write = staticmethod(file.write)

    with av.open(Writer(), "w", format=format_) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(sound[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = 16000
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


def cut(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


class Wire:
    """A stream by hand; `seen` all messages, each of which the client's own types must take strictly."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[Json] = []

    async def say(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def play(self, packets: Iterable[bytes], *, pause: float = 0.0) -> None:
        for packet in packets:
            await self.socket.send(packet)
            if pause:
                await asyncio.sleep(pause)

    async def receive(self) -> Json:
        message: Json = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
        strict(message)
        self.seen.append(message)
        return message

    async def until(self, type_: str, **fields: Any) -> Json:
        while (message := await self.receive())["type"] != type_ or any(
            message[k] != v for k, v in fields.items()
        ):
            pass
        return message

    async def finish(self) -> Json:
        """Close the stream; its summary."""
        await self.say("CloseStream")
        summary = await self.until("Metadata")
        await asyncio.wait_for(self.socket.wait_closed(), 10)
        assert self.socket.close_code == 1000
        return summary


@asynccontextmanager
async def streaming(
    server: Server, *, headers: dict[str, str] | None = None, subprotocols: Any = None, **query: Any
) -> AsyncIterator[Wire]:
    """A stream with these options."""
    url = f"{server.ws}/v1/listen?{urlencode(query, doseq=True)}"
    async with connect(url, max_size=None, additional_headers=headers, subprotocols=subprotocols) as socket:
        yield Wire(socket)


def strict(message: Json) -> None:
    """Fails if the client's types do not take `message`, or take it for another."""
    parsed = _MESSAGES.validate_python(message)
    assert parsed.type == message["type"]


def finals(seen: Sequence[Json]) -> list[Json]:
    return [m for m in seen if m["type"] == "Results" and m["is_final"]]


def words_of(seen: Sequence[Json]) -> list[Json]:
    return [w for m in finals(seen) for w in m["channel"]["alternatives"][0]["words"]]


def said(seen: Sequence[Json]) -> str:
    """All that is final."""
    return " ".join(m["channel"]["alternatives"][0]["transcript"] for m in finals(seen)).strip()


def lawful(seen: Sequence[Json]) -> None:
    """What is final follows what was final before, without a gap, an overlap or a second thought."""
    reached = 0.0
    for message in (m for m in seen if m["type"] == "Results"):
        end = message["start"] + message["duration"]
        assert abs(message["start"] - reached) < 0.002
        for word in message["channel"]["alternatives"][0]["words"]:
            assert message["start"] - 0.002 <= word["start"] <= word["end"] <= end + 0.002
        if message["is_final"]:
            reached = end
        else:
            assert not message["speech_final"]
    words = words_of(seen)
    for earlier, later in itertools.pairwise(words):
        assert earlier["end"] <= later["start"] + 0.001
