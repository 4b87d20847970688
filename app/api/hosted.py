"""The engines as a service for others: `/v1/vad`, `/v2/embedding`, `/v1/diarization` and
`/v1/speaker-identification`. `clients.hosted_audio` is the other side of it.

A recording may be in any format that `audio.files` reads. Where the settings name a service that does one of
these better, it is asked instead, and what it says is passed on.
"""

from __future__ import annotations

import asyncio
import tempfile
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, BinaryIO, TypeVar, cast

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.context import Context, Ctx, Owner
from app.api.errors import from_validation
from app.api.openai.requests import unless_gone
from app.audio.codecs import pack_pcm16
from app.audio.files import decode_file, stream_file
from app.audio.resample import bounded
from app.dialogue.diarize import diarize, speech
from app.dialogue.speakers import SHORT_S, Speakers, distance
from app.roles import (
    SAMPLE_RATE,
    BadAudio,
    BadInput,
    Job,
    NotReady,
    Samples,
    Span,
    SpeakerEmbedding,
    SpeakerSpan,
    TooLarge,
    Vad,
)

router = APIRouter(tags=["hosted roles"])

T = TypeVar("T")

_CLIP_S = 600.0
"""The longest recording that is in memory whole."""
_SHORTEST_S = 0.5
_SEGMENTS_BYTES = 2 << 20
_LOAD_S = 20.0
"""So long a request waits for a model that nobody has asked for before."""
_DRAIN_S = 10.0
"""A client that sends too much is read for so long before it is told: most listen only when they have sent
all."""
_IN_MEMORY = 8 << 20


class SpanOut(BaseModel):
    """Speech; in seconds from the beginning."""

    start: float
    end: float
    duration: float


class SpeakerSpanOut(SpanOut):
    """Speech of one person."""

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


_SEGMENTS = TypeAdapter(Annotated[list[SegmentIn], Field(max_length=10_000)])


