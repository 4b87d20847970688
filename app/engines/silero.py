"""Silero VAD v5 on onnxruntime: is this 32 ms of sound speech?

One model serves all sessions. Frames that arrive while a call is running are taken together in
the next one, so the cost a frame falls as sessions are added. It has a thread of its own:
queueing behind a 300 ms transcription would make every turn late. Source: Silero Team, 2024,
"Silero VAD".
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.engines.ort_session import OrtSession
from app.roles import SAMPLE_RATE, BadInput, EngineFailed, EngineInfo, Samples

FRAME = 512
"""Samples a frame: 32 ms."""
_CONTEXT = 64
"""Samples of the previous frame that the model sees again."""
_MAX_BATCH = 64


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


class Silero:
    """`Vad` for any number of sessions."""

    def __init__(self, model_dir: Path) -> None:
        """Loads the model: blocking, about 0.1 s."""
        self._session = OrtSession(model_dir / "silero_vad.onnx", threads=1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vad")
        self._lock = threading.Lock()
        self._pending: list[tuple[_Stream, Samples, asyncio.Future[float]]] = []
        self._running = False
        self._rate = np.array(SAMPLE_RATE, np.int64)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("vad", "silero", "silero-vad")

    async def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def stream(self) -> _Stream:
        """A fresh state for one session."""
        return _Stream(self)

    async def submit(self, stream: _Stream, frame: Samples) -> float:
        """Queue one frame of `stream`; at most one frame of a stream is in flight."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._pending.append((stream, frame, future))
            start, self._running = not self._running, True
        if start:
            self._thread.submit(self._drain)
        return await future

    def _drain(self) -> None:
        while True:
            with self._lock:
                batch, self._pending = self._pending[:_MAX_BATCH], self._pending[_MAX_BATCH:]
                if not batch:
                    self._running = False
                    return
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

    def _run(self, streams: list[_Stream], frames: list[Samples]) -> npt.NDArray[np.float32]:
        inputs = np.empty((len(frames), _CONTEXT + FRAME), np.float32)
        for row, stream, frame in zip(inputs, streams, frames, strict=True):
            row[:_CONTEXT] = stream.context
            row[_CONTEXT:] = frame
        state = np.stack([s.state for s in streams], axis=1)
        output, state = self._session.outputs(input=inputs, state=state, sr=self._rate)
        for i, stream in enumerate(streams):
            stream.state = state[:, i]
            stream.context = inputs[i, -_CONTEXT:]
        return output[:, 0]


def _deliver(futures: list[tuple[asyncio.Future[float], int]], outcome: list[float] | EngineFailed) -> None:
    for future, i in futures:
        if future.done():
            continue
        if isinstance(outcome, EngineFailed):
            future.set_exception(outcome)
        else:
            future.set_result(outcome[i])
