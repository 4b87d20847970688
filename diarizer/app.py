"""The service's paths: those of `app/api/hosted.py`, and `/health`."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from app import __version__
from app.audio.files import decode_file
from app.roles import (
    SAMPLE_RATE,
    BadAudio,
    BadInput,
    Busy,
    ColloquyError,
    NotAllowed,
    NotFound,
    Samples,
    Span,
    SpeakerSpan,
)
from diarizer.door import Door
from diarizer.models import Stopped
from diarizer.settings import Settings
from diarizer.worker import Loaded, Worker

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHORTEST_S = 0.5
"""A voice is not told from less."""
_SHORT_S = 1.5
"""From less nobody is recognised."""
_CLIP_S = 600.0
_LOOK_S = 0.5
"""So often we look whether a client still waits."""


class SpanOut(BaseModel):
    """Speech; in seconds from the beginning."""

    start: float
    end: float
    duration: float


class SpeakerSpanOut(SpanOut):
    """Speech of one person. Spans of several may overlap."""

    speaker: str


class Verdict(BaseModel):
    """Whose a segment is. `person_id` is null: only the user is enrolled."""

    is_user: bool
    person_id: str | None = None


class SegmentIn(BaseModel):
    """A part of a recording. Segments of the same `speaker` are judged together."""

    start: float = Field(ge=0)
    end: float = Field(ge=0)
    speaker: str | None = None


class ModelHealth(BaseModel):
    """`state` is `loading`, `ready` or `failed`."""

    source: str
    state: str
    message: str


class Health(BaseModel):
    """`status` is `healthy` when every model is ready, else `loading` or `failed`; `message` says why."""

    status: str
    version: str
    device: str
    message: str
    models: dict[str, ModelHealth]


_SEGMENTS = TypeAdapter(Annotated[list[SegmentIn], Field(max_length=10_000)])


def create_app(settings: Settings) -> FastAPI:
    """The application. Its models begin to load when it starts. Raises `Misconfigured`."""
    settings.check()
    worker = Worker(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.close()

    app = FastAPI(title="Diarizer", version=__version__, lifespan=lifespan)
    app.add_middleware(
        Door,
        key=settings.api_key.get_secret_value(),
        limit_mb=settings.max_upload_mb,
        answer=error_response,
    )
    _answer_errors(app)

    @app.get("/health")
    async def health() -> Health:
        """Always 200 while the process serves; look at `status`."""
        states = {
            name: ModelHealth(source=m.source, state=m.state, message=m.message)
            for name, m in worker.models.items()
        }
        return Health(
            status=worker.status,
            version=__version__,
            device=worker.device,
            message=worker.message,
            models=states,
        )

    @app.post("/v1/vad", response_model=list[SpanOut])
    async def vad(request: Request, file: Annotated[UploadFile, File()]) -> Any:
        """Where somebody speaks in a recording; an empty list for silence."""
        audio = await _decoded(file, "file", settings.max_audio_s)
        return await _answered(request, worker.run(lambda loaded, stop: _spans(loaded.detect(audio, stop))))

    @app.post("/v2/embedding", response_model=list[float])
    async def embedding(request: Request, file: Annotated[UploadFile, File()]) -> Any:
        """Where the voice in a clip of one person lies: a vector of length 1."""
        audio = await _decoded(file, "file", _CLIP_S)
        return await _answered(
            request, worker.run(lambda loaded, _: [round(v, 7) for v in loaded.embed(audio).tolist()])
        )

    @app.post("/v1/diarization", response_model=list[SpeakerSpanOut])
    async def diarization(request: Request, file: Annotated[UploadFile, File()]) -> Any:
        """Who speaks when in a recording, in order of time; an empty list for silence."""
        audio = await _decoded(file, "file", settings.max_audio_s)
        return await _answered(request, worker.run(lambda loaded, stop: _spans(loaded.diarize(audio, stop))))

    @app.post("/v1/speaker-identification", response_model=list[Verdict])
    async def speaker_identification(
        request: Request,
        audio_file: Annotated[UploadFile, File()],
        profile_file: Annotated[UploadFile, File()],
        segments: Annotated[str, Form(description="JSON: [{start, end, speaker?}] in seconds")],
    ) -> Any:
        """Which segments of a recording are of the person who speaks in `profile_file`; one answer each."""
        rows = _rows(segments)
        audio = await _decoded(audio_file, "audio_file", _CLIP_S)
        profile = await _decoded(profile_file, "profile_file", _CLIP_S)

        def identify(loaded: Loaded, stop: threading.Event) -> list[Verdict]:
            known = identified(loaded, stop, audio, profile, rows, settings.known_distance)
            return [Verdict(is_user=is_user) for is_user in known]

        return await _answered(request, worker.run(identify))

    return app


def identified(
    loaded: Loaded,
    stop: threading.Event,
    audio: Samples,
    profile: Samples,
    segments: list[SegmentIn],
    known_distance: float,
) -> list[bool]:
    """Whether each of `segments` of `audio` is of the person who speaks in `profile`. Blocks."""
    spoken = [_cut(profile, span.start, span.end) for span in loaded.detect(profile, stop)]
    speech = np.concatenate([np.zeros(0, np.float32), *spoken])
    _enough(speech, "profile_file", "speech")
    known = loaded.embed(speech)
    # Segments of one speaker are judged together: the more there is of a voice, the surer one can be.
    names = [segment.speaker or f"#{at}" for at, segment in enumerate(segments)]
    pieces: dict[str, list[Samples]] = {}
    for name, segment in zip(names, segments, strict=True):
        pieces.setdefault(name, []).append(_cut(audio, segment.start, segment.end))
    is_user = {}
    for name, parts in pieces.items():
        if stop.is_set():
            raise Stopped
        voice = np.concatenate(parts)
        is_user[name] = (
            len(voice) >= _SHORT_S * SAMPLE_RATE and 1 - float(known @ loaded.embed(voice)) <= known_distance
        )
    return [is_user[name] for name in names]


# --- what comes in --------------------------------------------------------------------------------


async def _decoded(upload: UploadFile, field: str, max_seconds: float) -> Samples:
    audio = await decode_file(upload.file, max_seconds=max_seconds, name=field)
    _enough(audio, field, "sound")
    return audio


def _enough(audio: Samples, field: str, what: str) -> None:
    if len(audio) < _SHORTEST_S * SAMPLE_RATE:
        raise BadAudio(
            f"`{field}` has {len(audio) / SAMPLE_RATE:.2f} s of {what}; at least {_SHORTEST_S} s are needed",
            field=field,
        )


def _rows(segments: str) -> list[SegmentIn]:
    try:
        return _SEGMENTS.validate_json(segments)
    except ValidationError as error:
        raise BadInput(f"segments: {error.errors()[0]['msg']}", field="segments") from error


def _cut(audio: Samples, start: float, end: float) -> Samples:
    return audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


# --- what goes out --------------------------------------------------------------------------------


def _spans(spans: list[Any]) -> list[dict[str, Any]]:
    return [_span(span) for span in spans]


def _span(span: Span) -> dict[str, Any]:
    times = {"start": span.start, "end": span.end, "duration": span.seconds}
    rounded: dict[str, Any] = {name: round(value, 3) for name, value in times.items()}
    return rounded | ({"speaker": span.speaker} if isinstance(span, SpeakerSpan) else {})


async def _answered(request: Request, work: Coroutine[Any, Any, T]) -> T | Response:
    """What `work` gives; it is stopped when the client leaves. The number is for the log."""
    began = time.monotonic()
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_LOOK_S)
            if not task.done() and await request.is_disconnected():
                return Response(status_code=499)
        return task.result()
    finally:
        task.cancel()
        log.info("%s took %.2f s", request.url.path, time.monotonic() - began)


def error_response(error: ColloquyError, status: int | None = None) -> JSONResponse:
    """An error in the shape that all of Colloquy uses: `{code, message, trace_id}`, `field` where one is
    to blame."""
    body = {"code": error.code, "message": error.message, "trace_id": secrets.token_hex(16)}
    if error.field:
        body["field"] = error.field
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, NotAllowed):
        headers["WWW-Authenticate"] = "Bearer"
    log.info("refused: %s", json.dumps(body))
    return JSONResponse(body, status or error.http_status, headers)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(ColloquyError)
    async def expected(_: Request, error: ColloquyError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        return error_response(BadInput(f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}", field=field))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        # FastAPI wraps what is raised while it reads a form.
        if isinstance(error.__cause__, ColloquyError):
            return error_response(error.__cause__)
        if error.status_code == 404:
            return error_response(NotFound(f"there is nothing at {request.url.path}"))
        return error_response(BadInput(str(error.detail)), error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return error_response(ColloquyError("something failed inside; the log has the details"))
