"""An event loop whose time is virtual, so that real code on recordings runs the same in every run.

Time moves only when every task waits for it and no model is at work: it then jumps to the next
timer. Model calls that are wrapped here take no time of their own but a fixed cost, whatever the
machine and its load, and come back in a fixed order. What they give is what the real engine gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Any, TypeVar, TypeVarTuple
from unittest.mock import patch

from app.roles import (
    AudioChunk,
    ChatMessage,
    Completeness,
    EndOfTurn,
    EngineInfo,
    Job,
    RoleSet,
    Samples,
    SpeechOptions,
    SpeechToText,
    SttOptions,
    TextToSpeech,
    Tool,
    Transcript,
    Vad,
    VadStream,
    Voice,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

COSTS: Mapping[str, float] = {
    "vad": 0.001,
    "partial": 0.06,
    "turn": 0.09,
    "words": 0.04,
    "stt": 0.25,
    "tts": 0.15,
}
"""Seconds a call: about what the packaged models take on two quiet cores. `tts` is the first sound
of a segment; the rest of it is there with it."""

_ORDER = 1e-7
"""Calls that end at the same time end in the order in which they began, this far apart."""
_LEAST = 1e-8
"""No timer is shorter: code that waits for a rest of 1e-16 s, again and again, must get past it."""
_STUCK_S = 120.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the loop was made."""

    def __init__(self) -> None:
        self._now = 0.0
        self._working = 0
        self._calls = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio`."""
        return super().call_at(max(when, self._now + _LEAST), callback, *args, context=context)

    def wait_or_jump(self, timeout: float | None, really: Callable[[float | None], list[Any]]) -> list[Any]:
        """What the loop does with nothing left to run: `timeout` is how far the next timer is."""
        if timeout is not None and timeout <= 0:
            return really(0)
        if self._working:
            woken = really(_STUCK_S)
            if not woken:
                raise RuntimeError(f"a model has been at work for {_STUCK_S:.0f} s")
            return woken
        if timeout is None:
            return really(None)
        woken = really(0)
        if not woken:
            self._now += timeout
        return woken

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, time stands still: something outside of the loop is awaited."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    async def call(self, cost: float, work: Awaitable[T]) -> T:
        """Await real `work`; for the loop it takes exactly `cost` seconds, failed or not."""
        self._calls += 1
        due = self._now + cost + self._calls % 1000 * _ORDER
        try:
            with self.at_work():
                return await work
        finally:
            # Not where the caller gave up: a cancelled task must not wait.
            if not _cancelled():
                await self.until(due)

    async def until(self, due: float) -> None:
        """Wait until virtual `due`."""
        await asyncio.sleep(max(0.0, due - self._now))


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        return self._loop.wait_or_jump(timeout, super().select)


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def virtual_loop() -> VirtualLoop:
    """The running loop, which must be a virtual one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "run it with run_virtual"
    return loop


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` on a virtual loop. Code that reads `time.monotonic` sees the loop's time too."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        with patch("time.monotonic", loop.time):
            return runner.run(main())


# --- roles at a fixed cost ---------------------------------------------------------------------


def at_cost(roles: RoleSet, costs: Mapping[str, float] = COSTS) -> RoleSet:
    """`roles` whose calls take the time that `costs` says. The language model stays as it is."""
    stt = _Stt(roles.stt, costs["stt"])
    same = roles.stt_partial is roles.stt
    return replace(
        roles,
        vad=_Vad(roles.vad, costs["vad"]),
        stt=stt,
        stt_partial=stt if same else _Stt(roles.stt_partial, costs["partial"]),
        tts=_Tts(roles.tts, costs["tts"]),
        turn=None if roles.turn is None else _Turn(roles.turn, costs["turn"]),
        completeness=None
        if roles.completeness is None
        else _Completeness(roles.completeness, costs["words"]),
    )


class _Wrapped:
    def __init__(self, engine: Any, cost: float) -> None:
        self._engine = engine
        self._cost = cost

    @property
    def info(self) -> EngineInfo:
        found: EngineInfo = self._engine.info
        return found

    async def close(self) -> None:
        await self._engine.close()


class _VadStream:
    def __init__(self, stream: VadStream, cost: float) -> None:
        self._stream = stream
        self._cost = cost

    async def probability(self, frame: Samples) -> float:
        return await virtual_loop().call(self._cost, self._stream.probability(frame))


class _Vad(_Wrapped):
    _engine: Vad

    def stream(self) -> VadStream:
        return _VadStream(self._engine.stream(), self._cost)


class _Turn(_Wrapped):
    _engine: EndOfTurn

    async def probability(self, audio: Samples, job: Job) -> float:
        return await virtual_loop().call(self._cost, self._engine.probability(audio, job))


class _Completeness:
    def __init__(self, judge: Completeness, cost: float) -> None:
        self._judge, self._cost = judge, cost

    async def completeness(
        self, messages: Sequence[ChatMessage], job: Job, tools: Sequence[Tool] = ()
    ) -> float | None:
        return await virtual_loop().call(self._cost, self._judge.completeness(messages, job, tuple(tools)))


class _Stt(_Wrapped):
    _engine: SpeechToText

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        return await virtual_loop().call(self._cost, self._engine.transcribe(audio, options, job))


class _Tts(_Wrapped):
    _engine: TextToSpeech

    @property
    def sample_rate(self) -> int:
        return self._engine.sample_rate

    def voices(self) -> list[Voice]:
        return list(self._engine.voices())

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        loop = virtual_loop()
        stream = self._engine.speak(text, options, job)
        cost = self._cost
        try:
            while True:
                try:
                    chunk = await loop.call(cost, anext(stream))
                except StopAsyncIteration:
                    return
                yield chunk
                cost = 0.0
        finally:
            await stream.aclose()
