"""Recordings of every kind come out as the same sound, in place, a block at a time."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import Counted, chirp, delay, memory_kb, snr_db, sound_file

from app.audio.files import decode_file, stream_file
from app.audio.wav import wav_bytes
from app.roles import TooLarge

# container, codec, rate, channels, what may be missing at the ends or added (s), least SNR (dB)
KINDS = [
    ("wav", "pcm_s16le", 8000, 1, 0.0, 60),
    ("wav", "pcm_s16le", 16000, 1, 0.0, 80),
    ("wav", "pcm_s16le", 44100, 2, 0.001, 60),
    ("wav", "pcm_s24le", 48000, 6, 0.001, 60),
    ("wav", "pcm_s32le", 48000, 2, 0.001, 60),
    ("wav", "pcm_f32le", 48000, 1, 0.001, 60),
    ("wav", "pcm_f64le", 96000, 1, 0.001, 60),
    ("wav", "pcm_u8", 16000, 2, 0.0, 30),
    ("wav", "pcm_mulaw", 8000, 1, 0.0, 25),
    ("flac", "flac", 44100, 2, 0.001, 60),
    ("aiff", "pcm_s16be", 22050, 1, 0.001, 60),
    ("caf", "pcm_s16le", 24000, 1, 0.001, 60),
    ("matroska", "flac", 48000, 1, 0.001, 60),
    ("ipod", "alac", 44100, 2, 0.001, 60),
    ("mp3", "libmp3lame", 44100, 2, 0.06, 20),
    ("mp3", "libmp3lame", 16000, 1, 0.06, 20),
    ("ogg", "libopus", 48000, 1, 0.02, 8),
    ("ogg", "vorbis", 44100, 2, 0.03, 20),
    ("webm", "libopus", 48000, 2, 0.02, 8),
    ("ipod", "aac", 44100, 1, 0.05, 15),
    ("mp4", "aac", 48000, 2, 0.05, 15),
    ("adts", "aac", 48000, 1, 0.08, 10),
]


@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels", "slack", "least_db"),
    KINDS,
    ids=[f"{kind[0]}-{kind[1]}-{kind[2]}-{kind[3]}ch" for kind in KINDS],
)
async def test_any_kind_of_file_is_the_same_sound(container, codec, rate, channels, slack, least_db):
    data = sound_file(container, codec, chirp(2.0, rate), rate, channels)
    heard = await decode_file(data, max_seconds=10)
    wanted = chirp(2.0, 16000)
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert abs(len(heard) - len(wanted)) <= slack * 16000
    lag = delay(wanted, heard)
    assert abs(lag) <= slack * 16000
    size = min(len(wanted), len(heard) - max(lag, 0)) - 1600
    at = max(lag, 0)
    assert snr_db(wanted[1600:size], heard[at + 1600 : at + size]) > least_db


async def test_the_sound_of_a_video_and_of_a_fragmented_mp4():
    for options in ({}, {"movflags": "frag_keyframe+empty_moov"}):
        data = sound_file("mp4", "aac", chirp(2.0, 48000), 48000, 2, options, picture=True)
        heard = await decode_file(data, max_seconds=10)
        assert abs(delay(chirp(2.0, 16000), heard)) <= 0.05 * 16000


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
async def test_a_wav_that_was_streamed_before_its_length_was_known(size):
    data = bytearray(wav_bytes(chirp(1.0, 16000), 16000))
    struct.pack_into("<I", data, 4, size)
    struct.pack_into("<I", data, 40, size)
    heard = await decode_file(bytes(data), max_seconds=10)
    assert snr_db(chirp(1.0, 16000), heard) > 80


async def test_bytes_files_and_paths_are_read_alike_and_files_stay_open(tmp_path):
    data = sound_file("flac", "flac", chirp(1.0, 24000), 24000)
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    wanted = await decode_file(data, max_seconds=10)
    assert np.array_equal(await decode_file(path, max_seconds=10), wanted)
    with path.open("rb") as file:
        file.seek(100)
        assert np.array_equal(await decode_file(file, max_seconds=10), wanted)
        assert not file.closed


async def test_tags_that_are_not_utf8_do_no_harm():
    data = bytearray(wav_bytes(chirp(0.5, 16000), 16000))
    tag = b"INAM" + struct.pack("<I", 4) + b"\xff\xfe\xe4\x00"
    data += b"LIST" + struct.pack("<I", 4 + len(tag)) + b"INFO" + tag
    struct.pack_into("<I", data, 4, len(data) - 8)
    assert len(await decode_file(bytes(data), max_seconds=10)) == 8000


async def test_a_stream_that_changes_its_rate_on_the_way():
    parts = [sound_file("adts", "aac", chirp(1.0, rate), rate) for rate in (48000, 24000)]
    alone = [await decode_file(part, max_seconds=10) for part in parts]
    heard = await decode_file(b"".join(parts), max_seconds=10)
    assert len(heard) == len(alone[0]) + len(alone[1])
    assert snr_db(alone[1][3200:], heard[len(alone[0]) + 3200 :]) > 30


async def test_values_that_are_no_sound_are_made_harmless():
    sound = chirp(0.5, 48000)
    sound[100:200] = np.nan
    sound[300:400] = np.inf
    sound[500:600] = -1e30
    data = sound_file("wav", "pcm_f32le", sound, 48000, 2)
    heard = await decode_file(data, max_seconds=10)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1
    assert snr_db(chirp(0.5, 16000)[400:-400], heard[400:-400]) > 50


# --- blocks ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.floats(0.001, 3), st.sampled_from([("flac", "flac"), ("ogg", "libopus")]))
def test_the_size_of_the_blocks_does_not_change_the_sound(block_seconds, kind):
    data = sound_file(*kind, chirp(1.1, 48000), 48000)

    async def blocks():
        async with aclosing(stream_file(data, max_seconds=9, block_seconds=block_seconds)) as stream:
            return [block async for block in stream]

    got = asyncio.run(blocks())
    size = round(block_seconds * 16000)
    assert all(len(block) == size for block in got[:-1])
    assert 0 < len(got[-1]) <= size
    assert np.array_equal(np.concatenate(got), asyncio.run(decode_file(data, max_seconds=9)))


async def test_an_hour_takes_no_more_memory_than_a_minute(tmp_path):
    path = tmp_path / "hour.wav"
    minute = sound_file("wav", "pcm_mulaw", chirp(60.0, 8000), 8000)[-480_000:]
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 7, 1, 8000, 8000, 1, 8)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + 60 * len(minute)) + head)
        file.write(b"data" + struct.pack("<I", 60 * len(minute)))
        for _ in range(60):
            file.write(minute)
    held = []
    async with aclosing(stream_file(path, max_seconds=3600, block_seconds=10)) as blocks:
        async for block in blocks:
            assert len(block) == 160_000
            held.append(memory_kb("VmRSS"))
    assert len(held) == 360
    assert max(held) - held[6] < 20_000  # all of it would be 230 MB


# --- limits ---------------------------------------------------------------------------------


async def test_a_declared_length_over_the_limit_is_refused_at_once():
    file = Counted(wav_bytes(np.zeros(16000 * 60, np.float32), 16000))
    with pytest.raises(TooLarge, match="longer than 30 s") as caught:
        await decode_file(file, max_seconds=30, name="audio_file")
    assert caught.value.http_status == 413
    assert caught.value.field == "audio_file"
    assert file.taken < len(file.getvalue()) / 5


async def test_a_declared_length_under_the_limit_is_not_believed():
    data = bytearray(sound_file("flac", "flac", chirp(30.0, 16000), 16000))
    position = data.index(b"fLaC") + 4 + 4 + 13  # the low bits of STREAMINFO's count of samples
    data[position : position + 5] = bytes([data[position] & 0xF0]) + struct.pack(">I", 16000)
    with pytest.raises(TooLarge):
        await decode_file(bytes(data), max_seconds=10)


async def test_no_more_is_decoded_than_the_limit_when_nothing_is_declared():
    minute = sound_file("adts", "aac", chirp(60.0, 16000), 16000)
    file = Counted(minute * 180)  # three hours
    heard = 0
    with pytest.raises(TooLarge):
        async with aclosing(stream_file(file, max_seconds=20)) as blocks:
            async for block in blocks:
                heard += len(block)
    assert 19 * 16000 <= heard <= 20 * 16000
    assert file.taken < 4 * len(minute)


async def test_exactly_the_limit_is_accepted():
    data = wav_bytes(chirp(2.0, 16000), 16000)
    assert len(await decode_file(data, max_seconds=2)) == 32000


# --- leaving early --------------------------------------------------------------------------


async def test_leaving_early_reads_no_further():
    file = Counted(sound_file("flac", "flac", chirp(120.0, 16000), 16000))
    async with aclosing(stream_file(file, max_seconds=600)) as blocks:
        async for block in blocks:
            assert len(block) == 16000
            break
    taken = file.taken
    await asyncio.sleep(0.05)
    assert file.taken == taken < len(file.getvalue()) / 4


async def test_cancelling_waits_for_the_thread_and_then_leaves_the_file_alone():
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Counted):
        def read(self, size=-1):
            reading.set()
            go_on.wait()
            return super().read(size)

    file = Slow(sound_file("flac", "flac", chirp(60.0, 16000), 16000))
    task = asyncio.create_task(decode_file(file, max_seconds=600))
    await asyncio.to_thread(reading.wait)
    task.cancel()
    try:
        await asyncio.wait([task], timeout=0.1)
        assert not task.done()  # the thread is still in `read`
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    file.close()
    assert file.taken < 20_000


async def test_an_error_of_the_disk_is_not_called_bad_audio():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 50_000:
                raise OSError("the disk failed")
            return super().read(size)

    with pytest.raises(OSError, match="the disk failed"):
        await decode_file(Broken(wav_bytes(chirp(20.0, 16000), 16000)), max_seconds=60)
