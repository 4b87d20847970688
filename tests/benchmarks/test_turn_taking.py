"""`turn_taking` measures what it says, and the same in every run."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
from test_commands import run

from app.dialogue import events
from app.roles import SAMPLE_RATE, RoleSet, Samples, Word
from benchmarks.common.turns_material import Case, Over, prelude
from benchmarks.common.turns_roles import engines
from benchmarks.common.turns_session import Happened, Loudspeaker, Overlap, hear, talk_over
from benchmarks.common.turns_sound import boundary, room_tone, speech_span, with_pause
from benchmarks.common.virtual_time import at_cost, run_virtual, virtual_loop
from benchmarks.turn_taking import judged_end, judged_over, setup
from corpus import load, recordings

TEXT = "The museum opens at ten in the morning and closes at six."


def sound(name: str) -> Samples:
    return load(next(r for r in recordings() if r.id == name))


def plain(happened: tuple[Happened, ...] | list[Happened]) -> list[tuple[str, ...]]:
    """Events and their times, without what is drawn by lot (ids) or too long to compare."""
    lines = []
    for h in happened:
        said = {k: getattr(h.event, k, "") for k in ("text", "at", "at_ms", "heard", "offset_ms", "reason")}
        lines.append((f"{h.at:.9f}", type(h.event).__name__, *map(str, said.values())))
    return lines


async def talk() -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """A recording with a pause put in, and a person who talks over a reply and its echo."""
    paused = with_pause(sound("cities-5"), SAMPLE_RATE, 0.6)
    near = sound("prompt-vm-savefolder")
    async with engines(None) as ready:
        made = setup(ready, "medium", ())
        ready.llm.text = TEXT
        reply = await ready.prepare(TEXT)
        reply = soxr.resample(reply, ready.voice.sample_rate, SAMPLE_RATE).astype(np.float32)

        def virtual() -> tuple[list[Happened], Overlap]:
            async def both() -> tuple[list[Happened], Overlap]:
                roles = at_cost(made.roles)
                heard = await hear(roles, made.config, np.concatenate([paused, room_tone(paused, 3.0)]))
                speaker = Loudspeaker(reply, -20.0, 1)
                span = speech_span(near)
                over = await talk_over(
                    roles, made.config, question=prelude(), near=(near, *span), speaker=speaker
                )
                return heard, over

            return run_virtual(both)

        heard, over = await asyncio.to_thread(virtual)
    return plain(heard), plain(over.happened)


async def test_two_runs_are_the_same(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    first, second = await talk(), await talk()
    names = [line[1] for line in first[0]]
    assert {"SpeechStarted", "Partial", "SpeechStopped", "Final", "ReplyAudio"} <= set(names)
    assert "Interrupted" in [line[1] for line in first[1]]
    assert first == second


async def test_command(models_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    chosen = ["--only", "prompt-hello", "--only", "stop-1.12", "--only", "pink"]
    done = run("turn_taking", *chosen, "--json", str(out), MODELS_DIR=str(models_dir))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert {r["id"] for r in result["over"]["cases"]} >= {"stop-1.12", "pink"}
    for row in result["ends"]["recordings"]:
        assert not row["missed"] and row["stopped_s"] > 0 and row["final_s"] >= row["stopped_s"] - 0.01
    stop = next(r for r in result["over"]["cases"] if r["id"] == "stop-1.12")
    assert stop["voiced"] and 0 < stop["silent_s"] <= stop["stopped_s"]
    assert "Over a reply" in done.stdout


def test_unknown_words_are_refused() -> None:
    done = run("turn_taking", "--without", "manners")
    assert done.returncode != 0
    assert done.stderr.strip() == "--without: 'manners' is none of smart_turn, words, echo, hold"


def case() -> Case:
    return Case("c", "row", np.zeros(SAMPLE_RATE, np.float32), 0, SAMPLE_RATE - 1)


def stopped(at: float) -> Happened:
    return Happened(at, events.SpeechStopped("t", at))


def test_what_counts_as_a_cut_in() -> None:
    """The recording's last sample of speech is at 1.5 s: half a second is put before it."""
    early = judged_end(case(), [stopped(1.2), stopped(1.9)])
    assert early["cut_in"] and not early["missed"]
    assert early["stopped_s"] == pytest.approx(0.4, abs=1e-3)
    assert not judged_end(case(), [stopped(1.9)])["cut_in"]
    assert judged_end(case(), [stopped(1.2)])["missed"]
    assert judged_end(case(), [stopped(4.2)])["missed"]


