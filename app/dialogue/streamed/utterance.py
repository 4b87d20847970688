"""One utterance while it is being said, by the words of a recogniser elsewhere."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

from app.dialogue.agreement import join_words
from app.dialogue.streamed.relay import Relay
from app.dialogue.utterance import FinalWords, Utterance
from app.roles import SAMPLE_RATE, Transcript, Word
from app.roles.streaming import StreamDead

_BEFORE_S = 0.1
_FORGET_S = 60.0


class StreamedUtterance(Utterance):
    """An `Utterance` whose words come from `relay`. Once that is dead, what it had not made firm is
    recognised here, as every utterance is that has no relay."""

    def __init__(self, relay: Relay, *args: Any, firm: Any = (), **kwargs: Any) -> None:
        super().__init__(*args, firm=firm, **kwargs)
        self._relay = relay
        self._told = list(firm)
        self._from = self.start / SAMPLE_RATE - _BEFORE_S
        self._to = math.inf
        self._here = False
        self._shown = "", ""
        relay.on_heard = self._heard_words

    # --- the words ----------------------------------------------------------------------------------

    @property
    def _streams(self) -> bool:
        """Whether the words come from elsewhere. When that is over, they are gone on with here."""
        if not self._here and self._relay.dead is not None:
            self._here = True
            if self._final is not None and not self._final.cancel() and not self._final.cancelled():
                self._final.exception()
            self._final = None
            self._done_words = self._rebased(self._mine(self._relay.firm))
            self._chunk_start = self._heard_to = max(self.start, self._relay.firm_to)
            if not self._done_words:
                self._agreement.firm = list(self._told)
        return not self._here

    def _mine(self, words: list[Word]) -> list[Word]:
        return [w for w in words if self._from <= (w.start + w.end) / 2 < self._to]

    def _rebased(self, words: list[Word]) -> list[Word]:
        begin = self.start / SAMPLE_RATE
        return [replace(w, start=max(0.0, w.start - begin), end=max(0.0, w.end - begin)) for w in words]

    def _kept(self, texts: list[str]) -> list[str]:
        """`texts` behind what was told as firm before, by another process."""
        return [*self._told, *texts[len(self._told) :]] if self._told else texts

    @property
    def committed(self) -> str:
        """See `Utterance`."""
        if not self._streams:
            return super().committed
        return join_words(self._kept([w.text for w in self._mine(self._relay.firm)]))

    @property
    def closed(self) -> tuple[Word, ...]:
        """See `Utterance`."""
        return tuple(self._rebased(self._mine(self._relay.firm))) if self._streams else super().closed

    @property
    def text(self) -> str:
        """See `Utterance`."""
        if not self._streams:
            return super().text
        words = self._mine(self._relay.firm) + self._mine(self._relay.soft)
        return join_words(self._kept([w.text for w in words]))

    @property
    def hypothesis(self) -> str:
        """See `Utterance`."""
        return self.text if self._streams else super().hypothesis

    def _heard_words(self) -> None:
        now = self.text, self.committed
        if now == self._shown or not self._streams:
            return
        self._shown = now
        words = self._mine(self._relay.firm) + self._mine(self._relay.soft)
        if words:
            self._heard_to = max(self._heard_to, round(words[-1].end * SAMPLE_RATE))
            self.confidence = sum(w.confidence for w in words) / len(words)
        self.passes += 1
        self.partials.append(self.text)
        self._on_partial(self)

    # --- what the listener calls ----------------------------------------------------------------------

    def heard(self, end: int) -> None:
        """See `Utterance`. The relay has the sound already."""
        if not self._streams:
            super().heard(end)

    async def keep_up(self, end: int) -> None:
        """See `Utterance`."""
        if self._streams:
            await self._relay.room()
        else:
            await super().keep_up(end)

    def closing(self, speech_end: int) -> None:
        """See `Utterance`."""
        if not self._streams:
            super().closing(speech_end)
            return
        self._final_end = speech_end
        if self._turn is not None:
            self._judging = asyncio.create_task(self._judge(self._turn))
        self._final = asyncio.create_task(self._as_told(speech_end))

    def resumed(self) -> None:
        """See `Utterance`."""
        if self._streams and self._final is not None:
            self._final.cancel()
            self._final = None
        super().resumed()

    async def preview(self) -> Transcript | None:
        """See `Utterance`."""
        if not self._streams:
            return await super().preview()
        final = self._final
        if final is None:
            return None
        await asyncio.wait([final])
        if final is not self._final or final.cancelled() or final.exception() is not None:
            return None
        return final.result()

    async def _as_told(self, speech_end: int) -> Transcript:
        await self._relay.settled(speech_end)
        told = self._final_words()
        return Transcript(told.text, told.words, told.language, told.confidence, told.no_speech)

    async def finish(self, speech_end: int) -> FinalWords:
        """See `Utterance`."""
        self._to = max(speech_end, self._audio.end) / SAMPLE_RATE
        if self._streams:
            self._relay.ask()
            try:
                await self._relay.settled(speech_end)
            except StreamDead:
                self._final = None
            else:
                final = self._final_words()
                self._relay.forget(self._to - _FORGET_S)
                return final
        if not self._streams and self._chunk_start >= speech_end:
            return self._final_words()
        return await super().finish(speech_end)

    def _final_words(self) -> FinalWords:
        words = self._rebased(self._mine(self._relay.firm))
        confidence = sum(w.confidence for w in words) / len(words) if words else 0.0
        return FinalWords(
            text=join_words(self._kept([w.text for w in words])),
            words=tuple(words),
            language=self._relay.language or self._options.language or "en",
            confidence=confidence,
            no_speech=0.0 if words else 1.0,
        )
