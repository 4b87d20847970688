"""The language model for peers: our GGUF behind an OpenAI endpoint, in a process of its own.

`python -m benchmarks.peers.llm` is that process: llama.cpp's own server, with the parameters that
`app.engines.llama` gives it in our process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.settings import Settings
from benchmarks.common.process import answering, free_port, started
from benchmarks.peers.models import model

MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible API; any key will do. `url` ends with /v1."""

    url: str
    model: str
    pid: int


@asynccontextmanager
async def serving(settings: Settings, *, slots: int = 4) -> AsyncIterator[Endpoint]:
    """Our language model as `settings` have it, answering `slots` requests at once, each with a context
    window of its own."""
    path = next((await model(MODEL, settings)).glob("*.gguf"))
    port = free_port()
    command = [sys.executable, "-m", __name__, str(path), "--port", str(port), "--slots", str(slots)]
    command += [
        "--threads",
        str(max(1, settings.threads // 2)),
        "--context",
        str(settings.llm_context_tokens),
    ]
    root = str(Path(__file__).parents[2])
    async with started("the language model", command, {"PYTHONPATH": root}) as process:
        url = f"http://127.0.0.1:{port}"
        await answering("the language model", process, f"{url}/health", seconds=_START_S)
        yield Endpoint(f"{url}/v1", path.stem, process.pid)


def main(
    path: Path,
    port: Annotated[int, typer.Option()],
    slots: Annotated[int, typer.Option()],
    threads: Annotated[int, typer.Option()],
    context: Annotated[int, typer.Option(help="tokens a slot")],
) -> None:
    """Serve a GGUF until this process is ended."""
    import xllamacpp

    settings = Settings()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context * slots
    params.n_parallel = slots
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        cpu.poll = 0
    # For requests that say nothing of it.
    params.n_predict = settings.llm_max_tokens
    params.sampling.temp = settings.llm_temperature
    params.warmup = True
    params.verbosity = -1
    params.port = port
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    typer.run(main)
