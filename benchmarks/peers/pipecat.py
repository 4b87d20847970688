"""Pipecat with our models; see `pipecat_bot` for what runs."""

from __future__ import annotations

import json
import re
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

_BOT = Path(__file__).with_name("pipecat_bot.py")
_REQUIREMENTS = Path(__file__).with_name("pipecat.requirements.txt")
_RATE_OUT = 24_000
_START_S = 120.0
_OPEN_S = 60.0


@asynccontextmanager
async def _serve(python: Path, settings: Settings) -> AsyncIterator[System]:
    """The bot, and the language model beside it."""
    if not settings.english_only:
        raise Misconfigured("the peer pipecat is set up for English: unset LANGUAGE")
    recogniser = stt_model(settings)
    whisper = await model(recogniser, settings)
    voice = next((await model("piper-joe", settings)).glob("*.onnx"))
    async with llm.serving(settings) as endpoint:
        port = free_port()
        instructions = settings.llm_system_prompt or default_instructions("en")
        # -P: else `import pipecat` would find this file, which lies beside the script.
        command = [str(python), "-P", str(_BOT), "--port", str(port), "--whisper", str(whisper)]
        command += ["--voice", str(voice), "--llm-url", endpoint.url, "--llm-model", endpoint.model]
        command += ["--instructions", instructions, "--temperature", str(settings.llm_temperature)]
        command += ["--max-tokens", str(settings.llm_max_tokens)]
        async with started("Pipecat", command) as process:
            await answering("Pipecat", process, f"http://127.0.0.1:{port}/health", seconds=_START_S)
            models = {"stt": recogniser, "llm": endpoint.model, "tts": voice.stem, "vad": "silero-vad"}
            pids = (process.pid, endpoint.pid)
            yield System(f"pipecat {_version()}", models, pids, lambda: conversing(f"ws://127.0.0.1:{port}/"))


def _version() -> str:
    """Pipecat's, as pinned."""
    found = re.search(r"^pipecat-ai==(\S+)", _REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


class _Line:
    """A connection to the bot as a `Line`. Its turns have no names: they are counted. Sound belongs
    to the turn in which the language model began to write it: what is left of an interrupted
    reply may still arrive when the next turn has begun."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, pcm16: bytes) -> None:
        await self._socket.send(pcm16)

    async def __aiter__(self) -> AsyncIterator[Event]:
        turn, answered = 0, 0
        while True:
            try:
                data = await self._socket.recv()
            except ConnectionClosed as error:
                raise EngineFailed(f"Pipecat ended the conversation: {error}") from error
            if isinstance(data, bytes):
                yield Sound(str(answered), time.monotonic(), data, _RATE_OUT)
                continue
            message: dict[str, Any] = json.loads(data)
            match message.get("type"):
                case "user-started-speaking":
                    turn += 1
                    yield Began(str(turn))
                case "user-transcription" if message["data"]["final"]:
                    yield Transcript(str(turn), message["data"]["text"])
                case "bot-llm-started":
                    answered = turn
                case "error" | "error-response":
                    yield Trouble(str(message["data"].get("error", message["data"])))


@asynccontextmanager
async def conversing(url: str) -> AsyncIterator[Line]:
    """A new conversation with the bot at `url`, whose models are loaded for it."""
    async with open_socket(
        url, compression=None, open_timeout=_OPEN_S, ping_timeout=None, proxy=None, max_size=None
    ) as socket:
        while json.loads(await socket.recv()).get("type") != "ready":
            pass
        yield _Line(socket)


PEER = Peer("pipecat", _REQUIREMENTS, _serve)
