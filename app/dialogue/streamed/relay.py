"""One session's sound on its way to recognisers elsewhere, and their words on the way back.

There is one stream at a time. Sound that has no final words yet is kept: when a provider dies, the next one
hears it again, so no word is lost, and none comes twice. After two such changes nobody is asked any more: the
session goes on with what recognises on this machine.

Invariants:
    * `_sent` and `_queue` together are, in order and without overlap, all sound that passed the gate and ends
      behind `firm_to`.
    * `firm` only grows at its end; `firm_to` only rises.
    * A question for final words is asked when everything before it was sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from app.audio.buffer import AudioBuffer
from app.dialogue.config import SessionConfig
from app.dialogue.events import Event, Notice, StreamEnded
from app.dialogue.streamed.gate import Gate, Times
from app.roles import SAMPLE_RATE, ColloquyError, Job, RoleSet, Samples, SttOptions, Word
from app.roles.streaming import Heard, Outcome, StreamDead, StreamingStt, SttStream

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_FAIL_OVERS = 2
_OPEN_S = 6.0
_SEND_S = 5.0
_ANSWER_S = 3.0
"""A question for final words is answered in that time, if there were any to be heard."""
_MUTE_S = 8.0
"""Who hears so long without a word does not hear."""
_SPEECH_S = 1.0
"""So much of a voice has words in it."""
_KEEP_ALIVE_S = 5.0
_IDLE_S = 60.0
"""Providers charge for streams, too: one that has had nothing to do for so long is ended."""
_LOOK_S = 0.5
_VOICE = 0.5
_PIECE = SAMPLE_RATE // 2
_ROOM = 20 * SAMPLE_RATE
_BACK_OFF_S = 0.5


class Relay:
    """`run` it beside the session, give it sound with `hear`. `on_heard` is called when words come,
    `on_switch` with the names of the provider that died and of the next one ("" if there is none) and with
    the reason, and `on_outcome` with a provider's name and how its stream ended."""

    def __init__(
        self,
        providers: Sequence[StreamingStt],
        options: SttOptions,
        owner: str,
        *,
        begin: int = 0,
        on_switch: Callable[[str, str, StreamDead], None] = lambda old, new, dead: None,
        on_outcome: Callable[[str, Outcome], None] = lambda provider, outcome: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.firm: list[Word] = []
        """Final words; times in seconds of the session."""
        self.soft: list[Word] = []
        """What comes after them, so far."""
        self.firm_to = begin
        """Up to which sample everything that was said is in `firm`."""
        self.language: str | None = None
        self.dead: StreamDead | None = None
        """Why nobody hears any more."""
        self.on_heard: Callable[[], None] = lambda: None
        self._providers, self._owner = providers, owner
        self._options, self._renew = options, False
        self._on_switch, self._on_outcome, self._now = on_switch, on_outcome, now
        self._gate = Gate(begin)
        self._position = begin
        self._queue: deque[tuple[int, Samples, bool]] = deque()
        self._queued = 0
        self._sent: deque[tuple[int, Samples, bool]] = deque()
        self._ask = False
        self._asked: deque[tuple[int, float]] = deque()
        self._wake = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._times = Times()
        # Of the stream that is open: voiced sound sent, of it since the last words, and when those came.
        self._voiced = self._unheard = 0
        self._words = 0
        self._heard_at = self._spoke_at = 0.0

    # --- what the session calls -------------------------------------------------------------------

    def hear(
        self, sound: AudioBuffer, begin: int, end: int, probability: float | None, *, needed: bool = False
    ) -> None:
        """The frame [`begin`, `end`) of the session's `sound` holds speech with `probability`, None if that
        is not known; `needed`: it belongs to an utterance anyway. Frames come in order."""
        self._position = end
        if self.dead is not None:
            return
        if (first := self._gate.feed(begin, end, probability, needed)) is not None:
            first = max(first, sound.start)
            self._queue.append((first, sound.view(first, end).copy(), (probability or 0.0) >= _VOICE))
            self._queued += end - first
            self._wake.set()
        if self._gate.pauses(end):
            self.ask()

    def ask(self) -> None:
        """The final words of all that was said are wanted soon."""
        if self._queue or self._sent:
            self._ask = True
            self._wake.set()

    async def room(self) -> None:
        """Wait while the provider is far behind: sound may come faster than it was spoken."""
        while self._queued > _ROOM and self.dead is None:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append((-1, waiting))
            await waiting

    async def settled(self, to: int) -> None:
        """Wait until all that was said up to sample `to` is in `firm`. `StreamDead` if that will not be."""
        while not self._is_firm(to):
            if self.dead is not None:
                raise StreamDead(self.dead.outcome, self.dead.message)
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append((to, waiting))
            await waiting

    def configure(self, options: SttOptions) -> None:
        """Recognise with these, from the next pause on."""
        self._renew = self._renew or options != self._options
        self._options = options
        self._wake.set()

    def forget(self, before: float) -> None:
        """Words that end before that second of the session are not asked for any more."""
        gone = next((i for i, w in enumerate(self.firm) if w.end >= before), len(self.firm))
        del self.firm[:gone]

    # --- providers, one after the other -------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled, or nobody is left."""
        index, failures, barred = 0, 0, set[int]()
        while True:
            while not self._queue and not self._sent:
                self._wake.clear()
                await self._wake.wait()
            provider = self._providers[index]
            try:
                self._on_outcome(provider.info.name, await self._serve(provider))
                continue
            except StreamDead as error:
                dead = error
            except ColloquyError as error:
                dead = StreamDead("upstream_error", error.message)
            except Exception as error:
                log.exception("a client of a recogniser failed")
                dead = StreamDead("upstream_error", f"{provider.info.name}: {type(error).__name__}")
            self._on_outcome(provider.info.name, dead.outcome)
            failures += 1
            if not dead.retryable:
                barred.add(index)
            order = [(index + step) % len(self._providers) for step in range(1, len(self._providers) + 1)]
            left = [i for i in order if i not in barred] if failures <= _FAIL_OVERS else []
            self._again()
            self._on_switch(provider.info.name, self._providers[left[0]].info.name if left else "", dead)
            if not left:
                self.dead = dead
                self._progress()
                return
            if left[0] == index:
                await asyncio.sleep(_BACK_OFF_S * failures)
            index = left[0]

    def _again(self) -> None:
        """Whoever comes next hears what has no final words."""
        self._queue.extendleft(reversed(self._sent))
        self._sent.clear()
        if self._queue and (done := self.firm_to - self._queue[0][0]) > 0:
            _, samples, voiced = self._queue.popleft()
            self._queue.appendleft((self.firm_to, samples[done:], voiced))
        self._asked.clear()
        self._queued = sum(len(samples) for _, samples, _ in self._queue)
        # There may be somebody who waits for what the last one was asked.
        self._ask = True

    async def _serve(self, provider: StreamingStt) -> Outcome:
        """One stream, until it has had nothing to do for long. How it ended; or raises `StreamDead`."""
        self._times = Times()
        self._voiced = self._unheard = self._words = 0
        self._renew = False
        stream = await _in_time(_OPEN_S, "accept a stream", provider.open(self._options, Job(self._owner)))
        try:
            reading = asyncio.create_task(self._read(stream))
            try:
                await self._feed(stream, reading)
                await _in_time(_SEND_S, "end a stream", stream.finish())
                await _in_time(_ANSWER_S, "tell its last words", reading)
            finally:
                reading.cancel()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    reading.exception()
        finally:
            await stream.close()
        if self._words:
            return "success"
        return "empty_unexpected" if self._voiced >= _SPEECH_S * SAMPLE_RATE else "expected_silence"

    async def _feed(self, stream: SttStream, reading: asyncio.Task[None]) -> None:
        """Send what there is to send. Returns when the stream is to be ended."""
        spoke = told = self._heard_at = self._now()
        waking = asyncio.create_task(self._wake.wait())
        try:
            while True:
                self._wake.clear()
                if reading.done():
                    reading.result()
                    raise StreamDead("upstream_error", "it ended the stream")
                now = self._now()
                if self._queue:
                    begin, piece = self._next_piece()
                    self._times.send(begin, len(piece))
                    await _in_time(_SEND_S, "take sound", stream.send(piece))
                    spoke = told = now
                    self._progress()
                    continue
                if self._ask:
                    self._ask = False
                    self._asked.append((self._position, now))
                    await _in_time(_SEND_S, "take a question", stream.finalize())
                    continue
                self._look_after(now)
                if not self._sent and (self._renew or now - spoke >= _IDLE_S):
                    return
                if now - told >= _KEEP_ALIVE_S:
                    await _in_time(_SEND_S, "be kept alive", stream.keep_alive())
                    told = now
                if waking.done():
                    waking = asyncio.create_task(self._wake.wait())
                await asyncio.wait({waking, reading}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()

    def _next_piece(self) -> tuple[int, Samples]:
        """Sound without a gap, as much as is worth a message."""
        begin = end = self._queue[0][0]
        pieces: list[Samples] = []
        while self._queue and self._queue[0][0] == end and end - begin < _PIECE:
            item = self._queue.popleft()
            _, samples, voiced = item
            self._sent.append(item)
            pieces.append(samples)
            end += len(samples)
            if voiced:
                self._spoke_at = self._spoke_at if self._unheard else self._now()
                self._voiced += len(samples)
                self._unheard += len(samples)
        self._queued -= end - begin
        return begin, pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _look_after(self, now: float) -> None:
        """Whether the provider still answers."""
        if self._asked and now - max(self._asked[0][1], self._heard_at) > _ANSWER_S:
            if any(voiced for _, _, voiced in self._sent):
                raise StreamDead("timeout", f"it did not tell final words within {_ANSWER_S:.0f} s")
            # Some do not answer when there was nothing to hear.
            self._made_firm(self._asked.popleft()[0])
        owed = self._unheard >= _SPEECH_S * SAMPLE_RATE
        if owed and self._sent and now - max(self._heard_at, self._spoke_at) > _MUTE_S:
            raise StreamDead("timeout", f"it said nothing for {_MUTE_S:.0f} s of speech")

    # --- words ------------------------------------------------------------------------------------

    async def _read(self, stream: SttStream) -> None:
        async for heard in stream:
            self._take(heard)

    def _take(self, heard: Heard) -> None:
        words = [
            replace(w, start=self._times.begin(w.start), end=self._times.end(w.end)) for w in heard.words
        ]
        self._heard_at = self._now()
        self.language = heard.language or self.language
        if words:
            self._unheard = 0
            self._words += len(words)
        if heard.final:
            self.firm += words
            self.soft = []
            if heard.end > heard.start or words:
                self._made_firm(round(self._times.end(heard.end) * SAMPLE_RATE))
        elif words or not heard.finalized:
            self.soft = words
        if heard.finalized and self._asked:
            self._unheard = 0
            self.soft = []
            self._made_firm(self._asked.popleft()[0])
        self.on_heard()
        self._progress()

    def _made_firm(self, to: int) -> None:
        self.firm_to = max(self.firm_to, to)
        while self._sent and self._sent[0][0] + len(self._sent[0][1]) <= self.firm_to:
            self._sent.popleft()
        self._progress()

    def _is_firm(self, to: int) -> bool:
        if self.firm_to >= to:
            return True
        kept = self._sent or self._queue
        return not kept or kept[0][0] >= to

    def _progress(self) -> None:
        """Wake who waits for what is so now."""
        left = []
        for to, waiting in self._waiting:
            if self.dead is not None or (self._queued <= _ROOM if to < 0 else self._is_firm(to)):
                if not waiting.done():
                    waiting.set_result(None)
            elif not waiting.done():
                left.append((to, waiting))
        self._waiting = left


def relay_of(
    roles: RoleSet,
    config: SessionConfig,
    owner: str,
    emit: Callable[[Event], None],
    count: Callable[[Event], None] | None,
    begin: int,
) -> Relay | None:
    """A session's way to the recognisers elsewhere that `roles` name; None if they name none. Its client is
    told of changes by `emit`; `count` is told how streams ended."""
    if not roles.stt_streaming:
        return None

    def switched(old: str, new: str, dead: StreamDead) -> None:
        then = new or "the recogniser of this server"
        log.warning("%s: %s", old, dead.message, extra={"outcome": dead.outcome, "next": then})
        emit(Notice("STT_SWITCHED", f"Recognition goes on with {then}: {old} failed ({dead.outcome})."))

    def ended(provider: str, outcome: Outcome) -> None:
        if count is not None:
            count(StreamEnded(provider, outcome))

    options = SttOptions(config.language, config.vocabulary)
    return Relay(roles.stt_streaming, options, owner, begin=begin, on_switch=switched, on_outcome=ended)


async def _in_time(seconds: float, what: str, work: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise StreamDead("timeout", f"it did not {what} within {seconds:.0f} s") from error
