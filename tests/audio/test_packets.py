"""The codecs of wearables, one packet a message."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wearable.app_simulator import PACKERS, aac, lc3, pcm

from app.audio.packets import CODECS, packet_decoder
from app.roles import BadAudio, BadInput, Samples

RATE = 16_000


def tone(seconds: float, hz: float = 440.0) -> Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def loudest_hz(sound: Samples) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum) * RATE / len(sound))


@pytest.mark.parametrize("codec", CODECS)
def test_what_went_in_comes_out(codec: str) -> None:
    sound = tone(2.0)
    decoder = packet_decoder(codec, RATE)
    heard = np.concatenate([decoder.decode(p) for p in PACKERS[codec](sound)])
    assert len(heard) == pytest.approx(len(sound), abs=2100)
    middle = heard[8000:24000]
    assert loudest_hz(middle) == pytest.approx(440, abs=2)
    assert float(np.sqrt((middle**2).mean())) == pytest.approx(0.4 / np.sqrt(2), rel=0.15)


def test_aac_without_headers() -> None:
    decoder = packet_decoder("aac", RATE)
    heard = np.concatenate([decoder.decode(p) for p in aac(tone(2.0), header=False)])
    assert loudest_hz(heard[8000:24000]) == pytest.approx(440, abs=2)


def test_several_frames_in_a_message() -> None:
    for packets, codec in ((lc3(tone(1.0)), "lc3_fs1030"), (aac(tone(1.0)), "aac")):
        one, all_ = packet_decoder(codec, RATE), packet_decoder(codec, RATE)
        heard = np.concatenate([one.decode(p) for p in packets])
        assert np.array_equal(heard, all_.decode(b"".join(packets)))


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_and_channels(rate: int) -> None:
    t = np.arange(2 * rate) / rate
    left = (0.4 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    stereo = np.stack([left, np.zeros_like(left)], axis=1).reshape(-1)
    decoder = packet_decoder("pcm8", rate, 2)
    heard = np.concatenate([decoder.decode(p) for p in pcm(stereo, 2 * (rate // 50))])
    assert len(heard) == pytest.approx(2 * RATE, abs=50)
    assert loudest_hz(heard[8000:24000]) == pytest.approx(300, abs=2)
    assert float(np.abs(heard[8000:24000]).max()) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("codec", "rate", "channels"),
    [
        ("mp3", RATE, 1),
        ("", RATE, 1),
        ("pcm16", 0, 1),
        ("pcm16", 10**9, 1),
        ("pcm16", RATE, 0),
        ("lc3_fs1030", 44100, 1),
    ],
)
def test_what_is_no_codec_is_refused(codec: str, rate: int, channels: int) -> None:
    with pytest.raises(BadInput):
        packet_decoder(codec, rate, channels)


@pytest.mark.parametrize("codec", CODECS)
@given(st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
def test_garbage_between_good_packets(codec: str, data: st.DataObject) -> None:
    """It is refused or is some sound; it never breaks what comes after it."""
    decoder = packet_decoder(codec, RATE)
    packets = PACKERS[codec](tone(0.6))
    for packet in packets[:3]:
        decoder.decode(packet)
    good = data.draw(st.sampled_from(packets))
    bad = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.integers(0, len(good)).map(lambda n: good[:n]),
            st.binary(min_size=1, max_size=9).map(lambda tail: good + tail),
        )
    )
    try:
        heard = decoder.decode(bad)
        assert np.isfinite(heard).all() and float(np.abs(heard).max(initial=0)) <= 1
    except BadAudio as error:
        assert error.field in ("data", "sample_rate")
    after = np.concatenate([decoder.decode(p) for p in PACKERS[codec](tone(1.0))])
    assert loudest_hz(after[-8000:]) == pytest.approx(440, abs=4)


@pytest.mark.parametrize("codec", CODECS)
@given(st.lists(st.one_of(st.binary(max_size=64), st.binary(min_size=1000, max_size=4000)), max_size=8))
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
def test_nothing_but_garbage(codec: str, packets: list[bytes]) -> None:
    """A stream that begins with it, or holds nothing else: an error that says so, or some sound."""
    decoder = packet_decoder(codec, RATE)
    for packet in packets:
        try:
            heard = decoder.decode(packet)
            assert heard.dtype == np.float32 and heard.ndim == 1 and np.isfinite(heard).all()
            assert float(np.abs(heard).max(initial=0)) <= 1
        except BadAudio as error:
            assert error.field in ("data", "sample_rate")
    after = np.concatenate([decoder.decode(p) for p in PACKERS[codec](tone(1.0))])
    assert loudest_hz(after[-8000:]) == pytest.approx(440, abs=4)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_no_packet_is_an_error_or_short(codec: str) -> None:
    """Empty, next to nothing, or as much as a message may hold: it takes no long time and no memory."""
    decoder = packet_decoder(codec, RATE)
    with pytest.raises(BadAudio):
        decoder.decode(b"")
    huge = 1 << 20
    for packet in (b"\x00", b"\xff\xff", bytes(huge + 1), b"\xff" * (huge + 1)):
        try:
            assert len(decoder.decode(packet)) <= huge
        except BadAudio:
            continue
    after = np.concatenate([decoder.decode(p) for p in PACKERS[codec](tone(1.0))])
    assert loudest_hz(after[-8000:]) == pytest.approx(440, abs=4)


@pytest.mark.parametrize("name", ["opus", "opus_fs320"])
@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
@pytest.mark.parametrize("tenths", [25, 50, 100, 200, 400, 600])
def test_opus_packets_say_how_long_they_are(name: str, rate: int, tenths: int) -> None:
    """Of 2.5 to 60 ms, whatever the codec's name promises and whatever rate it was made at."""
    from opuslib_next import Encoder

    t = np.arange(2 * rate) / rate
    sound = (0.4 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    frame = rate * tenths // 10_000
    encoder, decoder = Encoder(rate, 1, "audio"), packet_decoder(name, RATE)
    packets = [
        encoder.encode_float(sound[at : at + frame].tobytes(), frame)
        for at in range(0, len(sound) - frame + 1, frame)
    ]
    heard = [decoder.decode(packet) for packet in packets]
    assert {len(h) for h in heard} == {RATE * tenths // 10_000}
    assert loudest_hz(np.concatenate(heard)[8000:24_000]) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("codec", CODECS)
def test_lost_packets_make_the_sound_shorter(codec: str) -> None:
    """Nothing on this wire marks a loss, so nothing is made up for it."""
    packets = PACKERS[codec](tone(2.0))
    whole, decoder = packet_decoder(codec, RATE), packet_decoder(codec, RATE)
    all_of_it = sum(len(whole.decode(p)) for p in packets)
    kept = [p for i, p in enumerate(packets) if i % 8 != 7]
    heard = np.concatenate([decoder.decode(p) for p in kept])
    assert len(heard) == pytest.approx(all_of_it * len(kept) / len(packets), rel=0.03)


def test_decoders_of_lc3_are_let_go() -> None:
    decoder = packet_decoder("lc3_fs1030", RATE)
    decoder.decode(bytes(30))
    gone = weakref.ref(decoder)
    del decoder
    gc.collect()
    assert gone() is None
