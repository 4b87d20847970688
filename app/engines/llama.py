"""A GGUF model in process, through llama.cpp's own server core (xllamacpp).

The core batches the sessions' replies together. It has a number of slots, each with a KV cache of
what it read last; reading is what costs time before the first token, so a session keeps its slot
as long as it is among the last to have talked. The library always opens an HTTP listener on
loopback; it is locked with a random key that nobody is told.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
import threading
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.engines.llama_request import body_of, wishes
from app.engines.tool_calls import CallReader
from app.roles import (
    BadInput,
    ChatMessage,
    ColloquyError,
    ContextTooLong,
    EngineFailed,
    EngineInfo,
    Job,
    LlmEnd,
    LlmOptions,
    LlmPiece,
    Tool,
)

_BATCH = 32
"""Tokens of a prompt read in one go on the CPU, about 0.3 s on one core. Work stops between
batches, and replies of others get a token between them; reading in larger ones is 10 % cheaper."""
_REUSE = 64
"""A run of at least so many tokens that comes later in the cache than in the prompt is moved, not
read anew: what stays of a conversation whose oldest turns were dropped."""

_LIKELIEST = 100
"""Next tokens whose probabilities are asked for: all that close a sentence are among them."""
_CLOSING = " \t\n.,?!;:…—-。，？！；：、"
_CLOSES = re.compile(r"\s*[.?!…。？！]|\n")


@dataclass(slots=True)
class _Slot:
    """A place to work with a cache. `owner` is whom it is kept for, `holds` whose text the cache
    is of; they differ until the first request of a new owner has begun."""

    id: int
    owner: str = ""
    holds: str = ""
    busy: bool = False
    used: float = 0.0


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
        at once and as many sessions' caches kept, each with a window of `context_tokens` (12 KB a
        token for 0.5 B parameters). Use fewer `threads` than there are cores: the memory is the
        limit, and one thread that lags stops all the others. `on_usage` is told, on a thread of
        ours, how full a reply's context window was at its end (0–100)."""
        import xllamacpp

        if not path.is_file():
            raise EngineFailed(f"there is no model file at {path}")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_tokens * slots
        params.n_parallel = slots
        params.n_gpu_layers = gpu_layers
        if not gpu_layers:
            params.n_batch = params.n_ubatch = max(_BATCH, slots)
            # Flash attention is the slower one on a CPU: by a fifth with 1,500 tokens in the cache.
            params.flash_attn_type = 0
        # Slots are chosen here, which leaves nothing for the core's own cache of prompts in RAM.
        params.cache_ram_mib = 0
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads = threads
            # llama.cpp's threads wait for each other after every operation. Spinning there while
            # recognition or the voice has one of the cores makes replies ten times slower.
            cpu.poll = 0
        params.warmup = True
        params.verbosity = -1
        self._key = secrets.token_hex(32)
        params.api_keys = [self._key]
        params.port = 0
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise EngineFailed(f"the language model did not load from {path}: {error}") from error
        self._name = path.stem
        self._context_tokens = context_tokens
        self._on_usage = on_usage
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llm")
        self._slots = [_Slot(i) for i in range(slots)]
        # Who waits for a slot, in order of arrival.
        self._waiting: list[tuple[str, asyncio.Future[_Slot]]] = []
        self._closed = False

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
        """Stop all work; replies that are being written fail. The library frees the model with its
        object."""
        self._closed = True
        for _, granted in self._waiting:
            if not granted.done():
                granted.set_exception(_closed())
        self._waiting.clear()
        # The core is asked to stop after each batch and each token: this does not take long.
        await asyncio.to_thread(self._threads.shutdown)

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        """See `LanguageModel`. One request of an owner runs at a time; those of owners beyond the
        slots wait in order of arrival."""
        if options.tools and options.tool_choice != "none":
            async with aclosing(self._reply_or_call(messages, options, job)) as pieces:
                async for piece in pieces:
                    if piece is None:
                        break
                    yield piece
                else:
                    return
        count = _Count()
        body = body_of(messages) | wishes(options)
        async with aclosing(self._write(body, job, count)) as written:
            async for text in written:
                yield text
        yield LlmEnd(count.reason, count.prompt, count.completion)

    async def _reply_or_call(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece | None, None]:
        """Text and calls of tools. None, first and last, if the model does not see that it has the answer
        to its call.

        The core's own way with tools neither keeps small models to the form that it reads, nor reads any
        other; so the calls are found here."""
        body = body_of(messages, options.tools) | wishes(options)
        answered = options.tool_choice == "auto" and messages[-1].role == "tool"
        reader, count = CallReader(options.tools), _Count()
        async with aclosing(self._write(body, job, count)) as written:
            async for text in written:
                pieces = reader.feed(text)
                # A model that was taught to call tools would have used the tags.
                if answered and reader.calls and not reader.tagged:
                    yield None
                    return
                answered = answered and not pieces
                for piece in pieces:
                    yield piece
                if reader.done:
                    break
        for piece in reader.finish():
            yield piece
        called = reader.calls > 0 and reader.complete
        yield LlmEnd("tool_calls" if called else count.reason, count.prompt, count.completion)

    async def _write(self, body: dict[str, Any], job: Job, count: _Count) -> AsyncGenerator[str, None]:
        """The text of a reply as the model writes it."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        stop = threading.Event()

        def put(item: str | BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, item)

        def on_chunk(chunk: Any) -> None:
            count.take(chunk)
            if text := _text_of(chunk):
                put(text)
            if "timings" in chunk:
                self._on_usage((count.prompt + count.completion) / self._context_tokens * 100)

        running = self._start(await self._take(job.owner), body, stop, on_chunk)
        running.add_done_callback(lambda ended: put(ended.exception()))
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            stop.set()

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: tuple[Tool, ...] = ()) -> None:
        """Read `messages` into the owner's cache, so that a reply to what begins like them starts
        sooner. Costs the same work as reading them later would; what was read before a
        cancellation counts. Nothing is done for a new owner while all slots are busy."""
        known = job.owner and any(slot.owner == job.owner for slot in self._slots)
        if not known and all(slot.busy for slot in self._slots):
            return
        stop = threading.Event()
        # Without what leads over to the answer: there will be more to read before it.
        body = body_of(messages, tools) | {"max_tokens": 0, "add_generation_prompt": False}
        try:
            await asyncio.wait([self._start(await self._take(job.owner), body, stop)])
        finally:
            stop.set()

    async def completeness(
        self, messages: Sequence[ChatMessage], job: Job, tools: tuple[Tool, ...] = ()
    ) -> float | None:
        """See `Completeness`. What it costs is to read those words that `prepare` has not, and one token:
        25 ms for 0.5 B parameters on one core. None while all slots are busy, or where the model's chat
        template rewrites what a person says."""
        mine = [slot for slot in self._slots if job.owner and slot.owner == job.owner]
        if not mine and all(slot.busy for slot in self._slots):
            return None
        words = messages[-1].content.rstrip(_CLOSING)
        read = await asyncio.to_thread(self._rendered, [*messages[:-1], ChatMessage("user", words)], tools)
        end = read.rfind(words) if words else -1
        if end < 0:
            return None
        found: list[float] = []

        def on_chunk(chunk: Any) -> None:
            if (closed := _closed_sentence(chunk)) is not None:
                found.append(closed)

        stop = threading.Event()
        body = {"prompt": read[: end + len(words)], "stream": True, "cache_prompt": True}
        body |= {"max_tokens": 1, "temperature": 0, "n_probs": _LIKELIEST}
        try:
            await self._start(await self._take(job.owner), body, stop, on_chunk)
        finally:
            stop.set()
        return found[0] if found else None

    def _rendered(self, messages: Sequence[ChatMessage], tools: tuple[Tool, ...]) -> str:
        """The prompt that the model's chat template makes of `messages`: blocking, 1 ms. The library
        gives it on its listener only."""
        request = urllib.request.Request(
            f"{self._server.listening_address}/apply-template",
            json.dumps(body_of(messages, tools) | {"add_generation_prompt": False}).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=1
            ) as answer:
                return str(json.load(answer)["prompt"])
        except OSError as error:
            raise EngineFailed(f"the language model's chat template failed: {error}") from error

    async def _take(self, owner: str) -> _Slot:
        """The owner's slot, or the least recently used one, once it is idle. It is busy then."""
        if self._closed:
            raise _closed()
        granted: asyncio.Future[_Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, granted))
        self._assign()
        try:
            return await granted
        except asyncio.CancelledError:
            # It may have been granted in the very moment of the cancellation.
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._give(granted.result())
            raise

    def _give(self, slot: _Slot) -> None:
        slot.busy, slot.used = False, time.monotonic()
        self._assign()

    def _assign(self) -> None:
        """Grant idle slots to those who wait."""
        for waiting in tuple(self._waiting):
            owner, granted = waiting
            slot = None if granted.done() else self._idle(owner)
            if slot is not None:
                slot.busy, slot.owner = True, owner
                granted.set_result(slot)
            if granted.done():
                self._waiting.remove(waiting)

    def _idle(self, owner: str) -> _Slot | None:
        """The slot to be used for `owner`, if it is idle. Nameless work has none of its own."""
        for slot in self._slots:
            if owner and slot.owner == owner:
                return None if slot.busy else slot
        idle = [slot for slot in self._slots if not slot.busy]
        return min(idle, key=lambda slot: slot.used, default=None)

    def _start(
        self,
        slot: _Slot,
        body: dict[str, Any],
        stop: threading.Event,
        on_chunk: Callable[[Any], None] = lambda chunk: None,
    ) -> asyncio.Future[None]:
        """Send a request on a thread, until it ends or `stop` is set. Fails with `EngineFailed`.

        The slot is held until the thread ends, not until the caller leaves: stopped work occupies
        the core up to the end of its batch."""
        # Moved text remembers what stood before it, so never that of somebody else.
        reuse = _REUSE if slot.owner and slot.owner == slot.holds else 0
        body = body | {"id_slot": slot.id, "n_cache_reuse": reuse, "return_progress": True}
        failure: list[ColloquyError] = []

        def heard(chunk: Any) -> bool:
            try:
                _check(chunk)
                slot.holds = slot.owner
                if not stop.is_set():
                    on_chunk(chunk)
            except ColloquyError as error:
                failure.append(error)
                return True
            return stop.is_set() or self._closed

        def work() -> None:
            if stop.is_set():
                return
            try:
                if "prompt" in body:
                    self._server.handle_completions(body, heard)
                else:
                    self._server.handle_chat_completions(body, heard)
            except ValueError as error:  # before anything is done
                raise BadInput(f"the language model cannot do that: {error}") from error
            except Exception as error:
                raise EngineFailed(f"the language model failed: {error}") from error
            if failure or (self._closed and not stop.is_set()):
                raise failure[0] if failure else _closed()

        def ended(running: asyncio.Future[None]) -> None:
            running.exception()  # seen, also where nobody waits for it any more
            self._give(slot)

        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:  # closed since the slot was granted
            self._give(slot)
            raise _closed() from error
        running.add_done_callback(ended)
        return running


