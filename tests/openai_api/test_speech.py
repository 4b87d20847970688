"""`/v1/audio/speech` with OpenAI's own client; what it says is heard again by `/v1/audio/transcriptions`."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import openai
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, speech
from serving import Server, make_settings, scripted

import corpus
from app.roles import AudioChunk, Job, SpeechOptions

TEXT = "The quick brown fox jumps over the lazy dog. Then it runs into the deep, dark forest."
# What the file is, as FFmpeg names it: container, codec, rate.
KINDS = {
    "mp3": ("audio/mpeg", "mp3", "mp3float", 24000),
    "opus": ("audio/ogg; codecs=opus", "ogg", "opus", 48000),
    "aac": ("audio/aac", "aac", "aac", 24000),
    "flac": ("audio/flac", "flac", "flac", 24000),
    "wav": ("audio/wav", "wav", "pcm_s16le", 24000),
}


def sdk(server: Server, **changes: Any) -> openai.AsyncOpenAI:
    given: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any", "max_retries": 0}
    return openai.AsyncOpenAI(**(given | changes))


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(server) as client:
        yield client


async def heard(client: openai.AsyncOpenAI, file: bytes) -> str:
    return (await client.audio.transcriptions.create(file=("speech", file), model="whisper-1")).text


def decoded(file: bytes) -> tuple[str, str, int, float]:
    """Container, codec, rate and seconds."""
    with av.open(io.BytesIO(file)) as container:
        [stream] = container.streams.audio
        assert stream.codec_context.channels == 1
        samples = sum(frame.samples for frame in container.decode(stream))
        return container.format.name, stream.codec_context.name, stream.rate, samples / stream.rate


async def said(client: openai.AsyncOpenAI, text: str = TEXT, **wish: Any) -> bytes:
    answer = await client.audio.speech.create(**({"input": text, "model": "tts-1", "voice": "alloy"} | wish))
    return answer.content


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_every_format_says_the_text(client: openai.AsyncOpenAI, kind: Any) -> None:
    media_type, container, codec, rate = KINDS[kind]
    answer = await client.audio.speech.create(
        input=TEXT, model="gpt-4o-mini-tts", voice="coral", response_format=kind, instructions="Be cheerful."
    )
    assert answer.response.headers["content-type"] == media_type
    name, coding, samples, seconds = decoded(answer.content)
    assert (container in name, coding, samples) == (True, codec, rate)
    assert 3 < seconds < 9
    assert corpus.wer(TEXT, await heard(client, answer.content)) < 0.3


async def test_pcm_is_bare_samples_and_mp3_is_the_default(client: openai.AsyncOpenAI) -> None:
    pcm, mp3 = await said(client, response_format="pcm"), await said(client)
    _, codec, _, seconds = decoded(mp3)
    assert codec == "mp3float"
    assert len(pcm) / 2 / 24000 == pytest.approx(seconds, rel=0.1)
    samples = np.frombuffer(pcm, "<i2")
    assert 3000 < np.abs(samples).max() <= 32767
    wav = await said(client, response_format="wav")
    assert wav[:4] == b"RIFF" and len(wav) - 44 == pytest.approx(len(pcm), rel=0.1)


@pytest.mark.parametrize(
    ("speed", "least", "most"), [(0.25, 3.3, 4.6), (0.5, 1.7, 2.3), (2, 0.4, 0.6), (4, 0.2, 0.3)]
)
async def test_speed(client: openai.AsyncOpenAI, speed: float, least: float, most: float) -> None:
    plain = len(await said(client, response_format="pcm")) / 48000
    file = await said(client, response_format="wav", speed=speed)
    assert least < (len(file) - 44) / 48000 / plain < most
    if 0.5 <= speed <= 2:
        assert corpus.wer(TEXT, await heard(client, file)) < 0.3


async def test_long_text_is_said_to_its_end(client: openai.AsyncOpenAI) -> None:
    text = " ".join(
        r.text for r in corpus.recordings() if r.id in ("austen-870", "prompt-dir-intro", "beckett")
    )
    file = await said(client, text, response_format="opus")
    again = await heard(client, file)
    assert corpus.wer(text, again) < 0.3
    assert "fail better" in again.lower()


def test_the_client_without_asyncio(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "speech.mp3"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client,
        client.audio.speech.with_streaming_response.create(
            input="Hello there.", model="tts-1", voice="nova"
        ) as answer,
    ):
        answer.stream_to_file(path)
    assert 0.5 < decoded(path.read_bytes())[3] < 3


# --- streaming --------------------------------------------------------------------------------


async def test_events_hold_the_file(client: openai.AsyncOpenAI) -> None:
    for kind in ("mp3", "pcm"):
        answer = await client.audio.speech.create(
            input=TEXT, model="gpt-4o-mini-tts", voice="sage", response_format=kind, stream_format="sse"
        )
        assert answer.response.headers["content-type"].startswith("text/event-stream")
        *blocks, last = answer.text.split("\n\n")
        assert last == "" and all(block.startswith("data: {") for block in blocks)
        *deltas, done = (json.loads(block.removeprefix("data: ")) for block in blocks)
        assert len(deltas) > 3 and {d["type"] for d in deltas} == {"speech.audio.delta"}
        file = b"".join(base64.b64decode(d["audio"], validate=True) for d in deltas)
        if kind == "mp3":
            assert corpus.wer(TEXT, await heard(client, file)) < 0.3
            seconds = decoded(file)[3]
        else:
            seconds = len(file) / 48000
        usage = done["usage"]
        assert done["type"] == "speech.audio.done" and usage["input_tokens"] > 10
        assert usage["output_tokens"] == pytest.approx(seconds * 20, rel=0.1)
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


class HeldTts(ToneTts):
    """Says the first piece, and the others once it is let; may fail at one."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.fails_at: int | None = None

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        if job.owner == "self-check":
            yield AudioChunk(speech(1), self.sample_rate)
            return
        self.running += 1
        try:
            while self.said and not self.go.is_set():
                await asyncio.sleep(0.01)
            self.fails = len(self.said) == self.fails_at
            async for chunk in super().speak(text, options, job):
                yield AudioChunk(speech(chunk.duration), self.sample_rate)
        finally:
            self.running -= 1