def _form(*files: str, **fields: str) -> dict[str, Any]:
    properties = {
        **{name: {"type": "string", "format": "binary"} for name in files},
        **{name: {"type": "string", "description": text} for name, text in fields.items()},
    }
    schema = {"type": "object", "required": [*files, *fields], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


# --- the requests ---------------------------------------------------------------------------------


@router.post("/v1/vad", response_model=list[SpanOut], openapi_extra=_form("file"))
async def vad(request: Request, context: Ctx, owner: Owner) -> Any:
    """Where somebody speaks in a recording; an empty list for silence."""
    hosted = context.runtime.hosted
    async with _received(request, context, "file") as form:
        sound = _sound(context, _upload(form, "file"), "file")
        if hosted.finds_speech:
            return await _unless_gone(request, _forwarded(sound, hosted.speech), _spans)
        return await _unless_gone(request, _speech(await vad_ready(context), sound), _spans)


@router.post("/v2/embedding", response_model=list[float], openapi_extra=_form("file"))
async def embedding(request: Request, context: Ctx, owner: Owner) -> Any:
    """Where the voice in a clip of one person lies: a vector of length 1."""
    voices = await voices_ready(context)
    async with _received(request, context, "file") as form:
        audio = await _clip(_upload(form, "file"), "file")
    vector = await _unless_gone(request, voices.embed(audio, Job(owner)))
    return vector if isinstance(vector, Response) else [round(v, 7) for v in vector.tolist()]


@router.post("/v1/diarization", response_model=list[SpeakerSpanOut], openapi_extra=_form("file"))
async def diarization(request: Request, context: Ctx, owner: Owner) -> Any:
    """Who speaks when in a recording, in order of time; an empty list for silence."""
    hosted = context.runtime.hosted
    async with _received(request, context, "file") as form:
        sound = _sound(context, _upload(form, "file"), "file")
        if hosted.diarizes:
            return await _unless_gone(request, _forwarded(sound, hosted.diarize), _spans)
        detector, voices = await vad_ready(context), await voices_ready(context)
        work = _diarized(detector, voices, sound, context.runtime.new_speakers(), owner)
        return await _unless_gone(request, work, _spans)


@router.post(
    "/v1/speaker-identification",
    response_model=list[Verdict],
    openapi_extra=_form("audio_file", "profile_file", segments="JSON: [{start, end, speaker?}] in seconds"),
)
async def speaker_identification(request: Request, context: Ctx, owner: Owner) -> Any:
    """Which segments of a recording are of the person who speaks in `profile_file`; one answer a segment."""
    hosted = context.runtime.hosted
    async with _received(request, context, "audio_file", "profile_file") as form:
        segments = _segments(form)
        audio = await _clip(_upload(form, "audio_file"), "audio_file")
        profile = await _clip(_upload(form, "profile_file"), "profile_file")
    if hosted.identifies:
        with _Wav(audio) as wav, _Wav(profile) as profile_wav:
            asked = hosted.is_user(wav.finished(), profile_wav.finished(), segments)
            return await _unless_gone(request, asked, _verdicts)
    detector, voices = await vad_ready(context), await voices_ready(context)
    work = _identified(context, detector, voices, audio, profile, segments, owner)
    return await _unless_gone(request, work, _verdicts)


# --- what they do ---------------------------------------------------------------------------------


async def _speech(detector: Vad, sound: AsyncGenerator[Samples, None]) -> list[Span]:
    async with aclosing(sound), aclosing(speech(detector, sound)) as spans:
        return [span async for span in spans]


async def _diarized(
    detector: Vad,
    voices: SpeakerEmbedding,
    sound: AsyncGenerator[Samples, None],
    speakers: Speakers,
    owner: str,
) -> list[SpeakerSpan]:
    async with aclosing(sound):
        return await diarize(detector, voices, sound, speakers, owner)


async def _forwarded(
    sound: AsyncGenerator[Samples, None], ask: Callable[[BinaryIO], Coroutine[Any, Any, T]]
) -> T:
    """What another service says of the recording, which is decoded here first: it takes WAV."""
    with _Wav() as wav:
        async with aclosing(sound):
            async for block in sound:
                wav.write(block)
        return await ask(wav.finished())


async def _identified(
    context: Context,
    detector: Vad,
    voices: SpeakerEmbedding,
    audio: Samples,
    profile: Samples,
    segments: list[Span],
    owner: str,
) -> list[bool]:
    settings, job = context.settings, Job(owner)
    spans = await _speech(detector, _blocks(profile))
    spoken = np.concatenate([np.zeros(0, np.float32), *(_cut(profile, span) for span in spans)])
    _enough(spoken, "profile_file", "speech")
    known, known_s = await voices.embed(spoken, job), len(spoken) / SAMPLE_RATE
    # Segments of one speaker are judged together: the more there is of a voice, the surer one can be.
    groups: dict[str, list[Samples]] = {}
    names = [s.speaker if isinstance(s, SpeakerSpan) else f"#{i}" for i, s in enumerate(segments)]
    for name, segment in zip(names, segments, strict=True):
        groups.setdefault(name, []).append(_cut(audio, segment))
    known_as: dict[str, bool] = {}
    for name, pieces in groups.items():
        piece = np.concatenate(pieces)
        seconds = len(piece) / SAMPLE_RATE
        known_as[name] = seconds >= SHORT_S and (
            distance(known, known_s, await voices.embed(piece, job), seconds, settings.speaker_half_s)
            <= settings.speaker_known_distance
        )
    return [known_as[name] for name in names]


def _cut(audio: Samples, span: Span) -> Samples:
    return audio[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)]


async def _blocks(audio: Samples) -> AsyncGenerator[Samples, None]:
    for at in range(0, len(audio), SAMPLE_RATE):
        yield audio[at : at + SAMPLE_RATE]


def _spans(spans: Sequence[Span]) -> list[dict[str, Any]]:
    return [
        {
            **({"speaker": span.speaker} if isinstance(span, SpeakerSpan) else {}),
            "start": round(span.start, 3),
            "end": round(span.end, 3),
            "duration": round(span.end - span.start, 3),
        }
        for span in spans
    ]


def _verdicts(found: list[bool]) -> list[Verdict]:
    return [Verdict(is_user=is_user) for is_user in found]


# --- engines --------------------------------------------------------------------------------------


