"""What is no recording, or not a whole one, or up to no good: refused with a reason."""

from __future__ import annotations

import asyncio
import io
import struct
import zipfile
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import Counted, chirp, memory_kb, sound_file

from app.audio.files import decode_file
from app.audio.wav import wav_bytes
from app.roles import BadAudio, TooLarge

SPEECH = chirp(3.0, 16000)
WAV = wav_bytes(SPEECH, 16000)


async def refused(data, max_seconds=60):
    with pytest.raises(BadAudio) as caught:
        await decode_file(data, max_seconds=max_seconds, name="audio_file")
    assert caught.value.field == "audio_file"
    assert caught.value.message.startswith("`audio_file` ")
    return caught.value.message


def png():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = zlib.compress(b"\0\xff\0\0" * 1)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg():
    context = av.CodecContext.create("mjpeg", "w")
    context.width = context.height = 16
    context.pix_fmt = "yuvj420p"
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.mp3", sound_file("mp3", "libmp3lame", SPEECH, 16000))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"hello, I am not a recording\n", "is text"),
        (("很长的文字，" * 2000).encode(), "is text"),
        (b"<!doctype html><title>502</title>", "is text"),
        (b"#EXTM3U\n/etc/passwd\n", "is a playlist"),
        (png(), "is a PNG picture"),
        (jpeg(), "is a JPEG picture"),
        (zipped(), "is a ZIP archive"),
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "is a WebP picture"),
        (sound_file("mp4", None, None, 0, picture=True), "has no sound track"),
        (WAV[:20], "beginning is damaged"),
        (WAV[:44], "holds no sound"),
        (wav_bytes(SPEECH[:0], 16000), "holds no sound"),
        (bytes(5000), "is not a recording"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_recording_is_named(data, what):
    message = await refused(data)
    assert what in message
    assert "Send WAV, MP3, FLAC" in message


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("aiff", "pcm_s16be"), ("ipod", "aac"), ("webm", "libopus")],
)
async def test_half_a_file_is_refused(container, codec):
    whole = sound_file(container, codec, chirp(4.0, 48000), 48000)
    await decode_file(whole, max_seconds=60)
    await refused(whole[: len(whole) // 2])


async def test_half_a_wav_is_called_cut_off_and_a_few_bytes_are_forgiven():
    assert "cut off" in await refused(WAV[: len(WAV) // 2])
    assert len(await decode_file(WAV[:-100], max_seconds=60)) == len(SPEECH) - 50


async def test_a_coding_that_is_not_for_speech_is_refused():
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("ac3", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(chirp(1.0, 48000)[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = 48000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert "not supported" in await refused(out.getvalue())


@pytest.mark.parametrize("container", ["mpegts", "flv", "asf"])
async def test_a_container_that_is_not_on_the_list_is_refused(container):
    await refused(sound_file(container, "aac", chirp(1.0, 44100), 44100))


@pytest.mark.parametrize("rate", [1, 100, 1_000_000])
async def test_an_absurd_sample_rate_is_refused(rate):
    assert f"sample rate of {rate} Hz" in await refused(wav_bytes(SPEECH, rate), max_seconds=100_000)


def adts_frames(data):
    """The frames of a raw AAC stream, each with its header."""
    at = 0
    while at < len(data):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize(("broken_in_ten", "accepted"), [(2, True), (8, False)])
async def test_a_few_broken_packets_are_passed_over_but_not_most(broken_in_ten, accepted):
    data = bytearray()
    for number, frame in enumerate(adts_frames(sound_file("adts", "aac", chirp(6.0, 16000), 16000))):
        broken = number % 10 >= 10 - broken_in_ten
        data += frame[:7] + b"\xff" * (len(frame) - 7) if broken else frame
    if accepted:
        assert len(await decode_file(bytes(data), max_seconds=60)) > 4 * 16000
    else:
        assert "more than half of it cannot be decoded" in await refused(bytes(data))


# --- files that name other files ------------------------------------------------------------


@pytest.fixture(params=["all", "all but the first look", "only the last"])
def defences(request, monkeypatch):
    """A file is judged by its beginning, then by its container; and nothing else may be opened."""
    if request.param != "all":
        monkeypatch.setattr("app.audio.files.describe", lambda head: None)
    if request.param == "only the last":
        monkeypatch.setattr("app.audio.files._CONTAINERS", ",".join(av.formats_available))


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A directory with somebody else's recording, and the process in it."""
    (tmp_path / "secret.wav").write_bytes(WAV)
    (tmp_path / "secret.ts").write_bytes(sound_file("mpegts", "aac", chirp(3.0, 48000), 48000))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_a_list_of_files_is_not_followed(secret, defences):
    listing = b"ffconcat version 1.0\nfile secret.wav\n"
    with av.open(io.BytesIO(listing)) as container:  # FFmpeg, left to itself, does follow it
        assert sum(frame.samples for frame in container.decode(audio=0)) == len(SPEECH)
    await refused(listing)
    await refused(io.BytesIO(listing))


async def test_a_playlist_is_not_followed(secret, defences):
    target = secret / "secret.ts"
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3,\n%s\n#EXT-X-ENDLIST\n"
    path = secret / "list.m3u8"
    path.write_bytes(playlist % bytes(target))
    with av.open(str(path)) as container:  # FFmpeg, left to itself, does follow it
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 3 * 48000
    await refused(path)
    await refused(path.read_bytes())
    with path.open("rb") as named:
        await refused(named)


@pytest.mark.parametrize(
    "listing",
    [
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 50004 RTP/AVP 0\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
        b"[playlist]\nFile1=secret.wav\n",
        b"concat:secret.wav|secret.wav",
        b"file:secret.wav",
    ],
)
async def test_other_ways_to_name_a_file_are_refused(secret, defences, listing):
    await refused(listing)


# --- bombs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [30_000_000, 100_000_000, 0x7FFFFFFF])
async def test_an_index_that_claims_millions_of_samples_takes_no_gigabytes(claimed):
    data = bytearray(sound_file("ipod", "alac", SPEECH, 16000))
    sizes = data.index(b"stsz") + 4
    runs = data.index(b"stts") + 4
    chunks = data.index(b"stsc") + 4
    struct.pack_into(">III", data, sizes, 0, 4, claimed)
    struct.pack_into(">I", data, runs + 8, claimed)
    struct.pack_into(">I", data, chunks + 12, claimed)
    before = memory_kb("VmHWM")
    await refused(bytes(data))
    assert memory_kb("VmHWM") - before < 300_000


async def test_a_file_in_crumbs_is_given_up_early():
    out = Counted()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("pcm_s16le", rate=16000, layout="mono")
        for at in range(20_000):  # a packet for every sample: a thousand times the work of a usual file
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1), np.int16), format="s16", layout="mono")
            frame.sample_rate = 16000
            frame.pts = at
            file.mux(stream.encode(frame))
    out.taken = 0
    assert "hardly any sound for its size" in await refused(out)
    assert out.taken < len(out.getvalue()) / 2


# --- noise ----------------------------------------------------------------------------------

WHOLE = [
    WAV,
    sound_file("mp3", "libmp3lame", SPEECH, 16000),
    sound_file("flac", "flac", SPEECH, 16000),
    sound_file("ogg", "libopus", SPEECH, 16000),
    sound_file("webm", "libopus", SPEECH, 16000),
    sound_file("ipod", "aac", SPEECH, 16000),
    sound_file("caf", "pcm_s16le", SPEECH, 16000),
]


def sound_or_refusal(data):
    try:
        heard = asyncio.run(decode_file(data, max_seconds=10))
    except (BadAudio, TooLarge):
        return
    assert heard.dtype == np.float32
    assert 0 < len(heard) <= 160_000
    assert np.all(np.abs(heard) <= 1)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([b"", b"RIFF", b"RIFF\0\0\0\0WAVEfmt ", b"ID3", b"\xff\xfb", b"fLaC", b"OggS", b"caff"]),
    st.binary(max_size=3000),
)
def test_random_bytes_are_sound_or_refused(beginning, data):
    sound_or_refusal(beginning + data)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=20),
    st.booleans(),
    st.floats(0.1, 1),
)
def test_damaged_files_are_sound_or_refused(whole, changes, in_head, kept):
    data = bytearray(whole)
    for place, value in changes:
        data[int(place * (min(len(data), 600) if in_head else len(data)))] = value
    sound_or_refusal(bytes(data[: int(kept * len(data))]))
