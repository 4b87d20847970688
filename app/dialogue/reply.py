"""One reply: written, spoken and sent, all at once, and stoppable at any moment.

Three tasks joined by queues: the writer takes the language model's text, cuts it into pieces
and calls the functions that it asks for, the speaker makes sound of them at most `_AHEAD` pieces
ahead (so that a barge-in wastes little), the player hands the sound on at a bounded lead over
real time (so that what was sent is close to what was heard).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from app.dialogue.agreement import join_words
from app.dialogue.config import SessionConfig
from app.dialogue.events import Event, ReplyAudio, ReplyCall, ReplyText, ToolEnded, ToolStarted
from app.dialogue.functions import MOST_CALLS, ROUNDS, Functions, Nothing, Step, cut, offered, tokens_of
from app.dialogue.history import fitted, merged
from app.dialogue.segmenter import Segmenter
from app.observability.clock import Stage, TurnClock
from app.roles import (
    AudioChunk,
    ChatMessage,
    ColloquyError,
    Job,
    LlmEnd,
    LlmOptions,
    RoleSet,
    SpeechOptions,
    ToolCall,
    ToolCallPiece,
    Urgency,
    Word,
)

LEAD_S = 0.4
"""How far sound is sent ahead of its playing."""
_PIECE_S = 0.1
_AHEAD = 2
_ALL_BUT_MS = 30
"""A word of whose end this much is missing was understood."""
_SHOWN = 1000
"""So many characters of a function's result are told to clients."""


@dataclass(frozen=True, slots=True)
class Said:
    """What there was of a reply before another process took it over: its text (`written`: all of
    it), the segments of which sound was sent with the ms at which each begins, and how much sound
    that was."""

    text: str = ""
    segments: tuple[tuple[str, float], ...] = ()
    sent_ms: float = 0.0
    written: bool = False
    steps: tuple[ChatMessage, ...] = ()
    """The functions that had been called, and their results."""


NOTHING_SAID = Said()


