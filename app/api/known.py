"""The voices that a user had made known: learnt from recordings and conversations, kept, recognised."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np

from app.audio.files import decode_file
from app.audio.wav import wav_bytes
from app.dialogue.enrolment import Voice, learnt, spoken, together
from app.dialogue.events import USER, Named
from app.dialogue.speakers import Person, Speakers
from app.roles import (
    SAMPLE_RATE,
    BadAudio,
    ColloquyError,
    EngineInfo,
    Job,
    NotFound,
    Samples,
    SpeakerEmbedding,
    Urgency,
    Vad,
    Vector,
)
from app.stores.diary import Diary, VoiceRecord
from app.stores.vault import Vault

log = logging.getLogger(__name__)

_LONGEST_S = 120.0


@dataclass(frozen=True, slots=True)
class KnownVoices:
    """`vad` and `voices` give the engines; `voices` raises `NotFound` where nobody tells voices apart: then
    recordings are kept, and learnt from when somebody does. `speakers` makes new ones."""

    diary: Diary
    vault: Vault
    vad: Callable[[], Awaitable[Vad]]
    voices: Callable[[], Awaitable[SpeakerEmbedding]]
    speakers: Callable[[], Speakers]

    async def enrol(
        self, owner: str, person_id: str | None, audio: Samples, name: str = "file"
    ) -> VoiceRecord:
        """Learn the voice of `owner`, or of somebody whom they know, from a recording (float32[n], 16 kHz)
        instead of what was known of it. Raises `BadAudio`, which says what to do."""
        stretches = await spoken(await self.vad(), audio, name)
        try:
            engine = await self.voices()
        except NotFound:
            encoder, voice = "", Voice(np.zeros(0, np.float32), sum(map(len, stretches)) / SAMPLE_RATE)
        else:
            encoder = encoder_name(engine.info)
            voice = await learnt(engine, stretches, self.speakers(), Job(owner), name)
        key = _key(owner, person_id)
        await self.vault.put(owner, key, wav_bytes(audio, SAMPLE_RATE))
        record = _record(owner, person_id, encoder, voice, key)
        await self.diary.set_voice(record)
        if person_id is None:
            user = await self.diary.user(owner)
            seconds = len(audio) / SAMPLE_RATE
            await self.diary.set_user(replace(user, profile_key=key, profile_seconds=seconds))
        return record

    async def learn(self, owner: str, named: Named, vector: Vector, seconds: float) -> VoiceRecord | None:
        """The user said who it is that has this voice, heard for so long: it is added to what is known. What
        the user recorded of their own voice stays as it is; None then."""
        encoder = encoder_name((await self.voices()).info)
        person_id = None if named.is_user else named.id
        voice, key = Voice(vector, seconds), None
        for record in await self.diary.voices(owner):
            if record.person_id == person_id and record.encoder == encoder:
                if person_id is None and record.audio_key is not None:
                    return None
                key, voice = record.audio_key, together(_voice(record), voice)
        record = _record(owner, person_id, encoder, voice, key)
        await self.diary.set_voice(record)
        return record

    async def forget(self, owner: str, person_id: str | None) -> None:
        """Forget a voice, with its recording; it is no error if it is not known."""
        await self.diary.delete_voice(owner, person_id)
        if person_id is None:
            user = await self.diary.user(owner)
            await self.diary.set_user(replace(user, profile_key=None, profile_seconds=None))
        await self.vault.delete(_key(owner, person_id))

    async def people(self, owner: str, engine: SpeakerEmbedding) -> list[Person]:
        """All whose voice is known, as `engine` places them. What another encoder learnt is learnt anew from
        the recording, if there is one."""
        names = {p.id: p.name for p in await self.diary.people(owner)}
        found = [person async for person in self._found(owner, engine, encoder_name(engine.info))]
        return [Person(id_, names.get(id_, USER), vector) for id_, vector in found]

    async def _found(
        self, owner: str, engine: SpeakerEmbedding, encoder: str
    ) -> AsyncIterator[tuple[str, Vector]]:
        records = await self.diary.voices(owner)
        if all(r.person_id is not None for r in records):
            user = await self.diary.user(owner)
            if user.profile_key is not None:  # recorded before voices were learnt here
                empty = Voice(np.zeros(0, np.float32), 0.0)
                records.append(_record(owner, None, "", empty, user.profile_key))
        for record in records:
            if record.encoder != encoder:
                try:
                    record = await self._again(record, engine, encoder)
                except ColloquyError as error:
                    log.warning("a voice was not learnt anew: %s", error.message)
                    continue
            yield record.person_id or USER, _voice(record).vector

    async def _again(self, record: VoiceRecord, engine: SpeakerEmbedding, encoder: str) -> VoiceRecord:
        if record.audio_key is None:
            raise BadAudio("it was learnt from a conversation by another encoder")
        data = await self.vault.get(record.owner, record.audio_key)
        audio = await decode_file(data, max_seconds=_LONGEST_S + 1)
        stretches = await spoken(await self.vad(), audio)
        job = Job(record.owner, Urgency.BACKGROUND)
        voice = await learnt(engine, stretches, self.speakers(), job)
        record = _record(record.owner, record.person_id, encoder, voice, record.audio_key)
        with suppress(NotFound):  # the person was deleted meanwhile
            await self.diary.set_voice(record)
        return record


def encoder_name(info: EngineInfo) -> str:
    """Which encoder it was: vectors of different ones have nothing to do with each other."""
    return f"{info.name}/{info.model}"[:255]


def _voice(record: VoiceRecord) -> Voice:
    return Voice(np.asarray(record.vector, np.float32), record.seconds)


def _record(owner: str, person_id: str | None, encoder: str, voice: Voice, key: str | None) -> VoiceRecord:
    vector = [round(float(v), 6) for v in voice.vector]
    return VoiceRecord(owner, person_id, encoder, vector, voice.seconds, datetime.now(UTC), key)


def voices_folder(owner: str) -> str:
    """Where the recordings of the voices lie that `owner` had made known."""
    return f"speech_profiles/{sha256(owner.encode()).hexdigest()[:32]}"


def _key(owner: str, person_id: str | None) -> str:
    return f"{voices_folder(owner)}/{'profile' if person_id is None else person_id}.wav"
