"""A GGUF model in process, through llama.cpp's own server core (xllamacpp).

The server core batches the sessions' replies together and keeps the system prompt's KV cache,
which is what makes the first token quick. The library always opens an HTTP listener on
loopback; it is locked with a random key that nobody is told.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.roles import ChatMessage, EngineFailed, EngineInfo, Job, LlmOptions


class Llama:
    """`LanguageModel` of a GGUF file with a chat template."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        slots: int = 4,
        context_tokens: int = 2048,
        gpu_layers: int = 0,
        on_usage: Callable[[float], None] = lambda percent: None,
    ) -> None:
        """Loads the model: blocking, about 1 s for 0.5 B parameters. `slots` replies are written
        at once, each with a window of `context_tokens`. Use fewer `threads` than there are cores:
        the memory is the limit, and one thread that lags stops all the others. `on_usage` is told,
        on a thread of ours, how full a reply's context window was at its end (0–100)."""
        import xllamacpp

        if not path.is_file():
            raise EngineFailed(f"there is no model file at {path}")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_tokens * slots
        params.n_parallel = slots
        params.n_gpu_layers = gpu_layers
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads = threads
            # llama.cpp's threads wait for each other after every operation. Spinning there while
            # recognition or the voice has one of the cores makes replies ten times slower.
            cpu.poll = 0
        params.warmup = True
        params.verbosity = -1
        params.api_keys = [secrets.token_hex(32)]
        params.port = 0
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise EngineFailed(f"the language model did not load from {path}: {error}") from error
        self._name = path.stem
        self._context_tokens = context_tokens
        self._on_usage = on_usage
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llm")
        self._slots = asyncio.Semaphore(slots)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("llm", "llama.cpp", self._name)

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """An estimate that errs high: a token a Chinese character, one for three Latin letters."""
        return len(text.encode()) // 3 + 8

    async def close(self) -> None:
        """Stop taking work. The library frees the model with its object."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[str, None]:
        """See `LanguageModel`. Replies beyond the slots wait in order of arrival."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        stop = threading.Event()

        def put(item: str | BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, item)

        def on_chunk(chunk: Any) -> bool:
            if stop.is_set():
                return True
            try:
                if text := _text_of(chunk):
                    put(text)
                if timings := chunk.get("timings"):
                    used = sum(timings[n] for n in ("cache_n", "prompt_n", "predicted_n"))
                    self._on_usage(used / self._context_tokens * 100)
            except EngineFailed as error:
                put(error)
                return True
            return False

        body = _body(messages) | {"max_tokens": options.max_tokens, "temperature": options.temperature}
        running = await self._start(lambda: self._server.handle_chat_completions(body, on_chunk))
        running.add_done_callback(lambda ended: put(_failure(ended)))
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            stop.set()

    async def prepare(self, messages: Sequence[ChatMessage], job: Job) -> None:
        """Read `messages` into the cache, so that a reply to what begins like them starts sooner.
        Costs the same work as reading them later would."""
        if self._slots.locked():
            return
        body = _body(messages) | {"max_tokens": 0}
        await asyncio.wait(
            [await self._start(lambda: self._server.handle_chat_completions(body, lambda c: False))]
        )

    async def _start(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run `work` on a thread once there is a slot. The slot is held until the thread ends, not
        until the caller leaves: a cancelled reply occupies llama.cpp up to its next token."""
        await self._slots.acquire()
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except BaseException:
            self._slots.release()
            raise
        running.add_done_callback(lambda _: self._slots.release())
        return running


def _body(messages: Sequence[ChatMessage]) -> dict[str, Any]:
    return {
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "stream": True,
        "cache_prompt": True,
    }


def _text_of(chunk: Any) -> str:
    """The text in a chunk of the stream. Raises `EngineFailed` for an error in it."""
    if "error" in chunk:
        raise EngineFailed(f"the language model refused: {chunk['error'].get('message', chunk['error'])}")
    choices = chunk.get("choices")
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def _failure(ended: asyncio.Future[Any]) -> EngineFailed | None:
    if ended.cancelled() or (error := ended.exception()) is None:
        return None
    return EngineFailed(f"the language model failed: {error}")