@dataclass(slots=True)
class Segment:
    """A spoken piece: its text and where in the reply's sound it lies, in ms. `end_ms` moves as
    sound of it is made. `words` (seconds of the reply's sound) are there if the voice knows them."""

    text: str
    start_ms: float
    end_ms: float
    words: list[Word] = field(default_factory=list)
    step: int = 0
    """Behind so many steps of the reply it was written."""
    whole: bool = False
    """Whether all its sound is made."""
    told: bool = False
    """Whether the client knows its text."""

    def heard(self, ms: float) -> str:
        """The words that have begun and all but ended when `ms` of the reply are played."""
        if ms >= self.end_ms and self.whole:
            return self.text
        if self.words:
            return join_words([w.text for w in self.words if w.end * 1000 <= ms + _ALL_BUT_MS])
        span = self.end_ms - self.start_ms
        return _beginning(self.text, min(1.0, (ms - self.start_ms) / span)) if span > 0 else ""


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
        functions: Functions | None = None,
        said: Said = NOTHING_SAID,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.turn_id = turn_id
        self.text = said.text
        self.written = said.written
        """Whether the text is complete."""
        self.sent_ms = said.sent_ms
        self._said = said
        self.calls: list[ToolCall] = []
        """The functions that the client is asked to call."""
        self.steps: list[Step] = []
        """The functions of the server that were called."""
        self.ended = LlmEnd("stop")
        self.text_failure: ColloquyError | None = None
        self.speech_failure: ColloquyError | None = None
        self._roles = roles
        self._config = config
        self._functions = functions or Nothing()
        self._tools = offered(config, self._functions)
        # Those of them that are called here.
        self._ours = {tool.name for tool in self._tools} - {tool.name for tool in config.tools}
        self._result_tokens = roles.llm.context_tokens // 3
        self._owner = owner
        self._language = language
        self._stream_text = stream_text
        self.clock = TurnClock(now)
        self._send = emit
        self._held: list[Event] = []
        self._adopted = asyncio.Event()
        self._now = now
        # Those of which sound was sent, and those of which there is sound.
        self._segments = _spoken(said)
        self._segments_made: list[Segment] = []
        # When the last sound sent will have been played, and what the client said it had played.
        self._plays_until = 0.0
        self._reported: tuple[float, float] | None = None
        # Set unless the reply is held; then, how much of it had been heard by that time.
        self._going = asyncio.Event()
        self._going.set()
        self._held_ms = 0.0
        # The text queue is bounded by the reply's token limit, the sound queue by its size.
        self._to_speak: asyncio.Queue[tuple[str, int] | None] = asyncio.Queue()
        self._to_play: asyncio.Queue[tuple[Segment, AudioChunk] | None] = asyncio.Queue(_AHEAD)

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

    def pause(self) -> None:
        """Hold the sound where it is: the client keeps what it has and no more is sent."""
        if self._going.is_set():
            self._held_ms = self.heard_ms()
            self._going.clear()

    def resume(self) -> None:
        """Go on where the sound was held."""
        if not self._going.is_set():
            heard = self.heard_ms()
            self._plays_until = self._now() + (self.sent_ms - heard) / 1000
            if self._reported is not None:
                self._reported = (heard, self._now())
            self._going.set()

    @property
    def paused(self) -> bool:
        """Whether the sound is held."""
        return not self._going.is_set()

    def ahead_ms(self) -> float:
        """How much more there is to hear, as far as that is known."""
        made = self._segments_made[-1].end_ms if self._segments_made else 0.0
        return max(made, self.sent_ms) - self.heard_ms()

    def played(self, ms: float) -> None:
        """The client reports that `ms` of this reply have been played."""
        ms = min(ms, self.sent_ms)
        self._reported = (ms, self._now())
        if self.paused:
            self._held_ms = ms

    def heard_ms(self) -> float:
        """How much of the sound has been played by now: by the client's reports where it makes
        them, else by the clock."""
        if self.paused:
            return self._held_ms
        if self._reported is not None:
            ms, at = self._reported
            return min(self.sent_ms, ms + (self._now() - at) * 1000)
        return max(0.0, self.sent_ms - max(0.0, self._plays_until - self._now()) * 1000)

    def heard_text(self) -> str:
        """The words that have been played by now. Where the voice failed, or is not wanted, the person
        reads, and the whole text counts."""
        if self.speech_failure is not None or not self._config.speak:
            return self.text.strip()
        return heard_of(self._segments, self.heard_ms())

    def parts(self, *, heard: bool) -> list[str]:
        """The text before each step and behind the last; with `heard`, what was played of it by now."""
        last = self.text[sum(len(step.text) for step in self.steps) :]
        written = [*(step.text.strip() for step in self.steps), last.strip()]
        if not heard or self.speech_failure is not None or not self._config.speak:
            return written
        ms = self.heard_ms()
        return [heard_of(self._segments, ms, step) for step in range(len(written))]

    @property
    def segments(self) -> Sequence[Segment]:
        """Those of which sound was sent."""
        return self._segments

    def recent_text(self) -> str:
        """What has been sent to be heard."""
        return " ".join(segment.text for segment in self._segments)

    async def _write(self, messages: Sequence[ChatMessage]) -> None:
        segmenter = Segmenter()
        for segment in _unspoken(self._said, segmenter):
            self._say(segment)
        if not self.written:
            await self._ask_on(messages, segmenter)
            if not self._stream_text and self.text:
                self._emit(ReplyText(self.turn_id, self.text))
        self.written = True
        self.clock.mark(Stage.LLM_DONE)
        for segment in segmenter.finish():
            self._say(segment)
        self._to_speak.put_nowait(None)

    def _say(self, segment: str) -> None:
        if self._config.speak:
            self.clock.mark(Stage.FIRST_SEGMENT)
            self._to_speak.put_nowait((segment, len(self.steps)))

    async def _ask_on(self, messages: Sequence[ChatMessage], segmenter: Segmenter) -> None:
        """Ask the language model, and again with what functions gave, as long as it asks for some of ours."""
        config, llm = self._config, self._roles.llm
        room = llm.context_tokens - config.max_reply_tokens - tokens_of(self._tools, llm)
        asked = list(messages)
        for left in range(ROUNDS, -1, -1):
            options = LlmOptions(
                config.max_reply_tokens,
                config.temperature,
                tools=self._tools,
                tool_choice=config.tool_choice if left else "none",
            )
            begun = len(self.text)
            calls = await self._ask(asked, options, segmenter)
            if not calls or self.text_failure is not None:
                return
            # What was written before them is spoken meanwhile.
            for segment in segmenter.finish():
                self._say(segment)
            # Nothing is done for a turn that may not be over.
            await self._adopted.wait()
            step = Step(self.text[sum(len(s.text) for s in self.steps) :], calls)
            self.steps.append(step)
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._run(step, call))
            if self.calls:
                return  # the client has its part to do
            asked = fitted(merged([*asked, *step.messages(self.text[begun:].strip())]), llm, room)

    async def _ask(
        self, messages: Sequence[ChatMessage], options: LlmOptions, segmenter: Segmenter
    ) -> tuple[ToolCall, ...]:
        """Have the next piece of the reply written; gives the functions of ours that it asks for."""
        calls: list[ToolCall] = []
        begins = not self.text or bool(self.steps)
        stream = self._roles.llm.reply(messages, options, Job(self._owner, Urgency.SPEECH))
        try:
            async for piece in stream:
                if isinstance(piece, ToolCallPiece):
                    self._call(calls, piece)
                    continue
                if isinstance(piece, LlmEnd):
                    self._count(piece)
                    continue
                if begins:
                    piece = piece.lstrip()
                    if not piece:
                        continue
                    self.clock.mark(Stage.LLM_FIRST_TOKEN)
                    piece = join_words([self.text, piece])[len(self.text) :] if self.text else piece
                    begins = False
                self.text += piece
                if self._stream_text:
                    self._emit(ReplyText(self.turn_id, piece))
                for segment in segmenter.feed(piece):
                    self._say(segment)
        except ColloquyError as error:
            self.text_failure = error
        finally:
            await stream.aclose()
        self.calls = [call for call in calls if call.name not in self._ours]
        return tuple(call for call in calls if call.name in self._ours)[:MOST_CALLS]

    def _count(self, end: LlmEnd) -> None:
        before = self.ended
        self.ended = replace(
            end,
            prompt_tokens=before.prompt_tokens + end.prompt_tokens,
            completion_tokens=before.completion_tokens + end.completion_tokens,
        )

    def _call(self, calls: list[ToolCall], piece: ToolCallPiece) -> None:
        """The next piece of a call: those of the client are told as they are written."""
        if piece.index == len(calls):
            known = {call.id for call in calls} | {call.id for step in self.steps for call in step.calls}
            # Ours are told apart by their ids; not every API gives some, or new ones.
            own = piece.name in self._ours and (not piece.id or piece.id in known)
            calls.append(ToolCall(f"call_{secrets.token_hex(12)}" if own else piece.id, piece.name, ""))
        call = calls[piece.index]
        calls[piece.index] = replace(call, arguments=call.arguments + piece.arguments)
        if call.name not in self._ours:
            index = sum(other.name not in self._ours for other in calls[: piece.index])
            self._emit(ReplyCall(self.turn_id, index, call.id, call.name, piece.arguments))

    async def _run(self, step: Step, call: ToolCall) -> None:
        """Call a function of ours."""
        began = self._now()
        self._emit(ToolStarted(self.turn_id, call.id, call.name, call.arguments))
        result = await self._functions.call(call.name, call.arguments)
        llm = self._roles.llm
        text = cut(result.text, self._result_tokens // len(step.calls), llm)
        self._result_tokens -= llm.count_tokens(text)
        step.results[call.id] = text
        ms = (self._now() - began) * 1000
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        self._emit(ToolEnded(self.turn_id, call.id, call.name, result.ok, shown, ms))

    async def _speak(self) -> None:
        options = SpeechOptions(self._config.voice, self._language, self._config.speed)
        job = Job(self._owner, Urgency.SPEECH)
        # The last segment that was spoken is made anew, and what was sent of it skipped.
        again = bool(self._said.segments)
        made_ms = self._said.segments[-1][1] if again else 0.0
        skip_ms = self._said.sent_ms - made_ms
        while (item := await self._to_speak.get()) is not None:
            if self.speech_failure is not None:
                continue
            text, step = item
            segment = Segment(text, made_ms, made_ms, step=step, told=again)
            self._segments_made.append(segment)
            stream = self._roles.tts.speak(text, options, job)
            try:
                async for chunk in stream:
                    self.clock.mark(Stage.TTS_FIRST_AUDIO)
                    begin = made_ms / 1000
                    segment.words += [
                        replace(w, start=begin + w.start, end=begin + w.end) for w in chunk.words
                    ]
                    made_ms += chunk.duration * 1000
                    segment.end_ms = made_ms
                    if skip_ms > 0:
                        skipped = round(skip_ms / 1000 * chunk.sample_rate)
                        skip_ms -= chunk.duration * 1000
                        chunk = replace(chunk, samples=chunk.samples[skipped:])
                    await self._to_play.put((segment, chunk))
            except ColloquyError as error:
                self.speech_failure = error
            finally:
                await stream.aclose()
            segment.whole = True
            if again:
                # Voices do not say a thing twice alike: it may be shorter than what was sent of it.
                again, skip_ms, made_ms = False, 0.0, max(made_ms, self._said.sent_ms)
        await self._to_play.put(None)

    async def _play(self) -> None:
        while (item := await self._to_play.get()) is not None:
            await self._adopted.wait()
            segment, chunk = item
            text: str | None = None
            if not self._segments or self._segments[-1] is not segment:
                self._segments.append(segment)
                text = None if segment.told else segment.text
            size = int(_PIECE_S * chunk.sample_rate)
            for begin in range(0, len(chunk.samples), size):
                samples = chunk.samples[begin : begin + size]
                await self._until_left(LEAD_S)
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
        await self._until_left(0.0)

    async def _until_left(self, seconds: float) -> None:
        """Wait until no more than `seconds` of what was sent are still to be played."""
        while True:
            await self._going.wait()
            wait = self._plays_until - self._now() - seconds
            if wait < 0.001:
                return
            # A pause may begin meanwhile, and end with the same sound still to be played.
            await asyncio.sleep(wait)


def heard_of(segments: Sequence[Segment], ms: float, step: int | None = None) -> str:
    """The words of `segments` (written behind so many steps) that were heard when `ms` of the reply were."""
    heard = [s.heard(ms) for s in segments if s.start_ms < ms and step in (None, s.step)]
    return " ".join(h for h in heard if h)


def _spoken(said: Said) -> list[Segment]:
    """The segments of which all sound was sent, as far as is known: all but the last."""
    ends = [start for _, start in said.segments[1:]]
    return [
        Segment(text, start, end, whole=True) for (text, start), end in zip(said.segments, ends, strict=False)
    ]


def _unspoken(said: Said, segmenter: Segmenter) -> Iterator[str]:
    """The last segment that was spoken, and what was written behind it."""
    at = 0
    for text, _ in said.segments:
        at = max(at, said.text.find(text, at) + len(text))
    if said.segments:
        yield said.segments[-1][0]
    yield from segmenter.feed(said.text[at:])


def _beginning(text: str, fraction: float) -> str:
    """The whole words among the first `fraction` of `text`; every Chinese character is one."""
    end = int(len(text) * fraction)
    if end >= len(text):
        return text
    while end > 0 and not (text[end].isspace() or "\u3000" <= text[end - 1] <= "\u9fff"):
        end -= 1
    return text[:end].rstrip()
