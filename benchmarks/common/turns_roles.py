"""The roles of `turn_taking`: the real ones, but for a language model that knows its text by heart."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.dialogue.segmenter import Segmenter
from app.engines.workers import Workers
from app.models.store import ModelStore
from app.observability.metrics import Metrics
from app.roles import (
    AudioChunk,
    ChatMessage,
    EngineInfo,
    Job,
    LlmOptions,
    RoleSet,
    Samples,
    SpeechOptions,
    SttOptions,
    TextToSpeech,
    Tool,
    Transcript,
    Voice,
    Word,
)
from app.runtime import PROVIDERS, Build, Role
from app.settings import Settings
from benchmarks.common.report import note


def pieces(text: str) -> list[str]:
    """`text` as a language model writes it: word by word."""
    return [word if i == 0 else f" {word}" for i, word in enumerate(text.split())]


class ByHeart:
    """Answers everything with `text`, at once."""

    info = EngineInfo("llm", "scripted")
    context_tokens = 100_000

    def __init__(self, text: str) -> None:
        self.text = text

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: Sequence[Tool] = ()) -> None:
        pass

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[str, None]:
        for piece in pieces(self.text):
            yield piece

    async def close(self) -> None:
        pass


class Prepared:
    """A voice that has spoken every text once, beforehand and in order, and says it again. The real
    voice draws random numbers: this way each run hears the same."""

    def __init__(self, voice: TextToSpeech) -> None:
        self._voice = voice
        self._spoken: dict[str, list[AudioChunk]] = {}

    @property
    def info(self) -> EngineInfo:
        return self._voice.info

    @property
    def sample_rate(self) -> int:
        return self._voice.sample_rate

    def voices(self) -> Sequence[Voice]:
        return self._voice.voices()

    async def say(self, text: str) -> Samples:
        """The sound of `text`, at the voice's rate."""
        if text not in self._spoken:
            stream = self._voice.speak(text, SpeechOptions(), Job("prepared"))
            self._spoken[text] = [chunk async for chunk in stream]
        return np.concatenate([chunk.samples for chunk in self._spoken[text]])

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        for chunk in self._spoken[text]:
            yield chunk

    async def close(self) -> None:
        await self._voice.close()


class Remembering:
    """A recogniser (or judge of the end) that does not work out twice what it is asked about the same
    sound with the same options. In `folder`, if there is one, answers are kept for the next run. They
    are those of the real engine; delete the folder when that changes."""

    def __init__(self, engine: Any, folder: Path | None) -> None:
        self._engine = engine
        self._folder = folder
        self._known: dict[str, Any] = {}

    @property
    def info(self) -> EngineInfo:
        found: EngineInfo = self._engine.info
        return found

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        name = self._name(audio, repr(options))
        if (kept := self._recall(name)) is not None:
            return Transcript(**kept | {"words": tuple(Word(**w) for w in kept["words"])})
        found: Transcript = await self._engine.transcribe(audio, options, job)
        self._keep(name, asdict(found))
        return found

    async def probability(self, audio: Samples, job: Job) -> float:
        name = self._name(audio, "")
        if (kept := self._recall(name)) is not None:
            return float(kept)
        found: float = await self._engine.probability(audio, job)
        self._keep(name, found)
        return found

    async def completeness(
        self, messages: Sequence[ChatMessage], job: Job, tools: Sequence[Tool] = ()
    ) -> float | None:
        asked = repr([(m.role, m.content) for m in messages])
        name = hashlib.sha256(f"{self.info.name} {self.info.model} {asked}".encode()).hexdigest()
        if (kept := self._recall(name)) is not None:
            return float(kept)
        # Of nobody's: sessions come and go, and their caches with them.
        found: float | None = await self._engine.completeness(messages, Job("", job.urgency), tuple(tools))
        if found is not None:
            self._keep(name, found)
        return found

    async def close(self) -> None:
        await self._engine.close()

    def _name(self, audio: Samples, options: str) -> str:
        engine = f"{self.info.name} {self.info.model} {options}"
        return hashlib.sha256(engine.encode() + np.ascontiguousarray(audio).tobytes()).hexdigest()

    def _recall(self, name: str) -> Any:
        if name not in self._known and self._folder is not None and (path := self._folder / name).exists():
            self._known[name] = json.loads(path.read_text(encoding="utf-8"))
        return self._known.get(name)

    def _keep(self, name: str, value: Any) -> None:
        self._known[name] = value
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_text(json.dumps(value), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Engines:
    """What the sessions run with. `roles` has `llm` and `tts` in their prepared forms."""

    roles: RoleSet
    llm: ByHeart
    voice: Prepared
    models: Mapping[str, str]

    async def prepare(self, text: str) -> Samples:
        """Have the voice speak `text` in the pieces in which a reply has it; all its sound, at the
        voice's rate."""
        segmenter = Segmenter()
        segments = [s for piece in pieces(text) for s in segmenter.feed(piece)]
        segments += segmenter.finish()
        return np.concatenate([await self.voice.say(segment) for segment in segments])


@contextlib.asynccontextmanager
async def engines(remember: Path | None) -> AsyncIterator[Engines]:
    """The packaged engines in English, with the models that `MODELS_DIR` names."""
    # The voice draws random numbers; from here on they are the same in every run.
    import onnxruntime as ort

    ort.set_seed(20)
    settings = Settings(language="en")
    store = ModelStore(settings.models_dir, local=settings.models_local, hub=settings.models_hub)
    # Nothing is shed for want of time: virtual time stands still while models work.
    workers = Workers(settings.threads, now=lambda: 0.0)

    async def fetch(name: str) -> Path:
        found = store.present(name)
        if found is not None:
            return found
        note(f"fetching {name} ...")
        return await store.fetch(name, lambda done, message: None)

    build = Build(settings, workers, Metrics(), fetch)
    wanted: dict[Role, str] = {
        "vad": "silero",
        "turn": "smart_turn",
        "stt": "whisper",
        "stt_partial": "moonshine",
        "tts": "piper",
        "llm": "llama",
    }
    made = {role: await PROVIDERS[role, provider](build) for role, provider in wanted.items()}
    try:
        voice, llm = Prepared(made["tts"]), ByHeart("Yes.")
        roles = RoleSet(
            vad=made["vad"],
            stt=Remembering(made["stt"], remember),
            stt_partial=Remembering(made["stt_partial"], remember),
            llm=llm,
            tts=voice,
            turn=Remembering(made["turn"], remember),
            completeness=Remembering(made["llm"], remember),
        )
        models: dict[str, str] = {role: e.info.model or e.info.name for role, e in made.items()}
        yield Engines(roles, llm, voice, models)
    finally:
        for engine in made.values():
            await engine.close()
        await asyncio.to_thread(workers.close)
