"""What a thief finds where a server keeps its data, what its log tells, and what is left of who is erased."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, WordEmbedding, silence, speech
from serving import Server, make_settings, scripted
from wearable.app_simulator import app
from websockets.exceptions import ConnectionClosed
from wire_client import join, new_session

from app.api.export import _README
from app.audio.wav import wav_bytes
from app.observability import logs
from app.stores.sql_owned import owned
from app.stores.tables import metadata

ANN, BEN = "the-long-key-of-ann", "the-long-key-of-ben"
TYPED, SPOKEN, SAID, NAME, WISH = "Marmalade", "Quicksilver", "Tamarind", "Zebulon", "Persimmon"
MADE = {
    "title": "Tangerine",
    "overview": "They talk of a Tangerine.",
    "emoji": "🍊",
    "category": "other",
    "action_items": ["Peel the Tangerine"],
    "events": [{"title": "Tangerine day", "description": "", "start": "2026-11-20T12:00:00+01:00"}],
    "memories": ["The user likes Tangerine"],
}
MARKS = (TYPED, SPOKEN, SAID, NAME, WISH, "Tangerine")


@contextmanager
def a_server(folder: Path) -> Iterator[Server]:
    engines = {
        "vad": LoudVad(),
        "stt": CountingStt(f"{SPOKEN} " * 40),
        "llm": ScriptedLlm(json.dumps(MADE)),
        "tts": ToneTts(0.01),
        "embedding": WordEmbedding(),
    }
    settings = make_settings(
        folder / "none", folder, api_keys=[ANN, BEN], speaker_provider="none", log_level="DEBUG"
    )
    with scripted(settings, **engines) as server:
        yield server


def rest(server: Server, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30)


async def talk(server: Server, key: str) -> list[str]:
    """A day of somebody: a typed turn and a spoken one, a wearable, a name, a voice. Gives ids and tokens."""
    headers = {"Authorization": f"Bearer {key}"}
    session = await new_session(
        server.url, headers, instructions=f"Speak of {WISH}.", turn_detection={"end_ms": 200}
    )
    async with join(server.url, session) as wire:
        await wire.until("session_ready")
        await wire.send("text", text=f"Is there {TYPED}?")
        await wire.until("turn_complete")
        await wire.play(speech(1.5))
        await wire.play(silence(1.0))
        await wire.until("turn_complete")
    async with app(server, key, custom_stt="enabled") as phone, rest(server, key) as client:
        await phone.status("ready")
        text = f"{SAID}, he said, would be a good thing to have for dinner tonight"
        await phone.say(type="suggested_transcript", segments=[{"text": text, "start": 0.0, "end": 5.0}])
        await phone.until(lambda: phone.text == text)
        assert (await client.post("/v1/conversations")).status_code == 200
        person = (await client.post("/v1/users/people", json={"name": NAME})).json()["id"]
        voice = {"file": ("v.wav", wav_bytes(speech(8.0), 16000), "audio/wav")}
        for path in ("/v3/upload-audio", f"/v1/users/people/{person}/speech-samples"):
            answer = await client.post(path, files=voice)
            assert answer.status_code == 200, answer.text
        assert (await client.patch("/v1/users/language", json={"language": "en"})).status_code == 200
        token = (await client.post("/api/v1/tokens", json={})).json().get("token", "")
    return [session["session_id"], session["token"], token]


@dataclass
class Day:
    """Ann and Ben have talked; `records` is all that was logged meanwhile."""

    server: Server
    data: Path
    ids: dict[str, list[str]]
    records: list[logging.LogRecord]

    def owner(self, key: str) -> str:
        return self.server.app.state.context.access.owner({"authorization": f"Bearer {key}"})

    async def stored(self) -> None:
        """Until all is where it belongs."""
        async with asyncio.timeout(20):
            while waiting := [
                p for p in (self.data / "spool").rglob("*") if p.suffix in (".entry", ".heard")
            ]:
                await asyncio.sleep(0.05)
                assert len(waiting) < 100

    def counts(self, *of: str) -> dict[str, int]:
        """In how many rows of each table one of these is named."""
        connection = sqlite3.connect(self.data / "colloquy.db")
        connection.row_factory = sqlite3.Row
        found = {}
        for table in metadata.tables:
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()
            names = [name.replace("-", "") for name in of] + list(of)
            found[table] = sum(any(n in str(value) for value in tuple(row) for n in names) for row in rows)
        connection.close()
        return {table: count for table, count in found.items() if count}

    def objects(self) -> list[Path]:
        return [p for p in (self.data / "objects").rglob("*") if p.is_file()]


@pytest.fixture
async def day(tmp_path: Path) -> Any:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, root = Keep(0), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "app", "uvicorn")}
    logs.configure("DEBUG", json=True)
    root.addHandler(handler)
    try:
        with a_server(tmp_path) as server:
            ids = {key: await talk(server, key) for key in (ANN, BEN)}
            day = Day(server, tmp_path / "data", ids, records)
            await day.stored()
            yield day
    finally:
        root.removeHandler(handler)
        for old in [h for h in root.handlers if isinstance(h.formatter, logs._JsonLines)]:
            root.removeHandler(old)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


async def test_a_thief_reads_nothing_and_the_log_tells_nothing(day: Day) -> None:
    files = [path for path in day.data.rglob("*") if path.is_file()]
    assert {p.name for p in files} >= {"colloquy.db", "colloquy.db-wal"} and len(day.objects()) == 6
    for path in files:
        data = path.read_bytes()
        for mark in MARKS:
            assert mark.encode() not in data and mark.lower().encode() not in data, (mark, path)
        assert b"RIFF" not in data and b"OggS" not in data, path
    # It is there for who has the keys.
    async with rest(day.server, ANN) as client:
        turns = (await client.get(f"/api/v1/sessions/{day.ids[ANN][0]}/turns")).json()
        told = (await client.get("/v1/conversations")).text + (await client.get("/v1/users/people")).text
        told += (await client.get("/v3/memories")).text
    assert all(mark in json.dumps(turns) + told for mark in MARKS if mark != WISH)

    assert len(day.records) > 10 and any(r.levelno == logging.DEBUG for r in day.records)
    secrets = [ANN, BEN, *(secret for ids in day.ids.values() for secret in ids[1:] if secret)]
    assert len(secrets) >= 4
    formatter = logging.Formatter()
    for record in day.records:
        told = f"{record.getMessage()} {vars(record)} {formatter.format(record)}"
        for mark in (*MARKS, *secrets):
            assert mark not in told, f"{record.name}: {mark}"


async def test_an_export_has_everything(day: Day) -> None:
    async with rest(day.server, ANN) as client:
        answer = await client.get("/api/v1/users/me/export")
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
        assert (await client.get("/users/me/export")).status_code == 200
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    texts = {n: archive.read(n).decode() for n in archive.namelist() if n.endswith((".json", ".txt"))}
    assert all(mark in "".join(texts.values()) for mark in MARKS)
    sounds = [n for n in archive.namelist() if n.endswith(".wav")]
    assert len(sounds) == 3 and all(archive.read(n)[:4] == b"RIFF" for n in sounds)
    session = json.loads(texts[f"sessions/{day.ids[ANN][0]}.json"])
    assert [t["source"] for t in session["turns"]] == ["text", "speech"]
    assert session["turns"][1]["words"] == [] or session["turns"][1]["words"][0]["text"]
    assert not any(day.ids[BEN][0] in name for name in archive.namelist())
    # The README names each file, and no table is left out.
    for name in archive.namelist():
        assert name.split("/")[0].split(".")[0] in _README or name == "README.txt", name
    written = {"sessions", "conversation_turns", "transcriptions", "users", "listened", "conversations"}
    written |= {"segments", "memories", "action_items", "people", "voices", "user_keys"}
    unwritten = {"prosody_scores", "voice_profiles", "synthesized_audios"}
    assert {table.name for table in owned()} <= written | unwritten


async def test_who_is_erased_leaves_nothing(day: Day) -> None:
    ann, ben = day.owner(ANN), day.owner(BEN)
    of_ann, of_ben = (ann, day.ids[ANN][0]), (ben, day.ids[BEN][0])
    sealed = sqlite3.connect(day.data / "colloquy.db")
    (key,) = sealed.execute("SELECT sealed FROM user_keys WHERE owner = ?", (ann,)).fetchone()
    sealed.close()
    before = day.counts(*of_ben)
    assert {"sessions", "users", "user_keys", "memories", "people", "voices"} <= set(day.counts(*of_ann))

    # She is erased in the middle of it all.
    headers = {"Authorization": f"Bearer {ANN}"}
    session = await new_session(day.server.url, headers, turn_detection={"end_ms": 200})
    async with join(day.server.url, session) as wire, app(day.server, ANN, custom_stt="enabled") as phone:
        await wire.until("session_ready")
        await wire.play(speech(1.0))
        await phone.status("ready")
        await phone.say(type="suggested_transcript", segments=[{"text": SAID, "start": 0.0, "end": 5.0}])
        await phone.until(lambda: phone.text == SAID)
        async with rest(day.server, ANN) as client:
            answer = await client.delete("/api/v1/users/me")
        assert answer.status_code == 200, answer.text
        with pytest.raises(ConnectionClosed):
            while True:
                await wire.receive()
        await phone.closed()
    erased = answer.json()["erased"]
    assert {k: erased[k] for k in ("sessions", "users", "people", "voices")} == {
        "sessions": 2,
        "users": 1,
        "people": 1,
        "voices": 2,
    }
    assert erased["conversation_turns"] >= 2 and erased["objects"] >= 3 and erased["keys"] >= 1
    assert erased["connections"] == 1 and erased["open_sessions"] >= 1

    assert day.counts(*of_ann, session["session_id"]) == {}
    assert day.counts(*of_ben) == before and len(day.objects()) == 3
    assert not any(day.ids[ANN][0] in str(path) for path in day.objects())
    for path in day.data.rglob("*"):
        assert not path.is_file() or key not in path.read_bytes(), f"her key is still in {path}"
    async with rest(day.server, ANN) as client:
        assert (await client.delete("/users/me")).json() == {"erased": {}}
        assert (await client.get("/v1/conversations")).json() == []
    async with rest(day.server, BEN) as client:
        turns = (await client.get(f"/api/v1/sessions/{of_ben[1]}/turns")).json()
        assert TYPED in turns[0]["transcript"]
        assert (await client.get(turns[1]["audio_url"])).content[:4] == b"RIFF"
        assert NAME in (await client.get("/v1/users/people")).text
    async with httpx.AsyncClient(base_url=day.server.url) as nobody:
        assert (await nobody.delete("/api/v1/users/me")).status_code == 401
        assert (await nobody.get("/api/v1/users/me/export")).status_code == 401


async def test_what_a_crash_left_of_an_erasure_is_finished_at_the_next_start(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        ids = {key: await talk(server, key) for key in (ANN, BEN)}
        day = Day(server, tmp_path / "data", ids, [])
        await day.stored()
        ann = day.owner(ANN)
        before = day.counts(day.owner(BEN), ids[BEN][0])
    # Her key is destroyed, then the process dies.
    (day.data / "erasures").mkdir()
    (day.data / "erasures" / f"{sha256(ann.encode()).hexdigest()}.owner").write_text(ann)
    connection = sqlite3.connect(day.data / "colloquy.db")
    with connection:
        connection.execute("DELETE FROM user_keys WHERE owner = ?", (ann,))
    connection.close()
    with a_server(tmp_path) as server:
        assert day.counts(ann, ids[ANN][0]) == {} and len(day.objects()) == 3
        assert day.counts(day.owner(BEN), ids[BEN][0]) == before
        assert list((day.data / "erasures").iterdir()) == []
