"""Speechmatics' real-time WebSocket as documented (2026), with a recogniser of ours behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

from clients.streaming.hearing import Behaviour, Ear, Ended, Json, listening, misbehave
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.roles import SpeechToText, Word

_PATH = "/v2"
_CONFIG = set(
    """language model operating_point output_locale diarization additional_vocab punctuation_overrides domain
    enable_entities enable_partials max_delay max_delay_mode speaker_diarization_config audio_filtering_config
    transcript_filtering_config conversation_config channel_diarization_labels""".split()
)
_CODES = {
    "protocol_error": 1003,
    "not_authorised": 4001,
    "not_allowed": 4003,
    "invalid_model": 4004,
    "quota_exceeded": 4005,
    "timelimit_exceeded": 4006,
    "job_error": 4013,
    "idle_timeout": 1008,
}


@contextlib.asynccontextmanager
async def speechmatics_server(engine: SpeechToText, behaviour: Behaviour | None = None) -> AsyncIterator[str]:
    """Gives the WebSocket's URL. `Behaviour.error`: `{"type", "reason"}`."""
    behaviour = behaviour or Behaviour()

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _Stream(connection, engine, behaviour).serve()

    async with listening(behaviour, _PATH, "Bearer", handle) as url:
        yield url + _PATH


class _Stream:
    def __init__(self, connection: ServerConnection, engine: SpeechToText, behaviour: Behaviour) -> None:
        self._connection, self._behaviour = connection, behaviour
        self._ear = Ear(engine)
        self._partials = False
        self._messages = 0

    async def serve(self) -> None:
        await self._start()
        await self._trouble("start")
        await self._send(
            "RecognitionStarted",
            id="1",
            orchestrator_version="2026",
            language_pack_info={
                "word_delimiter": " ",
                "writing_direction": "left-to-right",
                "adapted": False,
            },
        )
        while True:
            message = await self._connection.recv()
            if isinstance(message, bytes):
                await self._sound(message)
            else:
                await self._control(message)

    async def _start(self) -> None:
        message = await self._connection.recv()
        if isinstance(message, bytes):
            await self._fail("protocol_error", "AddAudio before StartRecognition")
        asked = self._read(message)
        if asked is None or asked.get("message") != "StartRecognition":
            await self._fail("protocol_error", "the first message is StartRecognition")
        self._behaviour.asked.append(asked)
        if not set(asked) <= {"message", "audio_format", "transcription_config"}:
            await self._fail("invalid_message", "unknown fields in StartRecognition")
        if asked.get("audio_format") != {"type": "raw", "encoding": "pcm_s16le", "sample_rate": 16000}:
            await self._fail("invalid_audio_type", "no such audio_format here")
        config = asked.get("transcription_config", {})
        if unknown := set(config) - _CONFIG:
            await self._fail("invalid_config", f"unknown fields: {sorted(unknown)}")
        if config.get("model") not in ("enhanced", "standard"):
            await self._fail("invalid_model", f"no model {config.get('model')}")
        if config.get("language") not in ("en", "cmn", "de"):
            await self._fail("invalid_language", f"no language {config.get('language')}")
        if not 0.7 <= config.get("max_delay", 4) <= 4:
            await self._fail("invalid_config", "max_delay is from 0.7 to 4")
        self._partials = config.get("enable_partials", False)

    async def _sound(self, data: bytes) -> None:
        if len(data) % 2:
            await self._fail("data_error", "not a whole number of samples")
        self._ear.feed(data)
        self._messages += 1
        self._behaviour.heard_s += len(data) / 32000
        await self._trouble("sound")
        await self._send("AudioAdded", seq_no=self._messages)
        base = self._ear.base
        if (found := await self._ear.look()) is None:
            return
        final, guessed = found
        if final:
            await self._transcript(final, base)
        elif self._partials:
            await self._words("AddPartialTranscript", _results(guessed), base, self._ear.sent)

    async def _control(self, message: str) -> None:
        asked = self._read(message)
        kind = None if asked is None else asked.pop("message", None)
        self._behaviour.messages.append(str(kind))
        if kind == "ForceEndOfUtterance" and set(asked) <= {"timestamp"}:
            await self._trouble("finalize")
            if asked.get("timestamp", 0) > self._ear.sent + 0.001:
                await self._fail("invalid_message", "timestamp lies behind the sound")
            if self._behaviour.answers_finalize:
                base = self._ear.base
                await self._transcript(await self._ear.firm(), base, forced=True)
                at = {"start_time": self._ear.sent, "end_time": self._ear.sent}
                await self._send("EndOfUtterance", metadata=at, forced=True)
        elif kind == "EndOfStream" and set(asked) == {"last_seq_no"}:
            await self._trouble("finish")
            if asked["last_seq_no"] != self._messages:
                await self._fail("protocol_error", f"last_seq_no is not {self._messages}")
            base = self._ear.base
            await self._transcript(await self._ear.firm(), base)
            await self._send("EndOfTranscript")
            await self._connection.wait_closed()
            raise Ended
        else:
            await self._fail("invalid_message", f"what is {kind}?")

    async def _transcript(self, words: Sequence[Word], base: float, **more: bool) -> None:
        # Punctuation may come with the next message.
        results = _results(words)
        whole = len(results) - 1 if results and results[-1]["type"] == "punctuation" else len(results)
        await self._words("AddTranscript", results[:whole], base, self._ear.base, **more)
        if whole < len(results):
            await self._words("AddTranscript", results[whole:], self._ear.base, self._ear.base, **more)

    async def _words(self, kind: str, results: list[Json], start: float, end: float, **more: bool) -> None:
        await asyncio.sleep(self._behaviour.delay_s)
        text = " ".join(r["alternatives"][0]["content"] for r in results)
        times = {"start_time": round(start, 2), "end_time": round(end, 2)}
        await self._send(kind, format="2.9", metadata={**times, "transcript": text}, results=results, **more)

    async def _send(self, kind: str, **fields: object) -> None:
        await self._connection.send(json.dumps({"message": kind, **fields}))

    async def _trouble(self, at: str) -> None:
        async def fail(error: Json) -> None:
            await self._fail(error["type"], error["reason"])

        await misbehave(self._connection, self._behaviour, at, self._ear.sent, fail)

    async def _fail(self, kind: str, reason: str) -> NoReturn:
        await self._send("Error", type=kind, reason=reason)
        await self._connection.close(_CODES.get(kind, 1011), kind)
        raise Ended

    def _read(self, message: str) -> Json | None:
        with contextlib.suppress(ValueError):
            found = json.loads(message)
            return found if isinstance(found, dict) else None
        return None


def _results(words: Sequence[Word]) -> list[Json]:
    """Words, with their punctuation marks apart."""
    found: list[Json] = []
    for word in words:
        for part in re.findall(r"[\w'’-]+|[^\w\s]", word.text):
            mark = not re.search(r"\w", part)
            start, end = (word.end, word.end) if mark else (word.start, word.end)
            result: Json = {
                "type": "punctuation" if mark else "word",
                "start_time": round(start, 2),
                "end_time": round(end, 2),
                "alternatives": [
                    {"content": part, "confidence": round(word.confidence, 3), "language": "en"}
                ],
            }
            if mark:
                result |= {"attaches_to": "previous", "is_eos": part in ".?!"}
            found.append(result)
    return found
