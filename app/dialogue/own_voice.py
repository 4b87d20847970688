"""Tells the judge of echoes (`audio.echo`) what is being played, on the microphone's clock."""

from __future__ import annotations

from collections import deque

from app.audio.echo import EchoJudge
from app.dialogue.events import ReplyAudio
from app.roles import SAMPLE_RATE, Samples

_OURS = 0.5


class OwnVoice:
    """What of the microphone's sound is the reply, coming back from a loudspeaker."""

    def __init__(self) -> None:
        self._judge = EchoJudge()
        # Sent, and perhaps not played yet: what a pause holds back.
        self._sent: deque[ReplyAudio] = deque()

    def sent(self, event: ReplyAudio, heard_ms: float, now: int) -> None:
        """The reply's next sound; by microphone sample `now`, `heard_ms` of the reply were played."""
        if self._sent and self._sent[0].turn_id != event.turn_id:
            self._sent.clear()
        while self._sent and self._sent[0].offset_ms + self._sent[0].duration_ms < heard_ms:
            self._sent.popleft()
        self._sent.append(event)
        self._hand_in(event, heard_ms, now)

    def _hand_in(self, event: ReplyAudio, heard_ms: float, now: int) -> None:
        skip = round(max(0.0, heard_ms - event.offset_ms) * event.sample_rate / 1000)
        if skip < len(event.samples):
            ahead_ms = max(0.0, event.offset_ms - heard_ms)
            self._judge.sent(
                event.samples[skip:], event.sample_rate, now + round(ahead_ms * SAMPLE_RATE / 1000)
            )

    def stopped(self, now: int) -> None:
        """The reply is held or over at microphone sample `now`."""
        self._judge.stopped(now)

    def resumed(self, heard_ms: float, now: int) -> None:
        """A reply that was held goes on."""
        for event in self._sent:
            self._hand_in(event, heard_ms, now)

    def is_it(self, frame: Samples, position: int) -> bool:
        """Whether this frame (512 samples at microphone sample `position`) is nothing but the reply.
        To be asked of every frame, in order."""
        return self._judge.own_voice(frame, position) >= _OURS
