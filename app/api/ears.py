"""What the server has taken in of a session, over however many connections.

A client that comes back is told how much that is, and sends the rest again. So what is counted
here has been, or will be, heard, and nothing else: a frame that a broken connection had handed
over stays here until the session has room for it, and the decoders keep their state from one
connection to the next.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable

from app.api.messages import AudioChunkIn, SessionSettings
from app.audio.codecs import Decoder, decoder
from app.roles import SAMPLE_RATE, BadInput, Samples

_BYTES = {"pcm16": 2, "pcm8": 1, "mulaw": 1}
"""Of one sample. What Opus holds is known when it is decoded."""


class Ears:
    """`wish` is what the client asked for. `received_ms` counts sound at its own rate, exact to the
    sample; `received_messages` what else came that changes the session."""

    def __init__(self, wish: SessionSettings) -> None:
        self.wish = wish
        self.received_ms = 0.0
        self.received_messages = 0
        self._binary: Decoder | None = None
        self._json: tuple[int, Decoder] | None = None
        self._taken: deque[Samples] = deque()
        self._passing = asyncio.Lock()

    def use(self, wish: SessionSettings) -> None:
        """What comes from now on is as `wish` says."""
        if wish.audio_in != self.wish.audio_in:
            self._binary = self._json = None
        self.wish = wish

    def binary(self, data: bytes) -> None:
        """Take a binary frame in the negotiated format. Raises `BadAudio`; then it does not count."""
        codec, rate = self.wish.audio_in.codec, self.wish.audio_in.sample_rate
        if self._binary is None:
            self._binary = decoder(codec, rate)
        samples = self._binary.decode(data)
        self.received_ms += (
            len(samples) / SAMPLE_RATE if codec == "opus" else len(data) / _BYTES[codec] / rate
        ) * 1000
        self._taken.append(samples)

    def json(self, message: AudioChunkIn) -> None:
        """Take the base64 PCM16 of an `audio_chunk`. Raises `BadAudio` or `BadInput`."""
        rate = message.sr or self.wish.audio_in.sample_rate
        if self._json is None or self._json[0] != rate:
            self._json = rate, decoder("pcm16", rate)
        try:
            data = base64.b64decode(message.data, validate=True)
        except ValueError:
            raise BadInput("data is not base64", field="data") from None
        samples = self._json[1].decode(data)
        self.received_ms += len(data) / 2 / rate * 1000
        self._taken.append(samples)

    async def pass_on(self, hear: Callable[[Samples], Awaitable[None]]) -> None:
        """Give `hear`, which may wait, what was taken. What it could not take before the caller was
        cancelled is given first the next time."""
        async with self._passing:
            while self._taken:
                await hear(self._taken[0])
                self._taken.popleft()
