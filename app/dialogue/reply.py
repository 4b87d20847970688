"""One reply: written, spoken and sent, all at once, and stoppable at any moment.

Three tasks joined by queues: the writer takes the language model's text and cuts it into
pieces, the speaker makes sound of them at most `_AHEAD` pieces ahead (so that a barge-in wastes
little), the player hands the sound on at a bounded lead over real time (so that what was sent
is close to what was heard).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from app.dialogue.config import SessionConfig
from app.dialogue.events import Event, ReplyAudio, ReplyText
from app.dialogue.segmenter import Segmenter
from app.observability.clock import Stage, TurnClock
from app.roles import (
    AudioChunk,
    ChatMessage,
    ColloquyError,
    Job,
    LlmOptions,
    RoleSet,
    SpeechOptions,
    Urgency,
)

LEAD_S = 0.4
"""How far sound is sent ahead of its playing."""
_PIECE_S = 0.1
_AHEAD = 2


@dataclass(slots=True)
class _Segment:
    """A spoken piece: its text and where in the reply's sound it lies, in ms. `end_ms` moves as
    sound of it is made."""

    text: str
    start_ms: float
    end_ms: float


class Reply:
    """The answer to one turn. `emit` receives `ReplyText` and `ReplyAudio` in order.

    Nothing of it goes out until `adopt`, so that it may be begun before it is certain that the
    turn is over; one that is dropped was never heard of.
    """

    def __init__(
        self,
        turn_id: str,
        roles: RoleSet,
        config: SessionConfig,
        *,
        owner: str,
        language: str,
        stream_text: bool,
        emit: Callable[[Event], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.turn_id = turn_id
        self.text = ""
        self.sent_ms = 0.0
        self.text_failure: ColloquyError | None = None
        self.speech_failure: ColloquyError | None = None
        self._roles = roles
        self._config = config
        self._owner = owner
        self._language = language
        self._stream_text = stream_text
        self.clock = TurnClock(now)
        self._send = emit
        self._held: list[Event] = []
        self._adopted = asyncio.Event()
        self._now = now
        self._segments: list[_Segment] = []
        # When the last sound sent will have been played, and what the client said it had played.
        self._plays_until = 0.0
        self._reported: tuple[float, float] | None = None
        # The text queue is bounded by the reply's token limit, the sound queue by its size.
        self._to_speak: asyncio.Queue[str | None] = asyncio.Queue()
        self._to_play: asyncio.Queue[tuple[_Segment, AudioChunk] | None] = asyncio.Queue(_AHEAD)

    async def run(self, messages: Sequence[ChatMessage]) -> None:
        """Answer `messages`; returns when the last sound has been played, as far as is known.

        A failure of the language model ends the text, one of the voice ends the sound; what
        there is goes out all the same, and `text_failure` and `speech_failure` say why it ended.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(messages))
            group.create_task(self._speak())
            group.create_task(self._play())

    def adopt(self) -> None:
        """The turn is over and this is its answer: let it out."""
        self._adopted.set()
        for event in self._held:
            self._send(event)
        self._held.clear()

    def _emit(self, event: Event) -> None:
        if self._adopted.is_set():
            self._send(event)
        else:
            self._held.append(event)

    def played(self, ms: float) -> None:
        """The client reports that `ms` of this reply have been played."""
        self._reported = (min(ms, self.sent_ms), self._now())

    def heard_ms(self) -> float:
        """How much of the sound has been played by now: by the client's reports where it makes
        them, else by the clock."""
        if self._reported is not None:
            ms, at = self._reported
            return min(self.sent_ms, ms + (self._now() - at) * 1000)
        return max(0.0, self.sent_ms - max(0.0, self._plays_until - self._now()) * 1000)

    def heard_text(self) -> str:
        """The words that have been played by now. Where the voice failed the person reads, and
        the whole text counts."""
        if self.speech_failure is not None:
            return self.text.strip()
        ms = self.heard_ms()
        heard: list[str] = []
        for segment in self._segments:
            if ms >= segment.end_ms:
                heard.append(segment.text)
                continue
            span = segment.end_ms - segment.start_ms
            if ms > segment.start_ms and span > 0:
                heard.append(_beginning(segment.text, (ms - segment.start_ms) / span))
            break
        return " ".join(h for h in heard if h)

    async def _write(self, messages: Sequence[ChatMessage]) -> None:
        options = LlmOptions(self._config.max_reply_tokens, self._config.temperature)
        segmenter = Segmenter()
        stream = self._roles.llm.reply(messages, options, Job(self._owner, Urgency.SPEECH))
        try:
            async for piece in stream:
                if not self.text:
                    piece = piece.lstrip()
                    if not piece:
                        continue
                    self.clock.mark(Stage.LLM_FIRST_TOKEN)
                self.text += piece
                if self._stream_text:
                    self._emit(ReplyText(self.turn_id, piece))
                for segment in segmenter.feed(piece):
                    self.clock.mark(Stage.FIRST_SEGMENT)
                    self._to_speak.put_nowait(segment)
        except ColloquyError as error:
            self.text_failure = error
        finally:
            await stream.aclose()
        self.clock.mark(Stage.LLM_DONE)
        if not self._stream_text and self.text:
            self._emit(ReplyText(self.turn_id, self.text))
        for segment in segmenter.finish():
            self.clock.mark(Stage.FIRST_SEGMENT)
            self._to_speak.put_nowait(segment)
        self._to_speak.put_nowait(None)

    async def _speak(self) -> None:
        options = SpeechOptions(self._config.voice, self._language, self._config.speed)
        job = Job(self._owner, Urgency.SPEECH)
        made_ms = 0.0
        while (text := await self._to_speak.get()) is not None:
            if self.speech_failure is not None:
                continue
            segment = _Segment(text, made_ms, made_ms)
            stream = self._roles.tts.speak(text, options, job)
            try:
                async for chunk in stream:
                    self.clock.mark(Stage.TTS_FIRST_AUDIO)
                    made_ms += chunk.duration * 1000
                    segment.end_ms = made_ms
                    await self._to_play.put((segment, chunk))
            except ColloquyError as error:
                self.speech_failure = error
            finally:
                await stream.aclose()
        await self._to_play.put(None)

    async def _play(self) -> None:
        while (item := await self._to_play.get()) is not None:
            await self._adopted.wait()
            segment, chunk = item
            text: str | None = None
            if not self._segments or self._segments[-1] is not segment:
                self._segments.append(segment)
                text = segment.text
            size = int(_PIECE_S * chunk.sample_rate)
            for begin in range(0, len(chunk.samples), size):
                samples = chunk.samples[begin : begin + size]
                wait = self._plays_until - self._now() - LEAD_S
                if wait > 0:
                    await asyncio.sleep(wait)
                self.clock.mark(Stage.FIRST_AUDIO_SENT)
                self._emit(ReplyAudio(self.turn_id, samples, chunk.sample_rate, self.sent_ms, text))
                text = None
                seconds = len(samples) / chunk.sample_rate
                self.sent_ms += seconds * 1000
                self._plays_until = max(self._plays_until, self._now()) + seconds
        await self._adopted.wait()
        self.clock.mark(Stage.REPLY_DONE)
        if self.sent_ms:
            nothing = np.zeros(0, np.float32)
            rate = self._roles.tts.sample_rate
            self._emit(ReplyAudio(self.turn_id, nothing, rate, self.sent_ms, last=True))
        # Until it has been played it can still be interrupted.
        await asyncio.sleep(max(0.0, self._plays_until - self._now()))


def _beginning(text: str, fraction: float) -> str:
    """The whole words among the first `fraction` of `text`; every Chinese character is one."""
    end = int(len(text) * fraction)
    if end >= len(text):
        return text
    while end > 0 and not (text[end].isspace() or "\u3000" <= text[end - 1] <= "\u9fff"):
        end -= 1
    return text[:end].rstrip()
