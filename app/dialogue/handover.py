"""A session goes on in another process: what it writes down meanwhile, and how that is read.

Everything a client is told is written down before it is told (`Outbox` waits), and sound counts
as received once it is written down; so whoever takes over knows all that the client knows, and
the client sends again all that nobody knows. The new holder hears the sound of utterances that
had no answer yet once more, and speaks on where the sound of a reply ended.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from app.dialogue import events as e
from app.dialogue.agreement import split_words
from app.dialogue.history import Entry, from_json, to_json
from app.dialogue.reply import Reply, Said
from app.dialogue.turn import Turn
from app.roles import ColloquyError, Samples, Word

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_MAX_WAITING_BYTES = 16 << 20
"""Written down while the store is away, per session; the oldest go first."""
_BEAT_S = 5.0
"""A session in which nothing happens says this often that it lives."""

Written = tuple[int, bytes]


class Store(Protocol):
    """Where sessions are written down (`stores.shared`)."""

    async def append(
        self,
        session_id: str,
        events: Sequence[Written] = (),
        sound: Sequence[Written] = (),
        *,
        drop_events: int = 0,
        drop_sound: int = 0,
        state: dict[str, Any] | None = None,
    ) -> bool:
        """False if another process holds the session by now."""


class Mirror:
    """Writes one session down. `state` gives its present state, `first_event` and `first_sound`
    what is still needed; `on_written` is told the last event that is safe, `on_lost` that another
    process has the session."""

    def __init__(
        self,
        session_id: str,
        store: Store,
        *,
        state: Callable[[], dict[str, Any]],
        first_event: Callable[[], int],
        first_sound: Callable[[], int],
        on_written: Callable[[int], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._id, self._store = session_id, store
        self._state, self._first_event, self._first_sound = state, first_event, first_sound
        self._on_written, self._on_lost = on_written, on_lost
        self._events: list[Written] = []
        self._sound: list[Written] = []
        # Numbers of the events, and (begin, end) of the pieces of sound, that are in the store.
        self._stored_events: list[int] = []
        self._stored_sound: list[tuple[int, int]] = []
        self.told: dict[str, Any] = {}
        """The state that is written down."""
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        # Whether what is in the store does not lead up to what is to be written next.
        self._gap = False
        self.sound_to = 0
        """Sound before this position (samples) is written down."""

    def begin_with(self, restored: Restored) -> None:
        """What is in the store already, of a session that was taken over."""
        self.told = restored.state
        events, sound = restored.stored
        self._stored_events = [seq for seq, _ in events]
        self._stored_sound = [(at, at + len(data) // 2) for at, data in sound]
        self.sound_to = self._stored_sound[-1][1] if self._stored_sound else 0

    def event(self, seq: int, event: e.Event) -> None:
        """An event that the client is to be told."""
        self._events.append((seq, pack(event)))
        self._news.set()

    def sound(self, samples: Samples, position: int) -> None:
        """Sound that was heard, from sample `position` of the session on."""
        self._sound.append((position, pcm(samples)))
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled, or until another process has the session."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await self._news.wait()
            self._news.clear()
            try:
                if not await self._write():
                    self._on_lost()
                    return
            except ColloquyError as error:
                # The conversation goes on without a net until the store is back.
                log.warning("a session is not written down for now: %s", error.message)
                self._give_up_waiting()
                await asyncio.sleep(_RETRY_S)
                self._news.set()

    async def flush(self) -> bool:
        """Write what is not written yet; whether it all is, by us."""
        try:
            return await self._write()
        except ColloquyError as error:
            log.warning("a session could not be written down: %s", error.message)
            return False

    async def _write(self) -> bool:
        async with self._writing:
            return await self._write_all()

    async def _write_all(self) -> bool:
        # All in one go, as it is at this moment: whoever reads it finds no half of anything.
        events, sound, state = list(self._events), list(self._sound), self._state()
        stored = self._stored_events + [seq for seq, _ in events]
        # Behind a gap only what comes after it is of use.
        first = events[0][0] if self._gap and events else self._first_event()
        drop_events = sum(seq < first for seq in stored)
        pieces = self._stored_sound + [(at, at + len(data) // 2) for at, data in sound]
        needed = self._first_sound()
        drop_sound = sum(end <= needed for _, end in pieces)
        held = await self._store.append(
            self._id,
            events,
            sound,
            drop_events=drop_events,
            drop_sound=drop_sound,
            state=None if state == self.told else state,
        )
        if held:
            self.told, self._gap = state, False
            del self._events[: len(events)], self._sound[: len(sound)]
            self._stored_events, self._stored_sound = stored[drop_events:], pieces[drop_sound:]
            self._done(events, sound)
        return held

    def _done(self, events: Sequence[Written], sound: Sequence[Written]) -> None:
        if sound:
            self.sound_to = sound[-1][0] + len(sound[-1][1]) // 2
        if events:
            self._on_written(events[-1][0])

    def _give_up_waiting(self) -> None:
        """Nobody waits for a store that is away; what is to be written stays, within bounds."""
        self._done(self._events, self._sound)
        if sum(len(data) for _, data in (*self._events, *self._sound)) > _MAX_WAITING_BYTES:
            self._events.clear()
            self._sound.clear()
            self._gap = True


@dataclass(frozen=True, slots=True)
class Restored:
    """A session as another process left it."""

    events: tuple[tuple[int, e.Event], ...]
    sound: tuple[tuple[int, Samples], ...]
    history: tuple[Entry, ...] = ()
    turns: int = 0
    listen_from: int = 0
    """Sample from which on the sound is to be heard again."""
    hearing: tuple[str, ...] = ()
    """Turns that were being said, or transcribed."""
    typed: tuple[tuple[str, bool], ...] = ()
    """Typed turns whose answer had not begun."""
    answering: dict[str, Any] | None = None
    """The turn that was being answered."""
    state: dict[str, Any] = field(default_factory=dict)
    stored: tuple[tuple[Written, ...], tuple[Written, ...]] = field(default=((), ()), repr=False)

    @property
    def told(self) -> frozenset[tuple[type, str]]:
        """Of the turns that are heard again: what the client has been told of them."""
        again = (e.SpeechStarted, e.SpeechStopped)
        return frozenset(
            (type(event), event.turn_id)
            for _, event in self.events
            if isinstance(event, again) and event.turn_id in self.hearing
        )

    def between(self, begin: int, end: int) -> Samples:
        """The sound from sample `begin` to `end`, as far as it was kept."""
        pieces = [s[max(0, begin - at) : max(0, end - at)] for at, s in self.sound]
        return np.concatenate([*pieces, np.zeros(0, np.float32)])

    def firm(self, turn_id: str) -> list[str]:
        """The words of a turn that the client was told are firm."""
        partials = [v for _, v in self.events if isinstance(v, e.Partial) and v.turn_id == turn_id]
        return split_words(partials[-1].committed) if partials else []

    def final(self, turn_id: str) -> e.Final | None:
        """What the client was told that was said in a turn."""
        return next((v for _, v in self.events if isinstance(v, e.Final) and v.turn_id == turn_id), None)

    def said(self, turn_id: str, *, written: bool) -> Said:
        """What the client was given of the reply to a turn."""
        text, sent_ms = "", 0.0
        segments: list[tuple[str, float]] = []
        for _, event in self.events:
            if isinstance(event, e.ReplyText) and event.turn_id == turn_id:
                text += event.text
            elif isinstance(event, e.ReplyAudio) and event.turn_id == turn_id:
                if event.text is not None:
                    segments.append((event.text, event.offset_ms))
                sent_ms = event.offset_ms + event.duration_ms
        return Said(text, tuple(segments), sent_ms, written)


def restored(state: dict[str, Any], events: Sequence[Written], sound: Sequence[Written]) -> Restored:
    """What was written down (by `Session.state_to_keep` and `Mirror`), as values."""
    return Restored(
        events=tuple((seq, unpack(data)) for seq, data in events),
        sound=tuple((at, heard(data)) for at, data in sound),
        history=tuple(from_json(state.get("history", ()))),
        turns=state.get("turns", 0),
        listen_from=state.get("listen_from", 0),
        hearing=tuple(state.get("hearing", ())),
        typed=tuple((text, stream) for text, stream in state.get("typed", ())),
        answering=state.get("answering"),
        state=state,
        stored=(tuple(events), tuple(sound)),
    )


def answering_state(turn: Turn, reply: Reply) -> dict[str, Any]:
    """What another process must know of a turn that is being answered."""
    return {
        "id": turn.id,
        "number": turn.number,
        "source": turn.source,
        "transcript": turn.transcript,
        "created_at": turn.created_at.isoformat(),
        "stream_text": turn.stream_text,
        "written": reply.written,
        "steps": to_json([("", m) for step in reply.steps for m in step.messages("")]),
        "span": turn.span,
    }


def answer_on(turn: Turn, found: dict[str, Any], restored: Restored) -> Said:
    """Make `turn` the one that `answering_state` wrote; gives what there is of its reply."""
    turn.id, turn.number, turn.source = found["id"], found["number"], found["source"]
    turn.transcript, turn.stream_text = found["transcript"], found["stream_text"]
    turn.created_at = datetime.fromisoformat(found["created_at"])
    if (final := restored.final(turn.id)) is not None:
        turn.transcription_id, turn.words = final.transcription_id, final.words
        turn.language, turn.confidence = final.language, final.confidence
    if found["span"]:
        turn.span = begin, end = tuple(found["span"])
        turn.recording = restored.between(begin, end)
    steps = tuple(message for _, message in from_json(found.get("steps", ())))
    return replace(restored.said(turn.id, written=found["written"]), steps=steps)


def pcm(samples: Samples) -> bytes:
    """As PCM16 little-endian: what came as such is not changed by it."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def heard(data: bytes) -> Samples:
    """The inverse of `pcm`."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def pack(event: e.Event) -> bytes:
    """An event as JSON."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    if isinstance(event, e.ReplyAudio):
        values["samples"] = base64.b64encode(pcm(event.samples)).decode()
    for name in _WORDS & values.keys():
        values[name] = [[w.text, w.start, w.end, w.confidence] for w in values[name]]
    return json.dumps({"event": type(event).__name__, **values}, ensure_ascii=False).encode()


def unpack(data: bytes) -> e.Event:
    """The inverse of `pack`."""
    values = json.loads(data)
    kind = _EVENTS[values.pop("event")]
    if kind is e.ReplyAudio:
        values["samples"] = heard(base64.b64decode(values["samples"]))
    for name in _WORDS & values.keys():
        values[name] = tuple(Word(*w) for w in values[name])
    if kind is e.Final and values.get("person"):
        values["person"] = e.Named(*values["person"])
    if kind is e.Final:
        values["parts"] = ()  # told only to who writes down, which no other process goes on with
    event: e.Event = kind(**values)
    return event


_WORDS = {"words", "closed"}
_EVENTS: dict[str, Any] = {kind.__name__: kind for kind in e.Event.__args__}
