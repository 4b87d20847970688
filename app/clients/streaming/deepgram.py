"""Deepgram's live transcription, over its SDK (`deepgram-sdk`): Deepgram's own, one that runs elsewhere, or
our `/v1/listen`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import warnings
from contextlib import AbstractAsyncContextManager
from typing import Any

from app.clients.streaming.told import CLOSE_S, Told, cleaned, need, pcm16, unreachable
from app.roles import SAMPLE_RATE, EngineInfo, Job, Samples, SttOptions, Word

_NAME, _SETTING = "Deepgram", "DEEPGRAM"
_URL = "wss://api.deepgram.com"
_MOST_TERMS = 100


class Deepgram:
    """`StreamingStt`. Words that matter are told as key terms, or as keywords to models before nova-3.
    Without a language it is "multi", which few models know."""

    def __init__(self, api_key: str, *, base_url: str | None, model: str, timeout_s: float) -> None:
        """`base_url`: what stands before `/v1/listen`, None for Deepgram's own. `timeout_s`: how long it may
        say nothing while it owes an answer."""
        need("deepgram", "deepgram-sdk", "deepgram")
        url = (base_url or _URL).rstrip("/")
        self._url = "ws" + url.removeprefix("http") if url.startswith("http") else url
        self._key, self._model, self._timeout_s = api_key, model, timeout_s
        self._client: Any = None
        self._http: Any = None

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("stt_streaming", "deepgram", self._model)

    async def close(self) -> None:
        """Close the SDK's client for HTTP, which is never used."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    async def open(self, options: SttOptions, job: Job) -> DeepgramStream:
        """See `StreamingStt`."""
        if self._client is None:
            await self._make()
        terms = list(options.vocabulary[:_MOST_TERMS]) or None
        newer = self._model.startswith("nova-3")
        connecting = self._client.listen.v1.connect(
            model=self._model,
            language=options.language or "multi",
            encoding="linear16",
            sample_rate=SAMPLE_RATE,
            channels=1,
            interim_results="true",
            punctuate="true",
            keyterm=terms if newer else None,
            keywords=None if newer else terms,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                socket = await connecting.__aenter__()
        except Exception as error:  # noqa: BLE001 - the SDK's, websockets' and the network's
            raise unreachable(_NAME, _SETTING, error) from None
        return DeepgramStream(connecting, socket, self._key, self._timeout_s)

    async def _make(self) -> None:
        # On another thread the first time: it takes a fifth of a second.
        sdk = await asyncio.to_thread(_import)
        if self._client is None:
            import httpx

            self._http = httpx.AsyncClient()  # the SDK's own would never be closed
            places = dict.fromkeys(("base", "production", "agent", "agent_rest"), self._url)
            self._client = sdk.AsyncDeepgramClient(
                api_key=self._key,
                environment=sdk.DeepgramClientEnvironment(**places),
                httpx_client=self._http,
            )


def _import() -> Any:
    with warnings.catch_warnings():  # the SDK imports what `websockets` deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("deepgram.listen.v1.client")
        return importlib.import_module("deepgram")


class DeepgramStream:
    """`SttStream`."""

    def __init__(
        self, connection: AbstractAsyncContextManager[Any], socket: Any, key: str, timeout_s: float
    ) -> None:
        self._connection, self._socket, self._key = connection, socket, key
        # The SDK offers no way to say how long a close may take; its default is ten seconds and more.
        socket._websocket.close_timeout = CLOSE_S
        # "You may receive" an answer to Finalize, Deepgram says, where much sound waits. And a server of this
        # protocol (ours) may say nothing of silence, so sound alone is owed no answer.
        self._told = Told(_NAME, timeout_s, always_answers=False)
        self._sent_s = 0.0
        self._reader = asyncio.create_task(self._read(), name="deepgram-stream")

    def __aiter__(self) -> Told:
        return self._told

    async def send(self, audio: Samples) -> None:
        """See `SttStream`."""
        if len(audio):  # an empty message would end the stream
            await self._told.send(self._socket.send_media, pcm16(audio))
            self._sent_s += len(audio) / SAMPLE_RATE

    async def finalize(self) -> None:
        """See `SttStream`."""
        self._told.asked(self._sent_s)
        await self._told.send(self._socket.send_finalize)

    async def keep_alive(self) -> None:
        """See `SttStream`: after 10 s without a sign Deepgram ends a stream."""
        await self._told.send(self._socket.send_keep_alive)

    async def finish(self) -> None:
        """See `SttStream`."""
        self._told.finish()
        await self._told.send(self._socket.send_close_stream)

    async def close(self) -> None:
        """See `SttStream`."""
        self._told.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2 * CLOSE_S):
                await self._connection.__aexit__(None, None, None)
        self._socket._websocket.transport.abort()

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while not self._told.over:
                # Not by iterating: that takes a close without an error for the end.
                message = await self._socket.recv()
                self._told.sign()
                self._take(message)
        except ConnectionClosed as closed:
            self._closed(closed.rcvd)
        except Exception:  # noqa: BLE001 - no JSON, or not of its shape: whatever it is, nothing can follow
            self._told.die(self._told.failure("upstream_error", "sent what is not understood"))

    def _take(self, message: Any) -> None:
        told = self._told
        kind = getattr(message, "type", None)
        if kind == "Results":
            best = message.channel.alternatives[0]
            words = tuple(
                Word(w.punctuated_word or w.word, float(w.start), float(w.end), float(w.confidence))
                for w in best.words
            )
            final = bool(message.is_final)
            if words or final or told.unsure:
                end = float(message.start) + float(message.duration)
                told.tell(words, end, final=final, finalized=final and bool(message.from_finalize))
                told.language(best.languages[0] if best.languages else None)
            told.unsure = bool(words) and not final
        elif kind == "Metadata" and told.finishing:
            told.end()
        elif kind == "Error":
            said = cleaned(message.description, self._key)
            told.die(told.failure("upstream_error", f"failed: {said}"))

    def _closed(self, close: Any) -> None:
        told = self._told
        code, reason = (close.code, cleaned(close.reason, self._key)) if close else (1006, "")
        if told.finishing and code == 1000:
            told.end()
        elif reason.startswith("DATA-"):
            told.die(told.failure("invalid_input", f"does not take the sound: {reason}", retryable=False))
        else:
            told.die(told.failure("upstream_error", f"closed the connection ({code} {reason}".rstrip() + ")"))
