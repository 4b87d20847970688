"""Packets in and out: exact where the codec is, close where it is not, and never a crash."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import chirp, cut, delay, snr_db

from app.audio.codecs import OPUS_RATES, RATES, decoder, encoder
from app.roles import BadAudio, BadInput

EVERY_INT16 = np.arange(-32768, 32768, dtype="<i2")
SAMPLE_BYTES = {"pcm16": 2, "pcm8": 1, "mulaw": 1, "alaw": 1}


def decoded(codec, rate, packets):
    stream = decoder(codec, rate)
    return np.concatenate([stream.decode(packet) for packet in packets] + [stream.flush()])


def encoded(codec, source_rate, rate, pieces):
    stream = encoder(codec, source_rate, rate)
    return [chunk for piece in pieces for chunk in stream.encode(piece)] + stream.flush()


def joined(chunks):
    return b"".join(chunk.data for chunk in chunks)


def ffmpeg_g711(law, data):
    """`data` through FFmpeg's own "mulaw" or "alaw": int16 values to bytes, or bytes to int16 values."""
    context = av.CodecContext.create(f"pcm_{law}", "w" if isinstance(data, np.ndarray) else "r")
    context.sample_rate = 8000
    context.layout = "mono"
    if isinstance(data, bytes):
        return np.concatenate([frame.to_ndarray()[0] for frame in context.decode(av.Packet(data))])
    context.format = "s16"
    frame = av.AudioFrame.from_ndarray(data[np.newaxis], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


# --- exactness ------------------------------------------------------------------------------


def test_every_pcm16_value_survives_both_ways():
    samples = decoded("pcm16", 16000, [EVERY_INT16.tobytes()])
    assert samples.dtype == np.float32
    assert samples[0] == -1
    assert samples[32768] == 0
    assert joined(encoded("pcm16", 16000, 16000, [samples])) == EVERY_INT16.tobytes()


def test_every_pcm8_value_survives_both_ways():
    every = bytes(range(256))
    samples = decoded("pcm8", 16000, [every])
    assert (samples[0], samples[128]) == (-1, 0)
    assert joined(encoded("pcm8", 16000, 16000, [samples])) == every


def test_mulaw_decodes_as_ffmpeg_does():
    every = bytes(range(256))
    ours = decoded("mulaw", 16000, [every])
    assert np.array_equal(ours * 32768, ffmpeg_g711("mulaw", every))
    # There are two codes for zero; every other comes back.
    assert joined(encoded("mulaw", 16000, 16000, [ours])) == every.replace(b"\x7f", b"\xff")


def test_mulaw_encodes_as_g711_says():
    ours = np.frombuffer(joined(encoded("mulaw", 16000, 16000, [EVERY_INT16 / np.float32(32768)])), np.uint8)
    theirs = np.frombuffer(ffmpeg_g711("mulaw", EVERY_INT16), np.uint8)
    # FFmpeg rounds to the nearest step, G.711 has decision values of its own: neighbours at most.
    assert np.mean(ours == theirs) > 0.98
    assert np.abs(ours.astype(int) - theirs).max() == 1
    # Where its segments begin, on its scale of 14 bits.
    for segment, value in enumerate([31, 95, 223, 479, 991, 2015, 4063], start=1):
        first = 32768 + 4 * value
        assert ours[first] == 255 - 16 * segment
        assert ours[first - 1] == 255 - 16 * segment + 1


def test_alaw_decodes_as_ffmpeg_does():
    every = bytes(range(256))
    ours = decoded("alaw", 16000, [every])
    assert np.array_equal(ours * 32768, ffmpeg_g711("alaw", every))
    assert joined(encoded("alaw", 16000, 16000, [ours])) == every


def test_alaw_encodes_as_g711_says():
    ours = np.frombuffer(joined(encoded("alaw", 16000, 16000, [EVERY_INT16 / np.float32(32768)])), np.uint8)
    theirs = np.frombuffer(ffmpeg_g711("alaw", EVERY_INT16), np.uint8)
    # FFmpeg rounds to the nearest step where G.711 has decision values: they differ at most there, by one.
    assert np.mean(ours == theirs) > 0.98
    assert np.abs((ours ^ 0x55).astype(int) - (theirs ^ 0x55)).max() <= 1
    # Where its segments begin, on its scale of 13 bits; what is below zero mirrors them, without a gap.
    for segment, value in enumerate([32, 64, 128, 256, 512, 1024, 2048], start=1):
        first = 32768 + 8 * value
        assert ours[first] ^ 0x55 == 128 + 16 * segment
        assert ours[first - 1] ^ 0x55 == 128 + 16 * segment - 1
        assert ours[65535 - first] ^ 0x55 == 16 * segment
    assert (ours[32768], ours[32767]) == (0xD5, 0x55)


# --- rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("codec", "least_db"), [("pcm16", 60), ("pcm8", 30), ("mulaw", 25), ("alaw", 25)])
def test_any_rate_arrives_at_16_khz_in_place(codec, rate, least_db):
    there = encoded(codec, rate, rate, cut(chirp(1.0, rate), [rate // 50]))
    back = decoded(codec, rate, [chunk.data for chunk in there])
    wanted = chirp(1.0, 16000)
    assert len(back) == len(wanted)
    assert snr_db(wanted[800:-800], back[800:-800]) > least_db


@pytest.mark.parametrize("rate", OPUS_RATES)
def test_opus_there_and_back(rate):
    chunks = encoded("opus", 22050, rate, cut(chirp(2.0, 22050), [1000]))
    assert {chunk.duration_ms for chunk in chunks} == {20}
    assert 2000 < sum(chunk.duration_ms for chunk in chunks) <= 2040
    back = decoded("opus", rate, [chunk.data for chunk in chunks])
    assert len(back) == len(chunks) * 320
    wanted = chirp(2.0, 16000)
    lag = delay(wanted, back)
    assert 0 <= lag <= 160  # the encoder looks ahead by 6.5 ms
    heard = back[lag : lag + len(wanted)]
    assert len(heard) == len(wanted)  # flush made room for the lookahead: the end is there
    assert snr_db(wanted[800:-800], heard[800:-800]) > 9
    assert np.corrcoef(wanted[-2000:], heard[-2000:])[0, 1] > 0.9


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_packets_of_another_encoder(channels):
    context = av.CodecContext.create("libopus", "w")
    context.sample_rate = 48000
    context.layout = "mono" if channels == 1 else "stereo"
    context.format = "flt"
    context.options = {"frame_duration": "60"}
    sound = np.repeat(chirp(1.8, 48000), channels)[np.newaxis]
    frame = av.AudioFrame.from_ndarray(sound, format="flt", layout=context.layout)
    frame.sample_rate = 48000
    packets = [bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]]
    back = decoded("opus", 48000, packets)
    wanted = chirp(1.8, 16000)
    lag = delay(wanted, back)
    size = min(len(wanted), len(back) - lag) - 1600
    assert np.corrcoef(wanted[1600:size], back[lag + 1600 : lag + size])[0, 1] > 0.95


# --- sending --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["pcm16", "pcm8", "mulaw", "alaw"])
@pytest.mark.parametrize("rate", RATES)
def test_durations_add_up_to_the_sound(codec, rate):
    chunks = encoded(codec, 22050, rate, cut(chirp(1.3, 22050), [333, 4000]))
    assert sum(chunk.duration_ms for chunk in chunks) == pytest.approx(1300, abs=0.1)
    for chunk in chunks:
        assert chunk.duration_ms == len(chunk.data) / SAMPLE_BYTES[codec] * 1000 / rate


def test_too_loud_is_clipped_not_wrapped():
    loud = np.array([1.5, 1.0, -1.5, -1.0, np.nan, np.inf], np.float32)
    (chunk,) = encoder("pcm16", 16000, 16000).encode(loud)
    assert np.frombuffer(chunk.data, "<i2").tolist() == [32767, 32767, -32768, -32768, 0, 32767]
    (chunk,) = encoder("pcm8", 16000, 16000).encode(loud)
    assert list(chunk.data) == [255, 255, 0, 0, 128, 255]
    back = decoded("mulaw", 16000, [encoder("mulaw", 16000, 16000).encode(loud)[0].data])
    assert back.round().tolist() == [1, 1, -1, -1, 0, 1]


def test_an_opus_encoder_can_be_used_again_after_flush():
    stream = encoder("opus", 24000, 24000)
    assert stream.flush() == []
    first = stream.encode(chirp(0.5, 24000)) + stream.flush()
    assert stream.flush() == []
    second = stream.encode(chirp(0.5, 24000)) + stream.flush()
    assert len(first) == len(second) == 26
    assert stream.encode(np.empty(0, np.float32)) == []
    assert stream.flush() == []


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["pcm16", "pcm8", "mulaw", "alaw", "opus"]),
    st.sampled_from([(16000, 24000), (22050, 24000), (24000, 24000), (22050, 8000)]),
    st.lists(st.integers(1, 2000), min_size=1, max_size=6),
)
def test_how_a_voice_is_cut_does_not_change_what_is_sent(codec, rates, sizes):
    sound = chirp(0.3, rates[0])
    whole = encoded(codec, *rates, [sound])
    assert joined(encoded(codec, *rates, cut(sound, sizes))) == joined(whole)


# --- receiving ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["pcm16", "pcm8", "mulaw", "alaw"]),
    st.sampled_from(RATES),
    st.binary(min_size=2, max_size=4000),
    st.lists(st.integers(1, 400), min_size=1, max_size=6),
)
def test_how_it_was_cut_into_packets_does_not_change_what_is_heard(codec, rate, data, sizes):
    width = SAMPLE_BYTES[codec]
    data = data[: len(data) // width * width]
    whole = decoded(codec, rate, [data])
    assert np.array_equal(decoded(codec, rate, cut(data, [size * width for size in sizes])), whole)
    assert np.all(np.abs(whole) <= 1)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["pcm16", "pcm8", "mulaw", "alaw", "opus"]),
    st.lists(st.binary(max_size=300), min_size=1, max_size=10),
)
def test_random_bytes_are_sound_or_bad_audio(codec, packets):
    stream = decoder(codec, 24000)
    for packet in packets:
        try:
            samples = stream.decode(packet)
        except BadAudio as error:
            assert error.field == "data"
        else:
            assert samples.dtype == np.float32
            assert samples.ndim == 1
            assert np.all(np.abs(samples) <= 1)


