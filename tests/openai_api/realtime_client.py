"""OpenAI's own realtime client, with every frame that comes held against OpenAI's schema."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pydantic
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from serving import Server

from app.audio.codecs import encoder
from app.roles import SAMPLE_RATE, Samples

STRICT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RealtimeServerEvent)
FRAMES = {"checked": 0}
"""How many frames all tests have held against the schema."""


class Realtime:
    """A connection that reads by itself; `seen` is all that came."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.sdk = connection
        self.seen: list[dict[str, Any]] = []
        self.closed: int | None = None
        self._mark = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        from websockets import ConnectionClosed

        try:
            while True:
                frame = json.loads(await self.sdk.recv_bytes())
                STRICT.validate_python(frame)
                FRAMES["checked"] += 1
                self.seen.append(frame)
        except ConnectionClosed as closed:
            self.closed = closed.rcvd.code if closed.rcvd else 1006

    async def until(self, type_: str, count: int = 1, *, seconds: float = 60) -> dict[str, Any]:
        """The `count`-th event of a type that comes after the last one that was waited for."""
        async with asyncio.timeout(seconds):
            while True:
                found = [i for i, e in enumerate(self.seen) if e["type"] == type_ and i >= self._mark]
                if len(found) >= count:
                    self._mark = found[count - 1] + 1
                    return self.seen[found[count - 1]]
                if self._reading.done():
                    self._reading.result()
                    raise AssertionError(f"closed with {self.closed} before {type_}; {self.types()[-10:]}")
                await asyncio.sleep(0.005)

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [e for e in self.seen if e["type"] == type_]

    def types(self) -> list[str]:
        return [e["type"] for e in self.seen]

    async def send(self, type_: str, **fields: Any) -> None:
        await self.sdk.send({"type": type_, **fields})  # type: ignore[misc,arg-type]

    async def update(self, **session: Any) -> dict[str, Any]:
        await self.send("session.update", session={"type": "realtime", **session})
        return (await self.until("session.updated"))["session"]

    async def play(
        self, samples: Samples, *, codec: str = "pcm16", rate: int = 24000, paced: bool = False
    ) -> None:
        """Send sound (16 kHz) in pieces of 20 ms."""
        packer = encoder(codec, SAMPLE_RATE, rate)
        for at in range(0, len(samples), 320):
            data = b"".join(p.data for p in packer.encode(samples[at : at + 320]))
            if data:
                await self.sdk.input_audio_buffer.append(audio=base64.b64encode(data).decode())
            if paced:
                await asyncio.sleep(0.02)

    async def say(self, text: str, **item: Any) -> None:
        """A typed message of the user."""
        content = [{"type": "input_text", "text": text}]
        await self.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content, **item}
        )

    def sound(self, response_id: str) -> bytes:
        """All sound of a response."""
        deltas = [
            e["delta"] for e in self.of("response.output_audio.delta") if e["response_id"] == response_id
        ]
        return b"".join(base64.b64decode(d) for d in deltas)

    async def stop(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def realtime(server: Server, key: str = "any", **options: Any) -> AsyncIterator[Realtime]:
    """A conversation with `server` through the SDK."""
    given: dict[str, Any] = {"model": "gpt-realtime"} | options
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key)
    async with client, client.realtime.connect(**given) as connection:
        talk = Realtime(connection)
        try:
            yield talk
            if talk._reading.done():
                talk._reading.result()
        finally:
            await talk.stop()