@dataclass(slots=True)
class _Count:
    """Why a reply ended, and its tokens so far."""

    reason: Literal["stop", "length"] = "stop"
    prompt: int = 0
    completion: int = 0

    def take(self, chunk: Any) -> None:
        """Learn from a chunk of the stream."""
        if progress := chunk.get("prompt_progress"):
            self.prompt = progress["total"]
        if _text_of(chunk):
            self.completion += 1
        if timings := chunk.get("timings"):
            self.prompt = timings["cache_n"] + timings["prompt_n"]
            self.completion = timings["predicted_n"]
        if chunk.get("choices") and chunk["choices"][0].get("finish_reason") == "length":
            self.reason = "length"


def _check(chunk: Any) -> None:
    """Raises what an error in the stream means."""
    if "error" in chunk:
        error = chunk["error"]
        if error.get("type") == "exceed_context_size_error":
            raise ContextTooLong(
                f"the conversation has {error['n_prompt_tokens']} tokens, and the language model's context "
                f"window {error['n_ctx']}: send less, or set LLM_CONTEXT_TOKENS"
            )
        raise EngineFailed(f"the language model refused: {error.get('message', error)}")


def _text_of(chunk: Any) -> str:
    """The text in a chunk of the stream."""
    choices = chunk.get("choices")
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def _closed_sentence(chunk: Any) -> float | None:
    """The probability in a chunk of the stream that the next token closes the sentence."""
    choices = chunk.get("choices")
    logprobs = (choices[0].get("logprobs") or {}).get("content") if choices else None
    if not logprobs:
        return None
    return float(
        sum(math.exp(t["logprob"]) for t in logprobs[0]["top_logprobs"] if _CLOSES.match(t["token"]))
    )


def _closed() -> EngineFailed:
    return EngineFailed("the language model was closed")
