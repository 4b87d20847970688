from __future__ import annotations

import pytest

from app.dialogue.config import TurnConfig
from app.dialogue.endpointing import FRAME, Signal, TurnDetector, end_wait_ms

FRAME_MS = 32


def feed(detector: TurnDetector, *parts: tuple[float, float]) -> list[tuple[Signal, float]]:
    """Feed (probability, ms) parts; gives each signal with the ms at which it came."""
    signals = []
    for probability, ms in parts:
        for _ in range(round(ms / FRAME_MS)):
            if (signal := detector.feed(probability)) is not None:
                signals.append((signal, detector.position / 16))
    return signals


def detector(**changes: object) -> TurnDetector:
    config = TurnConfig(**changes)  # type: ignore[arg-type]
    return TurnDetector(config, lambda: config.end_ms)


def test_speech_starts_when_held_and_ends_after_the_wait() -> None:
    d = detector(start_ms=160, end_ms=512)
    signals = feed(d, (0.0, 320), (0.9, 960), (0.0, 960))
    assert [s for s, _ in signals] == [Signal.STARTED, Signal.CLOSING, Signal.ENDED]
    (_, started), (_, closing), (_, ended) = signals
    assert started == 320 + 160
    assert d.started_at == 320 * 16
    assert d.ended_at == (320 + 960) * 16
    assert closing == 320 + 960 + 96
    assert ended == 320 + 960 + 512
    assert d.voiced_ms == 960


def test_a_blip_starts_nothing() -> None:
    assert feed(detector(), (0.0, 320), (0.9, 96), (0.0, 640)) == []


def test_a_dip_in_the_first_syllable_delays_but_does_not_lose_it() -> None:
    d = detector(start_ms=160)
    signals = feed(d, (0.9, 96), (0.2, 32), (0.9, 320))
    assert [s for s, _ in signals] == [Signal.STARTED]
    assert d.started_at == 0


def test_a_pause_inside_resumes() -> None:
    signals = feed(detector(end_ms=512), (0.9, 640), (0.0, 320), (0.9, 320), (0.0, 640))
    assert [s for s, _ in signals] == [
        Signal.STARTED,
        Signal.CLOSING,
        Signal.RESUMED,
        Signal.CLOSING,
        Signal.ENDED,
    ]


def test_probability_between_the_thresholds_goes_on_but_does_not_start() -> None:
    assert feed(detector(threshold=0.5), (0.4, 960)) == []
    signals = feed(detector(threshold=0.5), (0.9, 320), (0.4, 960))
    assert [s for s, _ in signals] == [Signal.STARTED]


def test_the_wait_is_asked_anew_while_silence_lasts() -> None:
    waits = iter([2000.0] * 10 + [300.0] * 100)
    d = TurnDetector(TurnConfig(), lambda: next(waits))
    signals = feed(d, (0.9, 320), (0.0, 1280))
    assert signals[-1][0] is Signal.ENDED
    assert signals[-1][1] == 320 + 11 * FRAME_MS


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("What time is it?", 0.6),
        ("Turn the light on.", 0.6),
        ("打开灯。", 0.6),
        ("I would like to", 2.4),
        ("I want the red one and.", 2.4),
        ("Well, um", 2.4),
        ("I was thinking...", 2.4),
        ("red, green,", 2.4),
        ("My number is five five five.", 1.6),
        ("Call 415 555", 1.6),
        ("turn it off", 1.0),
        ("", 1.0),
    ],
)
def test_the_words_decide_how_long_silence_must_be(text: str, factor: float) -> None:
    assert end_wait_ms(text, TurnConfig(end_ms=500)) == pytest.approx(500 * factor)


@pytest.mark.parametrize(
    ("text", "over", "factor"),
    [
        ("What time is it?", 0.95, 0.4),
        ("What time is it?", 0.5, 0.6),
        ("What time is it.", 0.2, 1.2),
        ("What time is it.", 0.05, 1.6),
        ("turn it off", 0.95, 0.6),
        ("I want the", 0.95, 2.4),
        ("I would like to", 0.5, 2.4),
        ("better than he was.", 0.95, 0.4),
        ("one for me,", 0.95, 1.0),
        ("one for me,", 0.5, 2.4),
        ("My number is five five five.", 0.95, 1.6),
    ],
)
def test_the_voice_decides_along_with_the_words(text: str, over: float, factor: float) -> None:
    assert end_wait_ms(text, TurnConfig(end_ms=500), over) == pytest.approx(500 * factor)


def test_without_adapting_the_wait_is_the_setting() -> None:
    assert end_wait_ms("and", TurnConfig(end_ms=500, adaptive=False)) == 500


def test_frames_are_32_ms() -> None:
    assert FRAME / 16 == FRAME_MS
