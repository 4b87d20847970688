"""REST without a session: `/stt`, `/chat`, `/tts`, `/conversation`, `/speaker_info`."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from app.api.context import Context, Ctx, Owner
from app.api.messages import WordOut
from app.api.sessions import own_session, words_out
from app.audio.files import stream_file
from app.audio.wav import wav_bytes
from app.dialogue.exchange import speak_all, transcribe, write_reply
from app.dialogue.guards import doubtful
from app.dialogue.history import History
from app.dialogue.utterance import FinalWords
from app.roles import BadInput, NotReady, RoleSet, Samples, SpeechOptions, SttOptions, TooLarge
from app.stores.interfaces import SessionRecord, TurnRecord
from app.stores.landing import turn_entry

router = APIRouter(tags=["rest"])

_MAX_TEXT = 8000
_HISTORY_TURNS = 100
_FLUSH_S = 5.0
_TURN_S = 600.0
"""The longest spoken turn: its sound is kept, so it is in memory whole."""


class Transcription(BaseModel):
    """What was said in a file; times in seconds from its start."""

    text: str
    language: str
    confidence: float
    low_confidence: bool
    words: list[WordOut]


class ChatAnswer(BaseModel):
    """A reply; give `conversation_id` back to go on."""

    reply: str
    conversation_id: str


class SpeakRequest(BaseModel):
    """Text to say. `speaker_voice_path` is the name of a voice (see `/speaker_info`), never a path."""

    model_config = ConfigDict(strict=True, extra="ignore")

    text: str = Field(min_length=1, max_length=_MAX_TEXT)
    speaker_voice_path: str | None = Field(None, max_length=64)
    cfg_scale: float = Field(1.0, ge=0.5, le=2.0)
    speed: float = Field(1.0, ge=0.5, le=2.0)


class ConversationAnswer(BaseModel):
    """A spoken turn: what was said, what is answered, and the answer's sound as base64 WAV."""

    transcript: str
    reply: str
    audio: str
    conversation_id: str
    latency: dict[str, float]


class SpeakerInfo(BaseModel):
    """A voice that can speak here."""

    name: str
    language: str
    gender: str
    engine: str


class SpeakerInfos(BaseModel):
    """All voices; `default` is used where none is asked for."""

    default: str
    voices: list[SpeakerInfo]


async def ready(context: Context) -> RoleSet:
    """All engines. Raises `NotReady` while they load."""
    if not context.runtime.ready:
        context.runtime.retry()
        loading = [f"{s.role} {s.state}" for s in context.runtime.status.values() if s.state != "ready"]
        raise NotReady(f"models are not ready yet ({', '.join(loading)}): see /health", retry_after=3)

    return await context.runtime.roles()


async def _sound(context: Context, file: UploadFile, field: str, longest: float) -> AsyncIterator[Samples]:
    limit = context.settings.max_upload_mb
    if (file.size or 0) > limit * 1e6:
        raise TooLarge(f"a file may have {limit:g} MB", field=field)
    async with aclosing(stream_file(file.file, max_seconds=longest, name=field)) as blocks:
        async for block in blocks:
            yield block


def _options(context: Context, language: str | None) -> SttOptions:
    wanted = language or context.default_config().language
    if context.settings.english_only and wanted not in ("en", None):
        raise BadInput("this server hears English only: start it with LANGUAGE=auto", field="language")
    return SttOptions(None if wanted == "auto" else wanted)


@router.post("/stt")
async def stt(
    context: Ctx,
    owner: Owner,
    file: Annotated[UploadFile, File(description="a recording: WAV, MP3, FLAC, OGG, M4A or WebM")],
    language: Annotated[str | None, Form(pattern=r"^([a-z]{2,3}|auto)$")] = None,
) -> Transcription:
    """What was said in a recording."""
    roles = await ready(context)
    sound = _sound(context, file, "file", context.settings.max_audio_s)
    words = await transcribe(roles, sound, _options(context, language), owner)
    return Transcription(
        text=words.text,
        language=words.language,
        confidence=round(words.confidence, 3),
        low_confidence=not words.text or doubtful(words.confidence, words.no_speech),
        words=words_out(words.words),
    )


@router.post("/chat")
async def chat(
    context: Ctx,
    owner: Owner,
    text: Annotated[str, Form(min_length=1, max_length=_MAX_TEXT)],
    conversation_id: Annotated[str | None, Form()] = None,
) -> ChatAnswer:
    """A reply in text; with `conversation_id`, in the light of what was said before."""
    roles = await ready(context)
    async with _turn(context, owner, conversation_id) as talk:
        reply = await _answer(context, roles, talk, text.strip(), owner)
        await context.keeper.keep(turn_entry(owner, talk.record("text", text.strip(), reply), None))
    return ChatAnswer(reply=reply, conversation_id=talk.id)


