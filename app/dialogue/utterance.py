"""One utterance while it is being said: passes over its sound, firm words, the final text.

A quick recogniser hears the growing utterance again and again; what three passes agree on is
firm (`agreement`). The final pass begins with the closing silence, so that it is often done
when the silence is long enough to end the turn. A long utterance is cut into chunks at its
pauses, so that no pass grows with its length.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.audio.buffer import AudioBuffer
from app.dialogue.agreement import Agreement, join_words, split_words
from app.dialogue.guards import cleaned
from app.roles import (
    SAMPLE_RATE,
    Busy,
    ColloquyError,
    EndOfTurn,
    Job,
    Samples,
    SpeechToText,
    SttOptions,
    Transcript,
    Urgency,
    Word,
)

log = logging.getLogger(__name__)

_STEP = int(0.24 * SAMPLE_RATE)
"""New sound between two passes, if the cores keep up."""
_STEP_MAX = 2 * SAMPLE_RATE
"""The same while there is too much to do for partials."""
_CHUNK = 9 * SAMPLE_RATE
"""A pause after this much closes a chunk."""
_CHUNK_MAX = 22 * SAMPLE_RATE
"""Without a pause it is cut here, at the quietest spot of the last seconds."""
_CHUNK_LATE = 26 * SAMPLE_RATE
"""Sound that comes faster than it is heard waits here until the chunk is closed: a recogniser hears 30 s
at once."""
_CUT_SEARCH = 4 * SAMPLE_RATE
_MELODY = 8 * SAMPLE_RATE
"""As much as the judge of the end of a turn listens to."""
_TAIL = int(0.1 * SAMPLE_RATE)
"""Sound kept behind the last speech frame: soft final consonants are not voiced."""


@dataclass(frozen=True, slots=True)
class FinalWords:
    """`words` have times in seconds from the utterance's first sample."""

    text: str
    words: tuple[Word, ...]
    language: str
    confidence: float
    no_speech: float


