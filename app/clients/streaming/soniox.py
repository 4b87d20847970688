"""Soniox' real-time recognition, over its SDK (`soniox`)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import Any

from app.clients.streaming.spelling import Firm, Piece
from app.clients.streaming.told import CLOSE_S, Told, cleaned, need, pcm16, refused, unreachable
from app.roles import SAMPLE_RATE, EngineInfo, Job, Samples, SttOptions
from app.roles.streaming import StreamDead

_NAME, _SETTING = "Soniox", "SONIOX"
_ACCEPT_S = 0.2
_LONGEST_CONTEXT = 8000


class Soniox:
    """`StreamingStt`. Words that matter are told as `context`, the language as a hint; without one it is
    detected, also where it changes."""

    def __init__(self, api_key: str, *, base_url: str | None, model: str, timeout_s: float) -> None:
        """`base_url`: the WebSocket's whole URL, None for Soniox' own. `timeout_s`: how long Soniox may say
        nothing while it owes an answer."""
        need("soniox", "soniox", "soniox")
        self._key, self._url, self._model, self._timeout_s = api_key, base_url, model, timeout_s
        self._client: Any = None

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("stt_streaming", "soniox", self._model)

    async def close(self) -> None:
        """Close the SDK's client for HTTP, which is never used."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def open(self, options: SttOptions, job: Job) -> SonioxStream:
        """See `StreamingStt`. Soniox says nothing when it accepts a stream, so that it does not refuse it
        within about a round trip counts as a yes; a refusal that comes later ends the stream."""
        # On another thread the first time: it takes a fifth of a second.
        sdk: Any = await asyncio.to_thread(importlib.import_module, "soniox.realtime.async_stt")
        if self._client is None:
            import soniox

            self._client = soniox.AsyncSonioxClient(api_key=self._key, websocket_base_url=self._url)
        config = self._config(options)
        session = self._client.realtime.stt.connect(config=config, connect_timeout_sec=self._timeout_s)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await session.enter()
        except sdk.SonioxRealtimeError as error:
            raise unreachable(_NAME, _SETTING, error) from None
        except asyncio.CancelledError:
            if session._ws is not None:  # it was sending the configuration
                session._ws.transport.abort()
            raise
        stream = SonioxStream(session, self._key, self._timeout_s)
        try:
            await stream.accepted(_ACCEPT_S + loop.time() - began)
        except BaseException:
            await stream.close()
            raise
        return stream

    def _config(self, options: SttOptions) -> Any:
        from soniox.types import RealtimeSTTConfig, StructuredContext

        if options.language is not None and len(options.language) != 2:  # the SDK would say it at length
            raise StreamDead(
                "config_error", f"{_NAME} does not know the language {options.language!r}", retryable=False
            )
        context = None
        if options.vocabulary or options.prompt:
            terms, room = [], _LONGEST_CONTEXT
            for term in options.vocabulary:
                room -= len(term)
                if room > 0:
                    terms.append(term)
            text = options.prompt[-room:] if room > 0 else ""
            context = StructuredContext(terms=terms or None, text=text or None)
        return RealtimeSTTConfig(
            model=self._model,
            audio_format="pcm_s16le",
            sample_rate=SAMPLE_RATE,
            num_channels=1,
            language_hints=[options.language] if options.language else None,
            enable_language_identification=True if options.language is None else None,
            context=context,
        )


class SonioxStream:
    """`SttStream`."""

    def __init__(self, session: Any, key: str, timeout_s: float) -> None:
        self._session, self._key = session, key
        # The SDK's `close` forgets the socket without closing it, and it swallows the code and the reason of
        # a close: the socket is looked after here.
        self._socket = session._ws
        self._firm = Firm()
        self._told = Told(_NAME, timeout_s)
        self._sent_s = 0.0
        self._language: str | None = None
        self._reader = asyncio.create_task(self._read(), name="soniox-stream")

    def __aiter__(self) -> Told:
        return self._told

    async def accepted(self, within_s: float) -> None:
        """Wait so long whether the stream is refused."""
        await asyncio.wait([self._reader], timeout=within_s)
        if self._told.over:
            await anext(self._told)  # raises why
            raise self._told.failure("upstream_error", "ended the stream before it began")

    async def send(self, audio: Samples) -> None:
        """See `SttStream`."""
        if len(audio):
            await self._told.send(self._session.send_byte_chunk, pcm16(audio))
            self._sent_s += len(audio) / SAMPLE_RATE
            self._told.sounded()

    async def finalize(self) -> None:
        """See `SttStream`."""
        self._told.asked(self._sent_s)
        await self._told.send(self._session.finalize)

    async def keep_alive(self) -> None:
        """See `SttStream`: after 20 s without a sign Soniox ends a stream."""
        await self._told.send(self._session.keep_alive)

    async def finish(self) -> None:
        """See `SttStream`."""
        self._told.finish()
        await self._told.send(self._session.finish)

    async def close(self) -> None:
        """See `SttStream`."""
        self._told.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()
        self._socket.transport.abort()

    async def _read(self) -> None:
        try:
            while not self._told.over:
                event = await self._session.receive_event()
                self._told.sign()
                if event is None:
                    self._closed()
                else:
                    self._take(event)
        except Exception:  # noqa: BLE001 - no JSON, or not of its shape: whatever it is, nothing can follow
            self._told.die(self._told.failure("upstream_error", "sent what is not understood"))

    def _closed(self) -> None:
        code, reason = self._socket.close_code, cleaned(self._socket.close_reason, self._key)
        self._told.die(
            self._told.failure("upstream_error", f"closed the connection ({code} {reason}".rstrip() + ")")
        )

    def _take(self, event: Any) -> None:
        if event.error_code is not None:
            self._failed(event.error_code, cleaned(event.error_message, self._key))
            return
        told, firm = self._told, self._firm
        final_s = (event.final_audio_proc_ms or 0) / 1000
        final: list[Piece] = []
        guessed: list[Piece] = []
        for token in event.tokens:
            if token.text in ("<fin>", "<end>"):
                words = (*firm.add(final), *firm.rest())
                final, told.unsure = [], False
                told.tell(words, final_s, final=True, finalized=token.text == "<fin>")
                told.language(self._language)
            elif token.translation_status != "translation":
                self._language = token.language or self._language
                (final if token.is_final else guessed).append(self._piece(token))
        if words := firm.add(final):
            told.tell(words, firm.until(final_s), final=True)
            told.language(self._language)
        if event.finished:
            if words := firm.rest():
                told.tell(words, final_s, final=True)
                told.language(self._language)
            told.end()
        elif guessed or final or told.unsure:
            told.tell(firm.followed_by(guessed), (event.total_audio_proc_ms or 0) / 1000, final=False)
            told.language(self._language)
        told.unsure = bool(guessed)

    def _piece(self, token: Any) -> Piece:
        start = self._told.reached if token.start_ms is None else token.start_ms / 1000
        end = start if token.end_ms is None else token.end_ms / 1000
        return Piece(token.text, start, end, 1.0 if token.confidence is None else token.confidence)

    def _failed(self, code: int, said: str) -> None:
        told = self._told
        if code == 400 and told.finishing and not self._sent_s:
            told.end()  # "No audio received", and so it was
        elif code == 400 and "too " in said:  # long or much: a stream has an end
            told.die(told.failure("upstream_error", f"ended the stream: {said}"))
        elif code == 400 and "audio" in said.lower():
            told.die(told.failure("invalid_input", f"does not take the sound: {said}", retryable=False))
        else:
            told.die(refused(_NAME, _SETTING, code, said))
