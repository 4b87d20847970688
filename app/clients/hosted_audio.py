"""Services that find speech, tell voices apart and say who speaks, over HTTP: ours, `diarizer/`, or anybody's
that answers these four requests.

| request | answer |
|---|---|
| `POST /v1/vad`, multipart `file` | `[{"start", "end"}]` in seconds |
| `POST /v2/embedding`, multipart `file` | `[float]` or `{"embedding": [float]}` |
| `POST /v1/diarization`, multipart `file` | `[{"speaker", "start", "end"}]` |
| `POST /v1/speaker-identification`, multipart `audio_file`, `profile_file`, `segments` | `[{"is_user"}]` |

They are sent WAV, 16 kHz mono. What is no such answer is `EngineFailed`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

import httpx
import numpy as np
from pydantic import Field, RootModel, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from app.audio.wav import wav_bytes
from app.roles import SAMPLE_RATE, BadAudio, EngineFailed, EngineInfo, Job, Samples, Span, SpeakerSpan, Vector

_CONNECT_S = 5.0
_CLIP_S = 30.0
"""How long a service may take over a clip."""
_RECORDING_S = 900.0
"""How long over a recording, which may be hours."""
_KEPT_S = 30.0
_SHORTEST_S = 0.5


@dataclass(frozen=True)
class _Span:
    start: float = Field(ge=0)
    end: float = Field(ge=0)


@dataclass(frozen=True)
class _SpeakerSpan(_Span):
    speaker: str = Field(min_length=1)


@dataclass(frozen=True)
class _Verdict:
    is_user: bool


@dataclass(frozen=True)
class _Embedding:
    embedding: list[float] = Field(min_length=1)


class _Floats(RootModel[list[float]]):
    """A flat list."""


_SPANS = TypeAdapter(list[_Span])
_SPEAKER_SPANS = TypeAdapter(list[_SpeakerSpan])
_VERDICTS = TypeAdapter(list[_Verdict])
_EMBEDDING: TypeAdapter[_Floats | _Embedding] = TypeAdapter(_Floats | _Embedding)


class _Service:
    """One service and its connections. `setting` is what errors name."""

    def __init__(self, url: str, api_key: str, timeout_s: float, setting: str) -> None:
        self._url, self._setting = url, setting
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            limits=httpx.Limits(keepalive_expiry=_KEPT_S),
        )

    async def ask(self, answer: TypeAdapter[Any], files: Any, data: dict[str, str] | None = None) -> Any:
        """What the service says of `files`, as `answer`. Raises `EngineFailed`."""
        try:
            response = await self._client.post(self._url, files=files, data=data)
        except httpx.TimeoutException as error:
            raise self._failed("did not answer in time") from error
        except httpx.HTTPError as error:
            raise self._failed(f"cannot be reached ({error or type(error).__name__})") from error
        if not response.is_success:
            hint = ": check HOSTED_API_KEY" if response.status_code in (401, 403) else ""
            raise self._failed(f"answered {response.status_code}{hint}")
        try:
            return answer.validate_json(response.content)
        except ValidationError as error:
            raise self._failed("gave an answer that cannot be read") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _failed(self, what: str) -> EngineFailed:
        return EngineFailed(f"the service of {self._setting} {what}")


class HostedSpeakers:
    """`SpeakerEmbedding` over somebody's `/v2/embedding`."""

    def __init__(self, url: str, api_key: str) -> None:
        """`url` is the service's base or the full one. See `open`, which also finds out `dimensions`."""
        self._service = _Service(
            full_url(url, "/v2/embedding"), api_key, _CLIP_S, "HOSTED_SPEAKER_EMBEDDING_API_URL"
        )
        self._url = url
        self._dimensions = 0

    @classmethod
    async def open(cls, url: str, api_key: str) -> HostedSpeakers:
        """A client that has asked once, to see that it may and how long vectors are."""
        client = cls(url, api_key)
        try:
            noise = np.random.default_rng(1).normal(0, 0.05, SAMPLE_RATE).astype(np.float32)
            client._dimensions = len(await client.embed(noise, Job()))
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("speaker", "hosted", httpx.URL(self._url).host)

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def close(self) -> None:
        """Close the connections."""
        await self._service.close()

    async def embed(self, audio: Samples, job: Job) -> Vector:
        """See `SpeakerEmbedding`."""
        if len(audio) < _SHORTEST_S * SAMPLE_RATE:
            raise BadAudio(
                f"a voice is told from at least {_SHORTEST_S} s of sound: send more", field="audio"
            )
        files = {"file": ("audio.wav", wav_bytes(audio, SAMPLE_RATE), "audio/wav")}
        said = await self._service.ask(_EMBEDDING, files)
        vector = np.asarray(said.root if isinstance(said, _Floats) else said.embedding, np.float32)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0 or self._dimensions not in (0, len(vector)):
            raise EngineFailed("the service of HOSTED_SPEAKER_EMBEDDING_API_URL gave no vector of a voice")
        return vector / np.float32(length)


