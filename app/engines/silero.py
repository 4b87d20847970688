"""Silero VAD v5 on onnxruntime: is this 32 ms of sound speech?

One model serves all sessions. Frames that arrive while a call is running, or while its thread rests
after one that was for several sessions, are taken together in the next: a frame by itself costs
45 µs, one of sixteen 12. It has a thread of its own: queueing behind a 300 ms transcription would make
every turn late. Source: Silero Team, 2024, "Silero VAD".
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from app.engines.ort_session import OrtSession
from app.engines.silero_graph import products
from app.roles import BadInput, EngineFailed, EngineInfo, Samples

FRAME = 512
"""Samples a frame: 32 ms."""
_CONTEXT = 64
"""Samples of the previous frame that the model sees again."""
_MAX_BATCH = 64
_REST = 8
"""How long the thread rests, in lengths of the call before, so that frames gather: the more there are,
the longer. Only after a call for several sessions: one that is alone is answered at once."""
_REST_MAX_S = 0.003


class _Stream:
    """State of one session: the model's memory (float32[2, 128]) and the last samples."""

    def __init__(self, vad: Silero) -> None:
        self._vad = vad
        self.state = np.zeros((2, 128), np.float32)
        self.context = np.zeros(_CONTEXT, np.float32)

    async def probability(self, frame: Samples) -> float:
        """See `VadStream`."""
        if len(frame) != FRAME:
            raise BadInput(f"a VAD frame has {FRAME} samples, not {len(frame)}", field="frame")
        return await self._vad.submit(self, frame)


_Frame = tuple[_Stream, Samples, asyncio.Future[float]]


class Silero:
    """`Vad` for any number of sessions."""

    def __init__(self, model_dir: Path) -> None:
        """Loads the model: blocking, about 0.1 s."""
        self._session = OrtSession(products(model_dir / "silero_vad.onnx"), threads=1)
        self._waiting: SimpleQueue[_Frame | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vad", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("vad", "silero", "silero-vad")

    async def close(self) -> None:
        """Stop the thread."""
        self._waiting.put(None)

    def stream(self) -> _Stream:
        """A fresh state for one session."""
        return _Stream(self)

    async def submit(self, stream: _Stream, frame: Samples) -> float:
        """Queue one frame of `stream`; at most one frame of a stream is in flight."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.put((stream, frame, future))
        return await future

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            began = time.monotonic()
            try:
                probabilities = self._run([s for s, _, _ in batch], [f for _, f, _ in batch])
                outcome: list[float] | EngineFailed = probabilities.tolist()
            except Exception as error:  # noqa: BLE001 - the sessions that wait must be told
                outcome = EngineFailed(f"voice activity detection failed: {error}")
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[float], int]]] = {}
            for i, (_, _, future) in enumerate(batch):
                by_loop.setdefault(future.get_loop(), []).append((future, i))
            for loop, futures in by_loop.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_deliver, futures, outcome)
            if len(batch) > 1:
                time.sleep(min(_REST_MAX_S, _REST * (time.monotonic() - began)))

    def _next(self) -> list[_Frame] | None:
        """The frames that wait, once there is one; None at the end."""
        batch: list[_Frame] = []
        while len(batch) < _MAX_BATCH:
            try:
                frame = self._waiting.get(block=not batch)
            except Empty:
                break
            if frame is None:
                return None
            batch.append(frame)
        return batch

    def _run(self, streams: list[_Stream], frames: list[Samples]) -> npt.NDArray[np.float32]:
        inputs = np.empty((len(frames), _CONTEXT + FRAME), np.float32)
        for row, stream, frame in zip(inputs, streams, frames, strict=True):
            row[:_CONTEXT] = stream.context
            row[_CONTEXT:] = frame
        h, c = np.stack([s.state for s in streams], axis=1)
        output, h, c = self._session.outputs(input=inputs, h=h, c=c)
        for i, stream in enumerate(streams):
            stream.state[0], stream.state[1] = h[i], c[i]
            stream.context[:] = inputs[i, -_CONTEXT:]
        return output[:, 0]


def _deliver(futures: list[tuple[asyncio.Future[float], int]], outcome: list[float] | EngineFailed) -> None:
    for future, i in futures:
        if future.done():
            continue
        if isinstance(outcome, EngineFailed):
            future.set_exception(outcome)
        else:
            future.set_result(outcome[i])
