"""A process that writes is killed without warning: what it had acknowledged is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from crash_writer import content

from app.stores.folder import open_folder
from app.stores.sql import open_conversations, sqlite_url

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")


def _write_and_kill(what: str, where: str, acknowledged: int) -> list[str]:
    """The lines printed before and after the kill that comes after `acknowledged` of them."""
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, str(here / "crash_writer.py"), what, where],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"},
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if len(lines) == acknowledged:
            process.kill()
    process.stdout.close()
    assert process.wait() == -9
    return [line.strip() for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("acknowledged", [2, 60])
async def test_acknowledged_turns_outlive_the_process(tmp_path: Path, acknowledged: int) -> None:
    url = sqlite_url(tmp_path / "a.db")
    session_id, *turn_ids = _write_and_kill("turns", url, acknowledged)
    store = await open_conversations(url)
    kept = await store.turns(session_id, limit=1000)
    await store.close()
    # One more may be stored than was acknowledged in time, but none less and none in part.
    assert [turn.id for turn in kept][: len(turn_ids)] == turn_ids
    assert len(kept) <= len(turn_ids) + 1
    for turn in kept:
        assert turn.transcript == f"number {turn.number} " * 200
        assert len(turn.words) == 2


@pytest.mark.parametrize("acknowledged", [1, 75])
async def test_acknowledged_objects_outlive_the_process(tmp_path: Path, acknowledged: int) -> None:
    lines = _write_and_kill("objects", str(tmp_path), acknowledged)
    newest = {key: int(number) for key, number in (line.split() for line in lines)}
    last = max(newest.values())
    store = await open_folder(tmp_path)
    for key, number in newest.items():
        data = await store.get(key)
        written = int.from_bytes(data[:4], "big")
        assert data == content(written), "a torn object"
        assert written in (number, last + 1)
    seen = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "a").rglob("*.wav")}
    assert len(seen - set(newest)) <= 1
