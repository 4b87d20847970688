"""The clock of a turn."""

from __future__ import annotations

from itertools import count

from app.observability.clock import Stage, TurnClock


def test_the_first_mark_of_a_stage_counts() -> None:
    ticks = count(100)
    clock = TurnClock(now=lambda: float(next(ticks)))
    for stage in (Stage.SPEECH_END, Stage.ENDPOINT, Stage.SPEECH_END, Stage.STT_FINAL):
        clock.mark(stage)
    assert clock.ms_since(Stage.SPEECH_END) == {"endpoint": 1000.0, "stt_final": 2000.0}
    assert clock.at("speech_end") == 100.0
    assert clock.at("llm_done") is None


def test_times_may_be_given_and_are_put_in_order() -> None:
    clock = TurnClock(now=lambda: 5.0)
    clock.mark(Stage.ENDPOINT)
    clock.mark(Stage.SPEECH_END, at=4.67891)
    clock.mark(Stage.LLM_FIRST_TOKEN, at=4.9)
    assert clock.stages == ("speech_end", "llm_first_token", "endpoint")
    since = clock.ms_since("speech_end")
    assert since == {"llm_first_token": 221.1, "endpoint": 321.1}
    assert list(since) == ["llm_first_token", "endpoint"]
    assert clock.ms_since("endpoint") == {"speech_end": -321.1, "llm_first_token": -100.0}


def test_without_its_origin_a_turn_has_no_times() -> None:
    clock = TurnClock()
    clock.mark(Stage.ENDPOINT)
    assert clock.ms_since(Stage.SPEECH_END) == {}
    assert clock.ms_since(Stage.ENDPOINT) == {}


def test_stages_are_plain_strings_in_what_comes_out() -> None:
    """They go into JSON and databases."""
    clock = TurnClock()
    for stage in Stage:
        clock.mark(stage)
    assert {type(name) for name in clock.ms_since(Stage.SPEECH_END)} == {str}
    assert clock.stages == tuple(stage.value for stage in Stage)


def test_the_real_clock_never_goes_back() -> None:
    clock = TurnClock()
    for stage in Stage:
        clock.mark(stage)
    assert all(ms >= 0 for ms in clock.ms_since(Stage.SPEECH_END).values())