class HostedAudio:
    """What other services do with recordings: each has a URL, or is None and cannot be asked. That of
    `diarization` may be the service's base, the others are full ones."""

    def __init__(
        self, api_key: str, *, vad: str | None, diarization: str | None, identification: str | None
    ) -> None:
        def service(url: str | None, setting: str) -> _Service | None:
            return _Service(url, api_key, _RECORDING_S, setting) if url else None

        diarization = full_url(diarization, "/v1/diarization") if diarization else None
        self._vad = service(vad, "HOSTED_VAD_API_URL")
        self._diarization = service(diarization, "HOSTED_DIARIZATION_API_URL")
        self._identification = service(identification, "HOSTED_SPEECH_PROFILE_API_URL")

    @property
    def finds_speech(self) -> bool:
        """Whether `speech` can be asked."""
        return self._vad is not None

    @property
    def diarizes(self) -> bool:
        """Whether `diarize` can be asked."""
        return self._diarization is not None

    @property
    def identifies(self) -> bool:
        """Whether `is_user` can be asked."""
        return self._identification is not None

    async def speech(self, wav: BinaryIO) -> list[Span]:
        """Where somebody speaks in `wav`."""
        assert self._vad is not None
        found = await self._vad.ask(_SPANS, _file("file", wav))
        return [Span(s.start, s.end) for s in found]

    async def diarize(self, wav: BinaryIO) -> list[SpeakerSpan]:
        """Who speaks when in `wav`."""
        assert self._diarization is not None
        found = await self._diarization.ask(_SPEAKER_SPANS, _file("file", wav))
        return [SpeakerSpan(s.start, s.end, s.speaker) for s in found]

    async def is_user(self, wav: BinaryIO, profile: BinaryIO, segments: Sequence[Span]) -> list[bool]:
        """Whether each of `segments` of `wav` is of the person who speaks in `profile`. Those of one
        speaker (`SpeakerSpan`) are judged together."""
        assert self._identification is not None
        files = _file("audio_file", wav) | _file("profile_file", profile)
        rows = []
        for segment in segments:
            row: dict[str, Any] = {"start": segment.start, "end": segment.end}
            if isinstance(segment, SpeakerSpan):
                row["speaker"] = segment.speaker
            rows.append(row)
        found = await self._identification.ask(_VERDICTS, files, {"segments": json.dumps(rows)})
        if len(found) != len(rows):
            raise EngineFailed("the service of HOSTED_SPEECH_PROFILE_API_URL gave not one answer a segment")
        return [verdict.is_user for verdict in found]

    async def close(self) -> None:
        """Close the connections."""
        for service in (self._vad, self._diarization, self._identification):
            if service is not None:
                await service.close()


def full_url(url: str, path: str) -> str:
    """`url` with `path`, unless it has it: that it ends in the path's last part is enough."""
    url = url.rstrip("/")
    return url if url.endswith("/" + path.rpartition("/")[2]) else url + path


def _file(field: str, wav: BinaryIO) -> dict[str, tuple[str, BinaryIO, str]]:
    return {field: ("audio.wav", wav, "audio/wav")}
