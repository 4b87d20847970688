"""The answering half of a session: the reply that runs, the one that is drafted, and history.

A draft is a reply begun in the closing silence, before it is certain that the turn is over. It is
adopted if the final words are those it answers, and dropped unheard if not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from app.dialogue.agreement import nearly_same_words
from app.dialogue.config import Ask, SessionConfig
from app.dialogue.events import Event, Interrupted, Reason, ReplyPaused, ReplyResumed
from app.dialogue.functions import Functions, Nothing, offered, tokens_of
from app.dialogue.history import Entry, History
from app.dialogue.reply import NOTHING_SAID, Reply, Said, Segment, heard_of
from app.dialogue.turn import Turn
from app.observability.clock import Stage
from app.observability.logs import bind
from app.roles import ChatMessage, ColloquyError, Job, RoleSet, Tool, Urgency

log = logging.getLogger(__name__)

_LITTLE_LEFT_MS = 700.0
_LONGEST_PAUSE_S = 3.0
_TRUNCATABLE = 50
"""Of so many replies the client may say later how much was heard."""


class Answers:
    """At most one reply runs. `emit` sends events, `fail` tells of an error, `done` completes a
    turn, `spawn` runs a task that ends with the session; `functions` are those of the server."""

    def __init__(
        self,
        owner: str,
        config: SessionConfig,
        roles: RoleSet,
        *,
        emit: Callable[[Event], None],
        fail: Callable[[ColloquyError, Turn], None],
        done: Callable[[Turn], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_draft: Callable[[Literal["adopted", "dropped"]], None],
        functions: Functions | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.history = History()
        self._owner = owner
        self._roles = roles
        self._emit, self._fail, self._done, self._spawn = emit, fail, done, spawn
        self._on_draft = on_draft
        self._functions = functions or Nothing()
        self._now = now
        self._turns = 0
        self._last_text = ""
        self._reply: tuple[Turn, Reply, asyncio.Task[None]] | None = None
        # What the draft answers, itself, its task.
        self._draft: tuple[str, Reply, asyncio.Task[None]] | None = None
        # What was spoken of the last replies, and in how many steps.
        self._spoken: dict[str, tuple[Sequence[Segment], int]] = {}
        # What the language model has been given to read ahead, and the task that does it.
        self._read = ""
        self._reading: asyncio.Task[None] | None = None

    @property
    def state(self) -> Literal["thinking", "speaking"] | None:
        """What the running reply is at; None if there is none."""
        if self._reply is None:
            return None
        return "speaking" if self._reply[1].sent_ms else "thinking"

    def begin(self, turn: Turn) -> None:
        """Answer `turn`: with the draft, if it answers just this. Stops a reply that runs."""
        # First what was heard of the last reply, then what was said to it.
        self.interrupt("text" if turn.source == "text" else "speech")
        draft = self._take_draft(turn)
        if draft is None:
            reply = self._new(turn, turn.language)
            draft = reply, self._run(turn, reply, turn.transcript)
        self.note(turn)
        self._reply = (turn, *draft)
        draft[0].adopt()

    def respond(self, turn: Turn, ask: Ask) -> None:
        """Answer what a client asks for. Nobody else may be answered."""
        self.drop_draft()
        config = ask.config or self.config
        if ask.messages is None:
            messages = self._prompt("", config)
        else:
            messages = [ChatMessage("system", config.instructions), *ask.messages]
        turn.kept = ask.keep
        reply = self._new(turn, config.language or "en", config=config)
        self.note(turn)
        self._reply = (turn, reply, self._spawn(self._answer(turn, reply, messages)))
        reply.adopt()

    async def over(self) -> None:
        """Wait until no reply runs."""
        while self._reply is not None:
            await asyncio.wait([self._reply[2]])

    def truncate(self, turn_id: str, ms: float) -> None:
        """Of that turn's reply no more than `ms` were heard, says the client. Stops it if it runs; replies
        of long ago are left as they are."""
        if self._reply is not None and self._reply[0].id == turn_id:
            self.played(turn_id, ms)
            self.interrupt("client")
        elif (spoken := self._spoken.get(turn_id)) is not None:
            segments, steps = spoken
            for step in range(steps + 1):
                id_ = reply_id(turn_id) if step == steps else step_id(turn_id, step)
                self.history.rewrite(id_, heard_of(segments, ms, step))

    def go_on(self, turn: Turn, said: Said) -> None:
        """Answer `turn` from where another process left off. History has what the person said."""
        if said.steps:
            self.history.called(said.steps)
        messages = self._prompt("")
        if said.text:
            # Models go on with a message of theirs that is last.
            messages.append(ChatMessage("assistant", said.text))
        reply = self._new(turn, turn.language, said)
        self._reply = (turn, reply, self._spawn(self._answer(turn, reply, messages)))
        reply.adopt()

    def take_over(self, history: Sequence[Entry], turns: int) -> None:
        """Go on with a conversation of `turns` turns."""
        self.history = History(history)
        self._turns = turns

    @property
    def turns(self) -> int:
        """How many turns there have been."""
        return self._turns

    @property
    def answering(self) -> tuple[Turn, Reply] | None:
        """The reply that runs and its turn."""
        return self._reply[:2] if self._reply is not None else None

    def note(self, turn: Turn) -> None:
        """`turn` is part of the conversation from here on, answered or not."""
        self._turns += 1
        turn.number = self._turns
        if turn.transcript and self.config.respond != "never":
            self.history.user(turn.transcript, turn.id)

    def interrupt(self, reason: Reason) -> None:
        """Stop the reply, if one is running: its client is told at once, history keeps what was
        heard, and the engines' work for it is cancelled."""
        if self._reply is None:
            return
        turn, reply, task = self._reply
        turn.interrupted = True
        self._settle(turn, reply)
        self._emit(Interrupted(turn.id, reason, turn.heard))
        self._done(turn)
        task.cancel()

    # --- while somebody may be speaking over it ------------------------------------------------

    def pause(self) -> None:
        """Hold the sound of the reply that is being heard, until `resume` or `interrupt`."""
        if self._reply is not None and self.state == "speaking" and not self._reply[1].paused:
            turn, reply, _ = self._reply
            reply.pause()
            self._emit(ReplyPaused(turn.id, reply.heard_ms()))
            # The microphone may fall silent for good, and then nothing would ever end the pause.
            asyncio.get_running_loop().call_later(_LONGEST_PAUSE_S, self._resume_if, reply)

    def resume(self) -> None:
        """Go on with a reply that is held."""
        if self._reply is not None and self._reply[1].paused:
            turn, reply, _ = self._reply
            self._emit(ReplyResumed(turn.id))
            reply.resume()

    def _resume_if(self, reply: Reply) -> None:
        if self._reply is not None and self._reply[1] is reply:
            self.resume()

    @property
    def paused(self) -> bool:
        """Whether there is a reply that is held."""
        return self._reply is not None and self._reply[1].paused

    @property
    def heard_ms(self) -> float:
        """How much of the reply that runs has been heard by now."""
        return self._reply[1].heard_ms() if self._reply is not None else 0.0

    @property
    def nearly_over(self) -> bool:
        """Whether little or nothing is left to be heard: what is said now answers the reply."""
        if self._reply is None:
            return True
        reply = self._reply[1]
        return reply.written and reply.ahead_ms() < _LITTLE_LEFT_MS

    @property
    def recent_text(self) -> str:
        """What is being heard, for telling its echo."""
        return self._reply[1].recent_text() if self._reply is not None else self._last_text

    def played(self, turn_id: str, ms: float) -> None:
        """The client has played `ms` of that turn's reply. Reports of old turns are ignored."""
        if self._reply is not None and self._reply[0].id == turn_id:
            self._reply[1].played(ms)

    # --- before the turn is over ---------------------------------------------------------------

    def read_ahead(self, words: str) -> None:
        """Let the language model read what was said so far while the person still speaks. What it has
        read of words that turn out otherwise is read again; what it was about to read is not."""
        if (words and words == self._read) or self.config.respond == "never":
            return
        if self._reading is not None:
            self._reading.cancel()
        self._read = words
        job = Job(self._owner, Urgency.PARTIAL)
        work = self._roles.llm.prepare(self._prompt(words), job, self._tools(self.config))
        self._reading = self._spawn(work)

    async def completeness(self, words: str) -> float | None:
        """How likely `words` are all that is said now; None where nobody can tell, and while a reply runs:
        the model is busy with it."""
        judge = self._roles.completeness
        if judge is None or self._reply is not None or self.config.respond == "never":
            return None
        if self._reading is not None:
            # What it has read by now counts.
            self._reading.cancel()
        try:
            job = Job(self._owner, Urgency.FINAL)
            return await judge.completeness(self._prompt(words), job, self._tools(self.config))
        except ColloquyError as error:
            log.warning("the words were not weighed: %s", error.message)
            return None

    def draft(self, turn: Turn, text: str, language: str) -> None:
        """Begin to answer `text`, which is what `turn` will be if it is over. A turn has only so
        many guesses; while a reply runs there are none."""
        if self.config.respond != "auto" or self._reply is not None:
            return
        if turn.drafts >= self.config.turn.speculations:
            return
        self.drop_draft()
        turn.drafts += 1
        reply = self._new(turn, language)
        self._draft = text, reply, self._run(turn, reply, text)

    def drop_draft(self) -> None:
        """The draft is not wanted; nobody has heard of it."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft[2].cancel()
            self._on_draft("dropped")

    def _take_draft(self, turn: Turn) -> tuple[Reply, asyncio.Task[None]] | None:
        if self._draft is not None:
            text, reply, task = self._draft
            if reply.turn_id == turn.id and nearly_same_words(text, turn.transcript) and not task.done():
                self._draft = None
                self._on_draft("adopted")
                return reply, task
        self.drop_draft()
        return None

    # --- the reply -----------------------------------------------------------------------------

    def _new(
        self, turn: Turn, language: str, said: Said = NOTHING_SAID, config: SessionConfig | None = None
    ) -> Reply:
        def emit(event: Event) -> None:
            # A stopped reply may still have a piece in hand; it must not be heard.
            if not turn.complete:
                self._emit(event)

        return Reply(
            turn.id,
            self._roles,
            config or self.config,
            owner=self._owner,
            language=language,
            stream_text=turn.stream_text,
            emit=emit,
            # Of a reply that is no part of the conversation its own client takes care.
            functions=self._functions if turn.kept else None,
            said=said,
            now=self._now,
        )

    def _prompt(self, asking: str, config: SessionConfig | None = None) -> list[ChatMessage]:
        config = config or self.config
        return self.history.window(
            config.instructions, self._roles.llm, self._kept_free(config), asking=asking
        )

    def _tools(self, config: SessionConfig) -> tuple[Tool, ...]:
        return offered(config, self._functions)

    def _kept_free(self, config: SessionConfig) -> int:
        """Tokens of the model's window that the reply takes, and what it is told of functions."""
        return config.max_reply_tokens + tokens_of(self._tools(config), self._roles.llm)

    def _run(self, turn: Turn, reply: Reply, asking: str) -> asyncio.Task[None]:
        return self._spawn(self._answer(turn, reply, self._prompt(asking)))

    async def _answer(self, turn: Turn, reply: Reply, messages: list[ChatMessage]) -> None:
        with bind(trace_id=turn.trace_id):
            try:
                if self._reading is not None:
                    # What it has read by now counts.
                    self._reading.cancel()
                await reply.run(messages)
            except Exception:  # a bug must not end the session silently
                log.exception("a reply failed")
                if self._reply is None or self._reply[1] is not reply:
                    return  # it was only a draft; the turn gets another
                turn.failed = True
                self._fail(ColloquyError("the reply failed inside; the log has the details"), turn)
            for failure in (reply.text_failure, reply.speech_failure):
                if failure is not None and not turn.complete:
                    turn.failed = True
                    self._fail(failure, turn)
            if not turn.complete:
                self._settle(turn, reply)
                self._done(turn)

    def _settle(self, turn: Turn, reply: Reply) -> None:
        """Fix what was said and heard of a reply that is over."""
        turn.reply_text, turn.audio_ms = reply.text, reply.sent_ms
        turn.clock.take(reply.clock)
        turn.heard = reply.heard_text() if turn.interrupted else reply.text.strip()
        turn.clock.mark(Stage.REPLY_DONE)
        turn.ended = reply.ended
        if turn.kept:
            *before, last = reply.parts(heard=turn.interrupted)
            for number, (step, text) in enumerate(zip(reply.steps, before, strict=True)):
                self.history.called(step.messages(text), step_id(turn.id, number))
            self.history.assistant(last, reply_id(turn.id))
            # A call that was being written is none, and nobody will give the result of one that was stopped.
            for call in () if turn.interrupted or turn.failed else reply.calls:
                self.history.assistant("", call.id, (call,))
            self._spoken[turn.id] = tuple(reply.segments), len(reply.steps)
            if len(self._spoken) > _TRUNCATABLE:
                del self._spoken[next(iter(self._spoken))]
        self._last_text = reply.recent_text()
        self._reply = None
        config = self.config
        if self.history.make_room(config.instructions, self._roles.llm, self._kept_free(config)):
            self._read = ""
            self.read_ahead("")


def reply_id(turn_id: str) -> str:
    """The id of a reply in the history; what the person said has the turn's own."""
    return f"{turn_id}:reply"


def step_id(turn_id: str, number: int) -> str:
    """The id in the history of what a reply wrote before it called functions for the `number`-th time."""
    return f"{turn_id}:step:{number}"
