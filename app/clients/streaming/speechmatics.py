"""Speechmatics' real-time recognition, over its SDK (`speechmatics-rt`)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Callable
from typing import Any

from app.clients.streaming.spelling import Firm, Piece
from app.clients.streaming.told import CLOSE_S, Told, cleaned, need, pcm16, unreachable
from app.roles import SAMPLE_RATE, EngineInfo, Job, Samples, SttOptions
from app.roles.streaming import Outcome, StreamDead

_NAME, _SETTING = "Speechmatics", "SPEECHMATICS"
_URL = "wss://eu2.rt.speechmatics.com/v2"
_MAX_DELAY_S = 2.0
"""Between the end of a word and its final form, if nobody asks for it; less costs accuracy."""
_MOST_TERMS = 1000
_LANGUAGES = {"zh": "cmn"}
"""Where Speechmatics' code is another."""

_REFUSALS = frozenset(
    """not_authorised not_allowed invalid_model invalid_language invalid_config invalid_output_format
    timelimit_exceeded""".split()
)
_SOUND = frozenset({"invalid_audio_type", "data_error"})
_TIMEOUTS = frozenset({"idle_timeout", "session_timeout"})


class Speechmatics:
    """`StreamingStt`. Words that matter are told as `additional_vocab`. Without a language the model must be
    one that tells languages apart ("melia-1")."""

    def __init__(self, api_key: str, *, base_url: str | None, model: str, timeout_s: float) -> None:
        """`base_url`: the WebSocket's whole URL, None for Speechmatics' own. `timeout_s`: how long it may say
        nothing while it owes an answer."""
        need("speechmatics.rt", "speechmatics-rt", "speechmatics")
        self._key, self._url, self._model, self._timeout_s = api_key, base_url or _URL, model, timeout_s
        self._connection: Any = None

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("stt_streaming", "speechmatics", self._model)

    async def close(self) -> None:
        """Nothing is held between streams."""

    async def open(self, options: SttOptions, job: Job) -> SpeechmaticsStream:
        """See `StreamingStt`."""
        sdk: Any = await asyncio.to_thread(importlib.import_module, "speechmatics.rt")
        if self._connection is None:
            # It logs what it raises at ERROR, and each message at DEBUG: what matters is raised here.
            logging.getLogger("speechmatics.rt").setLevel(logging.CRITICAL)
            # One for all streams: it holds the TLS context, which takes its time to make.
            self._connection = sdk.ConnectionConfig(open_timeout=self._timeout_s, close_timeout=CLOSE_S)
        config = sdk.TranscriptionConfig(
            language=self._language(options.language),
            model=self._model,
            enable_partials=True,
            # The preview of its multilingual model refuses what it cannot do yet.
            max_delay=None if self._multilingual else _MAX_DELAY_S,
            additional_vocab=self._vocabulary(options),
        )
        sound = sdk.AudioFormat(encoding=sdk.AudioEncoding.PCM_S16LE, sample_rate=SAMPLE_RATE)
        client = sdk.AsyncClient(api_key=self._key, url=self._url, conn_config=self._connection)
        stream = SpeechmaticsStream(client, self._key, self._timeout_s)
        stream.listen(sdk.ServerMessageType)
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.start_session(transcription_config=config, audio_format=sound)
            stream.begin()
        except Exception as error:  # noqa: BLE001 - the SDK's, websockets' and the network's
            await stream.close()
            raise self._not_opened(sdk, stream, error) from None
        except BaseException:
            await stream.close()
            raise
        return stream

    def _not_opened(self, sdk: Any, stream: SpeechmaticsStream, error: Exception) -> StreamDead:
        if stream.dead is not None:
            return stream.dead
        if isinstance(error, sdk.TimeoutError | TimeoutError):
            return StreamDead("timeout", f"{_NAME} did not answer in time")
        return unreachable(_NAME, _SETTING, error)

    @property
    def _multilingual(self) -> bool:
        return self._model.startswith("melia")

    def _language(self, language: str | None) -> str:
        if self._multilingual:
            return "multi"
        if language is None:
            raise StreamDead(
                "config_error",
                f"{_NAME} does not detect the language of a stream with the model {self._model}: name the "
                f"language, or set {_SETTING}_MODEL=melia-1",
                retryable=False,
            )
        return _LANGUAGES.get(language, language)

    def _vocabulary(self, options: SttOptions) -> list[dict[str, str]] | None:
        if self._multilingual:
            return None
        return [{"content": term} for term in options.vocabulary[:_MOST_TERMS]] or None


