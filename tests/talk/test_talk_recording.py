"""Where speech ends in a recording, and that a recording is sent as a microphone would."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from app.audio.codecs import pack_pcm16
from app.audio.wav import wav_bytes
from app.roles import BadAudio
from app.talk.recording import FRAME, Pace, Recording
from corpus import load, noise, recordings

RATE = 16_000


def reading() -> np.ndarray:
    return load(next(r for r in recordings("reading") if r.id == "austen-880"))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def test_the_last_sample_of_speech_is_where_a_person_stops() -> None:
    """By ear the sentence ends at 2.77 s of 2.99."""
    last = Recording(reading()).last_speech()
    assert last is not None
    assert last / RATE == pytest.approx(2.77, abs=0.05)


@pytest.mark.parametrize("gain", [0.1, 0.5, 1.0])
def test_silence_after_it_and_its_level_do_not_move_the_end(gain: float) -> None:
    sound = reading()
    plain = Recording(sound).last_speech()
    longer = Recording(np.concatenate([sound * np.float32(gain), silence(3)])).last_speech()
    assert plain is not None and longer is not None
    assert longer == pytest.approx(plain, abs=0.02 * RATE)


def test_its_background_and_clicks_after_it_are_not_speech() -> None:
    sound = reading()
    plain = Recording(sound).last_speech()
    after = noise("pink", seconds=2, level=-45).copy()
    after[8000:8160] = 0.5
    assert Recording(np.concatenate([sound, after])).last_speech() == pytest.approx(plain, abs=0.05 * RATE)


def test_every_recording_ends_its_speech_within_itself() -> None:
    for recording in (r for r in recordings() if r.kind not in ("piece", "sound")):
        samples = load(recording)
        last = Recording(samples).last_speech()
        assert last is not None, recording.id
        assert 0.5 * len(samples) < last < len(samples), recording.id


def test_of_two_sentences_each_has_its_end() -> None:
    sound = reading()
    both = Recording(np.concatenate([sound, silence(1), sound]))
    first, second = both.last_speech(before=len(sound) + RATE // 2), both.last_speech()
    assert first is not None and second is not None
    assert second - first == pytest.approx(len(sound) + RATE, abs=0.02 * RATE)
    assert both.last_speech(before=0) is None


def test_silence_has_no_speech() -> None:
    assert Recording(silence(2)).last_speech() is None
    assert Recording(silence(0)).last_speech() is None


def test_a_pause_is_between_sentences_and_not_between_words() -> None:
    sound = reading()
    both = Recording(np.concatenate([sound, silence(1), sound]))
    last = Recording(sound).last_speech()
    assert last is not None
    words = range(int(0.5 * RATE), last, RATE // 20)
    assert not any(both.pause_at(sample) for sample in words)
    assert both.pause_at(len(sound) + RATE // 2)


async def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.wav"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(BadAudio, match=r"picture\.wav.*PNG"):
        await Recording.load(path)


async def test_a_file_of_another_rate_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_bytes(reading(), 8000))  # twice as long
    assert (await Recording.load(path)).seconds == pytest.approx(2 * len(reading()) / RATE, abs=0.01)


class Line:
    """Takes frames; every tenth takes long."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    async def send(self, frame: bytes) -> None:
        self.frames.append(frame)
        if len(self.frames) % 10 == 0:
            await asyncio.sleep(0.05)

    @property
    def samples(self) -> np.ndarray:
        return np.frombuffer(b"".join(self.frames), "<i2")


async def test_all_is_sent_in_order_and_never_early() -> None:
    sound = reading()[:RATE]
    pace, line = Pace(Recording(sound)), Line()
    ended = await pace.run(line.send, trailing=0.1)
    assert {len(frame) for frame in line.frames} == {2 * FRAME}
    want = np.frombuffer(pack_pcm16(sound), "<i2")
    assert (line.samples[: len(want)] == want).all()
    assert not line.samples[len(want) :].any()
    assert len(line.frames) == -(-len(sound) // FRAME) + 5
    begun = pace.sent_at(0)
    assert begun is not None
    for sample in range(0, len(sound), FRAME):
        at = pace.sent_at(sample)
        assert at is not None and at - begun >= sample / RATE - 0.02
    assert pace.finished.is_set()
    assert ended == pace.sent_at(pace.recording.last_speech() or 0)
    assert pace.sent_at(len(sound) + FRAME) is None


async def test_lateness_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a time of its own, where a frame takes 15 of its 20 ms to send and the tenth takes 200."""
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def send(frame: bytes) -> None:
        nonlocal now
        sent.append(frame)
        now += 0.2 if len(sent) == 10 else 0.015

    sent: list[bytes] = []
    pace = Pace(Recording(reading()[:RATE]), now=lambda: now)
    monkeypatch.setattr("app.talk.recording.asyncio.sleep", sleep)
    await pace.run(send, trailing=0)
    assert pace.sent_at(9 * FRAME) == pytest.approx(100 + 9 * 0.02)
    late, caught_up = pace.sent_at(10 * FRAME), pace.sent_at(49 * FRAME)
    assert late == pytest.approx(100 + 9 * 0.02 + 0.2)
    assert caught_up == pytest.approx(100 + 49 * 0.02)


async def test_a_held_recording_waits_at_its_pause_and_loses_nothing() -> None:
    sound = np.concatenate([reading(), silence(0.8), reading()])[: int(4.5 * RATE)]
    pace, line = Pace(Recording(sound)), Line()
    running = asyncio.create_task(pace.run(line.send, trailing=0))
    second = 3.8  # where the second sentence is, in seconds
    while pace.sent_at(int(3.0 * RATE)) is None:
        await asyncio.sleep(0.01)
    pace.hold = True
    held = len(line.frames)
    while len(line.frames) < held + 60:
        await asyncio.sleep(0.02)
    assert pace.sent_at(int((second + 0.3) * RATE)) is None
    pace.hold = False
    await running
    sent = line.samples
    want = np.frombuffer(pack_pcm16(sound), "<i2")
    added = len(sent) - len(want)
    assert added >= 50 * FRAME
    # The same sound, but for silence that was put in somewhere.
    cut = next(
        at for at in range(0, len(want), FRAME) if (want[at:] == sent[at + added :][: len(want) - at]).all()
    )
    assert (sent[:cut] == want[:cut]).all()
    assert not sent[cut : cut + added].any()
    # The session's clock counts it, the recording's does not.
    assert pace.sample_at(1000 * len(sent) / RATE) == pytest.approx(len(want), abs=FRAME)
    assert pace.sample_at(500) == pytest.approx(RATE // 2, abs=FRAME)