@pytest.fixture
def tts() -> HeldTts:
    return HeldTts()


@pytest.fixture
def held(models_dir: Path, tmp_path: Path, tts: HeldTts) -> Iterator[Server]:
    settings = make_settings(models_dir, tmp_path)
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": tts}
    with scripted(settings, **engines) as server:
        yield server


@pytest.mark.parametrize("kind", [*KINDS, "pcm"])
@pytest.mark.parametrize("form", ["audio", "sse"])
async def test_the_first_sentence_leaves_before_the_second_is_made(
    held: Server, tts: HeldTts, kind: Any, form: Any
) -> None:
    tts.seconds_a_word = 0.2
    async with (
        sdk(held) as client,
        client.audio.speech.with_streaming_response.create(
            input=TEXT, model="tts-1", voice="alloy", response_format=kind, stream_format=form
        ) as answer,
    ):
        pieces = answer.iter_bytes()
        whole = b""
        while len(whole) < 2000:
            whole += await anext(pieces)
        assert len(tts.said) == 1
        tts.go.set()
        whole += b"".join([piece async for piece in pieces])
    assert len(tts.said) == 2
    if form == "audio" and kind != "pcm":
        assert decoded(whole)[3] == pytest.approx(0.2 * len(TEXT.split()), abs=0.2)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_stops_the_work(held: Server, tts: HeldTts, begun: bool) -> None:
    if not begun:
        tts.said.append("something, so that the first piece is held")
    async with sdk(held) as client:
        asking = client.audio.speech.with_streaming_response.create(input=TEXT, model="tts-1", voice="alloy")
        if begun:
            async with asking as answer:
                await anext(answer.iter_bytes())
                await until(lambda: tts.running == 1)
        else:
            waiting = asyncio.create_task(asking.__aenter__())
            await until(lambda: tts.running == 1)
            waiting.cancel()
        await until(lambda: tts.running == 0)
        assert not tts.go.is_set() and len(tts.said) == 1
        tts.go.set()
        assert decoded(await said(client))[3] > 0.5


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_a_voice_that_fails_is_told(held: Server, tts: HeldTts) -> None:
    tts.go.set()
    async with sdk(held) as client:
        tts.fails_at = 0
        with pytest.raises(openai.InternalServerError, match="voice is broken"):
            await said(client)
        tts.fails_at = 1
        answer = await client.audio.speech.create(
            input=TEXT, model="tts-1", voice="alloy", stream_format="sse"
        )
        last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["error"]["message"] == "the voice is broken" and last["error"]["type"] == "server_error"
        # A file that is not whole does not look as if it were.
        tts.said.clear()
        with pytest.raises(openai.APIConnectionError):
            await said(client)


# --- what is asked for ------------------------------------------------------------------------


async def test_voices_are_ours_or_openais(server: Server, client: openai.AsyncOpenAI) -> None:
    ours = server.app.state.context.runtime._engines["tts"].voices()[0].name
    for voice in ("alloy", "marin", ours, {"id": ours}):
        assert len(await said(client, "Hello.", voice=voice)) > 1000
    for voice in ("bob", {"id": "voice_1234"}, "../../etc/passwd"):
        with pytest.raises(openai.BadRequestError, match=ours) as caught:
            await said(client, voice=voice)
        assert caught.value.param == "voice"


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"input": "x" * 4097}, "input"),
        ({"input": ""}, "input"),
        ({"input": "?!… 🙂"}, "input"),
        ({"speed": 5}, "speed"),
        ({"speed": 0.1}, "speed"),
        ({"response_format": "midi"}, "response_format"),
        ({"stream_format": "udp"}, "stream_format"),
        ({"voice": 7}, "voice"),
        ({"voice": {"name": "x"}}, "voice"),
    ],
)
async def test_bad_requests_are_refused_by_name(
    client: openai.AsyncOpenAI, wish: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await said(client, **wish)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"


async def test_models_of_another_kind_are_not_found(server: Server, client: openai.AsyncOpenAI) -> None:
    ours = {s.role: s.model for s in server.app.state.context.runtime.status.values()}
    assert await said(client, "Hello.", model=ours["tts"])
    with pytest.raises(openai.NotFoundError, match=ours["tts"]) as caught:
        await said(client, "Hello.", model=ours["stt"])
    assert caught.value.code == "model_not_found"
