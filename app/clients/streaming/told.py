"""What the streams of all providers share: what was heard, between the one who reads the provider and the one
who iterates; a watch over the provider's silence; and why a stream ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from app.roles import Misconfigured, Samples, Word
from app.roles.streaming import Heard, Outcome, StreamDead

CLOSE_S = 1.0
"""How long a provider may take to say goodbye; then the connection is cut."""
_WHY_S = 1.0
"""Sending fails before the reason for it is read."""
_LOOK_S = 0.2
_PAUSE_S = 1.0
"""Sound that is sent farther apart than this is not one stretch of it."""
_UNANSWERED_S = 1.0
_LITTLE_S = 0.5


def pcm16(audio: Samples) -> bytes:
    """float32 in [-1, 1] as signed 16-bit little-endian."""
    return (np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()


def need(module: str, package: str, provider: str) -> None:
    """`Misconfigured` unless a provider's SDK is installed. It is not imported: that takes its time."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # nor what it is a part of
        found = None
    if found is None:
        raise Misconfigured(
            f"STT_STREAMING_PROVIDERS names {provider}, which needs the package {package}: "
            "install colloquy[streaming] or leave it out"
        )


class Told:
    """What was heard on one stream, iterated once. All on one event loop."""

    def __init__(
        self,
        provider: str,
        timeout_s: float,
        *,
        flush: Callable[[], tuple[Word, ...]] = lambda: (),
        always_answers: bool = True,
    ) -> None:
        """`timeout_s`: how long the provider may say nothing while it owes an answer. `flush` gives final
        words that were held back. A provider that does not always answer a `finalize` is answered for,
        once nothing more can come of it."""
        self._provider, self._timeout_s = provider, timeout_s
        self._flush, self._always_answers = flush, always_answers
        self._heard: deque[Heard] = deque()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._dead: StreamDead | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asked: deque[float] = deque()
        self._finishing = False
        self._sign_at = self._sound_at = self._loop.time()
        self._unheard_since: float | None = None
        self.reached = 0.0
        """Where the last final answer ends."""
        self.covered = 0.0
        """How far the provider is sure of what it heard; words of it may still be held back."""
        self.unsure = False
        """Whether the provider has words that are not final."""

    def __aiter__(self) -> Told:
        return self

    async def __anext__(self) -> Heard:
        while not self._heard:
            if self._over.is_set():
                self._raise()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._heard.popleft()

    # --- from the provider ---------------------------------------------------------------------

    def sign(self) -> None:
        """The provider said something, whatever it is."""
        self._sign_at, self._unheard_since = self._loop.time(), None

    def tell(self, words: tuple[Word, ...], end: float, *, final: bool, finalized: bool = False) -> None:
        """Hand on what was heard up to `end`, from where the last final answer ended."""
        if self._over.is_set():
            return
        if finalized and self._asked:
            self._asked.popleft()
        else:
            finalized = False  # it comes after we answered for the provider
        end = max(end, self.reached)
        self._heard.append(Heard(words, self.reached, end, final, finalized))
        if final:
            self.reached = end
            self.covered = max(self.covered, end)
        self._news.set()

    def language(self, language: str | None) -> None:
        """What was told last is in this language."""
        if language and self._heard:
            self._heard[-1] = replace(self._heard[-1], language=language.partition("-")[0].lower())

    def end(self) -> None:
        """All was told."""
        self._stop()

    def die(self, dead: StreamDead) -> None:
        """Nothing more will come; the first reason counts."""
        if not self._over.is_set():
            self._dead = dead
            self._stop()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._over.is_set()

    @property
    def finishing(self) -> bool:
        """Whether the provider was told that nothing more will be sent."""
        return self._finishing

    # --- to the provider -----------------------------------------------------------------------

    async def send(self, send: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """`await send(*args)`, whose failure is the stream's."""
        self._raise()
        if self._over.is_set():
            raise self.failure("upstream_error", "has ended the stream")
        try:
            async with asyncio.timeout(self._timeout_s):
                await send(*args)
        except TimeoutError:
            self.die(self.failure("timeout", f"took no sound for {self._timeout_s:g} s"))
        except Exception:  # noqa: BLE001 - each SDK has its own; why is in what came before the close
            try:
                async with asyncio.timeout(_WHY_S):
                    await self._over.wait()
            except TimeoutError:
                self.die(self.failure("upstream_error", "closed the connection"))
        self._raise()

    def sounded(self) -> None:
        """Sound was sent to a provider that says something about all sound, silence too."""
        now = self._loop.time()
        if self._unheard_since is None or now - self._sound_at > _PAUSE_S:
            self._unheard_since = now
        self._sound_at = now
        if now - self._unheard_since > self._timeout_s:
            self._silent()

    def asked(self, sent_s: float) -> None:
        """A `finalize` was sent, after `sent_s` of sound."""
        self._owed()
        self._asked.append(sent_s)

    def finish(self) -> None:
        """The provider was told that nothing more will be sent."""
        self._owed()
        self._finishing = True

    def close(self) -> None:
        """Stop watching; who iterates is done."""
        self._stop()

    def failure(self, outcome: Outcome, what: str, *, retryable: bool = True) -> StreamDead:
        """A reason to die: the provider's name and `what` it did."""
        return StreamDead(outcome, f"{self._provider} {what}", retryable=retryable)

    # --- the watch -----------------------------------------------------------------------------

    def _owed(self) -> None:
        if not self._asked and not self._finishing:
            self._sign_at = self._loop.time()
        if self._timer is None and not self._over.is_set():
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        silent = self._loop.time() - self._sign_at
        if (
            self._asked
            and not self._always_answers
            and not self.unsure
            and silent >= _UNANSWERED_S
            and self._asked[0] - self.covered < _LITTLE_S
        ):
            self.tell(self._flush(), self.covered, final=True, finalized=True)
        if self._asked or self._finishing:
            if silent >= self._timeout_s:
                self._silent()
            else:
                self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _silent(self) -> None:
        self.die(self.failure("timeout", f"said nothing for {self._timeout_s:g} s"))

    def _stop(self) -> None:
        self._over.set()
        self._news.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _raise(self) -> None:
        if self._dead is not None:
            # A new one each time: several tasks raise it, and each adds its own traceback.
            dead = self._dead
            raise StreamDead(dead.outcome, dead.message, retryable=dead.retryable)


# --- why -------------------------------------------------------------------------------------------


def refused(provider: str, setting: str, status: int, said: str = "") -> StreamDead:
    """A provider answers with an HTTP status, or with an error that has one. `setting`: what its settings
    begin with."""
    why = f": {said}" if said else ""
    if status in (401, 403):
        return StreamDead(
            "config_error", f"{provider} refuses the key{why}; check {setting}_API_KEY", retryable=False
        )
    if status == 402:
        return StreamDead("config_error", f"{provider} wants to be paid first{why}", retryable=False)
    if status == 408:
        return StreamDead("timeout", f"{provider} gave up waiting{why}")
    if status == 429:
        return StreamDead("upstream_error", f"{provider} takes no more streams at the moment{why}")
    if 400 <= status < 500:
        return StreamDead(
            "config_error",
            f"{provider} refuses the stream (HTTP {status}){why}; check {setting}_MODEL, {setting}_BASE_URL "
            "and the language",
            retryable=False,
        )
    return StreamDead("upstream_error", f"{provider} failed (HTTP {status}){why}")


def unreachable(provider: str, setting: str, error: BaseException | None) -> StreamDead:
    """Why no connection was had. The SDKs wrap the reason; none of their own words is used, which may hold
    headers."""
    from websockets.exceptions import InvalidURI

    while error is not None:
        status = getattr(getattr(error, "response", error), "status_code", None)
        if isinstance(status, int):
            return refused(provider, setting, status)
        if isinstance(error, TimeoutError):
            return StreamDead("timeout", f"{provider} did not answer in time")
        if isinstance(error, InvalidURI):
            return StreamDead(
                "config_error", f"{setting}_BASE_URL is no address of a WebSocket", retryable=False
            )
        error = error.__cause__ or error.__context__
    return StreamDead("upstream_error", f"{provider} cannot be reached: check {setting}_BASE_URL")


def cleaned(said: object, key: str) -> str:
    """A provider's own words, short and without our key."""
    text = " ".join(str(said or "").split())
    return (text.replace(key, "…") if key else text)[:200]
