"""Players: what has been heard by now, and what is kept of it. The sound card stands in for one that
takes sound when the test says so."""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.roles import Misconfigured
from app.talk import devices
from app.talk.devices import Device
from app.talk.play import Loudspeaker, Tape

RATE = 24000


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def pcm(ms: int, value: int = 1) -> bytes:
    return value.to_bytes(2, "little", signed=True) * (RATE * ms // 1000)


def frames(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return file.readframes(file.getnframes())


def test_a_tape_plays_in_real_time() -> None:
    clock = Clock()
    tape = Tape(RATE, clock)
    assert tape.position() is None and not tape.busy
    tape.play("one", pcm(300))
    clock.now += 0.1
    tape.play("one", pcm(300))
    assert tape.position() == ("one", pytest.approx(100))
    clock.now += 0.45
    assert tape.position() == ("one", pytest.approx(550)) and tape.busy
    clock.now += 5
    assert tape.position() == ("one", pytest.approx(600)) and not tape.busy
    # What comes after a silence begins when it comes.
    tape.play("one", pcm(100))
    clock.now += 0.05
    assert tape.position() == ("one", pytest.approx(650))


def test_a_paused_tape_stands_still_and_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    tape = Tape(RATE, clock)
    tape.play("one", pcm(500))
    clock.now += 0.2
    tape.pause("one")
    clock.now += 3
    assert tape.position() == ("one", pytest.approx(200)) and tape.busy
    tape.play("one", pcm(100))  # was on its way
    tape.pause("one")
    clock.now += 3
    assert tape.position() == ("one", pytest.approx(200))
    tape.resume()
    tape.resume()
    clock.now += 0.3
    assert tape.position() == ("one", pytest.approx(500)) and tape.busy
    clock.now += 0.2
    assert tape.position() == ("one", pytest.approx(600)) and not tape.busy
    tape.save(tmp_path / "reply.wav")
    assert frames(tmp_path / "reply.wav") == pcm(600)


def test_a_paused_tape_that_is_stopped_keeps_what_was_heard_before(tmp_path: Path) -> None:
    clock = Clock()
    tape = Tape(RATE, clock)
    tape.play("one", pcm(500))
    clock.now += 0.2
    tape.pause("one")
    clock.now += 1
    tape.stop()
    assert not tape.busy and tape.position() == ("one", pytest.approx(200))
    assert tape.seconds == pytest.approx(0.2)
    tape.play("two", pcm(100))
    clock.now += 0.05
    assert tape.position() == ("two", pytest.approx(50))
    # The end of a pause may be missed; the next reply is heard all the same.
    tape.pause("two")
    clock.now += 1
    tape.play("three", pcm(100))
    clock.now += 0.2
    assert tape.position() == ("three", pytest.approx(100))


def test_a_tape_keeps_what_was_heard(tmp_path: Path) -> None:
    clock = Clock()
    tape = Tape(RATE, clock)
    tape.play("one", pcm(500, 1))
    clock.now += 0.2
    tape.stop()
    assert not tape.busy
    assert tape.position() == ("one", pytest.approx(200))
    tape.play("two", pcm(100, 2))
    tape.save(tmp_path / "x.wav")
    sound = frames(tmp_path / "x.wav")
    assert sound.startswith(pcm(200, 1)) and sound.endswith(pcm(100, 2))
    between = sound[len(pcm(200)) : -len(pcm(100))]
    assert between == bytes(len(between)) and len(between) > len(pcm(200))
    assert tape.seconds == pytest.approx(len(sound) / 2 / RATE)


def test_stopping_never_takes_from_the_turn_before() -> None:
    clock = Clock()
    tape = Tape(RATE, clock)
    tape.play("one", pcm(100))
    clock.now += 1
    tape.play("two", pcm(100))
    tape.stop()
    assert tape.position() == ("two", pytest.approx(0))
    assert tape.seconds >= 0.1


class Card:
    """Takes what the test asks it to take."""

    latency = 0.0

    def __init__(self, callback: Any, **format_: Any) -> None:
        assert format_["channels"] == 1 and format_["dtype"] == "int16"
        self.callback = callback
        self.heard = b""
        Card.last = self

    last: Card

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self, ms: int) -> None:
        out = bytearray(b"\xff" * len(pcm(ms)))
        self.callback(memoryview(out), len(out) // 2, None, None)
        self.heard += out


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    library = SimpleNamespace(RawOutputStream=Card, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    return library


def test_a_loudspeaker_gives_the_card_what_it_takes(card: SimpleNamespace) -> None:
    speaker = Loudspeaker(Device("test", RATE))
    assert speaker.sample_rate == RATE and speaker.position() is None
    speaker.play("one", pcm(100, 1))
    Card.last.take(40)
    assert speaker.position() == ("one", pytest.approx(40)) and speaker.busy
    Card.last.take(100)
    # Past the end it gets silence, which is not counted.
    assert Card.last.heard == pcm(100, 1) + pcm(40, 0)
    assert speaker.position() == ("one", pytest.approx(100)) and not speaker.busy
    speaker.play("two", pcm(100, 2))
    Card.last.take(30)
    speaker.stop()
    Card.last.take(30)
    assert Card.last.heard.endswith(pcm(30, 2) + pcm(30, 0))
    assert speaker.position() == ("two", pytest.approx(30)) and not speaker.busy
    speaker.play("three", pcm(10, 3))
    Card.last.take(5)
    assert speaker.position() == ("three", pytest.approx(5))
    speaker.close()
    assert Card.last.closed


def test_a_paused_loudspeaker_gives_silence_at_once_and_goes_on(card: SimpleNamespace) -> None:
    speaker = Loudspeaker(Device("test", RATE))
    speaker.play("one", pcm(100, 1))
    Card.last.take(40)
    speaker.pause("one")
    Card.last.take(50)
    speaker.play("one", pcm(100, 2))
    Card.last.take(50)
    assert Card.last.heard == pcm(40, 1) + pcm(100, 0)
    assert speaker.position() == ("one", pytest.approx(40)) and speaker.busy
    speaker.resume()
    Card.last.take(160)
    assert Card.last.heard.endswith(pcm(60, 1) + pcm(100, 2))
    speaker.play("two", pcm(100, 3))
    speaker.pause("two")
    speaker.stop()
    speaker.play("three", pcm(10, 4))
    Card.last.take(10)
    assert Card.last.heard.endswith(pcm(100, 2) + pcm(10, 4)) and not speaker.busy


def test_what_the_card_holds_is_not_heard_yet(card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("app.talk.play.time.monotonic", clock)
    monkeypatch.setattr(Card, "latency", 0.1)
    speaker = Loudspeaker(Device("test", RATE))
    speaker.play("one", pcm(150))
    Card.last.take(150)
    assert speaker.position() == ("one", pytest.approx(50)) and speaker.busy
    clock.now += 0.08
    assert speaker.position() == ("one", pytest.approx(130)) and speaker.busy
    clock.now += 0.03
    assert speaker.position() == ("one", pytest.approx(150)) and not speaker.busy


def test_a_card_that_cannot_be_opened_is_named(card: SimpleNamespace) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("device busy")

    card.RawOutputStream = refuse
    with pytest.raises(Misconfigured, match=r"'loud one'.*device busy"):
        Loudspeaker(Device("loud one", RATE))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    found = devices.find()
    assert found.microphone is None and found.speaker is None
    assert "colloquy[mic]" in found.problem