def test_a_broken_packet_changes_nothing():
    packets = [chunk.data for chunk in encoded("opus", 16000, 16000, [chirp(1.0, 16000)])]
    wanted = decoded("opus", 16000, packets)
    stream = decoder("opus", 16000)
    heard = []
    for packet in packets:
        for broken in (b"", b"\xff", b"RIFF....WAVEfmt ", b"\x03" + bytes(2000)):
            with pytest.raises(BadAudio) as caught:
                stream.decode(broken)
            assert caught.value.field == "data"
        heard.append(stream.decode(packet))
    assert np.array_equal(np.concatenate(heard), wanted)


def test_half_a_sample_is_refused_and_the_stream_goes_on():
    sound = (chirp(0.2, 24000) * 32767).astype("<i2").tobytes()
    stream = decoder("pcm16", 24000)
    first = stream.decode(sound[:2000])
    with pytest.raises(BadAudio, match="two bytes a sample") as caught:
        stream.decode(sound[2000:2101])
    assert caught.value.field == "data"
    rest = np.concatenate([stream.decode(sound[2000:]), stream.flush()])
    assert np.array_equal(np.concatenate([first, rest]), decoded("pcm16", 24000, [sound]))


@pytest.mark.parametrize("make", [decoder, lambda codec, rate: encoder(codec, 24000, rate)])
@pytest.mark.parametrize(
    ("codec", "rate", "field"),
    [("mp3", 16000, "codec"), ("pcm16", 11025, "sample_rate"), ("opus", 44100, "sample_rate")],
)
def test_what_cannot_be_is_refused_by_field(make, codec, rate, field):
    with pytest.raises(BadInput) as caught:
        make(codec, rate)
    assert caught.value.field == field
