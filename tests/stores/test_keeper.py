"""The keeper with a real disk and real stores, which work, fail for a while, or never come back."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sqlite3
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import pytest_asyncio
from store_records import a_session, spoken, typed

from app.observability.logs import bind, current_trace_id
from app.observability.metrics import Metrics
from app.roles import SAMPLE_RATE, Samples
from app.stores.crypt import MasterKeys, UserKeys
from app.stores.folder import FolderObjects, open_folder
from app.stores.interfaces import SessionRecord, TurnRecord
from app.stores.keeper import Backoff, Keeper
from app.stores.landing import landings, recording_key, session_entry, turn_entry
from app.stores.spool import Spool
from app.stores.sql import SqlConversations, open_conversations, sqlite_url
from app.stores.sql_diary import SqlDiary
from app.stores.sql_keys import SqlKeys
from app.stores.vault import Vault

MASTER = MasterKeys([bytes(range(32))])
OWNER = "somebody"


@dataclass
class House:
    """A keeper with its disk and its stores, and ways to break and mend them."""

    database: Path
    folder: Path
    disk: Path
    conversations: SqlConversations
    objects: FolderObjects
    vault: Vault
    metrics: Metrics
    keeper: Keeper
    session: SessionRecord

    def counted(self, what: str) -> float:
        return self.metrics.registry.get_sample_value("colloquy_kept_total", {"what": what}) or 0.0

    @property
    def retries(self) -> float:
        return self.metrics.registry.get_sample_value("colloquy_keep_retries_total") or 0.0

    @property
    def waiting(self) -> list[str]:
        return sorted(p.name for p in self.disk.rglob("*") if p.suffix in (".entry", ".heard"))

    def break_folder(self) -> None:
        """As when another disk is mounted there, or none."""
        self.folder.rename(self.folder.with_name("away"))
        self.folder.write_text("not a folder")

    def mend_folder(self) -> None:
        self.folder.unlink()
        self.folder.with_name("away").rename(self.folder)

    def break_database(self) -> None:
        self._rename("conversation_turns", "away")

    def mend_database(self) -> None:
        self._rename("away", "conversation_turns")

    def _rename(self, old: str, new: str) -> None:
        connection = sqlite3.connect(self.database, timeout=30)
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
        connection.close()

    def numbers_as_stored(self) -> list[int]:
        connection = sqlite3.connect(self.database)
        rows = connection.execute("SELECT number FROM conversation_turns ORDER BY rowid").fetchall()
        connection.close()
        return [number for (number,) in rows]

    def turn(self, number: int, **given: Any) -> TurnRecord:
        """A spoken turn whose recording is not stored yet."""
        return spoken(self.session.id, number, audio_key=None, audio_seconds=None, **given)

    async def keep(self, turn: TurnRecord, recording: Samples | None = None, **given: Any) -> None:
        await self.keeper.keep(turn_entry(OWNER, turn, recording, **given))

    def another(self, **given: Any) -> Keeper:
        """A keeper of another process, with the same disk and stores."""
        spool = Spool(self.disk, MASTER.derived("spool"), given.pop("most", 1 << 30))
        diary = SqlDiary(self.conversations.engine)
        land = landings(self.conversations, self.vault, diary)
        return Keeper(spool, land, self.metrics, given.pop("backoff", Backoff(0.01, 0.05)))


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database, folder = tmp_path / "a.db", tmp_path / "objects"
    conversations = await open_conversations(sqlite_url(database))
    objects = await open_folder(folder)
    vault = Vault(objects, UserKeys(MASTER, SqlKeys(conversations.engine)))
    metrics = Metrics()
    session = replace(a_session(), owner=OWNER)
    await conversations.add_session(session)
    keeper: Any = None
    made = House(
        database, folder, tmp_path / "spool", conversations, objects, vault, metrics, keeper, session
    )
    made.keeper = made.another()
    await made.keeper.start()
    yield made
    await made.keeper.close(0.0)
    await conversations.close()


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def _recording(seconds: float = 0.5, seed: int = 0) -> Samples:
    noise = np.random.default_rng(seed).uniform(-1.2, 1.2, int(seconds * SAMPLE_RATE))
    return noise.astype(np.float32)


async def test_a_spoken_turn_is_kept_with_its_recording(house: House) -> None:
    turn, recording = house.turn(3), _recording(1.3)
    await house.keep(turn, recording)
    await house.keeper.flush()
    key = f"raw_inputs/2026/11/22/{house.session.id}_{turn.id}_20261122T000258123456Z.wav"
    assert await house.conversations.turns(house.session.id) == [
        replace(turn, audio_key=key, audio_seconds=1.3)
    ]
    with wave.open(io.BytesIO(await house.vault.get(OWNER, key))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert len(pcm) == len(recording)
    assert np.abs(pcm - np.clip(recording, -1, 1)).max() < 1.01 / 32768
    assert (house.counted("turn"), house.retries, house.waiting) == (1, 0, [])


async def test_a_typed_turn_is_kept_without_one(house: House) -> None:
    turn = typed(house.session.id)
    await house.keep(turn)
    await house.keeper.flush()
    assert await house.conversations.turns(house.session.id) == [turn]


async def test_a_turn_kept_again_replaces_itself(house: House) -> None:
    turn = house.turn(1)
    for recording in (_recording(0.2), _recording(0.4, seed=1)):
        await house.keep(turn, recording)
    await house.keeper.flush()
    (kept,) = await house.conversations.turns(house.session.id)
    assert kept.audio_seconds == 0.4
    assert len(list(house.folder.rglob("*.wav"))) == 1


async def test_a_recording_needs_a_transcription_to_point_to_it(house: House) -> None:
    with pytest.raises(ValueError, match="transcription_id"):
        await house.keep(typed(house.session.id), _recording())


@pytest.mark.parametrize("what", ["folder", "database"])
async def test_a_store_that_fails_for_a_while_loses_nothing(house: House, what: str) -> None:
    await house.keep(house.turn(1), _recording())
    await house.keeper.flush()
    getattr(house, f"break_{what}")()
    recordings = {number: _recording(0.3, seed=number) for number in (5, 2, 4, 3)}
    for number, recording in recordings.items():
        await house.keep(house.turn(number), recording)
    await house.keep(typed(house.session.id, 6))
    await _until(lambda: house.retries >= 4)
    assert house.counted("turn") == 1 and len(house.waiting) == 5
    getattr(house, f"mend_{what}")()
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1, 5, 2, 4, 3, 6]
    for turn in (await house.conversations.turns(house.session.id))[1:-1]:
        assert turn.audio_key is not None
        stored = await house.vault.get(OWNER, turn.audio_key)
        assert len(stored) == 44 + 2 * len(recordings[turn.number])
    assert house.counted("turn") == 6
    assert house.counted("lost") == house.counted("refused") == 0


async def test_a_session_that_could_not_be_noted_comes_before_its_turns(house: House) -> None:
    session = replace(a_session(), id=str(uuid4()), owner=OWNER)
    await house.keeper.keep(session_entry(session))
    await house.keep(typed(session.id))
    await house.keeper.flush()
    assert await house.conversations.get_session(session.id) == session
    assert len(await house.conversations.turns(session.id)) == 1


async def test_what_can_never_be_stored_is_said_and_does_not_hold_up_the_rest(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    stray = replace(house.turn(1, transcript="my secret", partials=("my se",)), session_id=str(uuid4()))
    await house.keep(stray, _recording())
    await house.keep(house.turn(1))
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1]
    assert (house.counted("refused"), house.counted("turn"), house.retries) == (1, 1, 0)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["entry_id"] == stray.id
    assert "my se" not in caplog.text
    assert await house.objects.exists(recording_key(stray)), "the recording at least is kept"


async def test_the_log_of_a_turn_has_its_own_trace(house: House) -> None:
    traces: list[str | None] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            traces.append(current_trace_id())

    watch = Watch(logging.ERROR)
    logger = logging.getLogger("app.stores.keeper")
    logger.addHandler(watch)
    try:
        for number in (1, 2):
            with bind(trace_id=f"trace-{number}"):
                await house.keep(typed(str(uuid4()), number))
        await house.keeper.flush()
    finally:
        logger.removeHandler(watch)
    assert traces == ["trace-1", "trace-2"]


async def test_closing_stores_what_is_in_line(house: House) -> None:
    for number in range(1, 6):
        await house.keep(house.turn(number), _recording(0.1))
    await house.keeper.close()
    await house.keeper.close()
    assert house.numbers_as_stored() == [1, 2, 3, 4, 5]
    assert not [p for p in house.disk.rglob("*") if p.is_file()]
    with pytest.raises(RuntimeError, match="closed"):
        await house.keep(house.turn(6))


async def test_closing_does_not_sleep_through_a_long_wait(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = house.another(backoff=Backoff(3600.0, 3600.0))
    await keeper.start()
    house.break_folder()
    await keeper.keep(turn_entry(OWNER, house.turn(1), _recording(0.1)))
    await _until(lambda: "trying again in 3600" in caplog.text)
    house.mend_folder()
    await keeper.close(30.0)
    assert house.numbers_as_stored() == [1]


# --- after the end of a process -------------------------------------------------------------------


async def test_what_is_left_at_the_end_is_stored_by_the_next(house: House) -> None:
    house.break_folder()
    for number in range(1, 4):
        await house.keep(house.turn(number), _recording(0.1))
    await house.keeper.close(0.1)
    assert house.counted("lost") == 0 and len(house.waiting) == 3
    house.mend_folder()
    later = house.another()
    await later.start()
    await later.keep(turn_entry(OWNER, house.turn(4), None))
    await later.flush()
    assert house.numbers_as_stored() == [1, 2, 3, 4]
    assert (house.counted("left"), house.waiting) == (3, [])
    await later.close()


async def test_a_living_process_keeps_its_own(house: House) -> None:
    house.break_folder()
    await house.keep(house.turn(1), _recording(0.1))
    other = house.another()
    await other.start()
    await other.flush()
    assert house.counted("left") == 0 and len(house.waiting) == 1
    await other.close()
    house.mend_folder()
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1]


async def test_what_was_said_is_kept_though_the_answer_was_not_finished(house: House) -> None:
    await house.keep(house.turn(1), _recording(0.1))
    said = replace(house.turn(0), reply="", reply_full="", interrupted=False)
    await house.keep(said, _recording(0.3), provisional=True)
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1], "nothing is told of it while the process lives"
    await house.keeper.close()
    later = house.another()
    await later.start()
    await later.flush()
    await later.close()
    _, kept = await house.conversations.turns(house.session.id)
    assert (kept.id, kept.number, kept.transcript) == (said.id, 2, said.transcript)
    assert kept.interrupted and kept.audio_seconds == 0.3


async def test_the_final_entry_replaces_the_provisional_one(house: House) -> None:
    turn = house.turn(1)
    await house.keep(replace(turn, number=0), _recording(0.1), provisional=True)
    assert len(house.waiting) == 1
    await house.keep(turn, _recording(0.1))
    await house.keeper.flush()
    assert house.waiting == [] and house.numbers_as_stored() == [1]


# --- the disk ----------------------------------------------------------------------------------------


async def test_entries_cannot_be_read_without_the_key(house: House) -> None:
    house.break_folder()
    await house.keep(house.turn(1, transcript="the secret word is swordfish"), _recording(0.1))
    [path] = [p for p in house.disk.rglob("*") if p.suffix == ".entry"]
    assert b"swordfish" not in path.read_bytes() and b"RIFF" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    house.mend_folder()


async def test_an_entry_that_cannot_be_read_is_left_and_said(house: House) -> None:
    house.break_folder()
    await house.keep(house.turn(1), _recording(0.1))
    await house.keep(house.turn(2), _recording(0.1))
    second = sorted(p for p in house.disk.rglob("*") if p.suffix == ".entry")[1]
    second.write_bytes(second.read_bytes()[:-1] + b"!")
    house.mend_folder()
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1] and house.counted("refused") == 1
    assert [p.suffix for p in second.parent.iterdir() if p.name != ".lock"] == [".unreadable"]


async def test_a_full_disk_does_not_stop_anything(house: House) -> None:
    small = house.another(most=20_000)
    await small.start()
    house.break_folder()
    await small.keep(turn_entry(OWNER, house.turn(1), _recording(0.3)))
    for number in (2, 3):
        await small.keep(turn_entry(OWNER, house.turn(number), _recording(0.3)))
    assert len(house.waiting) == 1
    house.mend_folder()
    await small.flush()
    assert house.numbers_as_stored() == [1, 2, 3]
    await small.close()


async def test_what_neither_disk_nor_store_takes_is_said(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    small = house.another(most=100)
    await small.start()
    house.break_folder()
    turns = [house.turn(number) for number in (1, 2)]
    for turn in turns:
        await small.keep(turn_entry(OWNER, turn, _recording(0.1)))
    await small.close(0.1)
    assert house.counted("lost") == 2
    said = [vars(r)["entry_id"] for r in caplog.records if "was not stored before the end" in r.getMessage()]
    assert said == [turn.id for turn in turns]
    house.mend_folder()


async def test_a_users_entries_can_be_erased(house: House) -> None:
    house.break_folder()
    await house.keep(house.turn(1), _recording(0.1))
    await house.keep(house.turn(2), _recording(0.1))
    await house.keeper.keep(replace(turn_entry("another", house.turn(3), _recording(0.1))))
    assert await house.keeper.erase(OWNER) == 2
    assert len(house.waiting) == 1
    house.mend_folder()
    await house.keeper.flush()
    assert house.numbers_as_stored() == [3]


async def test_entries_that_the_disk_did_not_take_are_erased_too(house: House) -> None:
    small = house.another(most=100)
    await small.start()
    house.break_folder()
    for number in (1, 2):
        await small.keep(turn_entry(OWNER, house.turn(number), _recording(0.1)))
    await small.keep(turn_entry("another", house.turn(3), _recording(0.1)))
    assert (await small.erase(OWNER), await small.erase(OWNER)) == (2, 0)
    house.mend_folder()
    await small.flush()
    assert house.numbers_as_stored() == [3]
    await small.close()


def test_waits_grow_up_to_a_limit() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.after(n) for n in (1, 2, 3, 6, 7, 8, 10_000)] == [0.5, 1, 2, 16, 30, 30, 30]


def test_a_spool_belongs_to_one_process(tmp_path: Path) -> None:
    key = os.urandom(32)
    one, other = Spool(tmp_path, [key], 1000), Spool(tmp_path, [key], 1000)
    one.open()
    assert list(other.left()) == []
    one.close()
    assert not any(tmp_path.iterdir())
