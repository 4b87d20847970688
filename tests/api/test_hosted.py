"""Our engines as a service, over a real socket: what is asked is answered, what is wrong is said."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from dialogue.scripted import CountingStt, ScriptedLlm, ToneTts
from serving import Server, make_settings, scripted

import corpus
from app.audio.wav import wav_bytes
from app.roles import SAMPLE_RATE, Samples

KEY = "a-key-for-the-test"
ENGINES = {"stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}
"""Not what this is about; voice activity and voices are real."""


@pytest.fixture(scope="module")
def ours(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("hosted")
    limits = {"max_upload_mb": 4, "max_audio_s": 120}
    with scripted(make_settings(models_dir, data, api_keys=[KEY], **limits), **ENGINES) as server:
        yield server


@pytest.fixture
def client(ours: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=ours.url, headers=headers, timeout=120) as client:
        yield client


def sound(*ids: str) -> Samples:
    known = {r.id: r for r in corpus.recordings()}
    return np.concatenate([corpus.load(known[name]) for name in ids])


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def wav(*parts: Samples) -> bytes:
    return wav_bytes(np.concatenate(parts), SAMPLE_RATE)


def answered(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


# --- speech ---------------------------------------------------------------------------------------


def test_speech_is_found_between_silences(client: httpx.Client) -> None:
    first, second = sound("austen-880"), sound("austen-930")
    body = wav(silence(1), first, silence(2), second, silence(1))
    spans = answered(client.post("/v1/vad", files={"file": body}))
    begin = 3 + len(first) / SAMPLE_RATE
    before = [s for s in spans if s["end"] < begin]
    after = [s for s in spans if s["start"] > begin - 0.2]
    assert len(before) + len(after) == len(spans) and before and after
    assert 0.8 < before[0]["start"] < 1.5 and before[-1]["end"] < begin - 1.5
    assert all(s["duration"] == pytest.approx(s["end"] - s["start"], abs=2e-3) for s in spans)
    assert all(set(s) == {"start", "end", "duration"} for s in spans)
    said = (len(first) + len(second)) / SAMPLE_RATE
    assert 0.6 * said < sum(s["duration"] for s in spans) <= said + 0.3


@pytest.mark.parametrize("path", ["/v1/vad", "/v1/diarization"])
@pytest.mark.parametrize("kind", ["silence", "pink", "hum"])
def test_where_nobody_speaks_there_is_nothing(client: httpx.Client, path: str, kind: Any) -> None:
    body = wav_bytes(corpus.noise(kind, 4), SAMPLE_RATE)
    assert answered(client.post(path, files={"file": body})) == []


# --- voices ---------------------------------------------------------------------------------------


def embed(client: httpx.Client, body: bytes) -> np.ndarray:
    vector = answered(client.post("/v2/embedding", files={"file": body}))
    assert isinstance(vector, list) and all(isinstance(value, float) for value in vector)
    return np.array(vector)


def test_a_voice_is_a_flat_list_of_length_1(client: httpx.Client) -> None:
    one, same, other = (embed(client, wav(sound(n))) for n in ("austen-870", "austen-920", "cities-8"))
    assert one.shape == (192,) and np.linalg.norm(one) == pytest.approx(1, abs=1e-4)
    assert one @ same > 0.6 > 0.3 > one @ other


@pytest.mark.parametrize(
    ("container", "codec"), [("ogg", "libopus"), ("mp3", "libmp3lame"), ("flac", "flac"), ("webm", "libopus")]
)
def test_any_format_will_do(client: httpx.Client, container: str, codec: str) -> None:
    audio = sound("austen-870")
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=48000 if codec == "libopus" else 16000, layout="mono")
        pcm = (audio * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.rate = SAMPLE_RATE
        resampler = av.AudioResampler(stream.format.name, "mono", stream.rate, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    assert embed(client, out.getvalue()) @ embed(client, wav(audio)) > 0.9


# --- who speaks when ------------------------------------------------------------------------------


def right(spans: list[dict[str, Any]], truth: list[tuple[str, float, float]]) -> float:
    """The share of the speech of `truth` that is given to the right one of its people."""
    people = sorted({who for who, *_ in truth})
    labels = sorted({s["speaker"] for s in spans})
    labels += ["nobody"] * (len(people) - len(labels))

    def over(who: str, label: str) -> float:
        return sum(
            max(0.0, min(end, s["end"]) - max(start, s["start"]))
            for w, start, end in truth
            if w == who
            for s in spans
            if s["speaker"] == label
        )

    table = {(who, label): over(who, label) for who in people for label in labels}
    best = max(
        sum(table[pair] for pair in zip(people, chosen, strict=True))
        for chosen in permutations(labels, len(people))
    )
    return best / sum(end - start for _, start, end in truth)


def conversation() -> tuple[bytes, list[tuple[str, float, float]]]:
    """Three readers in turn."""
    turns = [
        ("cities", "cities-1 cities-2"),
        ("austen", "austen-870"),
        ("prompt", "prompt-dir-intro"),
        ("cities", "cities-5"),
        ("austen", "austen-920"),
        ("cities", "cities-6 cities-7"),
        ("prompt", "prompt-conf-usermenu"),
        ("austen", "austen-890 austen-930"),
    ]
    parts: list[Samples] = []
    truth: list[tuple[str, float, float]] = []
    at = 0.0
    for who, names in turns:
        part = sound(*names.split())
        parts += [part, silence(0.4)]
        truth.append((who, at, at + len(part) / SAMPLE_RATE))
        at += len(part) / SAMPLE_RATE + 0.4
    return wav(*parts), truth


def test_three_readers_in_turn_are_told_apart(client: httpx.Client) -> None:
    body, truth = conversation()
    spans = answered(client.post("/v1/diarization", files={"file": body}))
    assert all(set(s) == {"speaker", "start", "end", "duration"} for s in spans)
    assert list(dict.fromkeys(s["speaker"] for s in spans)) == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_02"]
    assert all(one["end"] <= two["start"] + 1e-6 for one, two in pairwise(spans))
    assert right(spans, truth) > 0.85  # of the rest, most are pauses of the readers


def test_two_strangers_on_the_telephone(client: httpx.Client) -> None:
    [call] = corpus.recordings("dialogue")
    spans = answered(client.post("/v1/diarization", files={"file": call.path.read_bytes()}))
    assert {s["speaker"] for s in spans} == {"SPEAKER_00", "SPEAKER_01"}
    assert right(spans, [(t.speaker, t.start, t.end) for t in call.turns]) > 0.75


def test_a_word_alone_has_one_speaker(client: httpx.Client) -> None:
    body = wav(silence(0.5), sound("prompt-goodbye"), silence(0.5))
    spans = answered(client.post("/v1/diarization", files={"file": body}))
    assert [s["speaker"] for s in spans] == ["SPEAKER_00"]


# --- whose it is ----------------------------------------------------------------------------------


def identify(
    client: httpx.Client, audio: bytes, profile: bytes, segments: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    files = {"audio_file": audio, "profile_file": profile}
    return answered(
        client.post("/v1/speaker-identification", files=files, data={"segments": json.dumps(segments)})
    )


def test_segments_of_the_user_are_found(client: httpx.Client) -> None:
    body, truth = conversation()
    segments = [{"start": start, "end": end} for _, start, end in truth]
    said = identify(client, body, wav(sound("austen-880"), silence(1), sound("austen-930")), segments)
    assert [v["is_user"] for v in said] == [who == "austen" for who, *_ in truth]
    assert all(v["person_id"] is None for v in said)


def test_segments_of_one_speaker_are_judged_together(client: httpx.Client) -> None:
    """Of half a second nobody can be known; what else the same speaker says makes it plain."""
    body = wav(sound("cities-1"), sound("cities-2"))
    profile = wav(sound("cities-5", "cities-6"))
    short = {"start": 1.0, "end": 1.6}
    rest = {"start": 1.6, "end": 7.5}
    nobody = {"start": 500, "end": 501}
    alone = identify(client, body, profile, [short, rest, nobody])
    assert [v["is_user"] for v in alone] == [False, True, False]
    together = identify(client, body, profile, [s | {"speaker": "SPEAKER_00"} for s in (short, rest)])
    assert [v["is_user"] for v in together] == [True, True]
    assert identify(client, body, profile, []) == []


@pytest.mark.parametrize(
    "segments", ["", "nonsense", '{"start": 0}', '[{"start": -1, "end": 2}]', '[{"end": 2}]']
)
def test_wrong_segments_are_named(client: httpx.Client, segments: str) -> None:
    body = wav(sound("cities-1"))
    response = client.post(
        "/v1/speaker-identification",
        files={"audio_file": body, "profile_file": body},
        data={"segments": segments},
    )
    assert response.status_code == 422 and response.json()["field"] == "segments"


def test_a_profile_without_speech_is_refused(client: httpx.Client) -> None:
    files = {"audio_file": wav(sound("cities-1")), "profile_file": wav(silence(6))}
    response = client.post("/v1/speaker-identification", files=files, data={"segments": "[]"})
    assert response.status_code == 422 and response.json()["field"] == "profile_file"


# --- what is wrong --------------------------------------------------------------------------------

ALL = ["/v1/vad", "/v2/embedding", "/v1/diarization"]


@pytest.mark.parametrize("path", [*ALL, "/v1/speaker-identification"])
def test_strangers_are_refused(ours: Server, path: str) -> None:
    body = wav(sound("cities-1"))
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        response = httpx.post(ours.url + path, files={"file": body}, headers=headers)
        assert response.status_code == 401 and response.json()["code"] == "NOT_ALLOWED"


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("body", [b"", b"no sound at all", b"RIFF\0\0\0\0WAVEfmt ", b"\xff" * 3000])
def test_what_is_no_recording_is_refused(client: httpx.Client, path: str, body: bytes) -> None:
    response = client.post(path, files={"file": body})
    assert response.status_code == 422
    assert response.json()["code"] == "BAD_AUDIO" and response.json()["field"] == "file"


@pytest.mark.parametrize("path", ALL)
def test_a_form_without_a_file_is_refused(client: httpx.Client, path: str) -> None:
    for given in ({"files": {"other": b"x"}}, {"data": {"file": "text"}}, {"content": b"x"}, {"json": {}}):
        response = client.post(path, **given)
        assert response.status_code == 422 and response.json()["field"] == "file", given


def test_a_broken_form_is_refused(client: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = client.post("/v1/vad", content=b"--x\r\nnonsense", headers=headers)
    assert response.status_code in (400, 422) and response.json()["code"] == "BAD_INPUT"


def test_too_little_to_tell_a_voice_is_refused(client: httpx.Client) -> None:
    response = client.post("/v2/embedding", files={"file": wav(sound("cities-1")[:7900])})
    assert response.status_code == 422 and "0.5 s" in response.json()["message"]
    embed(client, wav(sound("cities-1")[:8000]))


@pytest.mark.parametrize("path", ALL)
def test_too_much_is_refused(client: httpx.Client, path: str) -> None:
    large = client.post(path, files={"file": b"RIFF" + bytes(7_000_000)})
    assert large.status_code == 413 and large.json()["code"] == "TOO_LARGE"


def test_too_long_is_refused(client: httpx.Client) -> None:
    quiet = io.BytesIO()
    with av.open(quiet, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 130 * 8000), np.int16), "s16", "mono")
        frame.rate = 8000
        for piece in av.AudioResampler("s16", "mono", 8000, frame_size=4096).resample(frame):
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    response = client.post("/v1/diarization", files={"file": quiet.getvalue()})
    assert response.status_code == 413 and "120 s" in response.json()["message"]


def test_a_server_may_have_nobody_who_tells_voices_apart(models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(models_dir, tmp_path, speaker_provider="none")
    with scripted(settings, **ENGINES) as server, httpx.Client(base_url=server.url) as client:
        for path in ("/v2/embedding", "/v1/diarization"):
            response = client.post(path, files={"file": wav(sound("cities-1"))})
            assert response.status_code == 404 and "SPEAKER_PROVIDER" in response.json()["message"]
        assert answered(client.post("/v1/vad", files={"file": wav(sound("cities-1"))}))
