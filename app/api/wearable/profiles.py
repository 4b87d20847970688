"""Recordings by which people are recognised: the user's own voice, and those whom they know."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Response, UploadFile

from app.api.context import Context, Ctx, Owner
from app.api.hosted import vad_ready, voices_ready
from app.api.wearable.segments import Json
from app.audio.files import decode_file
from app.dialogue.events import USER
from app.roles import SAMPLE_RATE, BadAudio, NotFound, Samples, TooLarge
from app.stores.diary import VoiceRecord

router = APIRouter(tags=["voices"])

_PROFILE_S = 5.0, 120.0
_SAMPLE_S = 5.0, 30.0
_BYTES = 48 << 20
"""Two minutes in any coding that microphones are recorded in."""


# --- the user, as the app asks ----------------------------------------------------------------------


@router.get("/v3/speech-profile")
async def has_profile(context: Ctx, owner: Owner) -> Json:
    """Whether there is a recording of your voice."""
    return {"has_profile": (await context.diary.user(owner)).profile_key is not None}


@router.post("/v3/upload-audio")
async def upload_profile(context: Ctx, owner: Owner, file: Annotated[UploadFile, File()]) -> Json:
    """A recording of your voice, 5 to 120 s long, by which you are recognised from now on. What will not do
    is refused with the reason."""
    record = await _enrolled(context, owner, None, await _sound(file, *_PROFILE_S))
    return {"url": record.audio_key}


@router.delete("/v3/speech-profile")
async def delete_profile(context: Ctx, owner: Owner) -> Json:
    """Forget your voice: the recording, and what was learnt from it."""
    await forget_voice(context, owner, None)
    return {"status": "ok"}


# --- the user, for any client -----------------------------------------------------------------------


@router.get("/api/v1/speech-profile")
async def own_voice(context: Ctx, owner: Owner) -> Json:
    """What is known of your voice; `NOT_FOUND` if nothing is."""
    return await _known(context, owner, None)


@router.put("/api/v1/speech-profile")
async def set_own_voice(context: Ctx, owner: Owner, file: Annotated[UploadFile, File()]) -> Json:
    """The same as `POST /v3/upload-audio`."""
    return _voice_json(await _enrolled(context, owner, None, await _sound(file, *_PROFILE_S)))


@router.delete("/api/v1/speech-profile", status_code=204)
async def forget_own_voice(context: Ctx, owner: Owner) -> Response:
    """The same as `DELETE /v3/speech-profile`."""
    await forget_voice(context, owner, None)
    return Response(status_code=204)


# --- people whom the user knows ---------------------------------------------------------------------


@router.get("/v1/users/people/{person_id}/speech-samples")
async def persons_voice(person_id: str, context: Ctx, owner: Owner) -> Json:
    """What is known of somebody's voice; `NOT_FOUND` if nothing is."""
    return await _known(context, owner, person_id)


@router.post("/v1/users/people/{person_id}/speech-samples")
async def add_sample(person_id: str, context: Ctx, owner: Owner, file: Annotated[UploadFile, File()]) -> Json:
    """A recording of somebody's voice, 5 to 30 s long, by which they are recognised from now on."""
    if person_id not in {p.id for p in await context.diary.people(owner)}:
        raise NotFound("you know nobody with this id", field="person_id")
    return _voice_json(await _enrolled(context, owner, person_id, await _sound(file, *_SAMPLE_S)))


@router.delete("/v1/users/people/{person_id}/speech-samples", status_code=204)
@router.delete("/v1/users/people/{person_id}/speech-samples/0", status_code=204)
async def delete_sample(person_id: str, context: Ctx, owner: Owner) -> Response:
    """Forget somebody's voice, not who they are."""
    if person_id not in {p.id for p in await context.diary.people(owner)}:
        raise NotFound("you know nobody with this id", field="person_id")
    await forget_voice(context, owner, person_id)
    return Response(status_code=204)


# --- what they do -----------------------------------------------------------------------------------


async def forget_voice(context: Context, owner: str, person_id: str | None) -> None:
    """Nobody is recognised by it any more, here and from the next connection on elsewhere."""
    await context.known.forget(owner, person_id)
    if (who := context.around.get(owner)) is not None:
        who.forget(person_id or USER)


async def _enrolled(context: Context, owner: str, person_id: str | None, audio: Samples) -> VoiceRecord:
    await vad_ready(context)
    if context.settings.speaker_provider != "none":
        await voices_ready(context)
    record = await context.known.enrol(owner, person_id, audio)
    who = context.around.get(owner)
    if who is not None and record.vector:
        engine = await context.runtime.on_demand("speaker")
        for person in await context.known.people(owner, engine):
            if person.id == (person_id or USER):
                who.enrol(person)
    return record


async def _sound(file: UploadFile, least_s: float, most_s: float) -> Samples:
    if (file.size or 0) > _BYTES:
        raise TooLarge(f"a recording of at most {most_s:g} seconds is no larger than 48 MB", field="file")
    try:
        audio = await decode_file(file.file, max_seconds=most_s)
    except TooLarge:
        seconds = f"more than {most_s:g}"
    else:
        if len(audio) >= least_s * SAMPLE_RATE:
            return audio
        seconds = f"{len(audio) / SAMPLE_RATE:.1f}"
    raise BadAudio(
        f"a voice is learnt from {least_s:g} to {most_s:g} seconds of sound, and this has {seconds}",
        field="file",
    )


async def _known(context: Context, owner: str, person_id: str | None) -> Json:
    for record in await context.diary.voices(owner):
        if record.person_id == person_id:
            return _voice_json(record)
    raise NotFound("this voice is not known: send a recording of it")


def _voice_json(record: VoiceRecord) -> Json:
    return {
        "person_id": record.person_id or USER,
        "speech_seconds": round(record.seconds, 2),
        "encoder": record.encoder or None,
        "recording": record.audio_key is not None,
        "updated_at": record.updated_at.isoformat(),
    }
