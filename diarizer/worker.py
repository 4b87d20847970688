"""The models of the service: loaded in the background, used by one request at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from app.roles import Busy, ColloquyError, EngineFailed, Misconfigured, NotReady
from diarizer import models
from diarizer.models import Detect, Diarize, Embed, Stopped
from diarizer.settings import ECAPA, Settings
from diarizer.sources import Source, source_of, unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 60.0
"""What could not be loaded is tried again after so long: the hub may be back."""


@dataclass(slots=True)
class ModelState:
    """How far a model is, for `/health`."""

    source: str
    state: Literal["loading", "ready", "failed"] = "loading"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the models do; each blocks."""

    diarize: Diarize
    detect: Detect
    embed: Embed


class Worker:
    """Loads the models and runs what needs them, one after the other: a device does not get faster by being
    shared, and its memory is bounded only this way."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.device: str = settings.device
        self.models = {
            "pipeline": ModelState(settings.pipeline),
            "vad": ModelState(settings.pipeline),
            "encoder": ModelState(
                settings.encoder_source or (ECAPA if settings.encoder == "speechbrain" else settings.pipeline)
            ),
        }
        self._loaded: Loaded | None = None
        self._thread = ThreadPoolExecutor(1, "models")
        self._closing = threading.Event()
        self._stops: set[threading.Event] = set()

    def start(self) -> None:
        """Begin to load. The thread is a daemon: a download that hangs must not keep the process."""
        threading.Thread(target=self._keep_loading, name="loading", daemon=True).start()

    def close(self) -> None:
        """Stop what is at work, at its next batch."""
        self._closing.set()
        for stop in tuple(self._stops):
            stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def status(self) -> str:
        """`healthy`, `loading` or `failed`."""
        states = {model.state for model in self.models.values()}
        return "failed" if "failed" in states else "healthy" if states == {"ready"} else "loading"

    @property
    def message(self) -> str:
        """What is wrong or being waited for; empty when healthy."""
        said = [f"{name}: {m.message}" for name, m in self.models.items() if m.message]
        return "; ".join(said)

    async def run(self, work: Callable[[Loaded, threading.Event], T]) -> T:
        """What `work` gives, in the models' thread. When the caller is cancelled it is told to stop.

        Raises:
            NotReady: the models are not loaded.
            Busy: too many are waiting.
            EngineFailed: it failed, or took too long.
        """
        loaded = self._loaded
        if loaded is None:
            raise NotReady(
                f"the models are not ready ({self.status}): {self.message or 'see /health'}", retry_after=10
            )
        # One is at work, the others wait.
        if len(self._stops) > self._settings.max_waiting:
            raise Busy(
                f"{self._settings.max_waiting} requests are waiting already: try again later", retry_after=15
            )
        stop = threading.Event()
        self._stops.add(stop)
        future = self._thread.submit(self._guarded, work, loaded, stop)
        loop = asyncio.get_running_loop()

        def ended(_: Future[T]) -> None:
            # When the loop is closed, nobody counts any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._stops.discard, stop)

        future.add_done_callback(ended)
        try:
            async with asyncio.timeout(self._settings.max_work_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise EngineFailed(
                f"this was not done in {self._settings.max_work_s:g} s, waiting included: "
                "send it in shorter parts"
            ) from None
        finally:
            stop.set()

    @staticmethod
    def _guarded(work: Callable[[Loaded, threading.Event], T], loaded: Loaded, stop: threading.Event) -> T:
        try:
            if stop.is_set():
                raise Stopped
            return work(loaded, stop)
        except (ColloquyError, Stopped):
            raise
        except Exception as error:
            log.exception("a model failed")
            raise EngineFailed(
                "the model failed on this recording; the service's log has the details"
            ) from error

    # --- loading, in a thread of its own ----------------------------------------------------------

    def _keep_loading(self) -> None:
        while not self._closing.is_set():
            try:
                self._loaded = self._load()
                log.info("ready on %s: %s", self.device, {n: m.source for n, m in self.models.items()})
                return
            except _Failed as failed:
                log.error("%s", failed)
            self._closing.wait(_RETRY_S)

    def _load(self) -> Loaded:
        settings = self._settings
        try:
            device = models.find_device(settings.device)
        except Misconfigured as error:
            raise self._failed("pipeline", error.message) from error
        self.device = str(device)

        where = self._source(
            "pipeline", settings.pipeline, settings.pipeline_revision, "DIARIZER_PIPELINE", "config.yaml"
        )
        pipeline, diarize = self._one("pipeline", where, lambda: models.load_pipeline(where, device))
        detect = self._one("vad", where, lambda: models.load_vad(pipeline, device))

        own: Source | None = None
        if settings.encoder == "speechbrain" or settings.encoder_source:
            holds = "hyperparams.yaml" if settings.encoder == "speechbrain" else "pytorch_model.bin"
            own = self._source(
                "encoder",
                settings.encoder_source or ECAPA,
                settings.encoder_revision,
                "DIARIZER_ENCODER_SOURCE",
                holds,
            )
        embed = self._one(
            "encoder", own or where, lambda: models.load_encoder(settings.encoder, own, pipeline, device)
        )
        return Loaded(diarize, detect, embed)

    def _source(self, name: str, wanted: str, revision: str, setting: str, holds: str) -> Source:
        try:
            return source_of(wanted, revision, setting, holds)
        except Misconfigured as error:
            raise self._failed(name, error.message) from error

    def _one(self, name: str, source: Source, load: Callable[[], T]) -> T:
        model = self.models[name]
        model.source, model.state, model.message = str(source), "loading", f"loading {source}"
        try:
            made = load()
        except Misconfigured as error:
            raise self._failed(name, error.message) from error
        except Exception as error:
            log.debug("loading %s", source, exc_info=error)
            raise self._failed(name, unavailable(source, error)) from error
        model.state, model.message = "ready", ""
        return made

    def _failed(self, name: str, message: str) -> _Failed:
        self.models[name].state, self.models[name].message = "failed", message
        return _Failed(message)


class _Failed(Exception):
    """A model could not be loaded; the message is in its state."""
