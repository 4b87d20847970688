"""The sound of a stream or a file, in any of Deepgram's encodings, as 16 kHz mono."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np

from app.api.deepgram.options import Options
from app.audio.codecs import Decoder, decoder, unpack_alaw, unpack_mulaw, unpack_pcm16
from app.audio.live import LiveFile, is_container
from app.roles import BadAudio, Samples

Hear = Callable[[Samples], Awaitable[None]]

_PIECE = 1 << 15
"""Bytes decoded at a time: some people send a file in one message."""
_BAD_PACKETS = 50
_RAW = {"linear16": 2, "linear32": 4, "mulaw": 1, "alaw": 1}
"""Bytes of a sample."""


class Packed:
    """Raw samples, cut anywhere: what is left of one at the end of a message begins the next."""

    def __init__(self, options: Options) -> None:
        encoding = options.encoding or "linear16"
        self._unpack = {
            "linear16": unpack_pcm16,
            "linear32": _unpack_float,
            "mulaw": unpack_mulaw,
            "alaw": unpack_alaw,
        }[encoding]
        self._channels = options.channels
        self._size = _RAW[encoding] * options.channels
        self._rest = b""
        self._decoder = Decoder(self._mixed, options.sample_rate, bounded=encoding != "linear32")

    def decode(self, data: bytes) -> Iterator[Samples]:
        """The next bytes as float32[n] at 16 kHz, in pieces."""
        data = self._rest + data
        whole = len(data) - len(data) % self._size
        self._rest = data[whole:]
        step = _PIECE - _PIECE % self._size
        for at in range(0, whole, step):
            yield self._decoder.decode(data[at : min(at + step, whole)])

    def flush(self) -> Samples:
        """What was held back, at the end."""
        return self._decoder.flush()

    def _mixed(self, data: bytes) -> Samples:
        samples = self._unpack(data)
        if self._channels == 1:
            return samples
        with np.errstate(all="ignore"):  # floats may be infinite; the resampler cleans what comes of it
            mixed: Samples = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        return mixed


def _unpack_float(data: bytes) -> Samples:
    return np.frombuffer(data, "<f4").astype(np.float32)


class StreamSound:
    """A stream's messages in, sound out: to `hear`, which may wait. What cannot be decoded is an exception
    of `broken`, or of `take`."""

    def __init__(self, options: Options, hear: Hear) -> None:
        self._hear = hear
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._packed = Packed(options) if options.encoding in _RAW else None
        # A container in spite of what was said is seen by its first bytes.
        self._opus = decoder("opus", 48000) if options.encoding == "opus" else None
        self._good = self._bad = 0
        self._file: LiveFile | None = None
        self._pump: asyncio.Task[None] | None = None

    async def take(self, data: bytes) -> None:
        """The next message. Raises `BadAudio` once nothing of them is what it should be."""
        if self._packed is not None:
            for samples in self._packed.decode(data):
                await self._hear(samples)
                await asyncio.sleep(0)
        elif self._opus is not None and self._file is None and (self._good or not is_container(data[:12])):
            await self._take_opus(self._opus, data)
        else:
            if self._file is None:
                self._file = LiveFile()
                self._pump = asyncio.create_task(self._pass_on(self._file))
            await self._file.feed(data)

    async def end(self) -> None:
        """No more comes: what was held back has been heard when this returns."""
        if self._packed is not None:
            await self._hear(self._packed.flush())
        if self._file is not None and self._pump is not None:
            self._file.end()
            await asyncio.wait([self._pump, self.broken], return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Stop decoding. Idempotent."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        if self._file is not None:
            await self._file.close()
        self.broken.cancel()

    async def _take_opus(self, opus: Decoder, packet: bytes) -> None:
        try:
            samples = opus.decode(packet)
        except BadAudio:
            self._bad += 1
            if not self._good and self._bad >= _BAD_PACKETS:
                raise
            return
        self._good += 1
        await self._hear(samples)

    async def _pass_on(self, file: LiveFile) -> None:
        try:
            async for samples in file.sound():
                await self._hear(samples)
        except BadAudio as error:
            if not self.broken.done():
                self.broken.set_exception(error)
