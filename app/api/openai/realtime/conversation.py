"""A session of the core as OpenAI's realtime protocol tells it.

The core's events come in by `follow`, one after the other; frames go into a log that outlives the connection,
so that a client that returns is told what it missed. Nothing is decided here about turns, only said.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.api.openai.errors import error_body
from app.api.openai.realtime.items import Item, Items, new_id, spoken
from app.api.openai.realtime.reply import Response
from app.api.openai.realtime.wishes import Wishes
from app.dialogue import events
from app.dialogue.config import Ask
from app.dialogue.outbox import FellBehind
from app.dialogue.session import Session
from app.roles import SAMPLE_RATE, BadInput, ColloquyError

log = logging.getLogger(__name__)

_KEPT_BYTES = 16 << 20
"""Of frames, for a client that is slow or away: about five minutes of speech."""
_LEAST_COMMITTED = SAMPLE_RATE // 10
"""Samples: a tenth of a second, as OpenAI has it."""

_SETTLES_S = 5.0


@dataclass(slots=True)
class _Spoken:
    """A turn that the person speaks. What happens in it while a reply is heard is not told before it is
    certain that it takes the turn: clients throw their sound away when they hear of it."""

    item_id: str
    at: float
    told: bool = False
    sent: str = ""
    committed: str = ""
    stopped: float | None = None


@dataclass(slots=True)
class _Frames:
    """What was sent, or will be, by number."""

    last: int = 0
    frames: deque[tuple[int, str]] = field(default_factory=deque)
    size: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, text: str) -> None:
        self.last += 1
        self.frames.append((self.last, text))
        self.size += len(text)
        while self.size > _KEPT_BYTES:
            self.size -= len(self.frames.popleft()[1])
        self.news.set()
        self.news = asyncio.Event()

    def since(self, after: int) -> Iterator[tuple[int, str]]:
        if self.frames and self.frames[0][0] > after + 1:
            raise FellBehind
        return iter([f for f in self.frames if f[0] > after])


class Conversation:
    """One for a session. `on_end` is called when the session is over."""

    def __init__(self, session: Session, wishes: Wishes, *, on_end: Callable[[], None]) -> None:
        self.session, self.wishes = session, wishes
        self.items = Items()
        self.log = _Frames()
        self.ended = False
        self.sent = 0
        """The last frame that a connection took."""
        self.response: Response | None = None
        self.appended = 0
        """Samples that came since the last commit."""
        self._commits: deque[tuple[str | None, int]] = deque()
        self._id = new_id("conv")
        self._on_end = on_end
        self._spoken: dict[str, _Spoken] = {}
        self._idle: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._follow())

    # --- frames -----------------------------------------------------------------------------------

    def emit(self, type_: str, /, **fields: Any) -> None:
        """Send a frame."""
        self.log.put(json.dumps({"type": type_, "event_id": f"event_{self.log.last + 1}", **fields}))

    def fail(self, error: ColloquyError, event_id: str | None = None) -> None:
        """Tell of an error; the session goes on."""
        self.emit("error", error={**error_body(error)["error"], "event_id": event_id})

    async def _follow(self) -> None:
        try:
            async for _, event in self.session.outbox.follow(0):
                self._tell(event)
        except Exception:  # a bug here must not leave a client waiting for good
            log.exception("a realtime session broke")
        finally:
            self.ended = True
            self._quiet()
            self.log.news.set()
            self._on_end()

    # --- what the core says -----------------------------------------------------------------------

    def _tell(self, event: events.Event) -> None:
        match event:
            case events.SpeechStarted():
                self._speech_started(event)
            case events.Partial():
                self._partial(event)
            case events.SpeechStopped():
                self._speech_stopped(event)
            case events.Final():
                self._final(event)
            case events.TurnDropped():
                self._dropped(event)
            case events.Interrupted():
                self._interrupted(event)
            case events.TurnComplete():
                self._complete(event)
            case events.Failed():
                self._failed(event)
            case events.Notice(code="NOTHING_HEARD"):
                self._nothing_heard()
            case events.ReplyText() | events.ReplyAudio() | events.ReplyCall():
                self._reply(event)
            case _:
                pass  # held and resumed replies: the client goes on playing what it has

    @property
    def _manual(self) -> bool:
        return self.wishes.detection is None

    def _speech_started(self, event: events.SpeechStarted) -> None:
        self._quiet()
        turn = self._spoken[event.turn_id] = _Spoken(new_id("item"), event.at)
        if self.response is None:
            self._told(turn)

    def _told(self, turn: _Spoken) -> None:
        """From here on the client knows that somebody speaks."""
        if not turn.told:
            turn.told = True
            if not self._manual:
                at = int(turn.at * 1000)
                self.emit("input_audio_buffer.speech_started", audio_start_ms=at, item_id=turn.item_id)
        self._words(turn)
        if turn.stopped is not None and not self._manual:
            at, turn.stopped = int(turn.stopped * 1000), None
            self.emit("input_audio_buffer.speech_stopped", audio_end_ms=at, item_id=turn.item_id)

    def _words(self, turn: _Spoken) -> None:
        """The words that are certain by now."""
        delta = turn.committed[len(turn.sent) :]
        if delta and self.wishes.transcription is not None:
            turn.sent = turn.committed
            self._of_transcription("delta", turn, delta=delta)

    def _of_transcription(self, kind: str, turn: _Spoken, **fields: Any) -> None:
        type_ = f"conversation.item.input_audio_transcription.{kind}"
        self.emit(type_, item_id=turn.item_id, content_index=0, **fields)

    def _partial(self, event: events.Partial) -> None:
        turn = self._spoken.get(event.turn_id)
        if turn is not None:
            turn.committed = event.committed
            if turn.told:
                self._words(turn)

    def _speech_stopped(self, event: events.SpeechStopped) -> None:
        turn = self._spoken.get(event.turn_id)
        if turn is not None:
            turn.stopped = event.at
            if turn.told:
                self._told(turn)

    def _final(self, event: events.Final) -> None:
        turn = self._spoken.pop(event.turn_id)
        self._told(turn)
        seconds = event.words[-1].end if event.words else 0.0
        self._committed(turn, event.turn_id, event.text)
        if (wanted := self.wishes.transcription) is not None:
            turn.committed = event.text
            self._words(turn)
            if "diarize" in (wanted.get("model") or ""):
                self._of_transcription(
                    "segment",
                    turn,
                    id=new_id("seg"),
                    text=event.text,
                    speaker=event.speaker,
                    start=event.words[0].start if event.words else 0.0,
                    end=seconds,
                )
            usage = {"type": "duration", "seconds": round(seconds, 3)}
            self._of_transcription("completed", turn, transcript=event.text, usage=usage)
        if self.wishes.responds:
            self.begin(event.turn_id, self.wishes.shown)

    def _committed(self, turn: _Spoken, turn_id: str, transcript: str | None) -> None:
        """The sound of a turn is an item from here on."""
        if self._commits:
            self._commits.popleft()
        self.emit("input_audio_buffer.committed", item_id=turn.item_id, previous_item_id=self.items.last_id)
        item = spoken(turn.item_id, turn_id, None)
        self.add(item)
        # The words are told by the events of the transcription only: clients add those to the item's.
        item.shown["content"][0]["transcript"] = transcript

    async def settled(self) -> None:
        """Wait, for a while, until something has come of all commits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLES_S):
                while self._commits:
                    await self.log.news.wait()

    def add(self, item: Item, previous: str | None = None) -> None:
        """A new item that is complete."""
        before = self.items.add(item, previous)
        for kind in ("added", "done"):
            self.emit(f"conversation.item.{kind}", previous_item_id=before, item=item.shown)

    def _dropped(self, event: events.TurnDropped) -> None:
        turn = self._spoken.pop(event.turn_id, None)
        if turn is not None and self._commits:
            self._wordless(turn, event.turn_id)
        elif turn is not None and turn.told and not self._manual and event.reason != events.TAKEN_BACK:
            self.emit("input_audio_buffer.cleared")

    def _wordless(self, turn: _Spoken, turn_id: str) -> None:
        """Who commits is owed an item, though there are no words in it."""
        self._committed(turn, turn_id, "")
        if self.wishes.transcription is not None:
            usage = {"type": "duration", "seconds": 0}
            self._of_transcription("completed", turn, transcript="", usage=usage)

    def commit(self, event_id: str | None) -> None:
        """The client ends the turn; what comes of it is told when the core has heard all."""
        self._commits.append((event_id, self.appended))
        self.appended = 0
        self.session.commit()

    def cleared(self) -> None:
        """What was not committed is forgotten."""
        self.appended = 0
        self.emit("input_audio_buffer.cleared")

    def _nothing_heard(self) -> None:
        if self._manual and self._commits and self._commits[0][1] >= _LEAST_COMMITTED:
            # The client's own ears took it for speech; some clients give up at an error.
            self._wordless(_Spoken(new_id("item"), 0.0), "")
            return
        event_id = self._commits.popleft()[0] if self._commits else None
        error = BadInput("Error committing input audio buffer: buffer too small, send sound first")
        body = error_body(error)["error"] | {"code": "input_audio_buffer_commit_empty", "event_id": event_id}
        self.emit("error", error=body)

    # --- replies ----------------------------------------------------------------------------------

    def begin(self, turn_id: str, shown: dict[str, Any], ask: Ask | None = None, **metadata: Any) -> None:
        """A reply to a turn comes from here on, with the settings `shown`."""
        self._quiet()
        self.response = Response(
            self.emit,
            self.items,
            turn_id,
            shown,
            conversation_id=self._id if ask is None or ask.keep else None,
            audio_out=self.wishes.audio_out,
            **metadata,
        )

    def _reply(self, event: events.ReplyText | events.ReplyAudio | events.ReplyCall) -> None:
        response = self.response
        if response is None or response.turn_id != event.turn_id:
            return
        if isinstance(event, events.ReplyText):
            response.text(event.text)
        elif isinstance(event, events.ReplyAudio):
            response.audio(event)
        else:
            response.call(event)

    def _interrupted(self, event: events.Interrupted) -> None:
        reason = "turn_detected" if event.reason == "speech" else "client_cancelled"
        self._response_done(event.turn_id, "cancelled", reason)

    def _complete(self, event: events.TurnComplete) -> None:
        response = self.response
        if response is not None and response.turn_id == event.turn_id:
            tokens = event.prompt_tokens, event.completion_tokens
            if response.failure is not None:
                self._response_done(event.turn_id, "failed", None, tokens)
            elif event.interrupted:
                self._response_done(event.turn_id, "cancelled", "client_cancelled", tokens)
            elif event.cut:
                self._response_done(event.turn_id, "incomplete", "max_output_tokens", tokens)
            else:
                self._response_done(event.turn_id, "completed", None, tokens)
            self._wait_for_speech()

    def _response_done(
        self, turn_id: str, status: Any, reason: str | None, tokens: tuple[int, int] = (0, 0)
    ) -> None:
        response = self.response
        if response is not None and response.turn_id == turn_id:
            self.response = None
            response.done(status, reason, tokens)
            for turn in self._spoken.values():
                self._told(turn)

    def _failed(self, event: events.Failed) -> None:
        if self.response is not None and self.response.turn_id == event.turn_id:
            self.response.failure = event
        elif event.turn_id in self._spoken:
            turn = self._spoken.pop(event.turn_id)
            self._told(turn)
            self._committed(turn, event.turn_id, None)
            error = {"type": "server_error", "code": event.code.lower(), "message": event.message}
            self._of_transcription("failed", turn, error=error)
        else:
            type_ = "server_error" if event.retryable else "invalid_request_error"
            error = {"type": type_, "code": event.code.lower(), "message": event.message}
            self.emit("error", error={**error, "param": event.field, "event_id": None})

    # --- when nobody speaks -----------------------------------------------------------------------

    def _wait_for_speech(self) -> None:
        wait_ms = (self.wishes.detection or {}).get("idle_timeout_ms")
        if wait_ms and self.response is None and not self._spoken:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(wait_ms / 1000, self._nobody_spoke, wait_ms)

    def _quiet(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _nobody_spoke(self, wait_ms: int) -> None:
        item_id, end = new_id("item"), int(self.session.heard_s * 1000)
        begin = max(0, end - wait_ms)
        self.emit(
            "input_audio_buffer.timeout_triggered", audio_start_ms=begin, audio_end_ms=end, item_id=item_id
        )
        self.emit("input_audio_buffer.committed", item_id=item_id, previous_item_id=self.items.last_id)
        self.add(spoken(item_id, "", ""))
        self.begin(self.session.respond(Ask()), self.wishes.shown)
