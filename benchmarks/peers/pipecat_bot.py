"""The Pipecat bot that is measured. It runs in Pipecat's own environment and imports nothing of ours.

A pipeline for each WebSocket connection, as Pipecat means it, with its own defaults: Silero and
smart-turn decide about turns, speech is transcribed once a segment is over, whole sentences are
spoken. Only what it is told to use is ours: model files, system prompt, sampling. On the wire binary
messages are PCM16 mono, 16 kHz in and 24 kHz out, and text messages are Pipecat's RTVI messages as
JSON, before them one `{"type": "ready"}`.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-return,untyped-decorator"
# Its libraries are in the other environment.

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.piper.tts import PiperTTSService
from pipecat.services.whisper.stt import WhisperSTTService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

_RATE_IN = 16_000


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


async def converse(websocket: WebSocket, options: argparse.Namespace) -> None:
    """One conversation, until the client leaves."""
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=_Plain()),
    )
    stt = WhisperSTTService(
        device="cpu",
        compute_type="int8",
        settings=WhisperSTTService.Settings(model=str(options.whisper)),
    )
    llm = OpenAILLMService(
        api_key="none",
        base_url=options.llm_url,
        settings=OpenAILLMService.Settings(
            model=options.llm_model,
            system_instruction=options.instructions,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
        ),
    )
    tts = PiperTTSService(
        download_dir=options.voice.parent, settings=PiperTTSService.Settings(voice=options.voice.stem)
    )
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    worker = PipelineWorker(
        Pipeline(
            [
                transport.input(),
                stt,
                aggregators.user(),
                llm,
                tts,
                transport.output(),
                aggregators.assistant(),
            ]
        )
    )
    # Without it a session's models stay in memory until Python happens to collect garbage.
    runner = WorkerRunner(handle_sigint=False, force_gc=True)
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
    parser.add_argument("--whisper", type=Path, required=True, help="folder of a CTranslate2 model")
    parser.add_argument("--voice", type=Path, required=True, help="a Piper voice's .onnx file")
    parser.add_argument("--llm-url", required=True)
    parser.add_argument("--llm-model", required=True)
    parser.add_argument("--instructions", required=True)
    parser.add_argument("--temperature", type=float, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    options = parser.parse_args()

    logger.remove()
    logger.add(sys.stderr, level="WARNING")  # writing every frame down would cost it time
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.websocket("/")
    async def conversation(websocket: WebSocket) -> None:
        await websocket.accept()
        await converse(websocket, options)

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
