"""What is sent again after a broken connection, from what the server says it has."""

from __future__ import annotations

import pytest

from app.talk.outgoing import Outgoing, Parcel


def sound(name: str, seconds: float = 0.02) -> Parcel:
    return Parcel(name.encode(), seconds)


def drained(out: Outgoing) -> list[str]:
    frames = []
    while (frame := out.next()) is not None:
        frames.append(frame if isinstance(frame, str) else frame.decode())
    return frames


def test_what_has_not_arrived_is_sent_again_before_what_waits() -> None:
    out = Outgoing(60)
    for parcel in (
        sound("1"),
        Parcel("text"),
        sound("2"),
        Parcel("playback", counts=False),
        Parcel("commit"),
    ):
        out.put(parcel)
    assert drained(out) == ["1", "text", "2", "playback", "commit"]
    out.put(sound("3"))
    out.again(20, 1)
    out.put(sound("4"))
    assert drained(out) == ["2", "commit", "3", "4"]
    out.again(80, 2)
    assert drained(out) == [] and out.lost_s == 0


def test_nothing_had_arrived() -> None:
    out = Outgoing(60)
    for name in "abc":
        out.put(sound(name))
    drained(out)
    out.again(0, 0)
    out.again(0, 0)
    assert drained(out) == ["a", "b", "c"]


def test_what_is_known_to_have_arrived_is_forgotten_and_old_news_changes_nothing() -> None:
    out = Outgoing(60)
    for parcel in (sound("1"), sound("2"), Parcel("commit"), Parcel("text"), sound("3")):
        out.put(parcel)
    drained(out)
    out.received(40.0004, 1)
    out.received(20, 0)
    out.again(40, 1)
    assert drained(out) == ["text", "3"]


def test_the_servers_rounding_does_not_matter() -> None:
    out = Outgoing(600)
    piece = 441 / 44100 + 1 / 44100  # 442 samples
    for i in range(5000):
        out.put(sound(str(i), piece))
    drained(out)
    out.received(round(4321 * piece * 1000, 3), 0)
    out.again(round(4321 * piece * 1000, 3), 0)
    assert drained(out) == [str(i) for i in range(4321, 5000)]


def test_of_what_waits_and_of_what_is_on_its_way_the_newest_is_kept() -> None:
    out = Outgoing(0.1)
    for i in range(8):
        out.put(sound(f"{i}"))
    out.put(Parcel("text"))
    assert out.lost_s == pytest.approx(0.06) and out.waiting_s == pytest.approx(0.1)
    assert drained(out) == ["3", "4", "5", "6", "7", "text"]
    for i in range(8, 11):
        out.put(sound(f"{i}"))
    assert drained(out) == ["8", "9", "10"]
    # Of eight sent the server has two; 5 is gone. Its count goes on with what comes then.
    out.again(40, 0)
    assert drained(out) == ["6", "7", "text", "8", "9", "10"]
    assert out.lost_s == pytest.approx(0.08)
    out.again(100, 1)
    assert drained(out) == ["9", "10"]
