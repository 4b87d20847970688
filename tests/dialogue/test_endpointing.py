from __future__ import annotations

from typing import Literal

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


def factor(text: str, over: float | None = None, complete: float | None = None) -> float:
    return end_wait_ms(text, TurnConfig(end_ms=500), over, complete) / 500


@pytest.mark.parametrize("text", ["What time is it?", "我们走吧？"])
def test_a_question_that_is_surely_over_is_answered_soonest(text: str) -> None:
    assert factor(text, 0.95, 0.4) == pytest.approx(0.5)
    assert factor(text, 0.95) == pytest.approx(0.5)
    # A recogniser asks wherever it is cut off: "Can you tell me?"
    assert factor(text, 0.95, 0.0005) > 1.5


@pytest.mark.parametrize(
    "text", ["Turn the light on.", "turn the light on", "turn the light on,", "打开灯。"]
)
def test_words_that_are_likely_all_end_soon_however_they_are_written(text: str) -> None:
    assert 0.7 <= factor(text, 0.95, 0.4) < 0.75
    assert 0.7 <= factor(text, None, 0.4) < 0.85


@pytest.mark.parametrize(
    "text", ["I would like to.", "Nobody is available to.", "打开客厅的。", "Turn it off and."]
)
@pytest.mark.parametrize("over", [0.05, 0.5, 0.99, None])
def test_a_full_stop_and_a_low_voice_do_not_end_words_that_go_on(text: str, over: float | None) -> None:
    assert factor(text, over, 0.0002) > 2.3


def test_the_wait_falls_as_words_and_voice_are_surer() -> None:
    likely = [1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0]
    for over in (None, 0.05, 0.5, 0.95):
        waits = [factor("Turn the light on.", over, c) for c in likely]
        assert waits == sorted(waits, reverse=True)
        assert waits[0] > 2.2 > 0.9 > waits[-1]
    for complete in (None, 0.01, 0.1):
        waits = [factor("Turn the light on.", over, complete) for over in (0.0, 0.1, 0.5, 0.9, 1.0)]
        assert waits == sorted(waits, reverse=True)
        assert waits[0] > waits[-1] + 0.2


def test_one_word_may_be_all_where_a_longer_text_would_not() -> None:
    assert factor("Monday.", 0.9, 0.03) < 1.0
    assert factor("Monday.", 0.9, 0.03) < factor("I meant Monday.", 0.9, 0.03) - 0.1
    assert factor("The.", 0.9, 0.00001) > 2.3
    # A Chinese sentence is not one word.
    assert factor("我想星期一。", 0.9, 0.03) == pytest.approx(factor("I meant Monday.", 0.9, 0.03))


@pytest.mark.parametrize("text", ["My number is five five five.", "Call 415 555", "four, four, two,"])
@pytest.mark.parametrize("complete", [0.0003, 0.3, None])
def test_a_number_has_time_for_its_next_group(text: str, complete: float | None) -> None:
    assert factor(text, 0.95, complete) == pytest.approx(1.6)


@pytest.mark.parametrize(
    "text", ["I would like a", "I want the red one and.", "Well, um", "I was thinking...", "Bring the—"]
)
def test_without_a_language_model_the_last_word_tells_that_it_goes_on(text: str) -> None:
    assert factor(text, 0.95) > 2.0
    assert factor("He said so.", 0.95) < 0.8


def test_words_that_trail_off_go_on_whatever_they_are_worth() -> None:
    assert factor("I was thinking...", 0.95, 0.3) > 2.0


def test_eagerness_and_the_setting_scale_the_wait_within_bounds() -> None:
    def wait(end_ms: float, eagerness: Literal["low", "medium", "high"], complete: float = 0.3) -> float:
        return end_wait_ms("Is it late?", TurnConfig(end_ms=end_ms, eagerness=eagerness), 0.95, complete)

    assert wait(500, "low") == pytest.approx(1.7 * wait(500, "medium"))
    assert wait(800, "high") == pytest.approx(0.75 * wait(800, "medium"))
    assert wait(500, "high") == 200
    assert wait(100, "medium") == 100
    assert wait(500, "low", 1e-5) == 2000
    assert wait(3000, "low", 1e-5) == 3000


def test_nothing_heard_yet_waits_for_the_setting() -> None:
    assert end_wait_ms("", TurnConfig(end_ms=500), 0.99, None) == 500


def test_without_adapting_the_wait_is_the_setting() -> None:
    assert end_wait_ms("and", TurnConfig(end_ms=500, adaptive=False), 0.1, 0.0001) == 500


def test_frames_are_32_ms() -> None:
    assert FRAME / 16 == FRAME_MS
