"""Deepgram's live transcription as documented, for what ours does not do: failing on demand. A recogniser of
ours is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

from clients.streaming.hearing import Behaviour, Ear, Ended, Json, listening, misbehave
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.roles import SpeechToText, Word

_PATH = "/v1/listen"
_QUERY = set(
    "model language encoding sample_rate channels interim_results punctuate keyterm keywords".split()
)


@contextlib.asynccontextmanager
async def deepgram_server(engine: SpeechToText, behaviour: Behaviour | None = None) -> AsyncIterator[str]:
    """Gives what stands before `/v1/listen`. `Behaviour.error`: `{"description"}`."""
    behaviour = behaviour or Behaviour()

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _Stream(connection, engine, behaviour).serve()

    async with listening(behaviour, _PATH, "Token", handle) as url:
        yield url


class _Stream:
    def __init__(self, connection: ServerConnection, engine: SpeechToText, behaviour: Behaviour) -> None:
        self._connection, self._behaviour = connection, behaviour
        self._ear = Ear(engine)

    async def serve(self) -> None:
        assert self._connection.request is not None
        asked = parse_qs(urlsplit(self._connection.request.path).query, strict_parsing=True)
        self._behaviour.asked.append(dict(asked))
        if set(asked) - _QUERY or asked["encoding"] != ["linear16"] or asked["sample_rate"] != ["16000"]:
            await self._close(1008, "DATA-0000: unknown parameters")
        await self._trouble("start")
        while True:
            try:
                async with asyncio.timeout(self._behaviour.idle_s):
                    message = await self._connection.recv()
            except TimeoutError:
                await self._close(1011, "NET-0001: nothing came")
            if isinstance(message, bytes):
                await self._sound(message)
            else:
                await self._control(json.loads(message))

    async def _sound(self, data: bytes) -> None:
        if not data or len(data) % 2:
            await self._close(1008, "DATA-0000: no sound")
        self._ear.feed(data)
        self._behaviour.heard_s += len(data) / 32000
        await self._trouble("sound")
        base = self._ear.base
        if (found := await self._ear.look()) is not None:
            final, guessed = found
            if final:
                await self._results(final, base, self._ear.base, is_final=True)
            else:
                await self._results(guessed, base, self._ear.sent, is_final=False)

    async def _control(self, asked: Json) -> None:
        kind = asked["type"]
        self._behaviour.messages.append(kind)
        base = self._ear.base
        if kind == "Finalize":
            await self._trouble("finalize")
            # The real one, too, may leave it unanswered where no sound waits.
            if self._behaviour.answers_finalize or self._ear.sent - base > 0.3:
                words = await self._ear.firm()
                await self._results(words, base, self._ear.sent, is_final=True, from_finalize=True)
        elif kind == "CloseStream":
            await self._trouble("finish")
            if words := await self._ear.firm():
                await self._results(words, base, self._ear.sent, is_final=True)
            about = {"transaction_key": "deprecated", "sha256": "", "created": "", "channels": 1}
            await self._send({"type": "Metadata", "request_id": "r", "duration": self._ear.sent, **about})
            await self._close(1000, "")
        elif kind != "KeepAlive":
            await self._send({"type": "Error", "variant": "SchemaError", "description": f"what is {kind}?"})

    async def _results(
        self, words: Sequence[Word], start: float, end: float, *, is_final: bool, from_finalize: bool = False
    ) -> None:
        await asyncio.sleep(self._behaviour.delay_s)
        told = [
            {
                "word": word.text.lower().strip(".,?!"),
                "punctuated_word": word.text,
                "start": word.start,
                "end": word.end,
                "confidence": word.confidence,
            }
            for word in words
        ]
        best = {"transcript": " ".join(word.text for word in words), "confidence": 0.9, "words": told}
        await self._send(
            {
                "type": "Results",
                "channel_index": [0, 1],
                "start": start,
                "duration": end - start,
                "is_final": is_final,
                "speech_final": False,
                "from_finalize": from_finalize,
                "channel": {"alternatives": [best]},
                "metadata": {
                    "request_id": "r",
                    "model_uuid": "m",
                    "model_info": {"name": "n", "version": "1", "arch": "a"},
                },
            }
        )

    async def _send(self, message: Json) -> None:
        await self._connection.send(json.dumps(message))

    async def _trouble(self, at: str) -> None:
        async def fail(error: Json) -> None:
            await self._send({"type": "Error", "variant": "Fault", **error})
            await self._close(1011, "NET-0000")

        await misbehave(self._connection, self._behaviour, at, self._ear.sent, fail)

    async def _close(self, code: int, reason: str) -> NoReturn:
        await self._connection.close(code, reason)
        raise Ended
