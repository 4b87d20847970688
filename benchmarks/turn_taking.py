"""When to speak and when to stop: cut-ins, waits, false and missed interruptions, on recordings.

The real session core with the real voice detector, recognisers, judge of the end of a turn and voice
hears recordings on a virtual clock: it is faster than real time and the same in every run. Only the
language model is scripted: it answers at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import soxr
import typer

from app.dialogue import barge_in, events
from app.dialogue.config import SessionConfig, TurnConfig
from app.dialogue.endpointing import FRAME
from app.roles import SAMPLE_RATE, RoleSet, Samples
from benchmarks.common.report import (
    console,
    machine,
    ms,
    percent,
    print_machine,
    print_table,
    run,
    spread,
    write_json,
)
from benchmarks.common.turns_material import Case, Over, ends, over, prelude, spoken_texts
from benchmarks.common.turns_roles import Engines, engines
from benchmarks.common.turns_session import Happened, Loudspeaker, Overlap, hear, talk_over
from benchmarks.common.turns_sound import room_tone
from benchmarks.common.virtual_time import COSTS, at_cost, run_virtual

SETS = ("ends", "over")
WITHOUT = ("smart_turn", "words", "echo", "hold")
"""What can be switched off. `words`: every pause has the same wait, `smart_turn` has no say. `echo`: nobody
tells our own voice from the person's. `hold`: the reply goes on until words stop it."""
_BEFORE_S, _AFTER_S = 0.5, 3.5
_MISSED_S = 2.5
_SHORT = "All right."
_LONG = (
    "The museum opens at ten in the morning and closes at six. You can take the number four bus from the "
    "station, and it takes about twenty minutes. Tickets cost nine euros for grown people, and children "
    "go in free."
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run is made with."""

    roles: RoleSet
    config: SessionConfig


def setup(engines: Engines, eagerness: Literal["low", "medium", "high"], without: Sequence[str]) -> Setup:
    """The session's roles and settings, less what is switched off."""
    if "hold" in without:
        barge_in.ONSET_MS = math.inf
    turn = TurnConfig(eagerness=eagerness, adaptive="words" not in without, echo="echo" not in without)
    roles = replace(engines.roles, turn=None) if "smart_turn" in without else engines.roles
    return Setup(roles, SessionConfig(turn=turn))


# --- ends --------------------------------------------------------------------------------------


def judged_end(case: Case, happened: Sequence[Happened]) -> dict[str, Any]:
    """What became of one recording; times in seconds after its last spoken sample."""
    true_end = _BEFORE_S + case.last / SAMPLE_RATE
    stops = [h.at - true_end for h in happened if isinstance(h.event, events.SpeechStopped)]
    finals = [h.at - true_end for h in happened if isinstance(h.event, events.Final)]
    voices = [h.at - true_end for h in happened if isinstance(h.event, events.ReplyAudio)]
    after = [s for s in stops if s >= 0]
    return {
        "id": case.id,
        "row": case.row,
        "cut_in": any(s < 0 for s in stops),
        "spoken_into": any(v < 0 for v in voices),
        "turns": len(finals),
        "missed": not after or after[-1] > _MISSED_S,
        "stopped_s": after[-1] if after else None,
        "final_s": finals[-1] if finals and finals[-1] >= 0 else None,
        "answered_s": next((v for v in voices if v >= 0), None),
        "transcript": " | ".join(h.event.text for h in happened if isinstance(h.event, events.Final)),
    }


def run_ends(setup: Setup, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Every recording, in a session and on a clock of its own."""
    rows = []
    for case in cases:
        before, after = (room_tone(case.sound, s, n) for n, s in enumerate((_BEFORE_S, _AFTER_S), 1))
        sound = np.concatenate([before, case.sound, after])
        rows.append(judged_end(case, run_virtual(partial(hear, setup.roles, setup.config, sound))))
    return rows


def summary_of_ends(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of some recordings; shares are of recordings, times in seconds."""
    count = len(rows)
    return {
        "recordings": count,
        "cut_ins": sum(r["cut_in"] for r in rows) / count,
        "spoken_into": sum(r["spoken_into"] for r in rows) / count,
        "split": sum(r["turns"] > 1 for r in rows) / count,
        "missed": sum(r["missed"] for r in rows) / count,
        "stopped_s": spread(r["stopped_s"] for r in rows if r["stopped_s"] is not None),
        "final_s": spread(r["final_s"] for r in rows if r["final_s"] is not None),
        "answered_s": spread(r["answered_s"] for r in rows if r["answered_s"] is not None),
    }


# --- over --------------------------------------------------------------------------------------


def judged_over(case: Over, found: Overlap, voiced: bool | None) -> dict[str, Any]:
    """What became of one reply; times in seconds."""
    since = found.onset if case.near is not None else found.began
    later = [h for h in found.happened if h.at >= found.began]

    def times(kind: type[events.Event]) -> list[float]:
        return [h.at for h in later if isinstance(h.event, kind)]

    pauses, resumes, stops = times(events.ReplyPaused), times(events.ReplyResumed), times(events.Interrupted)
    stop = stops[0] if stops and stops[0] <= found.last + _MISSED_S else None
    silent = [at for at in (*pauses, *stops) if at >= since]
    early = stop is not None and stop < since
    in_time = stop is not None and not early
    held = sum(min([at for at in (*resumes, *stops) if at >= p], default=later[-1].at) - p for p in pauses)
    return {
        "id": case.id,
        "row": case.row,
        "turn": case.turn,
        "voiced": voiced,
        "false_stop": early or (stop is not None and not case.turn),
        "missed": case.turn and stop is None,
        "pauses": len(pauses),
        "held_s": held,
        "silent_s": min(silent) - since if in_time and case.turn else None,
        "stopped_s": stop - since if stop is not None and in_time and case.turn else None,
        "transcript": " | ".join(h.event.text for h in later if isinstance(h.event, events.Final)),
    }


async def takes_for_voice(setup: Setup, sound: Samples) -> bool:
    """Whether the voice detector, given `sound` alone, holds 3 frames of it (96 ms) for voice: what it
    never holds for voice says nothing about what comes after it."""
    stream = setup.roles.vad.stream()
    heard = [
        await stream.probability(sound[at : at + FRAME]) for at in range(0, len(sound) - FRAME + 1, FRAME)
    ]
    return sum(p >= setup.config.turn.threshold for p in heard) >= 3


def run_over(setup: Setup, cases: Sequence[Over], question: Samples, reply: Samples) -> list[dict[str, Any]]:
    """Every case over the same reply, in a session and on a clock of its own."""
    rows = []
    for number, case in enumerate(cases):
        near, voiced = None, None
        if case.near is not None:
            near = (case.near.sound, case.near.first, case.near.last)
            voiced = run_virtual(partial(takes_for_voice, setup, case.near.sound))
        speaker = Loudspeaker(reply, case.echo, case.room)
        talk = partial(talk_over, question=question, near=near, speaker=speaker, seed=number)
        rows.append(judged_over(case, run_virtual(partial(talk, setup.roles, setup.config)), voiced))
    return rows


def summary_of_over(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of some cases of one kind (turns, or not); shares are of cases, times in seconds."""
    count = len(rows)
    wanted = rows[0]["turn"]
    sounding = [r for r in rows if r["voiced"] is not None]
    return {
        "cases": count,
        "turn": wanted,
        "voiced": sum(r["voiced"] for r in sounding) / len(sounding) if sounding else None,
        "false_interruptions": sum(r["false_stop"] for r in rows) / count,
        "missed_interruptions": sum(r["missed"] for r in rows) / count if wanted else None,
        "false_pauses": None if wanted else sum(r["pauses"] > 0 for r in rows) / count,
        "held_s": spread(r["held_s"] for r in rows if r["pauses"] and not wanted),
        "silent_s": spread(r["silent_s"] for r in rows if r["silent_s"] is not None),
        "stopped_s": spread(r["stopped_s"] for r in rows if r["stopped_s"] is not None),
    }


# --- the command -------------------------------------------------------------------------------


def by_row(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Grouped by table row, in order of appearance."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["row"], []).append(row)
    return groups


def show(result: dict[str, Any]) -> None:
    """Print what was found."""
    print_machine(result["machine"])
    console.print(", ".join(f"{role}: {model}" for role, model in result["models"].items()), soft_wrap=True)
    less = f", without {', '.join(result['without'])}" if result["without"] else ""
    how = f"eagerness {result['eagerness']}{less}"
    if "ends" in result:
        groups = result["ends"]["summary"].items()
        print_table(
            f"Ends of turns, {how}: %, and ms from the last spoken sample",
            ["", "n", "cut in", "spoke", "split", "missed", "stop50", "95", "final50", "95", "voice50"],
            [
                [
                    name,
                    str(s["recordings"]),
                    *(percent(s[k]) for k in ("cut_ins", "spoken_into", "split", "missed")),
                    ms(s["stopped_s"].get("p50")),
                    ms(s["stopped_s"].get("p95")),
                    ms(s["final_s"].get("p50")),
                    ms(s["final_s"].get("p95")),
                    ms(s["answered_s"].get("p50")),
                ]
                for name, s in groups
            ],
        )
    if "over" in result:
        groups = result["over"]["summary"].items()
        print_table(
            f"Over a reply, {how}: wrongly stopped or paused and missed, %; ms",
            ["", "n", "voiced", "stopped", "paused", "held50", "missed", "silent50", "95", "stop50", "95"],
            [
                [
                    name,
                    str(s["cases"]),
                    percent(s["voiced"], 0),
                    percent(s["false_interruptions"]),
                    percent(s["false_pauses"]),
                    ms(s["held_s"].get("p50")),
                    percent(s["missed_interruptions"]),
                    ms(s["silent_s"].get("p50")),
                    ms(s["silent_s"].get("p95")),
                    ms(s["stopped_s"].get("p50")),
                    ms(s["stopped_s"].get("p95")),
                ]
                for name, s in groups
            ],
        )
    console.print(f"{result['wall_seconds']:.0f} s for {result['audio_seconds']:.0f} s of sound")


async def measure(
    sets: Sequence[str],
    eagerness: Literal["low", "medium", "high"],
    without: Sequence[str],
    only: Sequence[str],
    remember: Path | None,
) -> dict[str, Any]:
    """Make the material on the real clock, then hear it on a virtual one."""
    result: dict[str, Any] = {}
    async with engines(remember) as ready:
        made = setup(ready, eagerness, without)
        rate = ready.voice.sample_rate
        # The voice draws random numbers: always the same texts in the same order, whatever was asked for.
        await ready.prepare(_SHORT)
        reply = await ready.prepare(_LONG)
        for text in spoken_texts():
            await ready.voice.say(text)
        asked = await ends(ready.roles.stt, ready.voice.say, rate) if "ends" in sets else []
        said = await over(ready.voice.say, rate) if "over" in sets else []
        asked = [c for c in asked if not only or any(o in f"{c.row} {c.id}" for o in only)]
        said = [c for c in said if not only or any(o in f"{c.row} {c.id}" for o in only)]
        reply = soxr.resample(reply, rate, SAMPLE_RATE).astype(np.float32)
        question = prelude()
        began = time.perf_counter()

        timed = replace(made, roles=at_cost(made.roles))
        ready.llm.text = _SHORT
        found_ends = await asyncio.to_thread(run_ends, timed, asked)
        ready.llm.text = _LONG
        found_over = await asyncio.to_thread(run_over, timed, said, question, reply)
        result["models"] = ready.models
        result["wall_seconds"] = time.perf_counter() - began
    result["audio_seconds"] = sum(len(c.sound) / SAMPLE_RATE + _BEFORE_S + _AFTER_S for c in asked) + sum(
        12.0 for _ in said
    )
    if asked:
        groups = by_row(found_ends)
        result["ends"] = {
            "summary": {name: summary_of_ends(rows) for name, rows in groups.items()}
            | {"all": summary_of_ends(found_ends)},
            "recordings": found_ends,
        }
    if said:
        groups = by_row(found_over)
        turns = {
            f"all {'turns' if t else 'that is none'}": [r for r in found_over if r["turn"] is t]
            for t in (False, True)
        }
        result["over"] = {
            "summary": {name: summary_of_over(rows) for name, rows in (groups | turns).items() if rows},
            "cases": found_over,
        }
    return result


def main(
    set_: Annotated[list[str] | None, typer.Option("--set", help="ends or over; default: both")] = None,
    eagerness: Annotated[
        str, typer.Option(help="low, medium or high: how soon a pause is the end")
    ] = "medium",
    without: Annotated[
        list[str] | None, typer.Option(help=f"switch a mechanism off: {' or '.join(WITHOUT)}; repeatable")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="only rows and recordings whose name holds this; repeatable")
    ] = None,
    remember: Annotated[
        Path | None,
        typer.Option(help="a folder that keeps what the recognisers heard, so that the next run is quick"),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for everything measured, case by case")] = None,
) -> None:
    """When turns end, and what stops a reply, on recordings of people.

    Ends: cut in is a turn taken for over before the last spoken sample, spoke
    an answer begun there, missed none noticed within 2.5 s. Over a reply: a
    nod, a noise or the reply's own echo must not stop it, a person must.
    Voiced is the share of sounds that the voice detector alone takes for
    voice: where it is 0, nothing behind the detector was put to the test.
    """
    for name, given, known in (
        ("--set", set_ or [], SETS),
        ("--without", without or [], WITHOUT),
        ("--eagerness", [eagerness], ("low", "medium", "high")),
    ):
        if unknown := [g for g in given if g not in known]:
            raise SystemExit(f"{name}: {unknown[0]!r} is none of {', '.join(known)}")
    result: dict[str, Any] = {
        "benchmark": "turn_taking",
        "machine": machine(),
        "eagerness": eagerness,
        "without": without or [],
        "costs_s": dict(COSTS),
    }
    result |= asyncio.run(measure(set_ or SETS, eagerness, without or [], only or [], remember))  # type: ignore[arg-type]
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
