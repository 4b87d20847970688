"""Whose voice it is: recordings to know people by, and what a stream makes of them. Voices are told apart by
how loud they are here; `test_wearable_voices` has people's."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from app_simulator import App, app, pcm
from dialogue.scripted import CountingStt, silence, speech
from scripted_voices import LoudnessVoices, voice, wav
from serving import Server, make_settings, scripted

from app.dialogue.speakers import HALF_S, KNOWN_DISTANCE
from app.roles import Samples

PAUSE = pcm(silence(1.5))
ME, ADA, BOB = 10, 6, 4
WORDS = " ".join(
    f"{a} {b}" for a in ("red", "green", "blue", "old", "new") for b in ("cat", "dog", "hen", "cow")
)
KEYS = [f"people-{n}" for n in range(100)]


@pytest.fixture(scope="module")
def engines(engines: dict[str, Any]) -> dict[str, Any]:
    return {**engines, "stt": CountingStt(WORDS)}


@pytest.fixture(scope="module")
def voices() -> LoudnessVoices:
    return LoudnessVoices()


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, engines: dict[str, Any], voices: LoudnessVoices
) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("people")
    settings = make_settings(data / "none", data, api_keys=KEYS, max_sessions=5)
    with scripted(settings, **engines, speaker=voices) as server:
        yield server


@pytest.fixture(scope="module")
def _people_keys() -> Iterator[str]:
    return iter(KEYS)


@pytest.fixture
def mine(_people_keys: Iterator[str]) -> str:
    """A key of a user who has said nothing yet."""
    return next(_people_keys)


@asynccontextmanager
async def rest(server: Server, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


async def upload(client: httpx.AsyncClient, *sounds: Samples, path: str = "/v3/upload-audio") -> Any:
    answer = await client.post(path, files={"file": ("a.wav", wav(*sounds), "audio/wav")})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def add_person(client: httpx.AsyncClient, name: str) -> str:
    return str((await client.post("/v1/users/people", json={"name": name})).json()["id"])


async def said(phone: App, who: int, seconds: float = 4) -> None:
    """Somebody says words, and they are shown."""
    before = len(phone.text.split())
    await phone.play([*pcm(voice(who, seconds)), *PAUSE])
    words = min(int(seconds * 4), len(WORDS.split()))
    await phone.until(lambda: len(phone.text.split()) >= before + words - 1, 20)


def whose(phone: App) -> list[tuple[int, bool, str | None]]:
    return [(s["speaker_id"], s["is_user"], s["person_id"]) for s in phone.shown]


async def kept(client: httpx.AsyncClient) -> list[tuple[int, bool, str | None]]:
    (conversation, *_) = (await client.get("/v1/conversations")).json()
    return [(s["speaker_id"], s["is_user"], s["person_id"]) for s in conversation["transcript_segments"]]


async def becomes(client: httpx.AsyncClient, wanted: list[tuple[int, bool, str | None]]) -> None:
    """What is shown is stored moments later."""
    async with asyncio.timeout(20):
        while (found := await kept(client)) != wanted:
            await asyncio.sleep(0.05)
    assert found == wanted


# --- on the stream --------------------------------------------------------------------------------


async def test_the_user_is_known_by_a_recording(place: Server, mine: str) -> None:
    async with rest(place, mine) as client:
        assert (await client.get("/api/v1/speech-profile")).status_code == 404
        await upload(client, voice(ME, 8))
        assert (await client.get("/v3/speech-profile")).json() == {"has_profile": True}
        known = (await client.get("/api/v1/speech-profile")).json()
        assert known["person_id"] == "user" and known["speech_seconds"] == pytest.approx(8, abs=0.5)
        async with app(place, mine) as phone:
            await phone.status("ready")
            await said(phone, ADA)
            await said(phone, ME)
            assert whose(phone) == [(0, False, None), (1, False, None)], "there is not enough to be sure"
            ids = [s["id"] for s in phone.shown]
            await said(phone, ADA)
            await said(phone, ME)
            # Now there is, and what was said before is the user's as well, in the same segments.
            wanted = [(0, False, None), (1, True, None)] * 2
            await phone.until(lambda: whose(phone) == wanted)
            assert [s["id"] for s in phone.shown][:2] == ids
            assert all(s["speech_profile_processed"] for s in phone.shown)
            await becomes(client, wanted)
        # Whoever comes back is known at once.
        phone.segments.clear()
        async with app(place, mine) as phone:
            await phone.status("ready")
            await said(phone, ME, 2)
            await phone.until(lambda: whose(phone)[-1] == (1, True, None))


async def test_who_is_forgotten_is_nobody_any_more(place: Server, mine: str) -> None:
    async with rest(place, mine) as client, app(place, mine) as phone:
        key = (await upload(client, voice(ME, 8)))["url"]
        await phone.status("ready")
        await said(phone, ME, 7)
        await phone.until(lambda: whose(phone) == [(0, True, None)])
        assert (await client.delete("/v3/speech-profile")).status_code == 200
        await phone.until(lambda: whose(phone) == [(0, False, None)])
        await becomes(client, [(0, False, None)])
        assert (await client.get("/v3/speech-profile")).json() == {"has_profile": False}
        assert (await client.get("/api/v1/speech-profile")).status_code == 404
        assert not (place.settings.data_dir / "objects" / key).exists()
        assert (await client.delete("/v3/speech-profile")).status_code == 200
        # And is known again as soon as there is a recording.
        await upload(client, voice(ME, 8), path="/v3/upload-audio")
        await phone.until(lambda: whose(phone) == [(0, True, None)])


async def test_the_user_is_not_looked_for_where_the_app_does_not_ask(place: Server, mine: str) -> None:
    async with rest(place, mine) as client:
        await upload(client, voice(ME, 8))
        bob = await add_person(client, "Bob")
        await upload(client, voice(BOB, 8), path=f"/v1/users/people/{bob}/speech-samples")
        async with app(place, mine, include_speech_profile=False) as phone:
            await phone.status("ready")
            await said(phone, ME, 7)
            await said(phone, BOB, 7)
            await phone.until(lambda: whose(phone) == [(0, False, None), (1, False, bob)])


async def test_people_are_known_by_recordings(place: Server, mine: str) -> None:
    async with rest(place, mine) as client, app(place, mine) as phone:
        await phone.status("ready")
        ada, bob = await add_person(client, "Ada"), await add_person(client, "Bob")
        for who, id_ in ((ADA, ada), (BOB, bob)):
            path = f"/v1/users/people/{id_}/speech-samples"
            assert (await client.get(path)).status_code == 404
            told = await upload(client, voice(who, 6), path=path)
            assert told == (await client.get(path)).json() and told["person_id"] == id_
        for who in (BOB, ADA, ME):
            await said(phone, who, 6)
        await phone.until(lambda: whose(phone) == [(0, False, bob), (1, False, ada), (2, False, None)])
        assert (await client.delete(f"/v1/users/people/{ada}/speech-samples/0")).status_code == 204
        await phone.until(lambda: whose(phone) == [(0, False, bob), (1, False, None), (2, False, None)])
        # Somebody who is deleted is forgotten with their voice; words are still stored.
        assert (await client.delete(f"/v1/users/people/{bob}")).status_code == 204
        await said(phone, BOB, 3)
        await becomes(client, [(0, False, None), (1, False, None), (2, False, None), (0, False, None)])


async def test_the_user_says_who_it_is_and_that_is_learnt(place: Server, mine: str) -> None:
    async with rest(place, mine) as client:
        ada = await add_person(client, "Ada")
        path = f"/v1/users/people/{ada}/speech-samples"
        async with app(place, mine) as phone:
            await phone.status("ready")
            await said(phone, ADA, 3)
            await said(phone, BOB, 3)
            (first, _) = phone.shown
            await phone.say(
                type="speaker_assigned",
                speaker_id=0,
                person_id=ada,
                person_name="Ada",
                segment_ids=[first["id"]],
            )
            await phone.until(lambda: whose(phone) == [(0, False, ada), (1, False, None)])
            assert (await client.get(path)).status_code == 404, "three seconds are too little to know a voice"
            await said(phone, ADA, 4)
            async with asyncio.timeout(20):
                while (await client.get(path)).status_code == 404:
                    await asyncio.sleep(0.05)
            learnt = (await client.get(path)).json()
            assert learnt["recording"] is False and 5 < learnt["speech_seconds"] < 8
            assert whose(phone) == [(0, False, ada), (1, False, None), (0, False, ada)]
        # In another conversation the voice is known without a word.
        assert (await client.post("/v1/conversations")).status_code == 200
        place.app.state.context.around.clear()
        async with app(place, mine) as phone:
            await phone.status("ready")
            await said(phone, BOB, 6)
            await said(phone, ADA, 6)
            await phone.until(lambda: whose(phone) == [(0, False, None), (1, False, ada)])


async def test_who_says_their_name_is_suggested_once(
    place: Server, mine: str, engines: dict[str, Any]
) -> None:
    stt, before = engines["stt"], engines["stt"].words
    stt.words = "Well, my name is Carol and I like it here.".split()
    try:
        async with rest(place, mine) as client, app(place, mine) as phone:
            await phone.status("ready")
            for who in (ADA, ADA, BOB):
                await said(phone, who, 2.5)
            # What was told is told before what comes later.
            carol = await add_person(client, "carol")
            await said(phone, 8, 2.5)
            await phone.until(lambda: len(suggestions(phone)) == 3)
            told = [(e["speaker_id"], e["person_id"], e["person_name"]) for e in suggestions(phone)]
            assert told == [(0, "", "Carol"), (1, "", "Carol"), (2, carol, "carol")]
            ids = {s["id"]: s["speaker_id"] for s in phone.shown}
            assert [ids[e["segment_id"]] for e in suggestions(phone)] == [0, 1, 2]
    finally:
        stt.words = before


def distance_factor(seconds: float) -> float:
    """By how much a cosine is corrected for length, with somebody enrolled."""
    return math.sqrt((1 + HALF_S / seconds) * (1 + HALF_S / 10))


def suggestions(phone: App) -> list[dict[str, Any]]:
    return [e for e in phone.events if e["type"] == "speaker_label_suggestion"]


async def test_who_is_nearly_recognised_is_suggested(
    place: Server, mine: str, voices: LoudnessVoices, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rest(place, mine) as client, app(place, mine) as phone:
        await phone.status("ready")
        ada = await add_person(client, "Ada")
        await upload(client, voice(ADA, 6), path=f"/v1/users/people/{ada}/speech-samples")
        embed = voices.embed

        # After nine seconds it is a little farther than is sure.
        cosine = (1 - KNOWN_DISTANCE - 0.05) / distance_factor(9)

        async def hoarse(audio: Samples, job: Any) -> Any:
            plain, other = await embed(audio, job), await embed(voice(17, 1), job)
            other = other - (other @ plain) * plain
            return cosine * plain + math.sqrt(1 - cosine**2) * other / np.linalg.norm(other)

        monkeypatch.setattr(voices, "embed", hoarse)
        await said(phone, ADA, 3)
        assert suggestions(phone) == []
        await said(phone, ADA, 6)
        told = await phone.event("speaker_label_suggestion")
        assert (told["person_id"], told["person_name"], told["speaker_id"]) == (ada, "Ada", 0)
        await said(phone, ADA, 6)
        assert len(suggestions(phone)) == 1
        assert {w[1:] for w in whose(phone)} == {(False, None)}


async def test_labels_and_names_stay_in_another_process(
    tmp_path: Path, engines: dict[str, Any], voices: LoudnessVoices
) -> None:
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=["k"])
    with (
        scripted(settings, **engines, speaker=voices) as one,
        scripted(settings, **engines, speaker=voices) as other,
    ):
        async with rest(one, "k") as client, app(one, "k") as phone:
            ada = await add_person(client, "Ada")
            await phone.status("ready")
            for who in (BOB, ME, ADA):
                await said(phone, who, 3)
            await phone.say(
                type="speaker_assigned", speaker_id=2, person_id=ada, person_name="Ada", segment_ids=[]
            )
            wanted = [(0, False, None), (1, False, None), (2, False, ada)]
            await phone.until(lambda: whose(phone) == wanted)
            await said(phone, BOB, 3)
            await becomes(client, [*wanted, (0, False, None)])
            for server, who, number in ((other, ADA, 2), (other, 8, 3), (one, ME, 1), (one, 8, 3)):
                await phone.drop()
                phone.server = server
                ready = phone.statuses.count("ready")
                await phone.connect()
                await phone.until(lambda ready=ready: phone.statuses.count("ready") > ready)
                await said(phone, who, 3)
                assert whose(phone)[-1] == (number, False, ada if who == ADA else None)
                await becomes(client, whose(phone))
            (conversation,) = (await client.get("/v1/conversations")).json()
            assert "voices" not in conversation
            # What was known of the voices is not kept longer than the conversation goes on.
            assert (await client.post("/v1/conversations")).status_code == 200
            owner = other.app.state.context.access.owner({"authorization": "Bearer k"})
            (record,) = await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(
                    other.app.state.context.diary.conversations(owner),
                    other.app.state.context.days._sweeping.get_loop(),
                )
            )
            assert record.status == "completed" and record.voices is None


# --- recordings ------------------------------------------------------------------------------------


async def test_another_encoder_learns_from_the_recordings_anew(
    place: Server, mine: str, voices: LoudnessVoices
) -> None:
    async with rest(place, mine) as client:
        await upload(client, voice(ME, 8))
        before = (await client.get("/api/v1/speech-profile")).json()
        voices.model = "another"
        try:
            async with app(place, mine) as phone:
                await phone.status("ready")
                await said(phone, ME, 7)
                await phone.until(lambda: whose(phone) == [(0, True, None)])
            after = (await client.get("/api/v1/speech-profile")).json()
            assert (before["encoder"], after["encoder"]) == ("scripted/loudness", "scripted/another")
        finally:
            voices.model = "loudness"


LOUD = (np.sign(speech(6)) * np.float32(0.99)).astype(np.float32)


@pytest.mark.parametrize(
    ("sounds", "reason"),
    [
        ((voice(ME, 4.9),), "5 to 120 seconds"),
        ((voice(ME, 121),), "5 to 120 seconds"),
        ((silence(8),), "of speech"),
        ((voice(ME, 2), silence(5)), "of speech"),
        ((voice(ME, 5), silence(1), voice(ADA, 4)), "more than one"),
        ((LOUD,), "overdriven"),
    ],
)
async def test_what_will_not_do_is_refused_with_the_reason(
    place: Server, mine: str, sounds: tuple[Samples, ...], reason: str
) -> None:
    async with rest(place, mine) as client:
        for method, path in (("POST", "/v3/upload-audio"), ("PUT", "/api/v1/speech-profile")):
            files = {"file": ("a.wav", wav(*sounds), "audio/wav")}
            answer = await client.request(method, path, files=files)
            assert answer.status_code == 422 and answer.json()["field"] == "file"
            assert reason in answer.json()["message"]
        assert (await client.get("/v3/speech-profile")).json() == {"has_profile": False}


async def test_recordings_of_strangers_are_refused(
    place: Server, mine: str, _people_keys: Iterator[str]
) -> None:
    async with rest(place, mine) as client, rest(place, next(_people_keys)) as other:
        ada = await add_person(other, "Ada")
        path = f"/v1/users/people/{ada}/speech-samples"
        files = {"file": ("a.wav", wav(voice(ADA, 6)), "audio/wav")}
        assert (await client.post(path, files=files)).status_code == 404
        assert (await client.delete(path)).status_code == 404
        assert (await client.get(path)).status_code == 404
        assert (await other.post(path, files=files)).status_code == 200
        assert (await other.post(path, files={"file": wav(voice(ADA, 31))})).status_code == 422


async def test_any_form_of_recording_will_do(place: Server, mine: str) -> None:
    import av

    file = Path(place.settings.data_dir) / "profile.flac"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        samples = (voice(ME, 7) * 32767).astype(np.int16)
        for at in itertools.takewhile(lambda n: n < len(samples), itertools.count(0, 1600)):
            frame = av.AudioFrame.from_ndarray(samples[None, at : at + 1600], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    async with rest(place, mine) as client:
        answer = await client.put("/api/v1/speech-profile", files={"file": file.read_bytes()})
        assert answer.status_code == 200 and answer.json()["recording"] is True
        assert (await client.delete("/api/v1/speech-profile")).status_code == 204
