"""Sweeps over real stores: what goes, what stays, and what is left when they are cut off anywhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import pytest_asyncio
from store_records import a_session, spoken

from app.audio.files import decode_file
from app.audio.wav import wav_bytes
from app.observability.metrics import Metrics
from app.roles import SAMPLE_RATE, NotFound
from app.stores.crypt import MasterKeys, UserKeys
from app.stores.database import sqlite_url
from app.stores.folder import FolderObjects
from app.stores.interfaces import ObjectStore, StoreFailed
from app.stores.landing import recording_key
from app.stores.lock import alone
from app.stores.retention import Rules, Sweeper, Swept, sweep
from app.stores.sql import SqlConversations, open_conversations
from app.stores.sql_keys import SqlKeys
from app.stores.sql_recordings import SqlRecordings
from app.stores.vault import Vault

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
RULES = Rules()
SOUND = wav_bytes(np.sin(np.arange(8000, dtype=np.float32) / 20) / 3, SAMPLE_RATE)


@dataclass
class Kept:
    """The stores, and turns in them."""

    conversations: SqlConversations
    vault: Vault
    recordings: SqlRecordings
    sessions: dict[str, str] = field(default_factory=dict)
    numbers: int = 0

    async def turn(self, days: float, *, owner: str = "ann", sound: bytes = SOUND) -> tuple[str, str]:
        """A turn of so many days ago with its recording: session and turn."""
        if owner not in self.sessions:
            session = a_session(owner=owner)
            await self.conversations.add_session(session)
            self.sessions[owner] = session.id
        self.numbers += 1
        at = NOW - timedelta(days=days)
        turn = spoken(self.sessions[owner], self.numbers, created_at=at, audio_key=None)
        key = recording_key(turn)
        await self.vault.put(owner, key, sound)
        named = {"audio_key": key, "transcription_id": turn.transcription_id, "id": turn.id}
        await self.conversations.add_turn(spoken(turn.session_id, turn.number, created_at=at, **named))
        return turn.session_id, turn.id

    async def key(self, turn: tuple[str, str]) -> str | None:
        return (await self.conversations.get_turn(*turn)).audio_key

    async def stored(self) -> list[str]:
        return sorted([info.key async for info in self.vault.objects.list()])

    async def sweep(self, rules: Rules = RULES, **given: Any) -> Swept:
        swept = await sweep(self.recordings, self.vault, rules, **{"now": NOW, **given})
        assert swept is not None
        return swept


@pytest.fixture
def database(objects: ObjectStore, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One kind of database with one kind of object store."""
    if isinstance(objects, FolderObjects):
        return sqlite_url(tmp_path / "a.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest_asyncio.fixture
async def kept(objects: ObjectStore, database: str) -> AsyncIterator[Kept]:
    conversations = await open_conversations(database)
    vault = Vault(objects, UserKeys(MasterKeys([b"m" * 32]), SqlKeys(conversations.engine)))
    yield Kept(conversations, vault, SqlRecordings(conversations.engine))
    await conversations.close()


async def test_old_recordings_are_deleted_and_their_turns_stay(kept: Kept) -> None:
    old = [await kept.turn(30.001 + n, owner=owner) for n, owner in enumerate(("ann", "ben", "ann"))]
    young = await kept.turn(29.9)
    swept = await kept.sweep(Rules(opus=0))
    assert (swept.raw, swept.orphans) == (3, 0)
    for turn in old:
        record = await kept.conversations.get_turn(*turn)
        assert record.audio_key is None and record.audio_seconds and record.transcript
    assert await kept.stored() == [await kept.key(young)]
    assert await kept.sweep(Rules(opus=0)) == Swept()


async def test_more_than_a_page_of_old_recordings(kept: Kept) -> None:
    for _ in range(120):
        await kept.turn(40, sound=b"RIFF")  # all of one moment: a page may end anywhere
    assert (await kept.sweep(dry_run=True)).raw == 120
    assert (await kept.sweep()).raw == 120
    assert await kept.stored() == []


async def test_nought_days_keep_for_ever(kept: Kept) -> None:
    turn = await kept.turn(3000)
    await kept.vault.put("ann", "synthesized/fast/a.wav", SOUND)
    assert await kept.sweep(Rules(0, 0, 0), now=NOW + timedelta(days=4000)) == Swept()
    assert await kept.stored() == [await kept.key(turn), "synthesized/fast/a.wav"]


async def test_recordings_that_nothing_names_go_when_their_day_is_old(kept: Kept) -> None:
    keys = ["2026/10/22/x.wav", "2026/10/21/y.wav", "2025/12/31/z.opus", "2026/11/20/w.wav"]
    for key in keys:
        await kept.vault.put("ann", f"raw_inputs/{key}", SOUND)
    assert (await kept.sweep(Rules(opus=0), dry_run=True)).orphans == 2
    assert (await kept.sweep(Rules(opus=0))).orphans == 2
    # Of the 22nd of October half a day is not 30 days old yet.
    assert await kept.stored() == ["raw_inputs/2026/10/22/x.wav", "raw_inputs/2026/11/20/w.wav"]


async def test_what_was_synthesized_goes_sooner(kept: Kept) -> None:
    turn = await kept.turn(0)
    for mode in ("fast", "hq"):
        await kept.vault.put("ann", f"synthesized/{mode}/1.wav", SOUND)
    await kept.vault.put("ann", "speech_profiles/1/profile.wav", SOUND)
    today = datetime.now(UTC)
    rules = Rules(raw=0, opus=0)
    assert await kept.sweep(rules, now=today + timedelta(days=6.9)) == Swept()
    assert await kept.sweep(rules, now=today + timedelta(days=7.1)) == Swept(synthesized=2)
    assert await kept.stored() == [await kept.key(turn), "speech_profiles/1/profile.wav"]


async def test_what_is_kept_for_long_becomes_opus(kept: Kept) -> None:
    sound = wav_bytes(np.sin(np.arange(41_234, dtype=np.float32) / 20) / 3, SAMPLE_RATE)
    old, ben, young = await kept.turn(8, sound=sound), await kept.turn(9, owner="ben"), await kept.turn(6)
    swept = await kept.sweep()
    assert (swept.opus, swept.failed, swept.orphans) == (2, 0, 0)
    keys = [await kept.key(turn) for turn in (old, ben, young)]
    assert [key and key.rpartition(".")[2] for key in keys] == ["opus", "opus", "wav"]
    assert await kept.stored() == sorted(map(str, keys))
    data = await kept.vault.get("ann", str(keys[0]))
    assert data.startswith(b"OggS") and len(data) < len(sound) / 5
    assert swept.saved > len(sound) - len(data)
    again = await decode_file(data, max_seconds=60)
    assert abs(len(again) - 41_234) <= 0.02 * SAMPLE_RATE
    stored = await kept.vault.objects.get(str(keys[0]))
    assert not stored.startswith(b"OggS"), "it is sealed as before"
    assert await kept.sweep() == Swept()


async def test_what_cannot_be_read_stays_and_holds_up_nothing(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    broken, gone = await kept.turn(12, sound=b"no sound"), await kept.turn(11)
    good = await kept.turn(10)
    await kept.vault.delete(str(await kept.key(gone)))
    swept = await kept.sweep()
    assert (swept.opus, swept.failed) == (1, 2)
    assert str(await kept.key(good)).endswith(".opus")
    assert await kept.vault.get("ann", str(await kept.key(broken))) == b"no sound"
    assert "BAD_AUDIO" in caplog.text and "NOT_FOUND" in caplog.text


async def test_a_dry_run_counts_and_does_nothing(kept: Kept) -> None:
    turns = [await kept.turn(days) for days in (60, 31, 8, 1)]
    keys = [await kept.key(turn) for turn in turns]
    before = await kept.stored()
    swept = await kept.sweep(dry_run=True)
    assert swept.raw == 2 and swept.opus >= 1 and swept.orphans == 0
    assert await kept.stored() == before and [await kept.key(turn) for turn in turns] == keys


class Breaking:
    """A store that works for so many changes, and then not until it is mended."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.left = 10**9

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def put(self, key: str, data: bytes) -> None:
        self._spend()
        await self._objects.put(key, data)
        self._spend()

    async def delete(self, key: str) -> None:
        self._spend()
        await self._objects.delete(key)
        self._spend()

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreFailed("broken by the test")


@pytest.mark.parametrize("after", range(7))
async def test_a_sweep_that_is_cut_off_anywhere_loses_nothing(kept: Kept, after: int) -> None:
    store = Breaking(kept.vault.objects)
    kept.vault.objects = store  # type: ignore[assignment]
    old, middle, young = await kept.turn(40), await kept.turn(10), await kept.turn(1)
    store.left = after
    cut = after < 6  # one deleted, one put anew, one deleted: each may fail before and after
    if cut:
        with pytest.raises(StoreFailed):
            await kept.sweep()
    else:
        await kept.sweep()
    store.left = 10**9
    for turn in (middle, young):  # what is named can be heard at any time
        sound = await decode_file(await kept.vault.get("ann", str(await kept.key(turn))), max_seconds=9)
        assert abs(len(sound) - 8000) <= 320
    await kept.sweep()
    assert await kept.key(old) is None
    keys = [str(await kept.key(turn)) for turn in (middle, young)]
    assert keys[0].endswith(".opus") and keys[1].endswith(".wav")
    assert await kept.stored() == sorted(keys)


async def test_a_turn_that_is_erased_meanwhile_leaves_nothing(kept: Kept) -> None:
    turn = await kept.turn(10)
    [recording] = await kept.recordings.older(NOW)
    await kept.recordings.forget([recording])
    assert await kept.key(turn) is None
    assert not await kept.recordings.moved(recording, "elsewhere.opus")
    assert not await kept.recordings.named("elsewhere.opus")


async def test_one_sweeps_at_a_time(kept: Kept) -> None:
    await kept.turn(40)
    async with alone(kept.recordings.engine, "sweep") as mine:
        assert mine
        assert await sweep(kept.recordings, kept.vault, RULES, now=NOW) is None
        async with alone(kept.recordings.engine, "another") as other:
            assert other
    assert (await kept.sweep()).raw == 1


async def test_the_sweeper_sweeps_when_it_starts(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    turn = await kept.turn((NOW - datetime.now(UTC)).days + 50)
    metrics = Metrics()
    sweeper = Sweeper(kept.recordings, kept.vault, RULES, metrics)
    sweeper.start()
    async with asyncio.timeout(60):
        while await kept.key(turn) is not None or not metrics.last_sweep_timestamp_seconds._value.get():
            await asyncio.sleep(0.01)
    await sweeper.close()
    await sweeper.close()
    assert metrics.registry.get_sample_value("colloquy_swept_total", {"what": "raw"}) == 1
    assert "swept recordings" in caplog.text
    with pytest.raises(NotFound):
        await kept.vault.get("ann", f"raw_inputs/{uuid4()}.wav")


async def test_the_sweeper_outlives_a_store_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: Kept
) -> None:
    store = Breaking(kept.vault.objects)
    kept.vault.objects = store  # type: ignore[assignment]
    await kept.turn((NOW - datetime.now(UTC)).days + 50)
    store.left = 0
    sweeper = Sweeper(kept.recordings, kept.vault, RULES, Metrics())
    sweeper.start()
    async with asyncio.timeout(60):
        while "cut off" not in caplog.text:
            await asyncio.sleep(0.01)
    await sweeper.close()
