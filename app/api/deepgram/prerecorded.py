"""`POST /v1/listen`: a recording in, all that was said in it out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, TypeVar, cast

import fastapi
from fastapi import APIRouter, UploadFile
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from app.api.context import Context, Ctx, Owner
from app.api.deepgram.errors import DeepgramRoute
from app.api.deepgram.options import Options, hearing, parse
from app.api.deepgram.results import Request, SpeakerOf, nobody_told, speaker_of
from app.api.deepgram.sound import Packed
from app.api.rest import ready
from app.audio.files import stream_file
from app.audio.live import HEAD_BYTES, is_container
from app.dialogue.diarize import diarize
from app.dialogue.exchange import transcribe
from app.roles import SAMPLE_RATE, BadAudio, BadInput, RoleSet, Samples, SpeakerSpan, TooLarge

router = APIRouter(route_class=DeepgramRoute, tags=["deepgram"])

T = TypeVar("T")

_IN_MEMORY = 1 << 20
_BLOCK = 1 << 16
_RAW = ("linear16", "linear32", "mulaw", "alaw")


@router.post("/v1/listen")
async def listen(request: fastapi.Request, context: Ctx, owner: Owner) -> JSONResponse:
    """Deepgram's transcription of a recording: the body is the file, in any common container or, with
    `encoding` and `sample_rate`, raw samples."""
    options = parse(request.query_params, live=False)
    wanted = hearing(context, options)
    roles = await ready(context)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        raise BadInput(
            "this server fetches nothing from other addresses: send the recording itself as the body",
            field="url",
        )
    told = Request(options, roles.stt.info, id=request.state.request_id)
    digest = hashlib.sha256()
    samples = 0
    spooled = cast("BinaryIO", SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - closed by `file.close`
    file = UploadFile(spooled)

    async def counted(blocks: AsyncIterator[Samples]) -> AsyncIterator[Samples]:
        nonlocal samples
        async for block in blocks:
            samples += len(block)
            yield block

    try:
        async with aclosing(_body(request, context)) as body:
            async for data in body:
                digest.update(data)
                await file.write(data)
        async with aclosing(_sound(spooled, options, context)) as sound:
            work = asyncio.create_task(transcribe(roles, counted(sound), wanted, owner))
            words = await _unless_gone(request, work)
        who: SpeakerOf = nobody_told
        if options.diarize:
            async with aclosing(_sound(spooled, options, context)) as sound:
                telling = asyncio.create_task(_speakers(context, roles, sound, owner))
                who = speaker_of(await _unless_gone(request, telling))
    finally:
        await file.close()
    return JSONResponse(told.answer(words, digest.hexdigest(), samples / SAMPLE_RATE, who))


async def _body(request: fastapi.Request, context: Context) -> AsyncGenerator[bytes, None]:
    """The body, piece by piece; `TooLarge` as soon as that is known."""
    limit = context.settings.max_upload_mb
    too_large = TooLarge(f"a recording may have {limit:g} MB: send it in shorter parts", field="body")
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > limit * 1e6:
        raise too_large
    size = 0
    async for data in request.stream():
        size += len(data)
        if size > limit * 1e6:
            raise too_large
        if data:
            yield data


async def _sound(file: BinaryIO, options: Options, context: Context) -> AsyncGenerator[Samples, None]:
    """The recording at 16 kHz. A container is known by itself, whatever encoding was named."""
    longest = context.settings.max_audio_s
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if options.encoding not in _RAW or is_container(head) or not head:
        async with aclosing(stream_file(file, max_seconds=longest, name="body")) as blocks:
            async for block in blocks:
                yield block
        return
    if not options.sample_rate:
        raise BadInput(f"{options.encoding} has no header: say its sample_rate", field="sample_rate")
    packed = Packed(options)
    file.seek(0)
    samples = 0
    while data := await asyncio.to_thread(file.read, _BLOCK):
        for block in packed.decode(data):
            samples += len(block)
            if samples > longest * SAMPLE_RATE:
                raise TooLarge(f"a recording may have {longest:g} s: send it in shorter parts", field="body")
            yield block
    if not samples:
        raise BadAudio("the body holds no whole sample", field="body")
    yield packed.flush()


async def _speakers(
    context: Context, roles: RoleSet, sound: AsyncIterator[Samples], owner: str
) -> list[SpeakerSpan]:
    voices = await context.runtime.on_demand("speaker")
    return await diarize(roles.vad, voices, sound, context.runtime.new_speakers(), owner)


async def _unless_gone(request: fastapi.Request, work: asyncio.Task[T]) -> T:
    """What `work` gives; it is stopped when the client leaves."""
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
