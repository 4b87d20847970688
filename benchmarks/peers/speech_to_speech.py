"""Hugging Face's speech-to-speech with our models: its own server, spoken to over OpenAI's Realtime
protocol.

Silero and smart-turn decide about turns, faster-whisper transcribes, the language model is behind its
`chat-completions` back end and the voice behind its `openai` one: see `speech_to_speech_voice`. Left at
its defaults is everything but `stream_batch_sentences`: by default it speaks after three sentences,
and so, with replies this short, after the last; here it speaks after the first.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from app.dialogue.config import default_instructions
from app.roles import EngineFailed, Misconfigured
from app.runtime import stt_model
from app.settings import Settings
from benchmarks.common.process import answering, free_port, started
from benchmarks.common.system import Began, Event, Line, Sound, System, Transcript, Trouble
from benchmarks.peers import Peer, llm
from benchmarks.peers.models import model

_NAME = "speech-to-speech"
_HERE = Path(__file__).parent
_RATE = 16_000
"""Of the pipeline, in and out: nothing is resampled in it."""
_START_S = 180.0
_OPEN_S = 60.0


@asynccontextmanager
async def _serve(python: Path, settings: Settings) -> AsyncIterator[System]:
    """The server, with a pipeline for each session that ours takes, and its language model and voice."""
    if not settings.english_only:
        raise Misconfigured(f"the peer {_NAME} is set up for English: unset LANGUAGE")
    recogniser = stt_model(settings)
    whisper = await model(recogniser, settings)
    turns = next((await model("smart-turn-v3.2", settings)).glob("*.onnx"))
    path = next((await model("piper-joe", settings)).glob("*.onnx"))
    async with llm.serving(settings) as endpoint, _voice(python, path) as (voice_url, voice_pid):
        port = free_port()
        options = {
            "port": port,
            "num_pipelines": settings.max_sessions,
            "log_level": "warning",
            "smart_turn_model_path": turns,
            "stt": "faster-whisper",
            "faster_whisper_stt_model_name": whisper,
            "faster_whisper_stt_device": "cpu",
            "faster_whisper_stt_compute_type": "int8",
            "llm_backend": "chat-completions",
            "model_name": endpoint.model,
            "responses_api_base_url": endpoint.url,
            "responses_api_api_key": "none",
            "init_chat_prompt": settings.llm_system_prompt or default_instructions("en"),
            "stream_batch_sentences": 1,
            "tts": "openai",
            "openai_tts_base_url": voice_url,
            "openai_tts_sample_rate": _RATE,
        }
        # -P: beside the script lies this file, which has the name of their package.
        command = [str(python), "-P", str(_HERE / "speech_to_speech_bot.py"), "serve"]
        command += [f"--{name}={value}" for name, value in options.items()]
        async with started(_NAME, command) as process:
            await answering(_NAME, process, f"http://127.0.0.1:{port}/v1/pool", seconds=_START_S)
            models = {"stt": recogniser, "llm": endpoint.model, "tts": path.stem, "vad": "silero-vad"}
            pids = (process.pid, endpoint.pid, voice_pid)
            yield System(_NAME, models, pids, lambda: conversing(f"ws://127.0.0.1:{port}/v1/realtime"))


@asynccontextmanager
async def _voice(python: Path, path: Path) -> AsyncIterator[tuple[str, int]]:
    """The voice's endpoint: its base URL and process."""
    what = f"the voice of {_NAME}"
    port = free_port()
    command = [
        str(python),
        str(_HERE / "speech_to_speech_voice.py"),
        "--port",
        str(port),
        "--voice",
        str(path),
    ]
    async with started(what, command) as process:
        url = f"http://127.0.0.1:{port}"
        await answering(what, process, f"{url}/health", seconds=_START_S)
        yield f"{url}/v1", process.pid


class _Line:
    """A Realtime session as a `Line`. A turn is an item of the person's; a response belongs to the turn
    that was the latest when it was created."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, pcm16: bytes) -> None:
        audio = base64.b64encode(pcm16).decode()
        await self._socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def __aiter__(self) -> AsyncIterator[Event]:
        turn = ""
        answered: dict[str, str] = {}
        while True:
            try:
                data = await self._socket.recv()
            except ConnectionClosed as error:
                raise EngineFailed(f"{_NAME} ended the conversation: {error}") from error
            at = time.monotonic()
            message: dict[str, Any] = json.loads(data)
            match message["type"]:
                case "input_audio_buffer.speech_started":
                    turn = message["item_id"]
                    yield Began(turn)
                case "conversation.item.input_audio_transcription.completed":
                    yield Transcript(message["item_id"], message["transcript"])
                case "response.created":
                    answered[message["response"]["id"]] = turn
                case "response.output_audio.delta":
                    sound = base64.b64decode(message["delta"])
                    yield Sound(answered.get(message["response_id"], turn), at, sound, _RATE)
                case "error":
                    yield Trouble(message["error"]["message"])


@asynccontextmanager
async def conversing(url: str) -> AsyncIterator[Line]:
    """A new session of the server at `url`. A pipeline that was just left is not free at once: it is
    waited for."""
    until = time.monotonic() + _OPEN_S
    while True:
        async with open_socket(
            url, compression=None, open_timeout=_OPEN_S, proxy=None, max_size=None
        ) as socket:
            first = json.loads(await socket.recv())
            if first["type"] == "session.created":
                yield _Line(socket)
                return
        if time.monotonic() > until:
            raise EngineFailed(f"{_NAME} opened no session: {first.get('error', first)}")
        await asyncio.sleep(0.2)


PEER = Peer("speech_to_speech", _HERE / "speech_to_speech.requirements.txt", _serve)
