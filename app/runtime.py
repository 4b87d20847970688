"""The one place that wires engines, clients and stores together, from `Settings`.

A provider is one file in `engines` or `clients` and one line in `PROVIDERS`. Models are fetched
and loaded in the background, all roles at once; `/health` and waiting sessions see how far each
is. Nothing is imported that the settings do not use.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from app.dialogue.speakers import Speakers
from app.engines.workers import Workers
from app.models.store import ModelStore
from app.observability.measured import MeasuredLlm, MeasuredStt, MeasuredTts
from app.observability.metrics import Metrics
from app.roles import ColloquyError, EngineFailed, Misconfigured, NotFound, RoleSet
from app.roles.streaming import StreamingStt
from app.settings import Settings
from app.stores.database import sqlite_url
from app.stores.retention import Rules
from app.stores.s3 import S3Access

if TYPE_CHECKING:
    from app.clients.hosted_audio import HostedAudio

log = logging.getLogger(__name__)

Role = Literal["vad", "turn", "stt", "stt_partial", "llm", "tts", "embedding", "speaker"]
_OVERLOAD_S = 0.5
"""Finals and speech that wait this long for a core leave no room for another session."""
State = Literal["absent", "fetching", "loading", "ready", "failed"]


@dataclass(slots=True)
class RoleStatus:
    """How far a role's model is. `progress` is 0–1 while fetching."""

    role: Role
    model: str
    state: State = "absent"
    progress: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Build:
    """What a provider is built with."""

    settings: Settings
    workers: Workers
    metrics: Metrics
    fetch: Callable[[str], Awaitable[Path]]
    """Gives the folder of a model of the manifest, fetching it if need be."""


async def _silero(b: Build) -> Any:
    from app.engines.silero import Silero

    return await asyncio.to_thread(Silero, await b.fetch("silero-vad"))


async def _smart_turn(b: Build) -> Any:
    from app.engines.smart_turn import SmartTurn

    path = await b.fetch("smart-turn-v3.2")
    return await asyncio.to_thread(lambda: SmartTurn(path, b.workers, threads=b.settings.threads))


async def _whisper(b: Build) -> Any:
    from app.engines.whisper import Whisper

    path = await b.fetch(stt_model(b.settings))

    def load() -> Whisper:
        s = b.settings
        return Whisper(
            path, b.workers, threads=s.threads, device=s.stt_device, compute_type=s.stt_compute_type
        )

    return await asyncio.to_thread(load)


async def _moonshine(b: Build) -> Any:
    from app.engines.moonshine import Moonshine

    path = await b.fetch("moonshine-tiny-en")
    return await asyncio.to_thread(lambda: Moonshine(path, b.workers, threads=b.settings.threads))


