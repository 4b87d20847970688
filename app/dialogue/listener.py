"""The hearing half of a session: whose turn it is, and what is being said.

Sound goes through voice detection frame by frame. What `endpointing` makes of that begins and ends
utterances; while a reply is heard, `barge_in` decides what may stop it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from app.audio.buffer import AudioBuffer
from app.dialogue.answers import Answers
from app.dialogue.barge_in import BargeIn, level_db
from app.dialogue.config import SessionConfig
from app.dialogue.endpointing import FRAME, Signal, TurnDetector, end_wait_ms
from app.dialogue.events import (
    TAKEN_BACK,
    Event,
    Interrupted,
    Notice,
    Partial,
    ReplyAudio,
    ReplyPaused,
    ReplyResumed,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
)
from app.dialogue.own_voice import OwnVoice
from app.dialogue.streamed.relay import Relay
from app.dialogue.streamed.utterance import StreamedUtterance
from app.dialogue.turn import Turn
from app.dialogue.utterance import Utterance
from app.observability.clock import Stage
from app.roles import SAMPLE_RATE, RoleSet, Samples, SttOptions

_POST_ROLL = int(0.2 * SAMPLE_RATE)
_ROOM_DB = 35.0
"""Below the loudest of an utterance by this much nobody speaks."""
_LOUD_FADES_DB = 0.1
"""A frame: who leans back is heard after some seconds."""
_MAX_UTTERANCE = 300 * SAMPLE_RATE


class Listener:
    """Give it sound with `take`. `emit` sends events, `spawn` runs a task that ends with the session,
    `new_turn` makes a spoken turn, and `on_spoken` is given each turn whose utterance is over, with
    where speech ended and how many ms of it were voiced."""

    def __init__(
        self,
        owner: str,
        config: SessionConfig,
        roles: RoleSet,
        answers: Answers,
        *,
        emit: Callable[[Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        new_turn: Callable[[], Turn],
        on_spoken: Callable[[Turn, Utterance, int, float], None],
        firm: Callable[[str], Sequence[str]] = lambda turn_id: (),
        begin: tuple[int, int] = (0, 0),
        relay: Relay | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`begin`: the position of the first sample to come, and of the first to be heeded. `firm`
        gives the words of a turn that its client has been told of already. With a `relay` others
        recognise what is said, as long as they live."""
        self.floor = BargeIn(answers)
        self._config = config
        self._owner = owner
        self._roles = roles
        self._answers = answers
        self._emit, self._spawn = emit, spawn
        self._new_turn, self._on_spoken, self._firm = new_turn, on_spoken, firm
        self._relay = relay
        self._now = now
        self._audio = AudioBuffer(begin[0])
        self._detector = TurnDetector(config.turn, self._end_wait, position=max(begin))
        self._vad = roles.vad.stream()
        self._turn: Turn | None = None
        self._utterance: Utterance | None = None
        # From the first reply on, where the microphone may hear it.
        self._own_voice: OwnVoice | None = None
        self._loud_db = -math.inf
        # Up to where sound is part of an utterance that is over: no other begins with it.
        self._ended_to = 0
        # When the last sound that held speech arrived: where the turn's clock begins.
        self._last_voice = 0.0

    def configure(self, config: SessionConfig) -> None:
        """Change the settings, from the next utterance on."""
        self._config = config
        self._detector.config = config.turn
        if self._relay is not None:
            self._relay.configure(SttOptions(config.language, config.vocabulary))

    @property
    def hearing(self) -> bool:
        """Whether an utterance is being said."""
        return self._utterance is not None

    @property
    def position(self) -> int:
        """Sample up to which sound was listened to."""
        return self._detector.position

    @property
    def turns(self) -> list[str]:
        """The turn that is being said, if any."""
        return [self._turn.id] if self._turn is not None else []

    @property
    def calm_to(self) -> int:
        """Sample up to which nothing is part of an utterance that is not over."""
        return self._utterance.start if self._utterance is not None else self._detector.calm_to

    async def take(self, samples: Samples) -> None:
        """The next sound."""
        arrived = self._now()
        self._audio.append(samples)
        detector = self._detector
        while self._audio.end - detector.position >= FRAME:
            frame = self._audio.view(detector.position, detector.position + FRAME)
            probability = await self._vad.probability(frame)
            if (
                self._own_voice is not None and self._own_voice.is_it(frame, detector.position)
            ) or self._fades(frame, probability):
                probability = 0.0
            if self._relay is not None:
                at = detector.position
                self._relay.hear(self._audio, at, at + FRAME, probability, needed=self._belongs)
            if self._config.turn.mode == "manual":
                self._hold(probability)
            else:
                self._heed(detector.feed(probability))
                self._mind_the_reply(frame, probability)
            if self._turn is not None and detector.ended_at == detector.position:
                self._last_voice = arrived
            if self._utterance is not None and detector.speaking:
                self._utterance.heard(detector.position)
                if detector.position - self._utterance.start > _MAX_UTTERANCE:
                    self._emit(
                        Notice("UTTERANCE_TOO_LONG", "Five minutes without a pause: answering this much.")
                    )
                    self._end_speech()
            if self._utterance is not None:
                await self._utterance.keep_up(detector.position)
        if self._utterance is None:
            self._audio.drop_before(detector.position - SAMPLE_RATE)

    @property
    def _belongs(self) -> bool:
        """Whether what comes is part of what somebody says, or may be."""
        return self._utterance is not None or self._detector.held_ms > 0 or self._config.turn.mode == "manual"

    def _fades(self, frame: Samples, probability: float) -> bool:
        """Whether this frame of an utterance is so much softer than the rest of it that it is the room
        that is heard, not the person: the voice detector goes on to hear a voice in its echo."""
        if self._utterance is None and self._detector.held_ms == 0:
            self._loud_db = -math.inf
            if probability < self._config.turn.threshold:
                return False
        level = level_db(frame)
        if probability >= self._config.turn.threshold:
            self._loud_db = max(self._loud_db - _LOUD_FADES_DB, level)
        return level < self._loud_db - _ROOM_DB

    def reply_event(self, event: Event) -> None:
        """What the client is told of the reply."""
        if not self._config.turn.echo or self._config.turn.mode == "manual":
            return
        now = self._audio.end
        if isinstance(event, ReplyAudio):
            if self._own_voice is None:
                self._own_voice = OwnVoice()
            self._own_voice.sent(event, self._answers.heard_ms, now)
        elif self._own_voice is None:
            return
        elif isinstance(event, ReplyPaused | Interrupted):
            self._own_voice.stopped(now)
        elif isinstance(event, ReplyResumed):
            self._own_voice.resumed(self._answers.heard_ms, now)

    def end(self) -> None:
        """The utterance, if there is one, ends here."""
        if self._utterance is not None:
            self._detector.end()
            self._end_speech(forced=True)

    def discard(self) -> None:
        """Forget the utterance, if there is one: it was never said."""
        if self._utterance is not None and self._turn is not None:
            turn = self._turn
            self._detector.end()
            self._utterance.cancel()
            self._turn = self._utterance = None
            turn.complete = True
            self._answers.drop_draft()
            self.floor.dismiss()
            self._emit(TurnDropped(turn.id, TAKEN_BACK))

    # --- turns -----------------------------------------------------------------------------------

    def _hold(self, probability: float) -> None:
        """Push-to-talk: everything is speech until `end`; the detector only measures."""
        detector = self._detector
        begin = detector.position
        detector.position += FRAME
        if self._utterance is None:
            detector.speaking, detector.started_at, detector.voiced_ms = True, begin, 0.0
            self._begin_speech()
            # Who presses the button means it.
            self._stop_reply()
        if probability >= self._config.turn.threshold:
            detector.voiced_ms += FRAME / SAMPLE_RATE * 1000
        detector.ended_at = detector.position

    def _heed(self, signal: Signal | None) -> None:
        if signal is Signal.STARTED:
            self._begin_speech()
        elif self._utterance is None:
            return
        elif signal is Signal.CLOSING:
            self._utterance.closing(self._detector.ended_at)
            assert self._turn is not None
            self._spawn(self._speculate(self._turn, self._utterance))
        elif signal is Signal.RESUMED:
            self._utterance.resumed()
            self._answers.drop_draft()
        elif signal is Signal.ENDED:
            self._end_speech()

    def _end_wait(self) -> float:
        utterance = self._utterance
        if utterance is None:
            return 0.0
        return end_wait_ms(utterance.hypothesis, self._config.turn, utterance.over, utterance.complete)

    def _begin_speech(self) -> None:
        detector = self._detector
        pre_roll = int(self._config.turn.pre_roll_ms / 1000 * SAMPLE_RATE)
        self._turn = turn = self._new_turn()
        self._last_voice = self._now()
        made: Callable[..., Utterance] = Utterance
        if self._relay is not None and self._relay.dead is None:
            made = partial(StreamedUtterance, self._relay)
        self._utterance = made(
            self._audio,
            max(detector.started_at - pre_roll, self._ended_to, self._audio.start),
            stt=self._roles.stt,
            stt_partial=self._roles.stt_partial,
            turn=self._roles.turn,
            options=SttOptions(self._config.language, self._config.vocabulary),
            owner=self._owner,
            on_partial=lambda u: self._hear_partial(turn, u),
            firm=self._firm(turn.id),
            revise=self._config.revise,
        )
        self._answers.read_ahead("")
        self.floor.began(turn)
        self._emit(SpeechStarted(turn.id, detector.started_at / SAMPLE_RATE))

    def _end_speech(self, *, forced: bool = False) -> None:
        turn, utterance = self._turn, self._utterance
        assert turn is not None and utterance is not None
        detector = self._detector
        detector.speaking = False
        self._turn = self._utterance = None
        turn.clock.mark(Stage.SPEECH_END, self._last_voice)
        turn.clock.mark(Stage.ENDPOINT)
        self._ended_to = detector.ended_at
        self._emit(SpeechStopped(turn.id, detector.ended_at / SAMPLE_RATE, forced))
        turn.span = utterance.start, min(detector.ended_at + _POST_ROLL, self._audio.end)
        turn.recording = utterance.seal(turn.span[1])
        self._on_spoken(turn, utterance, detector.ended_at, detector.voiced_ms)

    # --- the reply meanwhile -----------------------------------------------------------------------

    def _mind_the_reply(self, frame: Samples, probability: float) -> None:
        """Hold the reply while somebody may be beginning to speak over it."""
        turn, detector = self._config.turn, self._detector
        if turn.interrupt and self._answers.state == "speaking":
            self.floor.hear(
                frame,
                voiced=probability >= turn.threshold,
                held_ms=detector.held_ms,
                speaking=self.hearing,
            )

    def _stop_reply(self) -> None:
        if self._config.turn.interrupt:
            self._answers.interrupt("speech")

    def _hear_partial(self, turn: Turn, utterance: Utterance) -> None:
        self._emit(
            Partial(
                turn.id,
                utterance.text,
                utterance.committed,
                utterance.confidence,
                utterance.start / SAMPLE_RATE,
                utterance.heard_to / SAMPLE_RATE,
                utterance.closed,
            )
        )
        if self.floor.stops(turn, utterance.text, utterance.confidence, self._detector.voiced_ms):
            self._stop_reply()
        self._answers.read_ahead(utterance.text)

    async def _speculate(self, turn: Turn, utterance: Utterance) -> None:
        """Begin the reply on the quick recogniser's words, if they look finished: in the closing
        silence, or while the better one still works on what has ended with it."""
        heard = await utterance.preview()
        config = self._config.turn
        if heard is None or turn.complete or turn.number:
            return
        voiced_ms = self._detector.voiced_ms
        if self.floor.verdict(turn, heard.text, heard.confidence, heard.no_speech, voiced_ms) != "words":
            self.floor.dismiss()
            return
        if self._answers.state == "speaking":
            self._stop_reply()
        if utterance is self._utterance and not await utterance.weigh(self._answers.completeness, heard.text):
            return
        if turn.complete or turn.number:
            return
        if end_wait_ms(heard.text, config, utterance.over, utterance.complete) <= config.end_ms:
            self._answers.draft(turn, heard.text, heard.language)