async def vad_ready(context: Context) -> Vad:
    """What finds speech. `NotReady` while it loads."""
    status = context.runtime.status["vad"]
    if status.state == "failed":
        context.runtime.retry()
    elif status.state == "ready":
        return cast(Vad, await context.runtime.role("vad"))
    raise NotReady(f"the model is not ready yet (vad {status.state}): see /health", retry_after=3)


async def voices_ready(context: Context) -> SpeakerEmbedding:
    """What tells voices apart. `NotReady` if it loads for long, `NotFound` if there is none."""
    try:
        async with asyncio.timeout(_LOAD_S):
            return cast(SpeakerEmbedding, await context.runtime.on_demand("speaker"))
    except TimeoutError:
        state = context.runtime.status["speaker"].state
        raise NotReady(f"the model is not ready yet (speaker {state}): see /health", retry_after=5) from None


# --- what comes in --------------------------------------------------------------------------------


@asynccontextmanager
async def _received(request: Request, context: Context, *files: str) -> AsyncIterator[FormData]:
    """The form of a request; its size is not trusted. What it holds is let go at the end."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadInput(f"send multipart/form-data with the field `{files[0]}`", field=files[0])
    limit = context.settings.max_upload_mb
    left = limit * 1e6 + _SEGMENTS_BYTES

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise TooLarge(f"a file may have {limit:g} MB", field=files[0])
        return message

    limited = Request(request.scope, receive)
    try:
        form = await limited.form(max_files=len(files), max_fields=20, max_part_size=_SEGMENTS_BYTES)
    except ClientDisconnect as error:
        raise BadInput("the client left while it sent the recording") from error
    except TooLarge:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while (await request.receive()).get("more_body"):
                    pass
        raise
    try:
        yield form
    finally:
        await form.close()


def _upload(form: FormData, field: str) -> UploadFile:
    upload = form.get(field)
    if not isinstance(upload, UploadFile):
        raise BadInput(f"send the recording as a file, in the field `{field}`", field=field)
    return upload


def _segments(form: FormData) -> list[Span]:
    given = form.get("segments")
    try:
        rows = _SEGMENTS.validate_json(given if isinstance(given, str) else "")
    except ValidationError as error:
        raise BadInput(f"segments: {from_validation(error.errors()).message}", field="segments") from error
    return [
        Span(row.start, row.end) if row.speaker is None else SpeakerSpan(row.start, row.end, row.speaker)
        for row in rows
    ]


def _sound(context: Context, upload: UploadFile, field: str) -> AsyncGenerator[Samples, None]:
    return stream_file(upload.file, max_seconds=context.settings.max_audio_s, name=field)


async def _clip(upload: UploadFile, field: str) -> Samples:
    audio = await decode_file(upload.file, max_seconds=_CLIP_S, name=field)
    _enough(audio, field, "sound")
    return audio


def _enough(audio: Samples, field: str, what: str) -> None:
    if len(audio) < _SHORTEST_S * SAMPLE_RATE:
        seconds = len(audio) / SAMPLE_RATE
        raise BadAudio(
            f"`{field}` has {seconds:.2f} s of {what}, and a voice is told from at least {_SHORTEST_S} s: "
            "send more",
            field=field,
        )


class _Wav:
    """A recording that is written to be sent on, on disk if it is long."""

    def __init__(self, *blocks: Samples) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed in __exit__
        self._writer = wave.open(cast(BinaryIO, self._file), "wb")  # noqa: SIM115 - closed in finished
        self._writer.setnchannels(1)
        self._writer.setsampwidth(2)
        self._writer.setframerate(SAMPLE_RATE)
        for block in blocks:
            self.write(block)

    def __enter__(self) -> _Wav:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, block: Samples) -> None:
        """The next samples."""
        self._writer.writeframesraw(pack_pcm16(bounded(block)))

    def finished(self) -> BinaryIO:
        """All of it, to be read."""
        self._writer.close()
        self._file.seek(0)
        return cast(BinaryIO, self._file)


async def _unless_gone(
    request: Request, work: Coroutine[Any, Any, T], body: Callable[[T], Any] = lambda found: found
) -> Any:
    """What the client is answered; work for one that has left is stopped. The number is for the log."""
    found = await unless_gone(request.receive, work)
    return Response(status_code=499) if found is None else body(found)