def test_what_counts_as_an_interruption() -> None:
    def found(*happened: Happened) -> Overlap:
        return Overlap(happened, began=1.0, onset=2.5, last=3.0)

    held = Happened(2.6, events.ReplyPaused("t", 0))
    on = Happened(2.9, events.ReplyResumed("t"))
    stop = Happened(2.8, events.Interrupted("t", "speech", ""))
    before = Happened(2.0, events.Interrupted("t", "speech", ""))
    nod, person = Over("n", "row", case(), False), Over("p", "row", case(), True)
    resumed = judged_over(nod, found(held, on), True)
    assert not resumed["false_stop"] and resumed["held_s"] == pytest.approx(0.3)
    assert judged_over(nod, found(held, stop), True)["false_stop"]
    noticed = judged_over(person, found(held, stop), True)
    assert noticed["silent_s"] == pytest.approx(0.1) and noticed["stopped_s"] == pytest.approx(0.3)
    assert judged_over(person, found(held, on), True)["missed"]
    # An echo that stops the reply before the person speaks is no success.
    by_echo = judged_over(person, found(before), True)
    assert by_echo["false_stop"] and by_echo["silent_s"] is None


def test_a_pause_is_put_in_with_the_recordings_own_noise() -> None:
    spoken = sound("austen-880")
    words = [Word(w, i * 0.4, i * 0.4 + 0.4, 1.0) for i, w in enumerate("he was not an ill man".split())]
    at = boundary(spoken, words)
    assert at is not None
    longer = with_pause(spoken, at, 0.6)
    assert len(longer) == len(spoken) + round(0.6 * SAMPLE_RATE)
    pause = longer[at + 100 : at + 9000]
    assert 0 < np.sqrt(np.mean(pause**2)) < np.sqrt(np.mean(spoken**2)) / 10
    assert boundary(spoken, words[:3]) is None


def test_virtual_time_waits_for_models_and_for_nothing_else() -> None:
    """Whatever order real work ends in, its results come in the order of its cost."""

    async def main() -> list[tuple[str, float]]:
        loop = virtual_loop()
        log: list[tuple[str, float]] = []

        async def work(name: str, real: float, cost: float) -> None:
            await loop.call(cost, asyncio.to_thread(time.sleep, real))
            log.append((name, round(loop.time(), 3)))

        async with asyncio.TaskGroup() as group:
            group.create_task(work("slow but cheap", 0.2, 0.1))
            group.create_task(work("quick but dear", 0.0, 0.3))
            group.create_task(asyncio.sleep(3600))
        log.append(("end", round(loop.time(), 3)))
        # A rest that a double cannot add to the time still passes.
        due = loop.time() + 1e-13
        while loop.time() < due:
            await asyncio.sleep(due - loop.time())
        return log

    assert run_virtual(main) == [("slow but cheap", 0.1), ("quick but dear", 0.3), ("end", 3600.0)]


def test_setup_switches_off_what_it_says() -> None:
    roles = RoleSet(*([object()] * 5), turn=object())  # type: ignore[arg-type]
    ready = SimpleNamespace(roles=roles)
    assert setup(ready, "low", ("smart_turn",)).roles.turn is None
    assert setup(ready, "low", ()).roles.turn is roles.turn
    assert not setup(ready, "high", ("words",)).config.turn.adaptive
    assert setup(ready, "high", ()).config.turn.eagerness == "high"
