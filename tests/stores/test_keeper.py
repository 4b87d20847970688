"""The keeper with real stores, which work, fail for a while, or never come back."""

from __future__ import annotations

import asyncio
import io
import logging
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
from app.stores.folder import FolderObjects, open_folder
from app.stores.interfaces import SessionRecord, TurnRecord
from app.stores.keeper import Backoff, Keeper, recording_key
from app.stores.sql import SqlConversations, open_conversations, sqlite_url


@dataclass
class House:
    """A keeper with its stores, and ways to break and mend them."""

    database: Path
    folder: Path
    conversations: SqlConversations
    objects: FolderObjects
    metrics: Metrics
    keeper: Keeper
    session: SessionRecord

    def counted(self, what: str) -> float:
        return self.metrics.registry.get_sample_value("colloquy_kept_total", {"what": what}) or 0.0

    @property
    def retries(self) -> float:
        return self.metrics.registry.get_sample_value("colloquy_keep_retries_total") or 0.0

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


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database, folder = tmp_path / "a.db", tmp_path / "objects"
    conversations = await open_conversations(sqlite_url(database))
    objects = await open_folder(folder)
    metrics = Metrics()
    session = a_session()
    await conversations.add_session(session)
    keeper = Keeper(conversations, objects, metrics, Backoff(0.01, 0.05))
    yield House(database, folder, conversations, objects, metrics, keeper, session)
    await keeper.close(0.0)
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
    await house.keeper.keep(turn, recording)
    await house.keeper.flush()
    key = f"raw_inputs/2026/11/22/{house.session.id}_3_20261122T000258123456Z.wav"
    assert await house.conversations.turns(house.session.id) == [
        replace(turn, audio_key=key, audio_seconds=1.3)
    ]
    with wave.open(io.BytesIO(await house.objects.get(key))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert len(pcm) == len(recording)
    assert np.abs(pcm - np.clip(recording, -1, 1)).max() < 1.01 / 32768
    assert (house.counted("recording"), house.counted("turn"), house.retries) == (1, 1, 0)


async def test_a_typed_turn_is_kept_without_one(house: House) -> None:
    turn = typed(house.session.id)
    await house.keeper.keep(turn, None)
    await house.keeper.flush()
    assert await house.conversations.turns(house.session.id) == [turn]
    assert (house.counted("recording"), house.counted("turn")) == (0, 1)


async def test_a_turn_kept_again_replaces_itself(house: House) -> None:
    turn = house.turn(1)
    for recording in (_recording(0.2), _recording(0.4, seed=1)):
        await house.keeper.keep(turn, recording)
    await house.keeper.flush()
    (kept,) = await house.conversations.turns(house.session.id)
    assert kept.audio_seconds == 0.4
    assert len(list(house.folder.rglob("*.wav"))) == 1


async def test_a_recording_needs_a_transcription_to_point_to_it(house: House) -> None:
    with pytest.raises(ValueError, match="transcription_id"):
        await house.keeper.keep(typed(house.session.id), _recording())


@pytest.mark.parametrize("what", ["folder", "database"])
async def test_a_store_that_fails_for_a_while_loses_nothing(house: House, what: str) -> None:
    await house.keeper.keep(house.turn(1), _recording())
    await house.keeper.flush()
    getattr(house, f"break_{what}")()
    recordings = {number: _recording(0.3, seed=number) for number in (5, 2, 4, 3)}
    for number, recording in recordings.items():
        await house.keeper.keep(house.turn(number), recording)
    await house.keeper.keep(typed(house.session.id, 6), None)
    await _until(lambda: house.retries >= 4)
    assert house.counted("turn") == 1
    getattr(house, f"mend_{what}")()
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1, 5, 2, 4, 3, 6]
    for turn in (await house.conversations.turns(house.session.id))[1:-1]:
        assert turn.audio_key is not None
        assert len(await house.objects.get(turn.audio_key)) == 44 + 2 * len(recordings[turn.number])
    assert (house.counted("recording"), house.counted("turn")) == (5, 6)
    assert house.counted("lost") == house.counted("refused") == 0


