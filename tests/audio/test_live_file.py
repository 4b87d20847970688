"""Recordings that arrive while they are made."""

from __future__ import annotations

import asyncio
import io
import threading

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import chirp, delay, snr_db

from app.audio import live
from app.audio.live import LiveFile, is_container
from app.roles import BadAudio

SECONDS = 6.0
CONTAINERS = [
    ("webm", "libopus", 48000),
    ("matroska", "pcm_s16le", 16000),
    ("ogg", "libopus", 48000),
    ("wav", "pcm_s16le", 48000),
    ("flac", "flac", 16000),
    ("mp3", "mp3", 44100),
    ("adts", "aac", 48000),
]


def recorded(kind: str, codec: str, rate: int, seconds: float = SECONDS) -> bytes:
    """A chirp as a recorder streams it: nothing is written back into the header."""
    file = io.BytesIO()

    class Writer:
        write = staticmethod(file.write)

    with av.open(Writer(), "w", format=kind) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(chirp(seconds, rate)[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        for piece in resampler.resample(frame):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


async def heard(data: bytes, size: int) -> np.ndarray:
    file = LiveFile()

    async def feed() -> None:
        for at in range(0, len(data), size):
            await file.feed(data[at : at + size])
        file.end()

    feeding = asyncio.create_task(feed())
    try:
        return np.concatenate([np.zeros(0, np.float32), *[piece async for piece in file.sound()]])
    finally:
        await feeding
        await file.close()


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "live-file"]


@pytest.mark.parametrize(("kind", "codec", "rate"), CONTAINERS)
async def test_all_of_a_recording_is_heard(kind, codec, rate):
    back = await heard(recorded(kind, codec, rate), 777)
    wanted = chirp(SECONDS, 16000)
    assert len(back) == pytest.approx(len(wanted), abs=3000)
    lag = delay(wanted, back)
    size = min(len(wanted), len(back) - lag) - 1600
    assert snr_db(wanted[1600:size], back[lag + 1600 : lag + size]) > 8
    assert not threads()


@pytest.mark.parametrize(("kind", "codec", "rate"), [c for c in CONTAINERS if c[0] in ("webm", "ogg", "wav")])
async def test_sound_comes_before_the_recording_ends(kind, codec, rate):
    data = recorded(kind, codec, rate)
    file = LiveFile()
    await file.feed(data[: len(data) // 2])
    sound = file.sound()
    samples = 0
    async with asyncio.timeout(20):
        while samples < (SECONDS / 2 - 1.5) * 16000:
            samples += len(await anext(sound))
    await file.close()
    await sound.aclose()
    assert not threads()


async def test_who_sends_faster_than_is_taken_waits():
    data = recorded("wav", "pcm_s16le", 48000, 30.0)
    file = LiveFile()
    feeding = asyncio.create_task(file.feed(data))
    await asyncio.sleep(0.3)
    assert not feeding.done()  # 50 pieces are decoded and wait to be taken, the rest is not yet
    samples = sum([len(piece) async for piece in _until(file, feeding)])
    assert feeding.done() and samples > 0
    await file.close()


async def _until(file, feeding):
    async for piece in file.sound():
        yield piece
        if feeding.done():
            return


@pytest.mark.parametrize(
    "data",
    [
        b"no recording",
        b"%PDF-1.7" + bytes(100),
        bytes(4000),
        b"RIFF\x00\x00\x00\x00WAVE" + bytes(5000),
        b"\x1aE\xdf\xa3" + bytes(5000),
        b"OggS" + bytes(5000),
    ],
)
async def test_what_is_no_recording_is_said(data):
    with pytest.raises(BadAudio):
        await heard(data, 1000)
    assert not threads()


async def test_what_comes_behind_the_end_is_dropped(monkeypatch):
    monkeypatch.setattr(live, "_INPUT_BYTES", 1000)
    with pytest.raises(BadAudio):
        await asyncio.wait_for(heard(bytes(100_000), 1000), 20)  # nobody reads on, and nobody waits


@pytest.mark.parametrize("fed", [0, 5, 500, 20_000])
async def test_closing_early_leaves_no_thread(fed):
    file = LiveFile()
    await file.feed(recorded("webm", "libopus", 48000)[:fed])
    await asyncio.sleep(0.05)
    await file.close()
    await file.close()
    assert not threads()


async def test_nothing_at_all_is_no_sound():
    assert len(await heard(b"", 1)) == 0


WEBM = recorded("webm", "libopus", 48000, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.data())
async def test_a_damaged_recording_ends(data):
    damaged = bytearray(WEBM)
    for at in data.draw(st.lists(st.integers(0, len(WEBM) - 1), max_size=20)):
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        back = await asyncio.wait_for(heard(bytes(damaged[:cut]), 100), 20)
        assert np.isfinite(back).all()
    except BadAudio:
        pass
    assert not threads()


def test_containers_are_known_by_their_first_bytes():
    for kind, codec, rate in CONTAINERS:
        head = recorded(kind, codec, rate, 0.5)[:12]
        assert is_container(head) == (kind not in ("mp3", "adts") or head[:3] == b"ID3")
    assert not is_container(b"")
    assert not is_container(bytes(12))
