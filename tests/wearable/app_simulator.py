"""The mobile app as a server sees it: its handshake, its strict parsing, its timers, its upsert by id.

It parses as compiled code with fixed types does: what is missing, null where it may not be, or of another
type than it expects is a crash of the app, here a `Crash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from serving import Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks.common.wearables import PACKERS, aac, lc3, opus, pcm

__all__ = ["PACKERS", "App", "Crash", "aac", "app", "check_conversation", "lc3", "opus", "pcm"]

Json = dict[str, Any]

RECONNECT_S = 15.0
PONG = b"\x8a\x00"
_SEGMENT: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "speaker": (str,),
    "speaker_id": (int,),
    "is_user": (bool,),
    "person_id": (str, type(None)),
    "start": (float, int),
    "end": (float, int),
    "translations": (list,),
    "speech_profile_processed": (bool,),
    "stt_provider": (str,),
}
_EVENT: dict[str, dict[str, tuple[type, ...]]] = {
    "service_status": {"status": (str,), "status_text": (str,)},
    "last_memory": {"memory_id": (str,)},
    "memory_processing_started": {"memory": (dict,), "messages": (list,)},
    "memory_created": {"memory": (dict,), "messages": (list,)},
    "segments_deleted": {"segment_ids": (list,)},
    "speaker_label_suggestion": {
        "speaker_id": (int,),
        "person_id": (str,),
        "person_name": (str,),
        "segment_id": (str,),
    },
}
_STRUCTURED: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "overview": (str,),
    "emoji": (str,),
    "category": (str,),
    "action_items": (list,),
    "events": (list,),
}


class Crash(AssertionError):
    """What the server sent would have crashed the app."""


def check(value: Json, shape: dict[str, tuple[type, ...]], what: str) -> None:
    for name, types in shape.items():
        if name not in value:
            raise Crash(f"{what} lacks {name}: {value}")
        if type(value[name]) not in types:
            raise Crash(f"{name} of {what} is {value[name]!r}")


def check_conversation(value: Json) -> None:
    check(value, {"id": (str,), "created_at": (str,), "structured": (dict,)}, "a conversation")
    check(value["structured"], _STRUCTURED, "what was made of it")


@dataclass
class App:
    """A phone and its wearable. `segments` is what its screen shows, by id; `events` all that it was told.
    `frames` are the texts that came, with their times."""

    server: Server
    query: Json = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/v4/listen"
    scale: float = 1.0
    """Its timers run so much faster."""
    segments: dict[str, Json] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    frames: list[tuple[float, str]] = field(default_factory=list)
    pings: int = 0
    closes: list[int | None] = field(default_factory=list)
    _socket: ClientConnection | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _reader: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        query = {"language": "en", "sample_rate": 16000, "codec": "pcm16", "uid": "nobody", **self.query}
        url = f"{self.server.ws}{self.path}?{urlencode(query)}"
        headers = {"X-App-Platform": "ios", "X-App-Version": "1.0.500", **self.headers}
        self._socket = await connect(
            url, additional_headers=headers, max_size=None, ping_interval=None, close_timeout=300
        )
        self._reader = asyncio.create_task(self._read(self._socket))

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                if isinstance(frame, bytes):
                    raise Crash("the app expects no data")
                self.frames.append((asyncio.get_running_loop().time(), frame))
                if frame == "ping":
                    self.pings += 1
                    await socket.send(PONG)
                else:
                    self._take(json.loads(frame))
                self._news.set()
                self._news = asyncio.Event()
        except ConnectionClosed:
            pass
        finally:
            self.closes.append(socket.close_code)
            self._news.set()
            self._news = asyncio.Event()

    def _take(self, message: Any) -> None:
        if isinstance(message, list):
            for segment in message:
                check(segment, _SEGMENT, "a segment")
                if not re.fullmatch(r"[A-Z]+_\d+", segment["speaker"]):
                    raise Crash(f"no number after _ in {segment['speaker']!r}")
                if int(segment["speaker"].split("_")[1]) != segment["speaker_id"]:
                    raise Crash("the label and the number differ")
                self.segments[segment["id"]] = segment
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise Crash(f"neither an array nor an event: {message!r}")
        check(message, _EVENT.get(message["type"], {}), message["type"])
        if "memory" in message:
            check_conversation(message["memory"])
        if message["type"] == "segments_deleted":
            for id_ in message["segment_ids"]:
                self.segments.pop(id_, None)
        self.events.append(message)

    # --- what tests do with it -------------------------------------------------------------------

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    async def play(self, packets: Iterable[bytes]) -> None:
        """Send packets as fast as they are taken. Without a connection they are lost."""
        for packet in packets:
            with contextlib.suppress(ConnectionClosed):
                await self.socket.send(packet)

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def until(self, seen: Callable[[], Any], seconds: float = 60.0) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := seen()):
                if self._reader is not None and self._reader.done():
                    self._reader.result()
                news = self._news
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await news.wait()
        return found

    async def status(self, name: str) -> Json:
        found: Json = await self.until(
            lambda: next((e for e in self.events if e.get("status") == name), None)
        )
        return found

    async def event(self, kind: str, seconds: float = 60.0) -> Json:
        found: Json = await self.until(lambda: self._first("type", kind), seconds)
        return found

    def _first(self, name: str, value: str) -> Json | None:
        return next((e for e in self.events if e.get(name) == value), None)

    async def closed(self) -> int | None:
        """Wait until the server has closed; how."""
        assert self._reader is not None
        await self._reader
        return self.closes[-1]

    async def drop(self) -> None:
        """The radio is gone: no close handshake."""
        self.socket.transport.abort()
        await self.closed()

    async def come_back(self) -> None:
        """As its timer does."""
        await asyncio.sleep(RECONNECT_S / self.scale)
        await self.connect()

    async def leave(self) -> None:
        await self.socket.close()
        await self.closed()

    @property
    def shown(self) -> list[Json]:
        """What its screen shows, in order."""
        return sorted(self.segments.values(), key=lambda s: (s["start"], s["end"]))

    @property
    def text(self) -> str:
        return " ".join(s["text"] for s in self.shown)

    @property
    def statuses(self) -> list[str]:
        return [e["status"] for e in self.events if e["type"] == "service_status"]


@contextlib.asynccontextmanager
async def app(
    server: Server, key: str = "", path: str = "/v4/listen", scale: float = 1.0, **query: Any
) -> AsyncIterator[App]:
    """A connected app; what would have crashed it fails the test."""
    headers = {"Authorization": f"Bearer {key}"} if key and path == "/v4/listen" else {}
    phone = App(server, query, headers, path, scale)
    await phone.connect()
    try:
        yield phone
    finally:
        await phone.socket.close()
        assert phone._reader is not None
        await phone._reader