async def test_what_can_never_be_stored_is_said_and_does_not_hold_up_the_rest(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    stray = replace(house.turn(1, transcript="my secret", partials=("my se",)), session_id=str(uuid4()))
    await house.keeper.keep(stray, _recording())
    await house.keeper.keep(house.turn(1), None)
    await house.keeper.flush()
    assert house.numbers_as_stored() == [1]
    assert (house.counted("refused"), house.counted("turn"), house.retries) == (1, 1, 0)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["turn_id"] == stray.id
    assert "my se" not in caplog.text
    assert await house.objects.exists(recording_key(stray)), "the recording at least is kept"


async def test_the_log_of_a_turn_has_its_own_trace(house: House) -> None:
    traces: list[tuple[str | None, int]] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            traces.append((current_trace_id(), vars(record)["number"]))

    watch = Watch(logging.ERROR)
    logger = logging.getLogger("app.stores.keeper")
    logger.addHandler(watch)
    try:
        for number in (1, 2):
            with bind(trace_id=f"trace-{number}"):
                await house.keeper.keep(typed(str(uuid4()), number), None)
        await house.keeper.flush()
    finally:
        logger.removeHandler(watch)
    assert traces == [("trace-1", 1), ("trace-2", 2)]


async def test_a_full_queue_makes_the_next_one_wait(house: House) -> None:
    house.break_folder()
    # One is being tried and 256 are in line: those are taken at once.
    await house.keeper.keep(house.turn(1), _recording(0.01))
    await _until(lambda: house.retries >= 1)
    for number in range(2, 258):
        await house.keeper.keep(typed(house.session.id, number), None)
    assert house.counted("waited") == 0
    waiting = asyncio.create_task(house.keeper.keep(typed(house.session.id, 258), None))
    tried = house.retries
    await _until(lambda: house.retries >= tried + 3)
    assert not waiting.done()
    assert house.counted("waited") == 1
    house.mend_folder()
    await waiting
    await house.keeper.flush()
    assert house.numbers_as_stored() == list(range(1, 259))


async def test_closing_stores_what_is_in_line(house: House) -> None:
    for number in range(1, 6):
        await house.keeper.keep(house.turn(number), _recording(0.1))
    await house.keeper.close()
    await house.keeper.close()
    assert house.numbers_as_stored() == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="closed"):
        await house.keeper.keep(house.turn(6), None)


async def test_closing_does_not_sleep_through_a_long_wait(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(house.conversations, house.objects, house.metrics, Backoff(3600.0, 3600.0))
    house.break_folder()
    await keeper.keep(house.turn(1), _recording(0.1))
    await _until(lambda: "trying again in 3600" in caplog.text)
    house.mend_folder()
    await keeper.close(30.0)
    assert house.numbers_as_stored() == [1]


async def test_what_is_left_at_the_end_is_said(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.break_folder()
    await house.keeper.keep(house.turn(1), _recording(0.1))
    await _until(lambda: house.retries >= 1)
    for number in range(2, 258):
        await house.keeper.keep(typed(house.session.id, number), None)
    waiting = [asyncio.create_task(house.keeper.keep(typed(house.session.id, n), None)) for n in (258, 259)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])
    assert house.counted("lost") == 1
    tried = house.retries
    await house.keeper.close(0.3)
    assert house.retries - tried <= 2 * 0.3 / 0.01, "it must not spin while it waits"
    await waiting[0]
    lost = {vars(record)["number"] for record in caplog.records if record.levelno >= logging.ERROR}
    assert lost == set(range(1, 260))
    assert house.counted("lost") == 259
    await asyncio.wait_for(house.keeper.flush(), 10)


def test_waits_grow_up_to_a_limit() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.after(n) for n in (1, 2, 3, 6, 7, 8, 10_000)] == [0.5, 1, 2, 16, 30, 30, 30]
