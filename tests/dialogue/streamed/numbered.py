"""Speech whose words can be told apart, and a provider of streams that hears it, or fails as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from app.audio.buffer import AudioBuffer
from app.dialogue.endpointing import FRAME
from app.dialogue.streamed.relay import Relay
from app.roles import SAMPLE_RATE, EngineInfo, Job, Samples, SttOptions, Word
from app.roles.streaming import Heard, StreamDead

_WORD = int(0.3 * SAMPLE_RATE)
_BREAK = int(0.05 * SAMPLE_RATE)
_LOUD = 0.15
_STEP = 0.01


def spoken(first: int, count: int) -> Samples:
    """`count` words, the numbers from `first` (0 to 60) on, 0.35 s each. How loud one is says which it is."""
    sound = np.zeros((count, _WORD + _BREAK), np.float32)
    signs = np.random.default_rng(3).integers(0, 2, _WORD) * 2 - 1
    for i in range(count):
        sound[i, :_WORD] = signs * (0.2 + _STEP * (first + i))
    return sound.reshape(-1)


Said = tuple[int, int, int, bool]


def words_in(sound: Samples) -> list[Said]:
    """The words of `spoken` in `sound`: number, begin and end in samples, and whether it is whole."""
    loud = np.abs(sound) > _LOUD
    edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False])).astype(np.int8)))
    found = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        number = round((float(np.abs(sound[begin:end]).mean()) - 0.2) / _STEP)
        found.append((number, begin, end, end < len(sound)))
    return found


@dataclass
class Hears:
    """A provider. What goes wrong: `refuses` the stream; dies (`dies_of`) when it has heard `dies_after` s;
    from then on is silent instead (`hangs`); never answers questions (`ignores`); does not take sound
    (`stuck`)."""

    name: str = "ears"
    refuses: StreamDead | None = None
    dies_after: float | None = None
    dies_of: StreamDead = field(default_factory=lambda: StreamDead("upstream_error", "it broke"))
    hangs: bool = False
    ignores: bool = False
    stuck: bool = False
    streams: list[Stream] = field(default_factory=list)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("stt", self.name)

    async def open(self, options: SttOptions, job: Job) -> Stream:
        if self.refuses is not None:
            raise self.refuses
        self.streams.append(Stream(self, options))
        return self.streams[-1]

    async def close(self) -> None:
        pass


class Stream:
    """Tells words as soon as they are whole, as final ones when the next one begins."""

    def __init__(self, provider: Hears, options: SttOptions) -> None:
        self.provider, self.options = provider, options
        self.sound = np.zeros(0, np.float32)
        self.kept_alive = self.finalized = 0
        self.finished = self.closed = False
        self._told = 0
        self._out: asyncio.Queue[Heard | StreamDead | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Heard]:
        while (heard := await self._out.get()) is not None:
            if isinstance(heard, StreamDead):
                raise heard
            yield heard

    @property
    def _dead(self) -> bool:
        after = self.provider.dies_after
        return after is not None and len(self.sound) >= after * SAMPLE_RATE

    async def send(self, audio: Samples) -> None:
        if self.provider.stuck:
            await asyncio.Event().wait()
        self.sound = np.concatenate([self.sound, audio])
        await asyncio.sleep(0)
        if not self._dead:
            self._tell(len(self.sound) - _BREAK, finalized=False)
        elif not self.provider.hangs:
            self._out.put_nowait(self.provider.dies_of)

    def _tell(self, firm_to: int, *, finalized: bool) -> None:
        heard = [w for w in words_in(self.sound) if w[1] >= self._told]
        firm = [w for w in heard if w[2] <= firm_to and w[3]]
        if firm or finalized:
            begin, self._told = self._told, firm[-1][2] if firm else self._told
            self._put(firm, begin, self._told, final=True, finalized=finalized)
        elif soft := heard:
            self._put(soft, self._told, len(self.sound), final=False)

    def _put(
        self,
        words: list[tuple[int, int, int, bool]],
        start: int,
        end: int,
        *,
        final: bool,
        finalized: bool = False,
    ) -> None:
        made = tuple(Word(str(n), b / SAMPLE_RATE, e / SAMPLE_RATE, 0.9) for n, b, e, _ in words)
        self._out.put_nowait(Heard(made, start / SAMPLE_RATE, end / SAMPLE_RATE, final, finalized))

    async def finalize(self) -> None:
        self.finalized += 1
        if not self._dead and not self.provider.ignores:
            self._tell(len(self.sound), finalized=True)

    async def keep_alive(self) -> None:
        self.kept_alive += 1

    async def finish(self) -> None:
        self.finished = True
        self._tell(len(self.sound), finalized=False)
        self._out.put_nowait(None)

    async def close(self) -> None:
        self.closed = True


class Feed:
    """Gives a relay sound frame by frame, as a listener does."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.sound = AudioBuffer()
        self._at = 0

    async def hear(self, *parts: Samples, known: bool = True) -> None:
        for part in parts:
            self.sound.append(part)
            while self.sound.end - self._at >= FRAME:
                frame = self.sound.view(self._at, self._at + FRAME)
                probability = float(np.abs(frame).max() > _LOUD) if known else None
                self.relay.hear(self.sound, self._at, self._at + FRAME, probability)
                self._at += FRAME
                await asyncio.sleep(0)

    async def all_firm(self) -> list[str]:
        """All that was said."""
        self.relay.ask()
        async with asyncio.timeout(10):
            await self.relay.settled(self._at)
        return [w.text for w in self.relay.firm]
