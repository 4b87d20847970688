"""The benchmark `overhead`: its client's frames, what it counts, and that it runs; not how long it takes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from app.audio.codecs import unpack_pcm16
from app.roles import SAMPLE_RATE
from app.talk import Recording
from benchmarks.common.instant_client import FRAME, RATE_OUT, Reply, frames_of
from benchmarks.common.instant_load import RECORDINGS
from benchmarks.common.instant_systems import ours
from corpus import load, questions

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_frames_are_what_a_server_reads_as_the_recording_between_silences() -> None:
    recording = np.random.default_rng(1).uniform(-0.5, 0.5, 3 * FRAME + 7).astype(np.float32)
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(b"".join(frames_of(recording)))
    frames = server.events_received()
    assert not any(isinstance(frame, Request) for frame in frames)
    assert {frame.opcode for frame in frames} == {Opcode.BINARY}
    assert {len(frame.data) for frame in frames} == {2 * FRAME}
    sound = unpack_pcm16(b"".join(bytes(frame.data) for frame in frames))
    begin = int(0.5 * SAMPLE_RATE)
    assert np.abs(sound[begin : begin + len(recording)] - recording).max() <= 1 / 32768
    assert not sound[:begin].any() and not sound[begin + len(recording) :].any()
    assert len(sound) - begin - len(recording) >= 3 * SAMPLE_RATE


def test_a_piece_is_late_if_all_before_it_has_been_played() -> None:
    reply = Reply(due=10.0)
    tenth = RATE_OUT // 10 * 2
    for now in (10.02, 10.02, 10.219, 10.3, 10.47):
        reply.sound(tenth, now)
    # Played from 10.02 on without a gap until 10.42.
    assert reply.first == 10.02
    assert (reply.pieces, reply.late_pieces) == (5, 1)
    assert reply.late == pytest.approx(0.05)
    assert reply.played_until == pytest.approx(10.57)


async def test_an_end_of_turn_is_due_half_a_second_after_the_person_has_spoken(models_dir: Path) -> None:
    [recording] = [r for r in questions() if r.id == RECORDINGS[0]]
    sound = load(recording)
    last = int(0.5 * SAMPLE_RATE) + (Recording(sound).last_speech() or 0)
    frames = frames_of(sound)
    core = min(os.sched_getaffinity(0))
    environment = {"MODELS_DIR": str(models_dir)}
    async with ours(with_vad=True, environment=environment).serve(core, 1) as running:
        caller = await running.call()
        await caller.ready
        caller.speak(frames, 0, begin := time.monotonic() + 0.1)
        async with asyncio.timeout(60):
            while sum(reply.first is not None for reply in caller.replies) < 2:
                await asyncio.sleep(0.1)
        caller.hang_up()
    assert caller.errors == []
    for reply, cycle in zip(caller.replies[:2], (0, 1), strict=True):
        said = begin + (cycle * len(frames) * FRAME + last) / SAMPLE_RATE
        # The end wait, what the voice detector still takes for voice, and a client that was late.
        assert 0.4 < reply.due - said < 1.5
        assert reply.first is not None and reply.first > reply.due


def test_the_command(tmp_path: Path, models_dir: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    out = tmp_path / "result.json"
    done = run("--sessions", "1,3", "--seconds", "8", "--json", str(out), MODELS_DIR=str(models_dir))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["sessions"] for row in rows] == [1, 3]
    for row in rows:
        assert row["turns"] >= row["sessions"]
        assert row["missing"] == 0
        assert row["errors"] == []
        assert 0 < row["added"]["p50"] <= row["added"]["p99"] <= row["added"]["max"]
        assert 0 < row["cpu"] <= 1.1
        assert row["rss_mb"] > row["rss_idle_mb"] / 2 > 10
    assert "MB a session" in done.stdout
    assert "colloquy, 3" in done.stdout


def test_troubles_are_one_line() -> None:
    stranger = run("--peer", "nobody", "--sessions", "1")
    assert stranger.returncode == 2
    assert stranger.stderr.strip() == "'nobody' has no instant engines here; there is: pipecat"
    crowd = run("--sessions", "0,5")
    assert crowd.returncode == 2
    assert "numbers from 1 to 1000" in crowd.stderr
