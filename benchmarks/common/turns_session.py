"""A session on the virtual clock: a microphone that feeds it 20 ms at a time, and a loudspeaker.

Time 0 is when the microphone opens. A piece of sound is given to the session when its last sample
is there, so the time of an event is also a position in the microphone's sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.dialogue import events
from app.dialogue.config import SessionConfig
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.roles import SAMPLE_RATE, RoleSet, Samples
from benchmarks.common.virtual_time import virtual_loop
from corpus.room import through_room

PIECE = SAMPLE_RATE // 50
PIECE_S = 0.02
_ECHO_DELAY_S = 0.15
_QUIET = 10 ** (-65 / 20)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event and when it was told, in seconds of the microphone's sound."""

    at: float
    event: events.Event


class Conversation:
    """One session, its microphone and everything it said. `begin`, `give` any number of times, `end`."""

    def __init__(self, roles: RoleSet, config: SessionConfig) -> None:
        self.happened: list[Happened] = []
        self.pieces = 0
        self._loop = virtual_loop()
        self._opened = 0.0
        self._heed: Callable[[events.Event], None] | None = None

        async def ready() -> RoleSet:
            return roles

        async def forget(session: Session, turn: Turn, complete: bool) -> None:
            pass

        self.session = Session(
            "turns", config, roles=ready, on_turn=forget, on_event=self._note, now=self._loop.time
        )

    def _note(self, event: events.Event) -> None:
        self.happened.append(Happened(self._loop.time() - self._opened, event))
        if self._heed is not None:
            self._heed(event)

    def heed(self, listener: Callable[[events.Event], None]) -> None:
        """Call `listener` with each event from now on."""
        self._heed = listener

    async def begin(self) -> None:
        """Open the session and the microphone."""
        self.session.start()
        await self._loop.until(self._loop.time() + 0.01)
        self._opened = self._loop.time()

    async def give(self, piece: Samples) -> None:
        """The next 20 ms, once they are over."""
        self.pieces += 1
        await self._loop.until(self._opened + self.pieces * PIECE_S)
        await self.session.hear(piece)

    async def end(self) -> list[Happened]:
        """Close the session; everything that it said."""
        happened = list(self.happened)
        await self.session.close()
        return happened


async def hear(roles: RoleSet, config: SessionConfig, sound: Samples) -> list[Happened]:
    """What a session says while it is given `sound`."""
    talk = Conversation(roles, config)
    await talk.begin()
    for at in range(0, len(sound) - PIECE + 1, PIECE):
        await talk.give(sound[at : at + PIECE])
    return await talk.end()


class Loudspeaker:
    """Plays the reply as a good client does: from its first piece on, held while it is paused, gone when
    it is interrupted. `reply` is all its sound at 16 kHz; `echo(at)` is what a microphone hears of what
    was played, `level` dB over the reply, in room number `room`."""

    def __init__(self, reply: Samples, level: float | None, room: int) -> None:
        self.began = False
        self.over = False
        self._reply, self._level, self._room = reply, level, room
        self._playing = False
        self._position = 0
        self._played: list[Samples] = []
        self._echo = np.zeros(0, np.float32)
        self._stale = False

    def heed(self, event: events.Event) -> None:
        """An event of the session."""
        was = self._playing
        if isinstance(event, events.ReplyAudio) and not self.began:
            self.began = self._playing = True
        elif isinstance(event, events.ReplyPaused):
            self._playing = False
        elif isinstance(event, events.ReplyResumed):
            self._playing = not self.over
        elif self.began and isinstance(event, events.Interrupted | events.TurnComplete):
            self._playing, self.over = False, True
        self._stale = self._stale or was != self._playing

    def piece(self) -> Samples:
        """The echo of the next 20 ms."""
        if self._level is not None and self._stale:
            rest = self._reply[self._position :] if self._playing else np.zeros(0, np.float32)
            sound = np.concatenate([*self._played, rest])
            heard = np.any(sound)
            self._echo = through_room(sound, self._room, _ECHO_DELAY_S, self._level) if heard else sound
            self._stale = False
        begin = len(self._played) * PIECE
        echo = self._echo[begin : begin + PIECE]
        played = self._reply[self._position : self._position + PIECE] if self._playing else echo[:0]
        self._position += len(played)
        self._played.append(np.pad(played, (0, PIECE - len(played))))
        return np.pad(echo, (0, PIECE - len(echo)))


@dataclass(frozen=True, slots=True)
class Overlap:
    """A reply and what happened over it; times in seconds of the microphone's sound. `onset` and `last`
    are the first and the last sample of what was said or made over it, `began` is when the reply was
    first heard."""

    happened: tuple[Happened, ...]
    began: float
    onset: float
    last: float


async def talk_over(
    roles: RoleSet,
    config: SessionConfig,
    *,
    question: Samples,
    near: tuple[Samples, int, int] | None,
    speaker: Loudspeaker,
    after: float = 1.5,
    seed: int = 0,
) -> Overlap:
    """Ask `question`, and `after` seconds into the reply let `near` (its sound, first and last sample of
    speech) be heard over it. Ends 3.5 s after that, or with the reply."""
    random = np.random.default_rng(seed)
    talk = Conversation(roles, config)
    talk.heed(speaker.heed)
    await talk.begin()

    async def give(sound: Samples) -> None:
        tone = random.standard_normal(PIECE).astype(np.float32) * np.float32(_QUIET)
        await talk.give((np.pad(sound, (0, PIECE - len(sound))) + tone + speaker.piece()).clip(-1, 1))

    silence = np.zeros(PIECE, np.float32)
    # The loudspeaker's echo of this reply is not of another: the question comes first.
    for at in range(0, len(question), PIECE):
        await give(question[at : at + PIECE])
    while not speaker.began:
        if talk.pieces * PIECE_S > len(question) / SAMPLE_RATE + 8:
            raise RuntimeError("the question got no answer")
        await give(silence)
    began = talk.pieces * PIECE_S
    for _ in range(round(after / PIECE_S)):
        await give(silence)
    start = talk.pieces * PIECE_S
    sound, first, last = near if near is not None else (np.zeros(0, np.float32), 0, 0)
    for at in range(0, len(sound), PIECE):
        await give(sound[at : at + PIECE])
    quiet = 0.0
    while quiet < (3.5 if near is not None else 30.0) and not (near is None and speaker.over):
        await give(silence)
        quiet += PIECE_S
    rate = SAMPLE_RATE
    return Overlap(tuple(await talk.end()), began, start + first / rate, start + last / rate)
