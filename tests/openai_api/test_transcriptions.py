"""`/v1/audio/transcriptions` and `/v1/audio/translations` with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from audio.sounds import memory_kb, sound_file
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, speech
from openai.types.audio import (
    Transcription,
    TranscriptionStreamEvent,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    TranslationVerbose,
)
from pydantic import TypeAdapter
from serving import Server, make_settings, running, scripted

import corpus
from app.audio.resample import Resampler
from app.audio.wav import wav_bytes
from app.roles import Busy, Job, Samples, SttOptions, Transcript, Urgency

RECORDINGS = {r.id: r for r in corpus.recordings()}
CITIES = RECORDINGS["cities"]
AUSTEN = RECORDINGS["austen-920"]


def sdk(server: Server, **changes: Any) -> openai.AsyncOpenAI:
    given: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any", "max_retries": 0}
    return openai.AsyncOpenAI(**(given | changes))


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(server) as client:
        yield client


def upload(name: str) -> tuple[str, bytes]:
    return "speech.wav", RECORDINGS[name].path.read_bytes()


def at_rate(samples: Samples, rate: int) -> Samples:
    up = Resampler(16000, rate)
    return np.concatenate([up.push(samples.astype(np.float32)), up.flush()])


# --- formats ----------------------------------------------------------------------------------


async def test_json_and_text_are_what_was_said(client: openai.AsyncOpenAI) -> None:
    for model in ("whisper-1", "gpt-4o-transcribe"):
        answer = await client.audio.transcriptions.create(file=upload("austen-920"), model=model)
        assert corpus.wer(AUSTEN.text, answer.text) < 0.15
        Transcription.model_validate(answer.to_dict(), strict=True)
        assert answer.usage.to_dict() == {"type": "duration", "seconds": 7}
    text = await client.audio.transcriptions.create(
        file=upload("austen-920"), model="whisper-1", response_format="text"
    )
    assert text == answer.text + "\n"


async def test_verbose_json_has_sentences_and_words_with_times(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(
        file=upload("cities"),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    body = answer.to_dict()
    TranscriptionVerbose.model_validate(body, strict=True)
    assert corpus.wer(CITIES.text, answer.text) < 0.2
    assert answer.language == "english" and body["task"] == "transcribe"
    assert answer.duration == pytest.approx(44.374, abs=0.01)
    assert answer.segments and answer.words
    assert "".join(s.text for s in answer.segments) == answer.text
    assert [s.id for s in answer.segments] == list(range(len(answer.segments)))
    assert len(answer.segments) >= 8  # it has that many sentences
    for segment in answer.segments:
        assert segment.start < segment.end <= answer.duration
        assert segment.seek <= segment.start * 100 + 1
        assert -1 < segment.avg_logprob <= 0 and 0.3 < segment.compression_ratio < 2.4
        assert 0 <= segment.no_speech_prob < 0.6
    starts = [s.start for s in answer.segments]
    assert starts == sorted(starts)
    assert " ".join(w.word for w in answer.words) == answer.text
    # The recordings that this one was cut into tell when the last sentence begins.
    [last] = [w.start for w in answer.words if w.word.startswith("short")]
    assert 28 < last < 30.5


async def test_granularities_are_what_was_asked_for(client: openai.AsyncOpenAI) -> None:
    async def keys(**wish: Any) -> set[str]:
        answer = await client.audio.transcriptions.create(
            file=upload("austen-920"), model="whisper-1", response_format="verbose_json", **wish
        )
        return {"segments", "words"} & set(answer.to_dict())

    assert await keys() == {"segments"}
    assert await keys(timestamp_granularities=["word"]) == {"words"}
    assert await keys(timestamp_granularities=["segment"]) == {"segments"}


CUE = re.compile(r"(\d\d):(\d\d):(\d\d)[,.](\d\d\d) --> (\d\d):(\d\d):(\d\d)[,.](\d\d\d)")


@pytest.mark.parametrize("kind", ["srt", "vtt"])
async def test_subtitles(client: openai.AsyncOpenAI, kind: Any) -> None:
    text = await client.audio.transcriptions.create(
        file=upload("cities"), model="whisper-1", response_format=kind
    )
    if kind == "vtt":
        assert text.startswith("WEBVTT\n\n")
    blocks = text.removeprefix("WEBVTT\n\n").strip().split("\n\n")
    said, until = [], 0.0
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if kind == "srt":
            assert lines.pop(0) == str(number)
        assert ("," in lines[0]) == (kind == "srt")
        match = CUE.fullmatch(lines[0])
        assert match, lines[0]
        h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, match.groups())
        begin, end = (
            h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in ((h1, m1, s1, ms1), (h2, m2, s2, ms2))
        )
        assert until <= begin < end < 45
        assert len(lines) == 2 and len(lines[1]) <= 84
        said.append(lines[1])
        until = end
    assert corpus.wer(CITIES.text, " ".join(said)) < 0.2


async def test_streamed_text_only_grows(client: openai.AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(
        file=upload("cities"), model="gpt-4o-mini-transcribe", stream=True
    )
    events = [event async for event in stream]
    for event in events:
        TypeAdapter(TranscriptionStreamEvent).validate_python(event.to_dict(), strict=True)
    *deltas, done = events
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert len(deltas) >= 3
    assert "".join(d.delta for d in deltas if isinstance(d, TranscriptionTextDeltaEvent)) == done.text
    assert corpus.wer(CITIES.text, done.text) < 0.2
    assert done.usage and done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    assert done.usage.input_tokens == 444


def test_the_client_without_asyncio(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        with AUSTEN.path.open("rb") as file:
            answer = client.audio.transcriptions.create(file=file, model="whisper-1", language="en")
        assert corpus.wer(AUSTEN.text, answer.text) < 0.15
        with client.audio.transcriptions.create(file=AUSTEN.path, model="whisper-1", stream=True) as stream:
            assert [event.type for event in stream][-1] == "transcript.text.done"


# --- files that people send -------------------------------------------------------------------

FILES: dict[str, Callable[[Samples], bytes]] = {
    "a.mp3": lambda x: sound_file("mp3", "libmp3lame", at_rate(x, 44100), 44100, 2),
    "a.m4a": lambda x: sound_file("ipod", "aac", at_rate(x, 44100), 44100),
    "phone.mp4": lambda x: sound_file("mp4", "aac", at_rate(x, 48000), 48000, 2, picture=True),
    # As a browser's recorder writes it: the header says nothing of how long it is.
    "recorder.webm": lambda x: sound_file("webm", "libopus", at_rate(x, 48000), 48000, 1, {"live": "1"}),
    "stereo.wav": lambda x: sound_file("wav", "pcm_s16le", at_rate(x, 48000), 48000, 2),
    "voice.ogg": lambda x: sound_file("ogg", "libopus", at_rate(x, 48000), 48000),
    "a.flac": lambda x: sound_file("flac", "flac", at_rate(x, 44100), 44100, 2),
    # The name does not matter.
    "flac.wav": lambda x: sound_file("flac", "flac", x.astype(np.float32), 16000),
}


@pytest.mark.parametrize("name", FILES)
async def test_any_file_that_people_send(client: openai.AsyncOpenAI, name: str) -> None:
    file = FILES[name](corpus.load(AUSTEN))
    answer = await client.audio.transcriptions.create(file=(name, file), model="whisper-1")
    assert corpus.wer(AUSTEN.text, answer.text) < 0.2


async def test_a_pause_of_minutes_costs_no_word(client: openai.AsyncOpenAI) -> None:
    sound = corpus.load(AUSTEN).astype(np.float32)
    long = np.concatenate([sound, np.zeros(150 * 16000, np.float32), sound, np.zeros(16000, np.float32)])
    answer = await client.audio.transcriptions.create(
        file=("a.flac", sound_file("flac", "flac", long, 16000)),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    assert corpus.wer(f"{AUSTEN.text} {AUSTEN.text}", answer.text) < 0.2
    assert answer.words
    times = [w.start for w in answer.words]
    assert all(t < 6.1 for t in times[: len(times) // 2])
    assert all(156 < t < 162.2 for t in times[len(times) // 2 :])


async def test_speech_without_a_pause_is_cut_where_it_is_quiet(client: openai.AsyncOpenAI) -> None:
    sound = corpus.load(CITIES).astype(np.float32)
    frames = sound[: len(sound) // 320 * 320].reshape(-1, 320)
    loud = np.convolve(np.sqrt(np.square(frames).mean(axis=1)) > 0.012, np.ones(9), "same") > 0
    dense = frames[loud].reshape(-1)
    assert len(dense) > 26 * 16000
    answer = await client.audio.transcriptions.create(
        file=("a.wav", wav_bytes(dense, 16000)), model="whisper-1"
    )
    assert corpus.wer(CITIES.text, answer.text) < 0.2


@pytest.mark.parametrize("kind", ["silence", "white"])
async def test_where_nobody_speaks_there_is_no_text(client: openai.AsyncOpenAI, kind: Any) -> None:
    file = ("a.wav", wav_bytes(corpus.noise(kind, 4.0), 16000))
    answer = await client.audio.transcriptions.create(
        file=file, model="whisper-1", response_format="verbose_json"
    )
    assert answer.text == "" and answer.segments == [] and answer.duration == 4
    stream = await client.audio.transcriptions.create(file=file, model="whisper-1", stream=True)
    assert [event.to_dict()["type"] async for event in stream] == ["transcript.text.done"]


# --- what is asked for ------------------------------------------------------------------------


async def test_a_prompt_tells_how_names_are_written(client: openai.AsyncOpenAI) -> None:
    plain = await client.audio.transcriptions.create(file=upload("austen-870"), model="whisper-1")
    assert "Dashwood" in plain.text
    prompted = await client.audio.transcriptions.create(
        file=upload("austen-870"),
        model="whisper-1",
        prompt="Jon Dashwoode was a rich man. Jon Dashwoode had a wife. Everybody knew Mr. Jon Dashwoode.",
    )
    assert "Jon Dashwoode" in prompted.text
    long = await client.audio.transcriptions.create(
        file=upload("austen-870"), model="whisper-1", prompt="It was a rainy day in the country. " * 1000
    )
    assert corpus.wer(RECORDINGS["austen-870"].text, long.text) < 0.2


async def test_options_that_change_nothing_are_taken(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(
        file=upload("austen-920"),
        model="gpt-4o-transcribe",
        language="en",
        temperature=0.4,
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 300},
        extra_body={"something": "new"},
    )
    assert corpus.wer(AUSTEN.text, answer.text) < 0.15


@pytest.mark.parametrize(
    ("wish", "param", "words"),
    [
        ({"response_format": "diarized_json"}, "response_format", "verbose_json"),
        ({"response_format": "docx"}, "response_format", "srt"),
        ({"temperature": 3}, "temperature", "less"),
        ({"language": "fr"}, "language", "LANGUAGE"),
        ({"timestamp_granularities": ["letter"]}, "timestamp_granularities[0]", "word"),
        ({"stream": "perhaps"}, "stream", "bool"),
    ],
)
async def test_bad_options_are_refused_by_name(
    client: openai.AsyncOpenAI, wish: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        await client.audio.transcriptions.create(file=upload("austen-920"), model="whisper-1", **wish)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"


async def test_models_of_another_kind_are_not_found(server: Server, client: openai.AsyncOpenAI) -> None:
    ours = {s.role: s.model for s in server.app.state.context.runtime.status.values()}
    answer = await client.audio.transcriptions.create(file=upload("austen-920"), model=ours["stt"])
    assert answer.text
    with pytest.raises(openai.NotFoundError, match=ours["stt"]) as caught:
        await client.audio.transcriptions.create(file=upload("austen-920"), model=ours["tts"])
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


# --- what is no recording ---------------------------------------------------------------------

NO_SOUND = {
    "empty": (b"", "empty"),
    "text": (b"Dear diary, today I renamed a text file.\n" * 50, "text"),
    "header": (AUSTEN.path.read_bytes()[:40], "a recording|no sound"),
    "rubbish": (b"\xff\xfe" * 1000, "a recording|no sound"),
    "video": (sound_file("mp4", None, np.zeros(0), 16000, picture=True), "no sound track"),
    "cut": (AUSTEN.path.read_bytes()[:60_000], "cut off"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", NO_SOUND)
async def test_what_is_no_recording_is_refused_with_the_reason(
    client: openai.AsyncOpenAI, what: str, stream: bool
) -> None:
    content, words = NO_SOUND[what]
    with pytest.raises(openai.APIError, match=words) as caught:
        answer = await client.audio.transcriptions.create(
            file=("speech.wav", content), model="whisper-1", stream=stream
        )
        assert stream and what == "cut"  # only here there was something to say before
        async for _ in answer:
            pass
    assert caught.value.param == "file" and caught.value.type == "invalid_request_error"


async def test_forms_that_are_none(server: Server) -> None:
    async with httpx.AsyncClient(base_url=f"{server.url}/v1/audio", timeout=30) as http:
        for request in (
            {"files": {"model": (None, "whisper-1")}},
            {"files": {"file": (None, "no file but text"), "model": (None, "whisper-1")}},
            {"json": {"file": "a.wav"}},
            {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data"}},
            {"content": b"rubbish", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            {},
        ):
            answer = await http.post("/transcriptions", **request)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["type"] == "invalid_request_error"
        files = {"file": ("a.wav", AUSTEN.path.read_bytes()), "a": ("b.wav", b"RIFF")}
        assert (await http.post("/transcriptions", files=files)).status_code == 400
        # A form as curl sends it, without a model.
        answer = await http.post("/transcriptions", files={"file": ("a.wav", AUSTEN.path.read_bytes())})
        assert corpus.wer(AUSTEN.text, answer.json()["text"]) < 0.15


async def test_a_file_that_is_too_large(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, tmp_path, CountingStt(), max_upload_mb=8, max_audio_s=30) as server:
        async with sdk(server) as client:
            for content, words in ((bytes(16_000_000), "8 MB"), (wav_bytes(speech(31), 16000), "30 s")):
                with pytest.raises(openai.APIStatusError, match=words) as caught:
                    await client.audio.transcriptions.create(file=("a.wav", content), model="whisper-1")
                assert caught.value.status_code == 413 and caught.value.param == "file"
        boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'

        async def endless() -> AsyncIterator[bytes]:
            yield boundary
            for _ in range(200):
                yield bytes(100_000)

        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            answer = await http.post(
                "/v1/audio/transcriptions",
                content=endless(),
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            )
            assert answer.status_code == 413


async def test_strangers_are_sent_away_before_their_file_is_read(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, tmp_path, CountingStt(), api_keys=["right"]) as server:
        file = ("a.wav", wav_bytes(speech(1), 16000))
        async with sdk(server, api_key="wrong") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.audio.transcriptions.create(file=file, model="whisper-1")
            assert caught.value.code == "invalid_api_key"
        async with sdk(server, api_key="right") as client:
            assert (await client.audio.transcriptions.create(file=file, model="whisper-1")).text


# --- long work --------------------------------------------------------------------------------


class WatchedStt(CountingStt):
    """Says how urgent each call was; refuses `busy` calls that can be done without."""

    def __init__(self) -> None:
        super().__init__()
        self.urgencies: list[Urgency] = []
        self.running = 0
        self.busy = 0
        self.held = False
        self.fails_at: int | None = None

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        if job.owner == "self-check":
            return await super().transcribe(audio, options, job)
        self.urgencies.append(job.urgency)
        self.fails = len(self.urgencies) == self.fails_at
        if job.urgency > Urgency.SPEECH and self.busy:
            self.busy -= 1
            raise Busy("people are talking", retry_after=0.01)
        self.running += 1
        try:
            while self.held:
                await asyncio.sleep(0.01)
            return await super().transcribe(audio, options, job)
        finally:
            self.running -= 1


def serving(models: Path, data: Path, stt: Any, **changes: Any) -> Any:
    settings = make_settings(models, data, **changes)
    return scripted(settings, vad=LoudVad(), stt=stt, llm=ScriptedLlm(), tts=ToneTts())


@pytest.fixture
def stt() -> WatchedStt:
    return WatchedStt()


@pytest.fixture
def watched(models_dir: Path, tmp_path: Path, stt: WatchedStt) -> Iterator[Server]:
    with serving(models_dir, tmp_path, stt) as server:
        yield server


def stretches(count: int) -> tuple[str, bytes]:
    """A file with `count` stretches of speech of 1 s."""
    piece = np.concatenate([speech(1), np.zeros(2 * 16000, np.float32)])
    return "a.wav", wav_bytes(np.tile(piece, count), 16000)


async def test_people_who_talk_go_first(watched: Server, stt: WatchedStt) -> None:
    stt.busy = 3
    async with sdk(watched) as client:
        answer = await client.audio.transcriptions.create(file=stretches(3), model="whisper-1")
    assert answer.text == "one two three four one two three four one two three four"
    assert stt.urgencies == [Urgency.FINAL, *[Urgency.BACKGROUND] * 5]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_work(watched: Server, stt: WatchedStt, stream: bool) -> None:
    async with sdk(watched) as client:
        stt.held = not stream  # streaming begins with the first piece
        asking = asyncio.create_task(
            client.audio.transcriptions.create(file=stretches(5), model="whisper-1", stream=stream)
        )
        if stream:
            answer = await asking
            stt.held = True
        await until(lambda: stt.running == 1)
        if stream:
            await answer.close()
        else:
            asking.cancel()
        await until(lambda: stt.running == 0)
        done = len(stt.urgencies)
        stt.held = False
        await asyncio.sleep(0.3)
        assert len(stt.urgencies) == done <= 5
        # The next one is served as if nothing had been.
        assert (await client.audio.transcriptions.create(file=stretches(1), model="whisper-1")).text


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_recogniser_that_fails_is_told(watched: Server, stt: WatchedStt) -> None:
    async with sdk(watched) as client:
        stt.fails_at = 1
        with pytest.raises(openai.InternalServerError, match="recogniser is broken"):
            await client.audio.transcriptions.create(file=stretches(2), model="whisper-1")
        stt.fails_at = 4
        stream = await client.audio.transcriptions.create(file=stretches(4), model="whisper-1", stream=True)
        heard = []
        with pytest.raises(openai.APIError, match="recogniser is broken"):
            async for event in stream:
                heard.append(event.type)
        assert set(heard) == {"transcript.text.delta"}


async def test_an_hour_takes_no_more_memory_than_a_minute(
    watched: Server, stt: WatchedStt, tmp_path: Path
) -> None:
    path = tmp_path / "hour.wav"
    minute = (np.concatenate([speech(2), np.zeros(58 * 16000, np.float32)]) * 100 + 128).astype(np.uint8)
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 16000, 1, 8)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + 60 * len(minute)) + head)
        file.write(b"data" + struct.pack("<I", 60 * len(minute)))
        for _ in range(60):
            file.write(minute.tobytes())
    async with sdk(watched) as client:
        await client.audio.transcriptions.create(file=stretches(20), model="whisper-1")
        before = memory_kb("VmRSS")
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, memory_kb("VmRSS"))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        with path.open("rb") as file:
            answer = await client.audio.transcriptions.create(
                file=file, model="whisper-1", response_format="verbose_json"
            )
        watching.cancel()
    assert answer.duration == 3600 and answer.segments
    assert [round(s.start) for s in answer.segments] == [60 * i for i in range(60)]
    assert most - before < 60_000  # the file has 58 MB, its sound would be 230 MB


# --- translation ------------------------------------------------------------------------------


@asynccontextmanager
async def multilingual(models: Path, data: Path) -> AsyncIterator[Server]:
    with running(make_settings(models, data, language="zh")) as server:
        while not (context := getattr(server.app.state, "context", None)) or not context.runtime.ready:
            assert context is None or all(s.state != "failed" for s in context.runtime.status.values())
            await asyncio.sleep(0.2)
        yield server


async def translate(client: openai.AsyncOpenAI, **wish: Any) -> Any:
    with pytest.warns(DeprecationWarning):  # OpenAI's word for its own service
        return await client.audio.translations.create(model="whisper-1", **wish)


async def test_an_english_model_says_what_would_translate(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="STT_MODEL_NAME=whisper-base"):
        await translate(client, file=upload("austen-920"))


async def test_chinese_is_heard_and_translated(models_dir: Path, tmp_path: Path) -> None:
    said = "今天天气很好，我们一起去公园散步。"
    async with multilingual(models_dir, tmp_path) as server, sdk(server) as client:
        spoken = await client.audio.speech.create(input=said, model="tts-1", voice="alloy")
        file = ("a.mp3", spoken.content)
        heard = await client.audio.transcriptions.create(
            file=file, model="whisper-1", response_format="verbose_json", timestamp_granularities=["segment"]
        )
        assert heard.language == "chinese" and corpus.cer(said, heard.text) < 0.3
        assert "".join(s.text for s in heard.segments or []) == heard.text
        english = await translate(client, file=file)
        assert "weather" in english.text.lower() and "park" in english.text.lower()
        verbose = await translate(client, file=file, response_format="verbose_json")
        TranslationVerbose.model_validate(json.loads(verbose.to_json()), strict=True)
        assert verbose.language == "english" and verbose.text == english.text
        assert " --> " in await translate(client, file=file, response_format="srt")
        # Whoever speaks English is heard in it, whatever the server's language.
        austen = await client.audio.transcriptions.create(
            file=upload("austen-920"), model="whisper-1", language="english"
        )
        assert corpus.wer(AUSTEN.text, austen.text) < 0.2
        with pytest.raises(openai.BadRequestError, match="tlh") as caught:
            await client.audio.transcriptions.create(
                file=upload("austen-920"), model="whisper-1", language="tlh"
            )
        assert caught.value.param == "language"
