"""The Pipecat bot of `benchmarks.overhead`: services that answer at once, on one core.

It runs in Pipecat's own environment and imports nothing of ours. As in `benchmarks/peers/pipecat_bot.py`
there is a pipeline for each WebSocket connection, with Pipecat's Silero for each; a turn ends with
half a second of silence by its voice detection, as ours does here, and no model is asked. On the wire binary
messages are PCM16 mono, 16 kHz in and 24 kHz out; text messages are Pipecat's RTVI messages as JSON,
before them one `{"type": "ready"}`, and at the end of each turn `{"type": "ended", "sample": N}`: the
first N samples were heard by then.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-return,untyped-decorator"
# Its libraries are in the other environment.

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import AsyncGenerator

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

_RATE_IN, _RATE_OUT = 16_000, 24_000
_REPLY = "That is what I thought it would be, too."
_REPLY_S = 1.5
_END_S = 0.5
_LOUD = 0.01
_NOISE = np.random.default_rng(3).normal(0, 0.1, int(_REPLY_S * _RATE_OUT)).clip(-1, 1)
_SOUND = (_NOISE * 32767).astype("<i2").tobytes()


class _Counting(VADAnalyzer):
    """Knows after how many samples speech was over."""

    ended_at = 0
    _heard = 0

    def _run_analyzer(self, buffer: bytes) -> VADState:
        before = self._vad_state
        state = super()._run_analyzer(buffer)
        self._heard += len(buffer) // 2
        if state is VADState.QUIET and before in (VADState.SPEAKING, VADState.STOPPING):
            frame = self.num_frames_required()
            self.ended_at = self._heard // frame * frame
        return state


class _Silero(_Counting, SileroVADAnalyzer):
    pass


class _Level(_Counting):
    """Speech is what is louder than -40 dBFS."""

    def num_frames_required(self) -> int:
        return 512

    def voice_confidence(self, buffer: bytes) -> float:
        sound = np.frombuffer(buffer, "<i2").astype(np.float32) / 32768
        return float(np.dot(sound, sound) > _LOUD * _LOUD * len(sound))


class _Stt(SegmentedSTTService):
    """Hears the same sentence whatever is said."""

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:
        yield TranscriptionFrame("would you please tell me the weather", "", time_now_iso8601())


class _Llm(LLMService):
    """Says one sentence, word by word."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        for i, word in enumerate(_REPLY.split()):
            await self.push_frame(LLMTextFrame(word if i == 0 else f" {word}"))
        await self.push_frame(LLMFullResponseEndFrame())


class _Tts(TTSService):
    """A second and a half of noise."""

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        yield TTSAudioRawFrame(_SOUND, _RATE_OUT, 1, context_id=context_id)


class _Announcer(FrameProcessor):
    """Tells the client when speech was over."""

    def __init__(self, websocket: WebSocket, vad: _Counting) -> None:
        super().__init__()
        self._websocket, self._vad_analyzer = websocket, vad

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._websocket.send_text(
                json.dumps({"type": "ended", "sample": self._vad_analyzer.ended_at})
            )
        await self.push_frame(frame, direction)


class _Plain(FrameSerializer):
    """Sound as bytes, messages as JSON."""

    async def serialize(self, frame: Frame) -> str | bytes | None:
        if isinstance(frame, OutputAudioRawFrame):
            return frame.audio
        if isinstance(frame, (OutputTransportMessageFrame, OutputTransportMessageUrgentFrame)):
            return json.dumps(frame.message)
        return None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        if isinstance(data, bytes):
            return InputAudioRawFrame(audio=data, sample_rate=_RATE_IN, num_channels=1)
        return None


async def converse(websocket: WebSocket, *, with_vad: bool) -> None:
    """One conversation, until the client leaves."""
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=_Plain()),
    )
    params = VADParams(stop_secs=_END_S)
    vad = _Silero(params=params) if with_vad else _Level(params=params)
    turns = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0)])
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=vad, user_turn_strategies=turns)
    )
    worker = PipelineWorker(
        Pipeline(
            [
                transport.input(),
                _Stt(settings=STTSettings(model=None, language=None)),
                aggregators.user(),
                _Llm(
                    settings=LLMSettings(
                        model=None,
                        system_instruction=None,
                        temperature=None,
                        max_tokens=None,
                        top_p=None,
                        top_k=None,
                        frequency_penalty=None,
                        presence_penalty=None,
                        seed=None,
                        filter_incomplete_user_turns=False,
                        user_turn_completion_config=None,
                    )
                ),
                _Tts(
                    push_start_frame=True,
                    push_stop_frames=True,
                    settings=TTSSettings(model=None, voice=None, language=None),
                ),
                _Announcer(websocket, vad),
                transport.output(),
                aggregators.assistant(),
            ]
        )
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    @worker.event_handler("on_pipeline_started")
    async def on_started(*_: object) -> None:
        await websocket.send_text(json.dumps({"type": "ready"}))

    @transport.event_handler("on_client_disconnected")
    async def on_disconnected(*_: object) -> None:
        await runner.cancel()

    await runner.run()


def main() -> None:
    """Serve conversations at ws://127.0.0.1:PORT/ until this process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--without-vad", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    logger.remove()
    logger.add(sys.stderr, level="WARNING")  # writing every frame down would cost it time
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.websocket("/")
    async def conversation(websocket: WebSocket) -> None:
        await websocket.accept()
        await converse(websocket, with_vad=not options.without_vad)

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
