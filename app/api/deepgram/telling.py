"""A session's events in Deepgram's words.

What was `is_final` never changes, and results are in the order of the sound: with sound that comes faster
than it is spoken, chunks of a long utterance may be done before the short ones ahead of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.api.deepgram.results import Json, Request, in_order, spread
from app.dialogue.agreement import join_words
from app.dialogue.events import (
    Event,
    Failed,
    Final,
    Notice,
    Part,
    Partial,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
)
from app.roles import Word


@dataclass(slots=True)
class _Told:
    """What was told of an utterance: so many words as final, and what was last shown beyond them.
    `flushes`: so often its end is the end of what the client wants flushed."""

    started_at: float
    stopped_at: float = 0.0
    told: int = 0
    shown: str = ""
    flushes: int = 0
    later: Partial | None = None
    """What is to be told of it when it is its turn."""


class Teller:
    """Give it every event with `tell`. What the client wants to be told once all that it has sent is told
    goes to `asked`, as the session is told to commit: True that it is flushed, False that this was all."""

    def __init__(
        self,
        request: Request,
        send: Callable[[Json], Awaitable[None]],
        listened_s: Callable[[], float],
    ) -> None:
        """`listened_s` says how many seconds of sound were listened to."""
        self._options = request.options
        self._request = request
        self._send = send
        self._listened_s = listened_s
        # In order; the session answers one by one.
        self.asked: deque[bool] = deque()
        self._last = False
        # Utterances that began and have no final words yet, in order.
        self._turns: dict[str, _Told] = {}
        self.resolved = asyncio.Event()
        """Set whenever `behind` gets less."""
        # Up to where results are final, in seconds; and where the last word of those ends.
        self._final_to = 0.0
        self._last_word_end: float | None = None

    @property
    def behind(self) -> int:
        """How many utterances began and have no final words yet."""
        return len(self._turns)

    @property
    def ended(self) -> bool:
        """Whether everything is told, and no more comes."""
        return self._last and not self._turns

    async def tell(self, event: Event) -> None:
        """Tell what the session tells."""
        match event:
            case SpeechStarted():
                if not self._turns:
                    await self.end_utterance(event.at)
                self._turns[event.turn_id] = _Told(event.at)
                if self._options.vad_events:
                    await self._send(
                        {"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(event.at, 3)}
                    )
            case SpeechStopped():
                turn = self._turns[event.turn_id]
                turn.stopped_at = event.at
                if event.forced:
                    await self._answer(turn)
            case Notice(code="NOTHING_HEARD"):
                # What was said before may have no final words yet.
                await self._answer(next(reversed(self._turns.values()), None))
            case Partial():
                turn = self._turns[event.turn_id]
                if turn is self._first:
                    await self._tell_partial(turn, event)
                else:
                    turn.later = event
            case Final():
                await self._tell_final(event)
            case TurnDropped():
                turn = self._turns.pop(event.turn_id)
                if turn.told or turn.flushes or self._options.interim_results or self._options.vad_events:
                    await self._final([], turn.stopped_at, 0.0, over=True, flushed=turn.flushes > 0)
                await self._resolve(turn)
            case Failed():
                await self._fail(event)

    async def _answer(self, turn: _Told | None) -> None:
        """The session has done what the client asked first: everything before is in `turn`, and told."""
        if not self.asked:
            return  # the server is stopping, and ends what is being said
        if not self.asked.popleft():
            self._last = True
        elif turn is not None:
            turn.flushes += 1
        else:
            await self._final([], self._listened_s(), 0.0, flushed=True)

    async def _resolve(self, over: _Told) -> None:
        """An utterance is told. It may be what more than one `Finalize` waited for."""
        self.resolved.set()
        for _ in range(over.flushes - 1):
            await self._final([], over.stopped_at, 0.0, flushed=True)
        if (turn := self._first) is not None:
            await self.end_utterance(turn.started_at)
            if turn.later is not None:
                await self._tell_partial(turn, turn.later)
                turn.later = None

    @property
    def _first(self) -> _Told | None:
        """The utterance that is told now: those after it wait for its final words."""
        return next(iter(self._turns.values()), None)

    async def _tell_partial(self, turn: _Told, event: Partial) -> None:
        closed = in_order(event.closed[turn.told :], event.start, self._final_to)
        if closed:
            turn.told = len(event.closed)
            turn.shown = ""
            confidence = sum(w.confidence for w in closed) / len(closed)
            await self._final(closed, closed[-1].end, confidence)
        if not self._options.interim_results:
            return
        text = event.text[len(join_words([w.text for w in event.closed])) :].strip()
        if text and text != turn.shown:
            turn.shown = text
            begin, end = max(turn.started_at, self._final_to), max(event.heard_to, self._final_to)
            words = spread(text, begin, end, event.confidence)
            await self._send(
                self._request.results(words, self._final_to, end, confidence=event.confidence, final=False)
            )

    async def _tell_final(self, event: Final) -> None:
        turn = self._turns.pop(event.turn_id)
        said = [(part, max(first, turn.told), end) for part, first, end in event.voices() if end > turn.told]
        for part, first, after in said[:-1]:
            words = in_order(event.words[first:after], event.start, self._final_to)
            await self._final(words, words[-1].end, event.confidence, speaker=_number(part.speaker))
        part, first, _ = said[-1] if said else (Part(0, event.speaker), turn.told, 0)
        words = in_order(event.words[first:], event.start, self._final_to)
        end = max(turn.stopped_at, words[-1].end if words else 0.0)
        speaker = _number(part.speaker)
        await self._final(words, end, event.confidence, over=True, flushed=turn.flushes > 0, speaker=speaker)
        await self._resolve(turn)

    async def _final(
        self,
        words: list[Word],
        end: float,
        confidence: float,
        *,
        over: bool = False,
        flushed: bool = False,
        speaker: int = 0,
    ) -> None:
        """Tell what will not change; `over`: and that speech ended there."""
        end = max(end, self._final_to)
        start, self._final_to = self._final_to, end
        if words:
            self._last_word_end = words[-1].end
        await self._send(
            self._request.results(
                words,
                start,
                end,
                confidence=confidence,
                final=True,
                over=over and self._options.endpointing is not False,
                flushed=flushed,
                speaker=speaker,
            )
        )

    async def _fail(self, event: Failed) -> None:
        if event.turn_id in self._turns:
            turn = self._turns.pop(event.turn_id)
            await self._final([], turn.stopped_at, 0.0, over=True, flushed=turn.flushes > 0)
            await self._resolve(turn)
        await self._send(
            {
                "type": "Error",
                "variant": event.code,
                "description": event.message,
                "message": "what was said here was not transcribed",
            }
        )

    async def end_utterance(self, now: float) -> None:
        """Tell that an utterance is over, if up to `now` nothing was said for as long as was asked for."""
        gap, last = self._options.utterance_end, self._last_word_end
        if gap is not None and last is not None and now - last >= gap:
            self._last_word_end = None
            await self._send({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": round(last, 3)})


def _number(speaker: str) -> int:
    """The number of a label such as SPEAKER_00."""
    digits = speaker.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0
