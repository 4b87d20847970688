"""A session that only writes down what it hears, as on a machine that is infinitely quick: each pass over
the words so far is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from app.cli.errors import load_settings
from app.dialogue import events
from app.dialogue.config import SessionConfig, TurnConfig
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.engines.moonshine import Moonshine
from app.engines.silero import Silero
from app.engines.smart_turn import SmartTurn
from app.engines.whisper import Whisper
from app.engines.workers import Workers
from app.roles import (
    SAMPLE_RATE,
    EngineFailed,
    EngineInfo,
    Job,
    RoleSet,
    Samples,
    SpeechToText,
    SttOptions,
    Transcript,
)
from app.settings import Settings
from benchmarks.common.models import model_folder

_PIECE = SAMPLE_RATE // 5
_SILENCE_S = 2.5
_STUCK_S = 60.0


class _Counted:
    """A recogniser of which it is known whether it is at work."""

    def __init__(self, stt: SpeechToText) -> None:
        self._stt = stt
        self.running = 0

    @property
    def info(self) -> EngineInfo:
        return self._stt.info

    async def close(self) -> None:
        await self._stt.close()

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        self.running += 1
        try:
            return await self._stt.transcribe(audio, options, job)
        finally:
            self.running -= 1


@dataclass(frozen=True, slots=True)
class Listening:
    """What hears, loaded once."""

    roles: RoleSet
    stt: tuple[_Counted, _Counted]
    revise: bool

    async def finals(self, samples: Samples) -> list[events.Final]:
        """What a new session writes down of `samples`, utterance by utterance."""
        found: dict[str, events.Final | None] = {}
        failures: list[events.Failed] = []

        def heed(event: events.Event) -> None:
            if isinstance(event, events.SpeechStarted):
                found[event.turn_id] = None
            elif isinstance(event, events.Final):
                found[event.turn_id] = event
            elif isinstance(event, events.TurnDropped):
                found.pop(event.turn_id, None)
            elif isinstance(event, events.Failed):
                failures.append(event)

        async def ready() -> RoleSet:
            return self.roles

        async def forget(session: Session, turn: Turn, complete: bool) -> None:
            pass

        turn = TurnConfig(echo=False, speculations=0)
        config = SessionConfig(respond="never", speak=False, revise=self.revise, turn=turn)
        session = Session("benchmark", config, roles=ready, on_turn=forget, on_event=heed)
        session.start()
        sound = np.concatenate([samples, np.zeros(round(_SILENCE_S * SAMPLE_RATE), np.float32)])
        try:
            for at in range(0, len(sound), _PIECE):
                await session.hear(sound[at : at + _PIECE])
                await _until(lambda: not _behind(session) and not any(stt.running for stt in self.stt))
            await _until(lambda: bool(failures) or None not in found.values())
        finally:
            await session.close()
        if failures:
            raise EngineFailed(f"the session failed: {failures[0]}")
        return [final for final in found.values() if final is not None]

    async def text(self, samples: Samples) -> str:
        """The same as one text."""
        return " ".join(final.text for final in await self.finals(samples))


async def _until(done: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > _STUCK_S:
            raise EngineFailed(f"a session does nothing for {_STUCK_S:.0f} s")
        await asyncio.sleep(0.002)


def _behind(session: Session) -> bool:
    """Whether the session has sound that it has not listened to."""
    return session.heard_s - session.listened_s > 2 * _PIECE / SAMPLE_RATE


async def _recogniser(name: str, settings: Settings, workers: Workers) -> SpeechToText:
    folder = await model_folder(settings, name)
    kind: Any = Moonshine if name.startswith("moonshine") else Whisper
    return cast(SpeechToText, kind(folder, workers, threads=settings.threads))


@asynccontextmanager
async def listening(partial: str, final: str, revise: bool = False) -> AsyncIterator[Listening]:
    """The recognisers that follow the voice and give the final words, by the names of their models, and what
    else a session hears with, as the server loads them. `revise`: as for clients that show words anew."""
    settings = load_settings()
    workers = Workers(settings.threads, reserved=1)
    vad = Silero(await model_folder(settings, "silero-vad"))
    try:
        stt = _Counted(await _recogniser(final, settings, workers))
        follows = stt if partial == final else _Counted(await _recogniser(partial, settings, workers))
        turn = SmartTurn(await model_folder(settings, "smart-turn-v3.2"), workers, threads=settings.threads)
        # Nothing is answered.
        nobody: Any = None
        yield Listening(RoleSet(vad, stt, follows, nobody, nobody, turn), (stt, follows), revise)
    finally:
        await vad.close()
        workers.close()
