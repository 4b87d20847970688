"""Tells the utterances of one session apart by voice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.dialogue.speakers import Speakers, label_name
from app.roles import SAMPLE_RATE, BadAudio, ColloquyError, Job, NotFound, Samples, SpeakerEmbedding, Urgency

log = logging.getLogger(__name__)

_LEAST = SAMPLE_RATE // 2
_WAIT_S = 3.0
"""For a model that is still loaded; a label is not worth more of a person's time."""


class Who:
    """`voices` gives the model, which loads when first asked for; `speakers` are those of the session."""

    def __init__(
        self, voices: Callable[[], Awaitable[SpeakerEmbedding]], speakers: Speakers, owner: str
    ) -> None:
        self._voices, self._speakers, self._owner = voices, speakers, owner
        self._last = 0

    async def label(self, spoken: Samples) -> str:
        """The label (`SPEAKER_00`, …) of who said `spoken`, float32[n] at 16 kHz; where that cannot be
        told, of who spoke before."""
        if len(spoken) >= _LEAST:
            try:
                async with asyncio.timeout(_WAIT_S):
                    engine = await self._voices()
                    voice = await engine.embed(spoken, Job(self._owner, Urgency.FINAL))
                self._last = self._speakers.assign(voice, len(spoken) / SAMPLE_RATE).speaker
            except (BadAudio, NotFound):
                pass  # too little, or a server that does not tell speakers apart
            except (ColloquyError, TimeoutError) as error:
                log.warning("who spoke was not told: %r", error)
        return label_name(self._last)