class Utterance:
    """Hears `audio` from sample `start` on. `on_partial` is called when the words change. `firm`
    words have been told already. With `revise` the final pass is right, whatever was firm before."""

    def __init__(
        self,
        audio: AudioBuffer,
        start: int,
        *,
        stt: SpeechToText,
        stt_partial: SpeechToText,
        turn: EndOfTurn | None,
        options: SttOptions,
        owner: str,
        on_partial: Callable[[Utterance], None],
        firm: Sequence[str] = (),
        revise: bool = False,
    ) -> None:
        self.start = start
        self.confidence = 0.0
        self.over: float | None = None
        """How much the voice sounded as if it were done, when it last fell silent (0–1)."""
        self.complete: float | None = None
        """How likely the words were all, when it last fell silent (0–1)."""
        self.passes = 0
        self.partials: list[str] = []
        self._audio = audio
        self._stt, self._stt_partial, self._turn = stt, stt_partial, turn
        self._options = options
        self._owner = owner
        self._on_partial = on_partial
        self._revise = revise
        self._agreement = Agreement()
        self._agreement.firm = list(firm)
        self._chunk_start = start
        self._done: list[tuple[Transcript, int]] = []
        self._done_words: list[Word] = []
        self._heard_to = start
        self._step = _STEP
        self._pass: asyncio.Task[None] | None = None
        self._final: asyncio.Task[Transcript] | None = None
        self._quick: asyncio.Task[Transcript] | None = None
        self._judging: asyncio.Task[None] | None = None
        self._guess: tuple[Transcript, str] | None = None
        self._final_end = 0
        self._closing_chunk: asyncio.Task[None] | None = None

    @property
    def committed(self) -> str:
        """The firm beginning of the text."""
        return join_words([w.text for w in self._done_words] + self._agreement.firm)

    @property
    def closed(self) -> tuple[Word, ...]:
        """The words of the chunks that are over; times in seconds from the utterance's first sample."""
        return tuple(self._done_words)

    @property
    def heard_to(self) -> int:
        """Up to which sample there is sound in `text`."""
        return self._heard_to

    @property
    def text(self) -> str:
        """All words so far, the soft ones included."""
        return join_words([w.text for w in self._done_words] + self._agreement.firm + self._agreement.soft)

    @property
    def hypothesis(self) -> str:
        """The best guess at the text: that of a pass that has ended in the closing silence, if any."""
        if self._final is not None:
            for heard in (self._final, self._quick):
                if heard is not None and heard.done() and not heard.cancelled() and not heard.exception():
                    transcript = heard.result()
                    # Asked with every frame of the silence, in which it does not change: nothing else is
                    # heard until the voice goes on.
                    if self._guess is None or self._guess[0] is not transcript:
                        self._guess = transcript, self._with(transcript)
                    return self._guess[1]
        return self.text

    async def preview(self) -> Transcript | None:
        """What the utterance seems to be if it ends in this silence: by the quick recogniser, as
        `finish` has it from the better one. None if speech goes on before that is known."""
        final = self._final
        heard = self._quick or final
        if final is None or heard is None:
            return None
        await asyncio.wait([heard])
        if final is not self._final or heard.cancelled() or heard.exception() is not None:
            return None
        return replace(heard.result(), text=self._with(heard.result()))

    async def weigh(self, ask: Callable[[str], Awaitable[float | None]], text: str) -> bool:
        """Have `ask` say how likely `text`, what `preview` gave, is all. False if speech went on
        before that was known."""
        final = self._final
        complete = await ask(text)
        if final is None or final is not self._final:
            return False
        self.complete = complete
        return True

    def _with(self, transcript: Transcript) -> str:
        texts, _ = self._spliced(timed(transcript, 0.0))
        return join_words([w.text for w in self._done_words] + texts)

    def _spliced(self, heard: list[Word]) -> tuple[list[str], list[int | None]]:
        """The words of the chunk, now that the final pass has `heard` them, and which of `heard` each is."""
        texts = [w.text for w in heard]
        return (texts, [*range(len(texts))]) if self._revise else self._agreement.finish(texts)

    def heard(self, end: int) -> None:
        """There is sound up to sample `end`: begin a pass if one is due and none is running."""
        if self._busy(self._pass) or self._busy(self._final) or self._busy(self._closing_chunk):
            return
        if end - self._chunk_start > _CHUNK_MAX:
            cut = quietest(self._audio, end - _CUT_SEARCH, end)
            self._closing_chunk = asyncio.create_task(self._close_chunk(self._run_final(cut), cut))
        elif end - self._heard_to >= self._step:
            self._pass = asyncio.create_task(self._partial_pass(end))

    async def keep_up(self, end: int) -> None:
        """Wait, if there is sound up to sample `end` and what runs over it is so late that its chunk would
        get too long. Never with sound that comes as it is spoken, unless the cores are very busy."""
        if end - self._chunk_start < _CHUNK_LATE:
            return
        for _ in range(2):  # a pass that runs, then the one that closes the chunk
            running = [t for t in (self._pass, self._closing_chunk) if t is not None and not t.done()]
            if running:
                await asyncio.wait(running)
            self.heard(end)

    def closing(self, speech_end: int) -> None:
        """Silence has begun: start the final pass over what was said up to `speech_end`."""
        if self._busy(self._closing_chunk):
            return
        self._drop_pass()
        self._final_end = speech_end
        if self._turn is not None:
            self._judging = asyncio.create_task(self._judge(self._turn))
        if self._stt_partial is not self._stt:
            self._quick = asyncio.create_task(self._run(self._stt_partial, speech_end))
        self._final = asyncio.create_task(self._run_final(speech_end))

    def resumed(self) -> None:
        """Speech goes on. The pass begun in the pause closes a chunk, if that is long enough."""
        self.over = self.complete = None
        if self._judging is not None:
            self._judging.cancel()
        if self._quick is not None:
            self._quick.cancel()
        final, self._final = self._final, None
        if final is None:
            return
        if self._final_end - self._chunk_start >= _CHUNK:
            self._closing_chunk = asyncio.create_task(self._close_chunk(final, self._final_end))
        else:
            final.cancel()

    def seal(self, end: int) -> Samples:
        """The utterance's sound up to sample `end`; from here on the session's buffer may forget it."""
        sealed = AudioBuffer(self.start)
        sealed.append(self._audio.view(self.start, end))
        self._audio = sealed
        return sealed.view()

    async def finish(self, speech_end: int) -> FinalWords:
        """The final words, of what was said up to sample `speech_end`. Raises `EngineFailed`."""
        self._drop_pass()
        if self._closing_chunk is not None:
            await self._closing_chunk
        final = self._final
        if final is None or self._final_end != speech_end:
            if final is not None:
                final.cancel()
            final = self._final = asyncio.create_task(self._run_final(speech_end))
        self._take(await final, speech_end)
        heard = [(t, samples) for t, samples in self._done if t.text]
        spoken = sum(samples for _, samples in heard) or 1
        return FinalWords(
            text=join_words([w.text for w in self._done_words]),
            words=tuple(self._done_words),
            language=heard[-1][0].language if heard else self._options.language or "en",
            confidence=sum(t.confidence * samples for t, samples in heard) / spoken,
            no_speech=min((t.no_speech for t, _ in heard), default=1.0),
        )

    def cancel(self) -> None:
        """Stop all passes; nothing more is reported."""
        for task in (self._pass, self._final, self._closing_chunk, self._judging, self._quick):
            if task is not None:
                task.cancel()

    @staticmethod
    def _busy(task: asyncio.Task[None] | asyncio.Task[Transcript] | None) -> bool:
        return task is not None and not task.done()

    def _drop_pass(self) -> None:
        if self._pass is not None:
            self._pass.cancel()
            self._pass = None

    async def _partial_pass(self, end: int) -> None:
        began = time.monotonic()
        self._heard_to = end
        try:
            transcript = await self._stt_partial.transcribe(
                self._audio.view(self._chunk_start, end),
                replace(self._options, word_times=False),
                Job(self._owner, Urgency.PARTIAL),
            )
        except Busy:
            self._step = min(_STEP_MAX, self._step * 2)
            return
        except ColloquyError as error:
            # The final pass will say so if it matters; a partial is only nice to have.
            log.warning("a partial pass failed: %s", error.message)
            return
        # Passes that take long leave the cores idle for a third of the time.
        self._step = max(_STEP, int((time.monotonic() - began) * 1.5 * SAMPLE_RATE))
        self.passes += 1
        before = self.text, self.committed
        transcript = cleaned(transcript)
        if transcript.words:
            heard = [w.text for w in transcript.words]
            self._agreement.update(heard, [w.confidence for w in transcript.words])
        else:
            self._agreement.update(split_words(transcript.text))
        self.confidence = transcript.confidence
        if (self.text, self.committed) != before:
            self.partials.append(self.text)
            self._on_partial(self)

    async def _judge(self, turn: EndOfTurn) -> None:
        sound = self._audio.view(max(self.start, self._audio.end - _MELODY), self._audio.end)
        try:
            self.over = await turn.probability(sound, Job(self._owner, Urgency.FINAL))
        except ColloquyError as error:
            log.warning("the end of a turn was not judged: %s", error.message)

    async def _run_final(self, end: int) -> Transcript:
        try:
            return await self._run(self._stt, end)
        except ColloquyError as error:
            if self._stt_partial is self._stt:
                raise
            log.warning("the final pass failed, the quick recogniser stands in: %s", error.message)
            return await self._run(self._stt_partial, end)

    async def _run(self, stt: SpeechToText, end: int) -> Transcript:
        """A pass of `stt` over the chunk that ends at `end`."""
        sound = self._audio.view(self._chunk_start, min(end + _TAIL, self._audio.end))
        return cleaned(await stt.transcribe(sound, self._options, Job(self._owner, Urgency.FINAL)))

    async def _close_chunk(self, final: Awaitable[Transcript], end: int) -> None:
        try:
            self._take(await final, end)
        except ColloquyError as error:
            # The chunk stays open: a later pass hears it again, nothing is lost.
            log.warning("a chunk was not transcribed, it will be tried again: %s", error.message)
            return
        self._on_partial(self)

    def _take(self, transcript: Transcript, end: int) -> None:
        """Make the chunk that ends at `end` firm and begin the next one there."""
        offset = (self._chunk_start - self.start) / SAMPLE_RATE
        heard = timed(transcript, (end - self._chunk_start) / SAMPLE_RATE)
        texts, sources = self._spliced(heard)
        last = offset
        for text, source in zip(texts, sources, strict=True):
            # A word the final pass did not have stands where its neighbour ends.
            at = heard[source] if source is not None else Word(text, last - offset, last - offset, 0.3)
            self._done_words.append(Word(text, at.start + offset, at.end + offset, at.confidence))
            last = at.end + offset
        self._done.append((transcript, end - self._chunk_start))
        self._agreement = Agreement()
        self._chunk_start = self._heard_to = end


def quietest(audio: AudioBuffer, begin: int, end: int) -> int:
    """The sample in [begin, end) of `audio` around which 60 ms are the most silent."""
    sound: Samples = audio.view(begin, end)
    size = int(0.06 * SAMPLE_RATE)
    blocks = sound[: len(sound) // size * size].reshape(-1, size)
    return begin + int(np.square(blocks).sum(axis=1).argmin()) * size + size // 2


def timed(transcript: Transcript, seconds: float) -> list[Word]:
    """The words with times; for engines that give none they are spread over `seconds` by length."""
    if transcript.words:
        return list(transcript.words)
    texts = split_words(transcript.text)
    total = sum(len(t) + 1 for t in texts) or 1
    words: list[Word] = []
    at = 0.0
    for text in texts:
        span = (len(text) + 1) / total * seconds
        words.append(Word(text, round(at, 3), round(at + span, 3), transcript.confidence))
        at += span
    return words
