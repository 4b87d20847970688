"""Recordings by signed link: whole, in parts, altered, gone; from a folder and from a bucket."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from s3_server import S3Server, s3_server
from serving import Server, make_settings, scripted
from wire_client import join, new_session

KEYS = ["a-key-of-ann", "a-key-of-ben"]


def settings_of(bucket: S3Server | None, url: str | None) -> dict[str, object]:
    if bucket is None:
        return {}
    return {
        "object_store_url": url,
        "s3_endpoint_url": bucket.access.endpoint_url,
        "s3_region": bucket.access.region,
        "s3_access_key_id": bucket.access.key_id,
        "s3_secret_access_key": bucket.access.secret,
    }


@pytest.fixture(scope="module", params=["folder", "s3"])
def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("objects")
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}

    def settings(bucket: S3Server | None) -> Any:
        where = settings_of(bucket, bucket and bucket.bucket("recordings") + "/here")
        return make_settings(folder / "none", folder, **where)

    if request.param == "folder":
        with scripted(settings(None), **engines) as server:
            yield server
    else:
        (folder / "s3").mkdir()
        with s3_server(folder / "s3") as bucket, scripted(settings(bucket), **engines) as server:
            yield server


@dataclass
class Heard:
    """A kept turn, its WAV, and somebody who shows no key."""

    turn: dict[str, Any]
    wav: bytes
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return str(self.turn["audio_url"])

    async def part(self, asked: str, **more: str) -> httpx.Response:
        return await self.http.get(self.url, headers={"Range": asked, **more})


@pytest.fixture
async def heard(serving: Server) -> AsyncIterator[Heard]:
    session = await new_session(serving.url)
    async with join(serving.url, session) as client:
        await client.until("session_ready")
        await client.play(speech(0.8))
        await client.play(silence(1.5))
        await client.until("turn_complete")
    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as http:
        path = f"/api/v1/sessions/{session['session_id']}/turns"
        async with asyncio.timeout(60):
            while not (turns := (await http.get(path)).json()):
                await asyncio.sleep(0.02)
        wav = (await http.get(f"{path}/{turns[0]['turn_id']}/audio")).content
        yield Heard(turns[0], wav, http)


async def test_a_link_gives_the_recording_and_its_parts(heard: Heard) -> None:
    whole = await heard.http.get(heard.url)
    assert whole.status_code == 200 and whole.content == heard.wav
    with wave.open(io.BytesIO(whole.content)) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(heard.turn["audio_seconds"])
    assert whole.headers["content-type"] == "audio/wav" and whole.headers["accept-ranges"] == "bytes"
    name = heard.turn["audio_key"].rpartition("/")[2]
    assert whole.headers["content-disposition"] == f'inline; filename="{name}"'
    assert whole.headers["cache-control"] == "private, no-store"
    assert whole.headers["x-content-type-options"] == "nosniff"
    size = len(heard.wav)
    for asked, first, last in (
        ("bytes=0-", 0, size - 1),
        ("bytes=100-199", 100, 199),
        (f"bytes={size - 1}-", size - 1, size - 1),
        ("bytes=-10", size - 10, size - 1),
        (f"bytes=-{10 * size}", 0, size - 1),
        (f"bytes=44-{size * 2}", 44, size - 1),
    ):
        part = await heard.part(asked)
        assert part.status_code == 206 and part.content == heard.wav[first : last + 1]
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    for asked in (f"bytes={size}-", "bytes=-0"):
        none = await heard.part(asked)
        assert (none.status_code, none.headers["content-range"]) == (416, f"bytes */{size}")
    for asked in ("bytes=5-2", "bytes=0-1,5-9", "seconds=0-1", "bytes=-", "bytes=a-b"):
        assert (await heard.part(asked)).content == heard.wav, "what is not understood is ignored"
    assert (await heard.part("bytes=0-9", **{"If-Range": '"x"'})).status_code == 200
    head = await heard.http.head(heard.url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(size)


async def test_altered_links_are_refused_and_nothing_is_listed(heard: Heard, serving: Server) -> None:
    links = serving.app.state.context.links
    key = heard.turn["audio_key"]
    assert (await heard.http.get(heard.url + "0")).status_code == 403
    for url in (
        heard.url.replace("owner=local", "owner=ben"),
        heard.url.replace("expires=", "expires=9"),
        heard.url.replace(".wav", ".wax"),
        heard.url.replace(key, "colloquy.db"),
        heard.url.replace(key, "..%2Fcolloquy.db"),
        f"/objects/{key}",
        "/objects/",
        "/objects/raw_inputs/",
        links.link(key, "local", -1),
    ):
        refused = await heard.http.get(url)
        assert refused.status_code == 403 and refused.json()["code"] == "BAD_LINK", url
        assert key not in refused.text
    assert (await heard.http.get(links.link("raw_inputs/none.wav", "local"))).status_code == 404
    assert (await heard.http.get(links.link(key, "ben"))).status_code != 200, "it is sealed for its owner"


async def test_what_is_deleted_is_gone_from_its_link(heard: Heard, serving: Server) -> None:
    assert (await heard.http.get(heard.url)).status_code == 200
    other = await heard.http.get(heard.url, headers={"Authorization": "Bearer nobody"})
    assert other.status_code == 200, "a link needs no key"
    objects = serving.app.state.context.objects
    # The store belongs to the server's event loop, but neither kind keeps anything of it.
    await objects.delete(heard.turn["audio_key"])
    assert (await heard.http.get(heard.url)).status_code == 404


async def test_links_are_only_told_to_the_owner(tmp_path: Path) -> None:
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=KEYS)
    with scripted(settings, **engines) as server:
        ann, ben = (
            httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) for key in KEYS
        )
        async with ann, ben:
            session = (await ann.post("/api/v1/sessions")).json()
            path = f"/api/v1/sessions/{session['session_id']}/turns"
            assert (await ann.get(path)).status_code == 200
            assert (await ben.get(path)).status_code == 404
            assert (await ben.get(f"{path}/x/audio")).status_code == 404
