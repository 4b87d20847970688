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
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal

from app.dialogue.answers import Answers
from app.dialogue.config import Ask, SessionConfig
from app.dialogue.events import (
    NOBODY_TOLD,
    Event,
    Failed,
    Final,
    Notice,
    Part,
    Reason,
    SpeechStarted,
    SpeechStopped,
    TurnComplete,
    TurnDropped,
)
from app.dialogue.functions import Functions
from app.dialogue.guards import doubtful
from app.dialogue.handover import Mirror, Restored, Store, answer_on, answering_state
from app.dialogue.history import History, to_json
from app.dialogue.inbox import Asked, Clear, Commit, Inbox
from app.dialogue.listener import Listener
from app.dialogue.outbox import Outbox
from app.dialogue.streamed.relay import relay_of
from app.dialogue.turn import Turn
from app.dialogue.utterance import FinalWords, Utterance
from app.dialogue.who import Told
from app.observability.clock import Stage, TurnClock
from app.observability.logs import bind, new_trace_id
from app.roles import SAMPLE_RATE, BadInput, ColloquyError, RoleSet, Samples, Word

log = logging.getLogger(__name__)

_LAST_WORDS_S = 15.0
_RETRY_S = 5.0
_TELL_S = 0.5
"""A client is told of a turn when that is sure to be kept, or after so long."""
_DROPPED = {
    "nothing": "no words were recognised",
    "nod": "a word to go on, not a turn",
    "echo": "our own voice came back",
}


