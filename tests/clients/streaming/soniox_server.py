"""Soniox' real-time WebSocket as documented (2026), with a recogniser of ours behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence

from clients.streaming.hearing import Behaviour, Ear, Ended, Json, listening, misbehave
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.roles import SpeechToText, Word

_PATH = "/transcribe-websocket"
_MODELS = ("stt-rt-v5", "stt-rt-v4", "stt-rt-preview")
_START = set(
    """model audio_format num_channels sample_rate language_hints language_hints_strict context
    enable_speaker_diarization enable_language_identification enable_endpoint_detection max_endpoint_delay_ms
    endpoint_sensitivity endpoint_latency_adjustment_level translation client_reference_id""".split()
)
_LANGUAGES = {"en", "de", "zh"}
_CONTEXT = {"general", "text", "terms", "translation_terms"}


@contextlib.asynccontextmanager
async def soniox_server(engine: SpeechToText, behaviour: Behaviour | None = None) -> AsyncIterator[str]:
    """Gives the WebSocket's URL. `Behaviour.error`: `{"error_code", "error_message"}`."""
    behaviour = behaviour or Behaviour()

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _Stream(connection, engine, behaviour).serve()

    async with listening(behaviour, _PATH, None, handle) as url:
        yield url + _PATH


class _Stream:
    def __init__(self, connection: ServerConnection, engine: SpeechToText, behaviour: Behaviour) -> None:
        self._connection, self._behaviour = connection, behaviour
        self._ear = Ear(engine)
        self._language = False

    async def serve(self) -> None:
        await self._start()
        await self._trouble("start")
        while True:
            try:
                async with asyncio.timeout(self._behaviour.idle_s):
                    message = await self._connection.recv()
            except TimeoutError:
                await self._fail(408, "Request timeout.", "request_timeout")
            if not message:
                await self._finish()
            elif isinstance(message, bytes):
                await self._sound(message)
            else:
                await self._control(message)

    async def _start(self) -> None:
        message = await self._connection.recv()
        if isinstance(message, bytes):
            await self._fail(400, "Start request must be a text message.", "invalid_request")
        try:
            asked = json.loads(message)
        except ValueError:
            asked = None
        if (
            not isinstance(asked, dict)
            or not set(asked) <= _START
            or not set(asked.get("context", {})) <= _CONTEXT
        ):
            await self._fail(400, "Start request is malformed.", "invalid_request")
        self._behaviour.asked.append(asked)
        if self._connection.request.headers.get("Authorization") != f"Bearer {self._behaviour.key}":  # type: ignore[union-attr]
            await self._fail(401, "Invalid API key.", "unauthenticated")
        if asked.get("model") not in _MODELS:
            await self._fail(400, "Invalid model specified.", "model_not_available")
        if asked.get("audio_format") != "pcm_s16le":
            await self._fail(
                400, f"Invalid audio data format: {asked.get('audio_format')}", "invalid_request"
            )
        if asked.get("sample_rate") != 16000:
            await self._fail(
                400, "Audio data sample rate must be specified for PCM formats", "invalid_request"
            )
        if asked.get("num_channels") != 1:
            await self._fail(400, "Audio data channels must be specified for PCM formats", "invalid_request")
        if not set(asked.get("language_hints", [])) <= _LANGUAGES:
            await self._fail(400, "Invalid language hint.", "invalid_request")
        self._language = asked.get("enable_language_identification", False)

    async def _sound(self, data: bytes) -> None:
        if len(data) % 2:
            await self._fail(400, "Audio decode error", "invalid_request")
        self._ear.feed(data)
        self._behaviour.heard_s += len(data) / 32000
        await self._trouble("sound")
        if (found := await self._ear.look()) is not None:
            final, guessed = found
            await self._tell(_tokens(final, True) + _tokens(guessed, False))

    async def _control(self, message: str) -> None:
        try:
            asked = json.loads(message)
            kind = asked.pop("type")
        except (ValueError, KeyError, AttributeError, TypeError):
            await self._fail(400, "Control request is malformed.", "invalid_request")
        self._behaviour.messages.append(kind)
        if kind == "finalize" and set(asked) <= {"trailing_silence_ms"}:
            await self._trouble("finalize")
            tokens = _tokens(await self._ear.firm(), True)
            # In two messages, cut anywhere: a word may have begun in the first.
            half = len(tokens) // 2
            await self._tell(tokens[:half] + [token | {"is_final": False} for token in tokens[half:]])
            await self._tell([*tokens[half:], {"text": "<fin>", "is_final": True, "confidence": 1.0}])
        elif kind != "keepalive" or asked:
            await self._fail(400, "Control request invalid type.", "invalid_request")

    async def _finish(self) -> None:
        self._behaviour.messages.append("finish")
        if not self._ear.sent:
            await self._fail(400, "No audio received.", "invalid_request")
        await self._trouble("finish")
        await self._tell(_tokens(await self._ear.firm(), True))
        await self._tell([], finished=True)
        await self._connection.close()
        raise Ended

    async def _tell(self, tokens: list[Json], **more: bool) -> None:
        await asyncio.sleep(self._behaviour.delay_s)
        if self._language:
            tokens = [token | {"language": "en"} for token in tokens]
        answer = {
            "tokens": tokens,
            "final_audio_proc_ms": round(self._ear.base * 1000),
            "total_audio_proc_ms": round(self._ear.sent * 1000),
        }
        await self._connection.send(json.dumps(answer | more))

    async def _trouble(self, at: str) -> None:
        async def fail(error: Json) -> None:
            await self._fail(
                error["error_code"], error["error_message"], error.get("error_type", "api_error")
            )

        await misbehave(self._connection, self._behaviour, at, self._ear.sent, fail)

    async def _fail(self, code: int, message: str, kind: str) -> None:
        error = {"error_code": code, "error_type": kind, "error_message": message, "request_id": "r"}
        await self._connection.send(json.dumps({"tokens": [], **error}))
        await self._connection.close()
        raise Ended


def _tokens(words: Sequence[Word], final: bool) -> list[Json]:
    """Words in pieces, as the real one gives them: " beau", "tiful", "." """
    found: list[Json] = []
    for word in words:
        parts = re.findall(r"[\w']{1,4}|[^\w']", word.text)
        each = (word.end - word.start) / max(1, len(parts))
        for i, part in enumerate(parts):
            start = word.start + i * each
            found.append(
                {
                    "text": part if i else " " + part,
                    "start_ms": round(start * 1000),
                    "end_ms": round((start + each) * 1000),
                    "confidence": round(word.confidence, 3),
                    "is_final": final,
                }
            )
    return found
