"""A conversation: hears, decides whose turn it is, answers, and can be interrupted.

One state machine over events, whatever the wire. Sound and requests come in through methods,
everything that happens goes out through the `Outbox`. All of it runs on one event loop; model
work is awaited, so state changes only between awaits. Invariants:

* at most one reply is running, and a stopped one can never be heard from again (`answers`);
* history holds what was said and what was heard, nothing else;
* whatever is said while models load or a socket is away waits in the inbox, in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

from app.audio.buffer import AudioBuffer
from app.dialogue.answers import Answers
from app.dialogue.config import SessionConfig
from app.dialogue.endpointing import FRAME, Signal, TurnDetector, end_wait_ms
from app.dialogue.events import (
    Event,
    Failed,
    Final,
    Notice,
    Partial,
    Reason,
    SpeechStarted,
    SpeechStopped,
    TurnComplete,
    TurnDropped,
)
from app.dialogue.guards import doubtful, nobody_said
from app.dialogue.history import History
from app.dialogue.outbox import Outbox
from app.dialogue.turn import Turn
from app.dialogue.utterance import FinalWords, Utterance
from app.observability.clock import Stage, TurnClock
from app.observability.logs import bind, new_trace_id
from app.roles import (
    SAMPLE_RATE,
    BadInput,
    ColloquyError,
    RoleSet,
    Samples,
    SttOptions,
    VadStream,
)

log = logging.getLogger(__name__)

_PRE_ROLL = int(0.3 * SAMPLE_RATE)
"""Sound before the first speech frame that belongs to the utterance: soft first consonants."""
_POST_ROLL = int(0.2 * SAMPLE_RATE)
_INBOX_S = 60.0
_MAX_UTTERANCE = 300 * SAMPLE_RATE
_LAST_WORDS_S = 15.0
_RETRY_S = 5.0


class _Commit:
    """In the inbox: the utterance ends here."""


class Session:
    """See the module. `on_turn` is given each finished turn, to keep it."""

    def __init__(
        self,
        session_id: str,
        config: SessionConfig,
        *,
        roles: Callable[[], Awaitable[RoleSet]],
        on_turn: Callable[[Session, Turn], Awaitable[None]],
        on_event: Callable[[Event], None] | None = None,
        on_speculation: Callable[[Literal["adopted", "dropped"]], None] = lambda outcome: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = session_id
        self.config = config
        self.outbox = Outbox()
        self._get_roles = roles
        self._on_turn = on_turn
        self._on_event = on_event
        self._on_speculation = on_speculation
        self._now = now
        self._inbox: asyncio.Queue[Samples | _Commit] = asyncio.Queue()
        self._inbox_s = 0.0
        self._room = asyncio.Event()
        self._audio = AudioBuffer()
        self._detector = TurnDetector(config.turn, self._end_wait)
        self._roles: RoleSet | None = None
        self._ready = asyncio.Event()
        self._answers: Answers | None = None
        self._turn: Turn | None = None
        self._utterance: Utterance | None = None
        # When the last sound that held speech arrived: where the turn's clock begins.
        self._last_voice = 0.0
        self._finishing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.connected = False
        """Whether a client has ever listened: the next one is a client that returns."""

    # --- what doors call ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen (once the models are there)."""
        self._spawn(self._listen())

    async def hear(self, samples: Samples) -> None:
        """The next sound (float32 mono 16 kHz, any length). Waits while 60 s are queued, so that
        a sender faster than the cores is slowed, not dropped."""
        while self._inbox_s > _INBOX_S and not self._closed:
            self._room.clear()
            await self._room.wait()
        if len(samples) and not self._closed:
            self._inbox_s += len(samples) / SAMPLE_RATE
            self._inbox.put_nowait(samples)

    def commit(self) -> None:
        """The utterance ends with the sound given so far (push-to-talk)."""
        self._inbox.put_nowait(_Commit())

    def say(self, text: str, *, stream: bool = True) -> None:
        """A typed turn. It stops a reply that is running. With `stream` false the reply's text
        comes whole."""
        if not text.strip():
            raise BadInput("there is no text to answer", field="text")
        self.interrupt("text")
        turn = self._new_turn("text")
        turn.transcript = text.strip()
        turn.language = self.config.language or "en"
        turn.stream_text = stream
        turn.clock.mark(Stage.ENDPOINT)
        self._spawn(self._answer_text(turn))

    def interrupt(self, reason: Reason) -> None:
        """Stop the reply, if one is running: its client is told at once, history keeps what was
        heard, and the engines' work for it is cancelled."""
        if self._answers is not None:
            self._answers.interrupt(reason)

    def played(self, turn_id: str, ms: float) -> None:
        """The client has played `ms` of that turn's reply. Reports of old turns are ignored."""
        if self._answers is not None:
            self._answers.played(turn_id, ms)

    def configure(self, config: SessionConfig) -> None:
        """Change the settings, from the next utterance or reply on."""
        self.config = config
        self._detector.config = config.turn
        if self._answers is not None:
            self._answers.config = config

    @property
    def state(self) -> Literal["loading", "listening", "hearing", "thinking", "speaking"]:
        """What the session is at, for pages and logs."""
        if self._answers is None:
            return "loading"
        if (state := self._answers.state) is not None:
            return state
        if self._utterance is not None:
            return "hearing"
        return "thinking" if self._finishing.locked() else "listening"

    async def close(self) -> None:
        """Stop everything, and wait until nothing of it runs. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._room.set()
        self.interrupt("closed")
        # Words that are being said are still transcribed and kept; nobody hears an answer.
        if self._utterance is not None:
            self._end_speech()
        hearing = [t for t in self._tasks if t.get_name() == "hear"]
        if hearing:
            await asyncio.wait(hearing, timeout=_LAST_WORDS_S)
        for task in self._tasks:
            if task.get_name() != "keep":
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.outbox.close()

    # --- hearing -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        with bind(session_id=self.id):
            roles = self._roles = await self._when_ready()
            self._answers = Answers(
                self.id,
                self.config,
                roles,
                emit=self._emit,
                fail=self._fail,
                done=self._complete,
                spawn=self._spawn,
                on_draft=self._on_speculation,
                now=self._now,
            )
            self._ready.set()
            stream = roles.vad.stream()
            while True:
                item = await self._inbox.get()
                try:
                    if isinstance(item, _Commit):
                        self._committed()
                    else:
                        await self._take(item, stream)
                except ColloquyError as error:
                    self._fail(error, None)

    async def _when_ready(self) -> RoleSet:
        while True:
            try:
                return await self._get_roles()
            except ColloquyError as error:
                self._fail(error, None)
                await asyncio.sleep(_RETRY_S)

    async def _take(self, samples: Samples, stream: VadStream) -> None:
        self._inbox_s -= len(samples) / SAMPLE_RATE
        self._room.set()
        arrived = self._now()
        self._audio.append(samples)
        detector = self._detector
        while self._audio.end - detector.position >= FRAME:
            frame = self._audio.view(detector.position, detector.position + FRAME)
            probability = await stream.probability(frame)
            if self.config.turn.mode == "manual":
                self._hold(probability)
            else:
                self._heed(detector.feed(probability))
            if self._turn is not None and detector.ended_at == detector.position:
                self._last_voice = arrived
            if self._utterance is not None and detector.speaking:
                self._utterance.heard(detector.position)
                if detector.position - self._utterance.start > _MAX_UTTERANCE:
                    self._emit(
                        Notice("UTTERANCE_TOO_LONG", "Five minutes without a pause: answering this much.")
                    )
                    self._end_speech()
        if self._utterance is None:
            self._audio.drop_before(detector.position - SAMPLE_RATE)

    def _hold(self, probability: float) -> None:
        """Push-to-talk: everything is speech until `commit`; the detector only measures."""
        detector = self._detector
        begin = detector.position
        detector.position += FRAME
        if self._utterance is None:
            detector.speaking, detector.started_at, detector.voiced_ms = True, begin, 0.0
            self._begin_speech()
        if probability >= self.config.turn.threshold:
            detector.voiced_ms += FRAME / SAMPLE_RATE * 1000
        detector.ended_at = detector.position

    def _heed(self, signal: Signal | None) -> None:
        if signal is Signal.STARTED:
            self._begin_speech()
        elif self._utterance is None:
            return
        elif signal is Signal.CLOSING:
            self._utterance.closing(self._detector.ended_at)
            self._spawn(self._speculate(self._utterance))
        elif signal is Signal.RESUMED:
            self._utterance.resumed()
            self._replies.drop_draft()
        elif signal is Signal.ENDED:
            self._end_speech()

    def _end_wait(self) -> float:
        utterance = self._utterance
        return end_wait_ms(utterance.hypothesis, self.config.turn, utterance.over) if utterance else 0.0

    def _begin_speech(self) -> None:
        assert self._roles is not None
        detector = self._detector
        self._turn = turn = self._new_turn("speech")
        self._last_voice = self._now()
        start = max(detector.started_at - _PRE_ROLL, self._audio.start)
        self._utterance = Utterance(
            self._audio,
            start,
            stt=self._roles.stt,
            stt_partial=self._roles.stt_partial,
            turn=self._roles.turn,
            options=SttOptions(self.config.language, self.config.vocabulary),
            owner=self.id,
            on_partial=lambda u: self._hear_partial(turn, u),
        )
        self._replies.read_ahead("")
        if self._replies.state == "speaking":
            self._barge_in()
        self._emit(SpeechStarted(turn.id, detector.started_at / SAMPLE_RATE))

    def _barge_in(self) -> None:
        if self.config.turn.interrupt:
            self.interrupt("speech")

    def _hear_partial(self, turn: Turn, utterance: Utterance) -> None:
        self._emit(Partial(turn.id, utterance.text, utterance.committed, utterance.confidence))
        # A reply that nobody has heard anything of is stopped by words, not by a cough.
        if not nobody_said(utterance.text, utterance.confidence, 0.0, self._detector.voiced_ms):
            self._barge_in()
        self._replies.read_ahead(utterance.committed)

    def _committed(self) -> None:
        if self._utterance is None:
            self._emit(Notice("NOTHING_HEARD", "Nothing was heard to answer: speak, then commit."))
            return
        self._detector.end()
        self._end_speech()

    def _end_speech(self) -> None:
        turn, utterance = self._turn, self._utterance
        assert turn is not None and utterance is not None
        detector = self._detector
        detector.speaking = False
        self._turn = self._utterance = None
        turn.clock.mark(Stage.SPEECH_END, self._last_voice)
        turn.clock.mark(Stage.ENDPOINT)
        self._emit(SpeechStopped(turn.id, detector.ended_at / SAMPLE_RATE))
        turn.recording = utterance.seal(min(detector.ended_at + _POST_ROLL, self._audio.end))
        self._spawn(self._answer_speech(turn, utterance, detector.ended_at, detector.voiced_ms), "hear")

    # --- answering -----------------------------------------------------------------------------

    async def _answer_speech(self, turn: Turn, utterance: Utterance, end: int, voiced_ms: float) -> None:
        replies = self._replies
        # In order of speech: a second utterance may end while the first is still transcribed.
        with bind(trace_id=turn.trace_id):
            async with self._finishing:
                try:
                    final = await utterance.finish(end)
                except Exception as error:  # whatever it is, the recording is kept and the turn ends
                    if not isinstance(error, ColloquyError):
                        log.exception("an utterance was not transcribed")
                        error = ColloquyError("recognition failed inside; the log has the details")
                    turn.failed = True
                    replies.drop_draft()
                    replies.note(turn)
                    self._fail(error, turn)
                    self._complete(turn)
                    return
                finally:
                    utterance.cancel()
                turn.clock.mark(Stage.STT_FINAL)
                if nobody_said(final.text, final.confidence, final.no_speech, voiced_ms):
                    turn.complete = True
                    replies.drop_draft()
                    self._emit(TurnDropped(turn.id, "no words were recognised"))
                    return
                self._transcribed(turn, utterance, final)
                if self._closed:
                    # Nobody is there to hear an answer.
                    replies.drop_draft()
                    replies.note(turn)
                    turn.interrupted = True
                    self._complete(turn)
                    return
                replies.begin(turn)

    def _transcribed(self, turn: Turn, utterance: Utterance, final: FinalWords) -> None:
        turn.transcript, turn.words = final.text, final.words
        turn.language, turn.confidence = final.language, final.confidence
        turn.partials = tuple(utterance.partials)
        self._emit(
            Final(
                turn.id,
                turn.transcription_id or "",
                final.text,
                final.words,
                final.language,
                final.confidence,
                doubtful(final.confidence, final.no_speech),
            )
        )

    async def _answer_text(self, turn: Turn) -> None:
        await self._ready.wait()
        async with self._finishing:
            self._replies.begin(turn)

    async def _speculate(self, utterance: Utterance) -> None:
        """Begin the reply while the closing silence lasts, if the words look finished."""
        heard = await utterance.preview()
        turn, config = self._turn, self.config.turn
        if heard is None or turn is None or utterance is not self._utterance or self._closed:
            return
        if end_wait_ms(heard.text, config, utterance.over) > config.end_ms:
            return
        if not nobody_said(heard.text, heard.confidence, heard.no_speech, self._detector.voiced_ms):
            self._replies.draft(turn, heard.text, heard.language)

    def _complete(self, turn: Turn) -> None:
        turn.complete = True
        self._emit(
            TurnComplete(
                turn.id,
                turn.number,
                turn.transcript,
                turn.heard,
                turn.audio_ms,
                turn.interrupted,
                turn.latency,
            )
        )
        self._spawn(self._keep(turn), "keep")

    async def _keep(self, turn: Turn) -> None:
        try:
            await self._on_turn(self, turn)
        finally:
            turn.recording = None

    # --- small things --------------------------------------------------------------------------

    def _new_turn(self, source: Literal["speech", "text"]) -> Turn:
        turn = Turn(source, TurnClock(self._now))
        turn.transcription_id = str(uuid.uuid4()) if source == "speech" else None
        return turn

    @property
    def _replies(self) -> Answers:
        assert self._answers is not None, "nothing is answered before the models are there"
        return self._answers

    @property
    def history(self) -> History:
        """The conversation as it was heard."""
        return self._replies.history

    def _emit(self, event: Event) -> None:
        self.outbox.put(event)
        if self._on_event is not None:
            self._on_event(event)

    def report(self, error: ColloquyError) -> None:
        """Tell the client of something it did that was refused; the session goes on."""
        self._fail(error, None)

    def _fail(self, error: ColloquyError, turn: Turn | None) -> None:
        trace_id = turn.trace_id if turn else new_trace_id()
        with bind(trace_id=trace_id):
            log.warning("%s: %s", error.code, error.message)
        self._emit(
            Failed(
                error.code, error.message, trace_id, error.retryable, turn.id if turn else None, error.field
            )
        )

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the session failed", exc_info=error)
            self._fail(ColloquyError("something failed inside; the log has the details"), None)
