"""A server of OpenAI's chat protocol that answers what a test says, and fails as it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from serving import make_settings, running

Answer = str | int | Literal["hang", "break"]
"""What is written; or an HTTP status; or nothing, ever; or an end of the connection in the middle."""


@dataclass(slots=True)
class LlmServer:
    """Answers in turn; the last one is given to all that follow. `notes` is for what asks for no JSON."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    notes: str | None = None

    async def answer(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        self.asked.append(asked := await request.json())
        if self.notes is not None and "response_format" not in asked:
            return StreamingResponse(_stream(self.notes), media_type="text/event-stream")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return JSONResponse({"error": {"message": f"status {answer}", "type": "test"}}, answer)
        return StreamingResponse(_stream(answer), media_type="text/event-stream")


async def _stream(answer: str) -> AsyncIterator[str]:
    if answer == "hang":
        await asyncio.sleep(3600)
    for at in range(0, len(answer), 7):
        delta = {"role": "assistant", "content": answer[at : at + 7]}
        chunk = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"
    if answer == "break":
        raise RuntimeError("the connection breaks")
    yield "data: [DONE]\n\n"


@contextmanager
def llm_server(folder: Path, *answers: Answer) -> Iterator[LlmServer]:
    """One that listens on loopback."""
    server = LlmServer(answers=list(answers))
    app = FastAPI()
    app.post("/v1/chat/completions")(server.answer)
    with running(make_settings(folder / "none", folder), app) as serving:
        server.url = f"{serving.url}/v1"
        yield server
