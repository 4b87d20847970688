"""A session's events as words with times, in the order of the sound: what is being said, and what was.

What was said in an utterance that is still going on is firm as soon as a chunk of it is closed, so that a
crash takes no more than the last few words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.dialogue.agreement import join_words
from app.dialogue.events import Event, Failed, Final, Partial, SpeechStarted, SpeechStopped, TurnDropped
from app.roles import Word


class Told(Protocol):
    """Told what is said; times in seconds of the stream. `label` is None while nobody knows the voice."""

    def __call__(self, text: str, start: float, end: float, label: str | None, *, firm: bool) -> None: ...


def label(event: Partial | Final) -> str | None:
    """Whose voice it is, as far as the session knows: labels of one session mean one person each."""
    return event.speaker if isinstance(event, Final) else None


@dataclass(slots=True)
class _Turn:
    started_at: float
    stopped_at: float = 0.0
    told: int = 0
    later: Partial | None = None


class Transcript:
    """Give it every event. Utterances are told one after the other: with sound that comes faster than it is
    spoken, a later one may be known first."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._turns: dict[str, _Turn] = {}
        self._told_to = 0.0

    @property
    def behind(self) -> int:
        """How many utterances began and have no final words yet."""
        return len(self._turns)

    def take(self, event: Event) -> None:
        """The next event."""
        if isinstance(event, SpeechStarted):
            self._turns[event.turn_id] = _Turn(event.at)
        elif isinstance(event, SpeechStopped):
            if (turn := self._turns.get(event.turn_id)) is not None:
                turn.stopped_at = event.at
        elif isinstance(event, Partial):
            if (turn := self._turns.get(event.turn_id)) is not None:
                if turn is self._first:
                    self._partial(turn, event)
                else:
                    turn.later = event
        elif isinstance(event, Final):
            self._final(event)
        elif isinstance(event, TurnDropped) or (isinstance(event, Failed) and event.turn_id):
            shown = self._first
            if (turn := self._turns.pop(event.turn_id or "", None)) is not None and turn is shown:
                self._tell("", turn.started_at, turn.started_at, None, firm=True)
                self._next()

    @property
    def _first(self) -> _Turn | None:
        return next(iter(self._turns.values()), None)

    def _partial(self, turn: _Turn, event: Partial) -> None:
        if len(event.closed) > turn.told:
            words, turn.told = event.closed[turn.told :], len(event.closed)
            self._firm(words, event.start, turn.started_at, label(event))
        closed = join_words([w.text for w in event.closed])
        text = event.text[len(closed) :].strip() if event.text.startswith(closed) else ""
        if text:
            start = max(turn.started_at, self._told_to)
            self._tell(text, start, max(start, event.heard_to), label(event), firm=False)

    def _final(self, event: Final) -> None:
        turn = self._turns.pop(event.turn_id, None) or _Turn(event.start)
        if len(event.words) > turn.told:
            for part, first, end in event.voices():
                if words := event.words[max(first, turn.told) : end]:
                    self._firm(words, event.start, turn.started_at, part.speaker)
        elif not event.words and event.text:
            start = max(turn.started_at, self._told_to)
            self._told_to = max(start, turn.stopped_at)
            self._tell(event.text, start, self._told_to, label(event), firm=True)
        else:
            self._tell("", turn.started_at, turn.started_at, label(event), firm=True)
        self._next()

    def _firm(self, words: tuple[Word, ...], offset: float, started_at: float, label: str | None) -> None:
        # Recognisers are off by some hundredths of a second: nothing begins before what was told ends.
        start = max(words[0].start + offset, self._told_to, 0.0)
        self._told_to = max(start, words[-1].end + offset)
        self._tell(join_words([w.text for w in words]), start, self._told_to, label, firm=True)

    def _next(self) -> None:
        if (turn := self._first) is not None and turn.later is not None:
            later, turn.later = turn.later, None
            self._partial(turn, later)