@router.post("/tts", response_class=Response)
async def tts(context: Ctx, owner: Owner, request: SpeakRequest) -> Response:
    """`text` as a WAV file."""
    roles = await ready(context)
    options = SpeechOptions(
        request.speaker_voice_path, _spoken(context), speed=request.speed, cfg_scale=request.cfg_scale
    )
    sound = await speak_all(roles, request.text, options, owner)
    if not len(sound.samples):
        raise BadInput("there is nothing to say in that text", field="text")
    return Response(wav_bytes(sound.samples, sound.sample_rate), media_type="audio/wav")


@router.post("/conversation")
async def conversation(
    context: Ctx,
    owner: Owner,
    audio_file: Annotated[UploadFile, File(description="one spoken turn")],
    conversation_id: Annotated[str | None, Form()] = None,
) -> ConversationAnswer:
    """A spoken turn answered in text and voice."""
    began = time.monotonic()
    latency: dict[str, float] = {}

    def mark(stage: str) -> None:
        latency[stage] = round((time.monotonic() - began) * 1000, 1)

    roles = await ready(context)
    blocks: list[Samples] = []

    longest = min(_TURN_S, context.settings.max_audio_s)

    async def kept() -> AsyncIterator[Samples]:
        async for block in _sound(context, audio_file, "audio_file", longest):
            blocks.append(block)
            yield block

    words = await transcribe(roles, kept(), _options(context, None), owner)
    mark("stt_final")
    if not words.text:
        raise BadInput("no words were recognised in that recording", field="audio_file")
    async with _turn(context, owner, conversation_id) as talk:
        reply = await _answer(context, roles, talk, words.text, owner)
        mark("llm_done")
        sound = await speak_all(roles, reply, SpeechOptions(language=_spoken(context)), owner)
        mark("reply_done")
        record = talk.record("upload", words.text, reply, words, latency)
        entry = await asyncio.to_thread(turn_entry, owner, record, np.concatenate(blocks))
        await context.keeper.keep(entry)
    return ConversationAnswer(
        transcript=words.text,
        reply=reply,
        audio=base64.b64encode(wav_bytes(sound.samples, sound.sample_rate)).decode(),
        conversation_id=talk.id,
        latency=latency,
    )


@router.get("/speaker_info")
async def speaker_info(context: Ctx, owner: Owner) -> SpeakerInfos:
    """The voices that can be asked for."""
    roles = await ready(context)
    voices = [
        SpeakerInfo(name=v.name, language=v.language, gender=v.gender, engine=v.engine)
        for v in roles.tts.voices()
    ]
    return SpeakerInfos(default=voices[0].name, voices=voices)


def _spoken(context: Context) -> str:
    return context.default_config().language or "en"


class _Conversation:
    """A conversation by REST: a kept session without a socket."""

    def __init__(self, session_id: str, history: History, turns: int) -> None:
        self.id = session_id
        self.history = history
        self._turns = turns

    def record(
        self,
        source: str,
        transcript: str,
        reply: str,
        words: FinalWords | None = None,
        latency: dict[str, float] | None = None,
    ) -> TurnRecord:
        """The turn just had, to be kept."""
        return TurnRecord(
            id=str(uuid.uuid4()),
            session_id=self.id,
            number=self._turns + 1,
            created_at=datetime.now(UTC),
            source=source,  # type: ignore[arg-type]
            transcription_id=str(uuid.uuid4()) if words else None,
            transcript=transcript,
            words=words.words if words else (),
            language=words.language if words else None,
            confidence=words.confidence if words else None,
            reply=reply,
            reply_full=reply,
            latency=latency or {},
        )


@asynccontextmanager
async def _turn(context: Context, owner: str, conversation_id: str | None) -> AsyncIterator[_Conversation]:
    """The conversation, for one turn: others of it wait."""
    if conversation_id is None:
        yield await _open(context, owner, None)
        return
    async with context.talking.setdefault(conversation_id, asyncio.Lock()):
        yield await _open(context, owner, conversation_id)


async def _open(context: Context, owner: str, conversation_id: str | None) -> _Conversation:
    store = context.conversations
    if conversation_id is None:
        session_id = str(uuid.uuid4())
        await context.note(SessionRecord(session_id, owner, datetime.now(UTC)))
        return _Conversation(session_id, History(), 0)
    await own_session(context, conversation_id, owner)
    # What was just said may still be on its way to the store.
    with suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH_S):
            await context.keeper.flush()
    count = 0
    history = History()
    while turns := await store.turns(conversation_id, _HISTORY_TURNS, count):
        count += len(turns)
        for turn in turns:
            history.user(turn.transcript)
            history.assistant(turn.reply)
    return _Conversation(conversation_id, history, count)


async def _answer(context: Context, roles: RoleSet, talk: _Conversation, text: str, owner: str) -> str:
    config = context.default_config()
    talk.history.user(text)
    messages = talk.history.window(config.instructions, roles.llm, config.max_reply_tokens)
    return await write_reply(roles, messages, config, owner)