async def _llama(b: Build) -> Any:
    from app.engines.llama import Llama

    s = b.settings
    name = s.llm_model_name or "qwen2.5-coder-0.5b-instruct-q4_k_m"
    path = Path(name) if name.endswith(".gguf") else next((await b.fetch(name)).glob("*.gguf"))
    loop = asyncio.get_running_loop()

    def on_usage(percent: float) -> None:
        loop.call_soon_threadsafe(b.metrics.llm_kv_cache_usage_percent.set, percent)

    return await asyncio.to_thread(
        lambda: Llama(
            path,
            threads=max(1, s.threads // 2),
            slots=max(2, min(16, s.max_sessions)),
            context_tokens=s.llm_context_tokens,
            gpu_layers=s.llm_gpu_layers,
            on_usage=on_usage,
        )
    )


async def _openai_llm(b: Build) -> Any:
    from app.clients.openai_llm import OpenAiLlm

    s = b.settings
    if not s.llm_model_name:
        raise Misconfigured(
            "LLM_PROVIDER=openai needs LLM_MODEL_NAME (and LLM_BASE_URL unless it is OpenAI's own)"
        )
    return OpenAiLlm(
        s.llm_model_name,
        base_url=s.llm_base_url,
        api_key=s.llm_api_key.get_secret_value(),
        context_tokens=s.llm_context_tokens,
        timeout_s=s.llm_timeout_s,
    )


async def _piper(b: Build) -> Any:
    from app.engines.piper import PiperVoice

    path = await b.fetch(b.settings.tts_model_name or "piper-joe")
    return await PiperVoice.load(path, b.workers, threads=b.settings.threads)


async def _kokoro(b: Build) -> Any:
    from app.engines.kokoro import KokoroVoice

    path = await b.fetch(b.settings.tts_model_name or "kokoro-82m")
    return await KokoroVoice.load(path, b.workers, threads=b.settings.threads)


async def _minilm(b: Build) -> Any:
    from app.engines.minilm import MiniLm

    path = await b.fetch("all-minilm-l6-v2-int8")
    return await asyncio.to_thread(MiniLm, path, b.workers)


async def _openai_embeddings(b: Build) -> Any:
    from app.clients.openai_embeddings import OpenAiEmbeddings

    s = b.settings
    if not s.embedding_model_name:
        raise Misconfigured(
            "EMBEDDING_PROVIDER=openai needs EMBEDDING_MODEL_NAME (and EMBEDDING_BASE_URL unless it is "
            "OpenAI's own)"
        )
    return await OpenAiEmbeddings.open(
        s.embedding_model_name, base_url=s.embedding_base_url, api_key=s.embedding_api_key.get_secret_value()
    )


async def _campplus(b: Build) -> Any:
    from app.engines.campplus import CamPlusPlus

    path = await b.fetch("campplus-zh-en")
    return await asyncio.to_thread(CamPlusPlus, path, b.workers)


async def _hosted_speaker(b: Build) -> Any:
    from app.clients.hosted_audio import HostedSpeakers

    s = b.settings
    if not s.hosted_speaker_embedding_api_url:
        raise Misconfigured("SPEAKER_PROVIDER=hosted needs HOSTED_SPEAKER_EMBEDDING_API_URL")
    return await HostedSpeakers.open(s.hosted_speaker_embedding_api_url, s.hosted_api_key.get_secret_value())


PROVIDERS: dict[tuple[Role, str], Callable[[Build], Awaitable[Any]]] = {
    ("vad", "silero"): _silero,
    ("turn", "smart_turn"): _smart_turn,
    ("stt", "whisper"): _whisper,
    ("stt", "moonshine"): _moonshine,
    ("stt_partial", "whisper"): _whisper,
    ("stt_partial", "moonshine"): _moonshine,
    ("llm", "llama"): _llama,
    ("llm", "openai"): _openai_llm,
    ("tts", "piper"): _piper,
    ("tts", "kokoro"): _kokoro,
    ("embedding", "minilm"): _minilm,
    ("embedding", "openai"): _openai_embeddings,
    ("speaker", "campplus"): _campplus,
    ("speaker", "hosted"): _hosted_speaker,
}


def _deepgram(s: Settings) -> StreamingStt:
    from app.clients.streaming.deepgram import Deepgram

    key = s.deepgram_api_key.get_secret_value()
    return Deepgram(
        key, base_url=s.deepgram_base_url, model=s.deepgram_model, timeout_s=s.stt_streaming_timeout_s
    )


def _soniox(s: Settings) -> StreamingStt:
    from app.clients.streaming.soniox import Soniox

    key = s.soniox_api_key.get_secret_value()
    return Soniox(key, base_url=s.soniox_base_url, model=s.soniox_model, timeout_s=s.stt_streaming_timeout_s)


def _speechmatics(s: Settings) -> StreamingStt:
    from app.clients.streaming.speechmatics import Speechmatics

    key = s.speechmatics_api_key.get_secret_value()
    return Speechmatics(
        key, base_url=s.speechmatics_base_url, model=s.speechmatics_model, timeout_s=s.stt_streaming_timeout_s
    )


STREAMING: dict[str, Callable[[Settings], StreamingStt]] = {
    "deepgram": _deepgram,
    "soniox": _soniox,
    "speechmatics": _speechmatics,
}


def s3_access(s: Settings) -> S3Access:
    """How the service is reached where recordings are kept, if that is not a folder."""
    secret = s.s3_secret_access_key
    return S3Access(
        s.s3_endpoint_url,
        s.s3_region,
        s.s3_access_key_id,
        secret.get_secret_value() if secret is not None else None,
    )


def database_url(s: Settings) -> str:
    """Where sessions and turns are kept."""
    given = s.database_url
    return given.get_secret_value() if given is not None else sqlite_url(s.data_dir / "colloquy.db")


def rules(s: Settings) -> Rules:
    """How long recordings are kept."""
    return Rules(s.raw_retention_days, s.synthesized_retention_days, s.audio_to_opus_after_days)


def stt_model(s: Settings) -> str:
    """The model that gives the final words."""
    return s.stt_model_name or ("whisper-tiny-en" if s.english_only else "whisper-base")


def chosen(s: Settings) -> dict[Role, str]:
    """The provider of each role; "same" where the final recogniser also follows the voice, "none"
    where nobody has the role."""
    partial = s.stt_partial_provider or ("moonshine" if s.english_only else "same")
    return {
        "vad": s.vad_provider,
        "turn": s.turn_provider,
        "stt": s.stt_provider,
        "stt_partial": "same" if partial == s.stt_provider else partial,
        "llm": s.llm_provider,
        "tts": s.tts_provider or ("kokoro" if s.language == "zh" else "piper"),
    }


def chosen_later(s: Settings) -> dict[Role, str]:
    """The provider of each role that a conversation does not need; "none" where nobody has the role."""
    return {"embedding": s.embedding_provider, "speaker": s.speaker_provider}


@dataclass(slots=True)
class Runtime:
    """Engines as they come up. `start` returns at once; `roles` waits for all that a conversation needs.
    The others are fetched and loaded when `on_demand` first asks for them."""

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    status: dict[Role, RoleStatus] = field(default_factory=dict)
    _engines: dict[Role, Any] = field(default_factory=dict)
    _loading: dict[Role, asyncio.Task[Any]] = field(default_factory=dict)
    _workers: Workers | None = None
    _store: ModelStore | None = None
    _hosted: HostedAudio | None = None
    _streaming: tuple[StreamingStt, ...] | None = None

    def start(self) -> None:
        """Begin to fetch and load what the settings ask for."""
        s = self.settings
        _ = self.streaming  # what is missing of it is said now, not to the first who speaks
        self._store = ModelStore(s.models_dir, local=s.models_local, hub=s.models_hub)
        self._workers = Workers(
            s.threads,
            reserved=1,
            on_wait=lambda u, t: self.metrics.workers_wait_seconds.labels(u.name.lower()).observe(t),
            on_shed=self.metrics.shed_total.labels("partial").inc,
        )
        for role, provider in chosen(s).items():
            if provider not in ("same", "none"):
                self.status[role] = RoleStatus(role, provider)
                self._begin(role, provider)

    def _begin(self, role: Role, provider: str) -> None:
        self._loading[role] = asyncio.create_task(self._load(role, provider), name=f"load-{role}")

    async def _load(self, role: Role, provider: str) -> Any:
        status = self.status[role]
        began = time.monotonic()

        async def fetch(model: str) -> Any:
            assert self._store is not None
            status.model = model
            if (path := self._store.present(model)) is None:
                status.state = "fetching"

                def progress(done: float, message: str) -> None:
                    status.progress, status.message = done, message

                path = await self._store.fetch(model, progress)
            status.state, status.progress, status.message = "loading", 1.0, ""
            return path

        assert self._workers is not None
        try:
            build = Build(self.settings, self._workers, self.metrics, fetch)
            engine = await PROVIDERS[role, provider](build)
        except ImportError as error:
            failure: ColloquyError = Misconfigured(
                f"{role} provider {provider} needs a package that is not installed ({error.name}): "
                "install colloquy[embedded] or choose another provider"
            )
            self._failed(status, failure)
            raise failure from error
        except ColloquyError as error:
            self._failed(status, error)
            raise
        except Exception as error:
            log.exception("loading %s failed", role)
            failure = EngineFailed(f"{role} did not load: {error}")
            self._failed(status, failure)
            raise failure from error
        status.state, status.model = "ready", engine.info.model or status.model
        seconds = time.monotonic() - began
        self.metrics.model_load_seconds.labels(role).set(seconds)
        if role == "tts":
            self.metrics.tts_model_load_seconds.labels("fast").set(seconds)
        log.info("%s ready", role, extra={"model": status.model, "seconds": round(seconds, 2)})
        self._engines[role] = engine
        return self._measured(role, engine)

    def _measured(self, role: Role, engine: Any) -> Any:
        if role in ("stt", "stt_partial"):
            return MeasuredStt(engine, self.metrics)
        if role == "llm":
            return MeasuredLlm(engine, self.metrics)
        return MeasuredTts(engine, self.metrics, "fast") if role == "tts" else engine

    def _failed(self, status: RoleStatus, error: ColloquyError) -> None:
        status.state, status.message = "failed", error.message

    @property
    def ready(self) -> bool:
        """Whether every role that a conversation needs is ready."""
        return all(self.status[role].state == "ready" for role in self._wanted())

    def overloaded(self) -> str | None:
        """Why no more sessions should be let in now; None if they may."""
        if self._workers is not None and self._workers.pressure() > _OVERLOAD_S:
            return "the machine is busy with the sessions it has"
        return None

    def retry(self) -> None:
        """Begin anew with the roles that failed."""
        for role in self._wanted():
            if self._failed_to_load(role):
                self._begin(role, chosen(self.settings)[role])

    def _wanted(self) -> list[Role]:
        """The roles that a conversation needs."""
        return [role for role in self._loading if role not in chosen_later(self.settings)]

    def _failed_to_load(self, role: Role) -> bool:
        task = self._loading[role]
        return task.done() and (task.cancelled() or task.exception() is not None)

    async def role(self, role: Role) -> Any:
        """The engine of one role, once it is loaded; a role that failed is tried again."""
        self.retry()
        return await asyncio.shield(self._loading[role])

    async def on_demand(self, role: Role) -> Any:
        """The engine of a role that no conversation needs, fetched and loaded if nobody asked before; one
        that failed is tried again. `NotFound` if the settings give the role to nobody."""
        provider = chosen_later(self.settings)[role]
        if provider == "none":
            raise NotFound(f"this server has no {role} model: set {role.upper()}_PROVIDER")
        if role not in self._loading or self._failed_to_load(role):
            self.status[role] = RoleStatus(role, provider)
            self._begin(role, provider)
        return await asyncio.shield(self._loading[role])

    @property
    def hosted(self) -> HostedAudio:
        """What other services do with recordings."""
        if self._hosted is None:
            from app.clients.hosted_audio import HostedAudio

            s = self.settings
            self._hosted = HostedAudio(
                s.hosted_api_key.get_secret_value(),
                vad=s.hosted_vad_api_url,
                diarization=s.hosted_diarization_api_url,
                identification=s.hosted_speech_profile_api_url,
            )
        return self._hosted

    @property
    def streaming(self) -> tuple[StreamingStt, ...]:
        """Who hears streams elsewhere, in the order in which they are tried; nobody by default.
        `Misconfigured` if one of them lacks its key or its package."""
        if self._streaming is None:
            s = self.settings
            names = [name for part in s.stt_streaming_providers.split(",") if (name := part.strip())]
            for name in names:
                if not getattr(s, f"{name}_api_key").get_secret_value():
                    raise Misconfigured(
                        f"STT_STREAMING_PROVIDERS names {name}: set {name.upper()}_API_KEY or leave it out"
                    )
            self._streaming = tuple(STREAMING[name](s) for name in dict.fromkeys(names))
        return self._streaming

    def new_speakers(self) -> Speakers:
        """Speakers of a new conversation, as the settings tell them apart."""
        s = self.settings
        return Speakers(
            s.speaker_new_distance,
            s.max_speakers,
            known_distance=s.speaker_known_distance,
            known_margin=s.speaker_known_margin,
            known_s=s.speaker_known_s,
            half_s=s.speaker_half_s,
        )

    async def roles(self) -> RoleSet:
        """All engines, once they are loaded. Raises what the first failure was."""
        wanted = self._wanted()
        engines = dict(zip(wanted, await asyncio.gather(*(self.role(r) for r in wanted)), strict=True))
        return RoleSet(
            vad=engines["vad"],
            stt=engines["stt"],
            stt_partial=engines["stt_partial"] if "stt_partial" in engines else engines["stt"],
            llm=engines["llm"],
            tts=engines["tts"],
            turn=engines.get("turn"),
            completeness=self._engines["llm"] if hasattr(self._engines["llm"], "completeness") else None,
            stt_streaming=self.streaming,
        )

    async def close(self) -> None:
        """Stop loading and free the engines."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        for engine in self._engines.values():
            await engine.close()
        if self._hosted is not None:
            await self._hosted.close()
        for provider in self._streaming or ():
            await provider.close()
        if self._workers is not None:
            await asyncio.to_thread(self._workers.close)