class SpeechmaticsStream:
    """`SttStream`."""

    def __init__(self, client: Any, key: str, timeout_s: float) -> None:
        self._client, self._key = client, key
        self._firm = Firm()
        self._told = Told(_NAME, timeout_s, flush=self._firm.rest, always_answers=False)
        self._socket: Any = None
        self._sent = 0
        self._sent_s = 0.0
        self.dead: StreamDead | None = None
        """Why Speechmatics refused the stream or ended it, as it said itself."""

    def listen(self, kinds: Any) -> None:
        """Be told by the SDK of the `kinds` of messages that matter."""
        for kind, take in (
            (kinds.AUDIO_ADDED, self._told.sign),
            (kinds.ADD_PARTIAL_TRANSCRIPT, self._guessed),
            (kinds.ADD_TRANSCRIPT, self._final),
            (kinds.END_OF_UTTERANCE, self._utterance_over),
            (kinds.END_OF_TRANSCRIPT, self._all_told),
            (kinds.ERROR, self._failed),
        ):
            self._client.on(kind, self._safely(take))

    def begin(self) -> None:
        """The session is open."""
        # The SDK tells nobody when its connection breaks, and forgets the socket with its close code.
        self._socket = self._client._transport._websocket
        self._client._recv_task.add_done_callback(self._closed)

    def __aiter__(self) -> Told:
        return self._told

    async def send(self, audio: Samples) -> None:
        """See `SttStream`."""
        if len(audio):
            await self._told.send(self._client.send_audio, pcm16(audio))
            self._sent += 1
            self._sent_s += len(audio) / SAMPLE_RATE
            self._told.sounded()

    async def finalize(self) -> None:
        """See `SttStream`."""
        self._told.asked(self._sent_s)
        await self._told.send(self._client.force_end_of_utterance)

    async def keep_alive(self) -> None:
        """See `SttStream`: the WebSocket's own pings do; without sound a stream ends after an hour."""

    async def finish(self) -> None:
        """See `SttStream`."""
        self._told.finish()
        # Not by the SDK: its number of the last message is the last that was acknowledged, and it waits.
        end = {"message": "EndOfStream", "last_seq_no": self._sent}
        await self._told.send(self._client.send_message, end)

    async def close(self) -> None:
        """See `SttStream`."""
        self._told.close()
        with contextlib.suppress(Exception):
            await self._client.close()
        if self._socket is not None:
            self._socket.transport.abort()

    # --- what the SDK tells --------------------------------------------------------------------

    def _safely(self, take: Callable[..., None]) -> Callable[[dict[str, Any]], None]:
        """The SDK swallows what its callbacks raise."""

        def call(message: dict[str, Any]) -> None:
            try:
                take(message) if take != self._told.sign else take()
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                self._told.die(self._told.failure("upstream_error", "sent what is not understood"))

        return call

    def _guessed(self, message: dict[str, Any]) -> None:
        self._told.sign()
        pieces = _pieces(message["results"])
        if pieces or self._told.unsure:
            words = self._firm.followed_by(pieces)
            self._told.tell(words, float(message["metadata"]["end_time"]), final=False)
            self._told.language(_language(message["results"]))
        self._told.unsure = bool(pieces)

    def _final(self, message: dict[str, Any]) -> None:
        self._told.sign()
        self._told.unsure = False  # partials begin anew behind it
        end = float(message["metadata"]["end_time"])
        self._told.covered = max(self._told.covered, end)
        if words := self._firm.add(_pieces(message["results"])):
            self._told.tell(words, self._firm.until(end), final=True)
            self._told.language(_language(message["results"]))

    def _utterance_over(self, message: dict[str, Any]) -> None:
        self._told.sign()
        end = float(message["metadata"].get("end_time") or self._told.covered)
        words = self._firm.rest()
        self._told.tell(
            words, max(end, self._told.covered), final=True, finalized=bool(message.get("forced"))
        )

    def _all_told(self, message: dict[str, Any]) -> None:
        if words := self._firm.rest():
            self._told.tell(words, self._told.covered, final=True)
        self._told.end()

    def _failed(self, message: dict[str, Any]) -> None:
        kind, said = str(message.get("type")), cleaned(message.get("reason"), self._key)
        outcome: Outcome = "upstream_error"
        if kind in _REFUSALS:
            outcome = "config_error"
        elif kind in _SOUND:
            outcome = "invalid_input"
        elif kind in _TIMEOUTS:
            outcome = "timeout"
        hint = f"; check {_SETTING}_API_KEY" if kind == "not_authorised" else ""
        self.dead = self._told.failure(
            outcome,
            f"ended the stream ({kind}): {said}{hint}",
            retryable=outcome in ("upstream_error", "timeout"),
        )
        self._told.die(self.dead)

    def _closed(self, reading: asyncio.Task[None]) -> None:
        code, reason = self._socket.close_code, cleaned(self._socket.close_reason, self._key)
        said = f"closed the connection ({code} {reason}".rstrip() + ")"
        self._told.die(self._told.failure("upstream_error", said))


def _pieces(results: list[dict[str, Any]]) -> list[Piece]:
    found = []
    attached = False
    for result in results:
        best = result["alternatives"][0]
        side = result.get("attaches_to")
        mark = result["type"] == "punctuation"
        text = (
            best["content"] if attached or (mark and side in ("previous", "both")) else " " + best["content"]
        )
        attached = mark and side in ("next", "both")
        found.append(
            Piece(
                text,
                float(result["start_time"]),
                float(result["end_time"]),
                float(best.get("confidence", 1.0)),
            )
        )
    return found


def _language(results: list[dict[str, Any]]) -> str | None:
    found = next((r["alternatives"][0].get("language") for r in results if r["type"] == "word"), None)
    return "zh" if found == "cmn" else found