class Session:
    """See the module. `on_turn` is given each turn, to keep it: when there are words of what was said, and
    again when the turn is over (then the flag is set). The client is told when it returns."""

    def __init__(
        self,
        session_id: str,
        config: SessionConfig,
        *,
        roles: Callable[[], Awaitable[RoleSet]],
        on_turn: Callable[[Session, Turn, bool], Awaitable[None]],
        on_event: Callable[[Event], None] | None = None,
        on_speculation: Callable[[Literal["adopted", "dropped"]], None] = lambda outcome: None,
        store: Store | None = None,
        restored: Restored | None = None,
        on_moved: Callable[[Session], None] = lambda session: None,
        who: Callable[[Samples], Awaitable[Told]] | None = None,
        voices: Callable[[Samples, Sequence[Word]], Awaitable[list[Part]]] | None = None,
        functions: Functions | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store`: where the session is written down for other processes; `restored`: what another
        one wrote; `on_moved` is called when another one has taken the session. `who` labels the speaker of
        an utterance, where the config asks for it, and `voices` those of its words, where several may
        speak; `functions` are what replies may call."""
        self.id = session_id
        self.config = config
        self._mirror: Mirror | None = None
        if store is not None:
            self._mirror = Mirror(
                session_id,
                store,
                state=self._state_to_keep,
                first_event=lambda: self.outbox.first_seq,
                first_sound=self._first_sound,
                on_written=lambda seq: self.outbox.release(seq),
                on_lost=lambda: on_moved(self),
            )
        self.outbox = Outbox(gate=self._mirror.event if self._mirror else None)
        self._get_roles = roles
        self._on_turn = on_turn
        self._on_event = on_event
        self._on_speculation = on_speculation
        self._who, self._voices = who, voices
        self._functions = functions
        self._now = now
        self._inbox = Inbox()
        self._begin = 0, 0
        self._ready = asyncio.Event()
        self._answers: Answers | None = None
        self._listener: Listener | None = None
        self._finishing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.moved = False
        """Whether another process has the session."""
        self.at_door: dict[str, Any] = {}
        """What the door wants another process to know."""
        self.connected = False
        """Whether a client has ever listened: the next one is a client that returns."""
        # Where each utterance begins that is over and has no final words yet, by turn, in order.
        self._unheard: dict[str, int] = {}
        self._typed: dict[str, Turn] = {}
        self._asked: dict[str, Turn] = {}
        self._restored = restored
        # Turns that will be heard once more, and what clients were told of them.
        self._again = deque(restored.hearing if restored else ())
        self._told = set(restored.told if restored else ())
        if restored is not None:
            self._take_up(restored)

    # --- what doors call ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen (once the models are there)."""
        self._spawn(self._listen())
        if self._mirror is not None:
            self._spawn(self._mirror.run())

    async def hear(self, samples: Samples) -> None:
        """The next sound (float32 mono 16 kHz, any length). Waits while 60 s are queued, so that
        a sender faster than the cores is slowed, not dropped."""
        if await self._inbox.room() and len(samples):
            if self._mirror is not None:
                self._mirror.sound(samples, self._inbox.heard_to)
            self._inbox.sound(samples)

    @property
    def safe(self) -> tuple[float, dict[str, Any]] | None:
        """How many ms of sound another process would have by now, and what of `at_door`; None if there
        is no other process. The client must be able to send the rest again."""
        if self._mirror is None:
            return None
        return self._mirror.sound_to / SAMPLE_RATE * 1000, self._mirror.told.get("at_door", {})

    @property
    def heard_s(self) -> float:
        """How much sound has come, in seconds."""
        return self._inbox.heard_to / SAMPLE_RATE

    def commit(self) -> None:
        """The utterance ends with the sound given so far (push-to-talk)."""
        self._inbox.put(Commit())

    def clear(self) -> None:
        """What is being said is not to be heard: no words of it, no answer."""
        self._inbox.put(Clear())

    def respond(self, ask: Ask) -> str:
        """Answer the conversation, up to all that was said by now; gives the turn's id. Waits until a reply
        that runs is over."""
        turn = self._new_turn("text")
        turn.clock.mark(Stage.ENDPOINT)
        self._asked[turn.id] = turn
        self._inbox.put(Asked(turn, ask))
        return turn.id

    def withdraw(self, turn_id: str) -> bool:
        """A reply that was asked for is not wanted any more; whether it had not begun. Its turn is completed
        as an interrupted one."""
        if (turn := self._asked.get(turn_id)) is None:
            return False
        turn.interrupted = True
        return True

    async def ready(self) -> None:
        """Wait until the models are there."""
        await self._ready.wait()

    def truncate(self, turn_id: str, ms: float) -> None:
        """Of that turn's reply no more than `ms` were heard."""
        self._replies.truncate(turn_id, ms)

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
        self._typed[turn.id] = turn
        self._spawn(self._answer_text(turn), "hear")

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
        if self._answers is not None and self._listener is not None:
            self._answers.config = config
            self._listener.configure(config)

    @property
    def listened_s(self) -> float:
        """How many seconds of the session's audio were listened to."""
        return self._listener.position / SAMPLE_RATE if self._listener is not None else 0.0

    @property
    def state(self) -> Literal["loading", "listening", "hearing", "thinking", "speaking"]:
        """What the session is at, for pages and logs."""
        if self._answers is None:
            return "loading"
        if (state := self._answers.state) is not None:
            return state
        if self._listener is not None and self._listener.hearing:
            return "hearing"
        return "thinking" if self._finishing.locked() else "listening"

    async def close(self) -> None:
        """Stop everything, and wait until nothing of it runs. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._inbox.close()
        self.interrupt("closed")
        # Words that are being said are still transcribed and kept; nobody hears an answer.
        if self._listener is not None:
            self._listener.end()
        hearing = [t for t in self._tasks if t.get_name() == "hear"]
        if hearing:
            await asyncio.wait(hearing, timeout=_LAST_WORDS_S)
        for task in self._tasks:
            if task.get_name() != "keep":
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.outbox.close()

    async def hand_over(self) -> bool:
        """Write down all that another process needs; whether that was possible."""
        return self._mirror is not None and await self._mirror.flush()

    async def abandon(self) -> None:
        """Another process has the session: stop without a word. Idempotent."""
        self._closed = self.moved = True
        self._inbox.close()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.outbox.close()

    # --- hearing -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        with bind(session_id=self.id):
            roles = await self._when_ready()
            self._answers = Answers(
                self.id,
                self.config,
                roles,
                emit=self._emit,
                fail=self._fail,
                done=self._complete,
                spawn=self._spawn,
                on_draft=self._on_speculation,
                functions=self._functions,
                now=self._now,
            )
            relay = relay_of(roles, self.config, self.id, self._emit, self._on_event, max(self._begin))
            if relay is not None:
                self._spawn(relay.run())
            listener = self._listener = Listener(
                self.id,
                self.config,
                roles,
                self._answers,
                emit=self._emit,
                spawn=self._spawn,
                new_turn=lambda: self._new_turn("speech"),
                on_spoken=self._spoken,
                firm=self._restored.firm if self._restored else lambda turn_id: (),
                begin=self._begin,
                relay=relay,
                now=self._now,
            )
            if self._restored is not None:
                self._go_on(self._restored)
            self._ready.set()
            while True:
                item = await self._inbox.take()
                try:
                    if isinstance(item, Commit):
                        self._end(listener)
                    elif isinstance(item, Clear):
                        listener.discard()
                    elif isinstance(item, Asked):
                        self._spawn(self._answer_asked(item.turn, item.ask), "hear")
                    else:
                        await listener.take(item)
                except ColloquyError as error:
                    self._fail(error, None)

    def _end(self, listener: Listener) -> None:
        if listener.hearing:
            listener.end()
        else:
            self._emit(Notice("NOTHING_HEARD", "Nothing was heard to answer: speak, then commit."))

    async def _when_ready(self) -> RoleSet:
        while True:
            try:
                return await self._get_roles()
            except ColloquyError as error:
                self._fail(error, None)
                await asyncio.sleep(_RETRY_S)

    # --- answering -----------------------------------------------------------------------------

    def _spoken(self, turn: Turn, utterance: Utterance, end: int, voiced_ms: float) -> None:
        # Until it has its final words, another process would have to hear it again.
        self._unheard[turn.id] = utterance.start
        self._spawn(self._answer_speech(turn, utterance, end, voiced_ms), "hear")

    async def _answer_speech(self, turn: Turn, utterance: Utterance, end: int, voiced_ms: float) -> None:
        assert self._listener is not None
        replies, floor = self._replies, self._listener.floor
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
                    del self._unheard[turn.id]
                turn.clock.mark(Stage.STT_FINAL)
                said = floor.verdict(turn, final.text, final.confidence, final.no_speech, voiced_ms)
                if said != "words":
                    turn.complete = True
                    replies.drop_draft()
                    if not self._listener.hearing:
                        floor.dismiss()
                    self._emit(TurnDropped(turn.id, _DROPPED[said]))
                    return
                if turn.recording is not None:
                    floor.learn(turn.recording)
                parts = [Part(0, NOBODY_TOLD)]
                if self.config.diarize and turn.recording is not None:
                    if self._voices is not None:
                        parts = await self._voices(turn.recording, final.words)
                    elif self._who is not None:
                        told = await self._who(turn.recording)
                        parts = [Part(0, told.label, told.person)]
                self._transcribed(turn, utterance, final, parts)
                if not self.config.turn.interrupt:
                    await replies.over()
                self._reply_to(turn)

    def _transcribed(self, turn: Turn, utterance: Utterance, final: FinalWords, parts: list[Part]) -> None:
        turn.transcript, turn.words = final.text, final.words
        turn.language, turn.confidence = final.language, final.confidence
        turn.partials = tuple(utterance.partials)
        self._tell(
            turn,
            Final(
                turn.id,
                turn.transcription_id or "",
                final.text,
                final.words,
                final.language,
                final.confidence,
                doubtful(final.confidence, final.no_speech),
                parts[0].speaker,
                start=utterance.start / SAMPLE_RATE,
                person=parts[0].person,
                parts=tuple(parts[:0] if len(parts) == 1 else parts),
            ),
        )

    async def _answer_text(self, turn: Turn) -> None:
        await self._ready.wait()
        async with self._finishing:
            del self._typed[turn.id]
            self._reply_to(turn)

    async def _answer_asked(self, turn: Turn, ask: Ask) -> None:
        # Behind what was said before it and has no final words yet.
        async with self._finishing:
            await self._replies.over()
            del self._asked[turn.id]
            if self._closed or turn.interrupted:
                self._only_note(turn)
            else:
                self._replies.respond(turn, ask)

    def _reply_to(self, turn: Turn) -> None:
        asked = turn.source == "text" or self.config.respond == "auto"
        if asked and not self._closed:
            self._replies.begin(turn)
        else:
            self._only_note(turn)

    def _only_note(self, turn: Turn) -> None:
        """Nobody wants an answer, or is there to hear it."""
        self._replies.drop_draft()
        self._replies.note(turn)
        turn.interrupted = turn.interrupted or self._closed
        self._complete(turn)

    def _complete(self, turn: Turn) -> None:
        turn.complete = True
        self._tell(
            turn,
            TurnComplete(
                turn.id,
                turn.number,
                turn.transcript,
                turn.heard,
                turn.audio_ms,
                turn.interrupted,
                turn.latency,
                turn.ended.reason == "length",
                turn.ended.prompt_tokens,
                turn.ended.completion_tokens,
            ),
        )

    def _tell(self, turn: Turn, event: Final | TurnComplete) -> None:
        complete = isinstance(event, TurnComplete)
        self._spawn(self._keep(turn, complete, self._put(event, hold=True)), "keep")

    async def _keep(self, turn: Turn, complete: bool, seq: int) -> None:
        patience = asyncio.get_running_loop().call_later(_TELL_S, self.outbox.let_go, seq)
        try:
            await self._on_turn(self, turn, complete)
        finally:
            patience.cancel()
            self.outbox.let_go(seq)
            if complete:
                turn.recording = None

    # --- in another process --------------------------------------------------------------------

    def _state_to_keep(self) -> dict[str, Any]:
        """What, beside events and sound, another process needs (`handover.restored`)."""
        if self._answers is None or self._listener is None:
            return {**(self._restored.state if self._restored else {}), "at_door": self.at_door}
        state: dict[str, Any] = {
            "history": to_json(self.history.entries),
            "turns": self._answers.turns,
            "listen_from": self._calm_to(),
            "typed": [[t.transcript, t.stream_text] for t in self._typed.values()],
            "commits": list(self._inbox.commits),
            "at_door": self.at_door,
            "hearing": [*self._unheard, *self._listener.turns, *self._again],
        }
        if (answering := self._answers.answering) is not None:
            state["answering"] = answering_state(*answering)
        return state

    def _calm_to(self) -> int:
        calm_to = self._listener.calm_to if self._listener else max(self._begin)
        return min(self._unheard.values(), default=calm_to)

    def _first_sound(self) -> int:
        """The first sample that another process would need."""
        listen_from = self._calm_to() - SAMPLE_RATE
        answering = self._answers.answering if self._answers else None
        span = answering[0].span if answering else None
        return min(listen_from, span[0]) if span else listen_from

    def _take_up(self, restored: Restored) -> None:
        """Begin where another process wrote that it was."""
        self.connected = True
        self.at_door = restored.state.get("at_door", {})
        self.outbox.refill(restored.events)
        if self._mirror is not None:
            self._mirror.begin_with(restored)
        begin = restored.listen_from
        self._begin = restored.sound[0][0] if restored.sound else begin, begin
        self._inbox.refill(begin, restored.sound, restored.state.get("commits", ()))

    def _go_on(self, restored: Restored) -> None:
        """Answer on, once the models are there."""
        answers = self._replies
        answers.take_over(restored.history, restored.turns)
        if (found := restored.answering) is not None:
            self._answer_on(found, restored)
        for text, stream in restored.typed:
            self.say(text, stream=stream)

    def _answer_on(self, found: dict[str, Any], restored: Restored) -> None:
        turn = self._new_turn("text")
        said = answer_on(turn, found, restored)
        turn.clock.mark(Stage.ENDPOINT)
        self._replies.go_on(turn, said)

    # --- small things --------------------------------------------------------------------------

    def _new_turn(self, source: Literal["speech", "text"]) -> Turn:
        turn = Turn(source, TurnClock(self._now))
        turn.transcription_id = str(uuid.uuid4()) if source == "speech" else None
        if source == "speech" and self._again:
            turn.id = self._again.popleft()
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
        self._put(event)

    def _put(self, event: Event, *, hold: bool = False) -> int:
        if isinstance(event, SpeechStarted | SpeechStopped) and self._told:
            told = (type(event), event.turn_id)
            if told in self._told:
                self._told.discard(told)
                return self.outbox.last_seq
        seq = self.outbox.put(event, hold=hold)
        if self._listener is not None:
            self._listener.reply_event(event)
        if self._on_event is not None:
            self._on_event(event)
        return seq

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
