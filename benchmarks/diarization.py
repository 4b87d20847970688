"""Who speaks when: error rates on conversations of people whose turns are known, live and in files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from app.cli.errors import load_settings
from app.dialogue.config import TurnConfig
from app.dialogue.diarize import diarize
from app.dialogue.endpointing import FRAME, Signal, TurnDetector
from app.dialogue.speakers import NEW_DISTANCE, Speakers, label_name
from app.dialogue.voice_changes import voice_changes
from app.dialogue.who import Who
from app.engines.campplus import CamPlusPlus
from app.engines.silero import Silero
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, Job, Samples, SpeakerSpan
from benchmarks.common.der import Errors, diarization_errors
from benchmarks.common.models import model_folder
from benchmarks.common.report import machine, note, percent, print_machine, print_table, run, write_json
from benchmarks.common.truth import BLOCK_S, spans, spoken
from corpus import Recording, load, recordings
from corpus.conversation import conversation
from corpus.voices import voices

COLLARS = (0.0, 0.25)
_PRE_ROLL, _POST_ROLL = int(0.3 * SAMPLE_RATE), int(0.2 * SAMPLE_RATE)
"""As in `app.dialogue.listener`."""


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation: its sound and who speaks when in it, pauses from 0.3 s on left out."""

    name: str
    group: str
    samples: Samples
    turns: list[SpeakerSpan]
    people: int


@cache
def _material() -> dict[str, list[Recording]]:
    """What people say in sentences or lists of words, in two groups that nobody is in twice."""
    known = [r for r in recordings() if r.speaker and not r.speaker.startswith("caller") and r.id != "cities"]
    known = [r for r in known if r.kind not in ("sound", "one_word", "dialogue", "piece")]
    more = voices()
    return {
        "development": known + [r for r in more if "-" not in r.speaker],
        "held out": [r for r in more if "fish" in r.speaker or r.speaker.startswith("words")],
    }


def mixes(people: Sequence[int], seeds: int, seconds: float) -> list[Case]:
    """Conversations of so many people, `seeds` of each number, in each group; of those held out also some in
    which most who take over begin before the last one is over."""
    cases = []
    for group, overlaps in (("development", 0.12), ("held out", 0.12), ("held out, hasty", 0.7)):
        material = _material()[group.split(",")[0]]
        names = sorted({r.speaker for r in material})
        for count in people:
            for seed in range(seeds):
                random = np.random.default_rng((count, seed))
                chosen = [names[i] for i in random.choice(len(names), count, replace=False)]
                talk = conversation(100 * count + seed, seconds, chosen, material, overlaps)
                turns = [
                    SpeakerSpan(turn.start + a, turn.start + b, turn.speaker)
                    for turn in talk.turns
                    for a, b in _speech(turn.recording)
                ]
                present = len({t.speaker for t in turns})
                cases.append(Case(f"{count} people, seed {seed}", group, talk.sound(), turns, present))
    return cases


@cache
def _speech(recording: Recording) -> list[tuple[float, float]]:
    return [(a * BLOCK_S, b * BLOCK_S) for a, b in spans(spoken(load(recording)))]


def strangers() -> Case:
    """Two people on the telephone, labelled by hand."""
    [recording] = recordings("dialogue")
    turns = [SpeakerSpan(t.start, t.end, t.speaker) for t in recording.turns]
    return Case(recording.id, "telephone", load(recording), turns, 2)


@dataclass(frozen=True, slots=True)
class Engines:
    """What all ways use, and how far a new voice is."""

    vad: Silero
    voices: CamPlusPlus
    threshold: float
    end_ms: float

    def speakers(self) -> Speakers:
        """Of a new conversation."""
        return Speakers(self.threshold)


async def live(engines: Engines, samples: Samples, *, cut: bool) -> list[SpeakerSpan]:
    """As a stream is told: the voice of each utterance is compared when it ends. It is one person's, or `cut`
    where the voice changes. Speakers who turn out to be one later are one."""

    async def loaded() -> CamPlusPlus:
        return engines.voices

    who = Who(loaded, engines.speakers(), "benchmark")
    stream = engines.vad.stream()
    detector = TurnDetector(TurnConfig(echo=False), end_wait=lambda: engines.end_ms)
    told: list[SpeakerSpan] = []

    async def over() -> None:
        start, end = max(detector.started_at - _PRE_ROLL, 0), detector.ended_at + _POST_ROLL
        spoken = samples[start:end]
        changes = await voice_changes(engines.voices, spoken, Job("benchmark")) if cut else []
        edges = [detector.started_at, *(start + at for at in changes), detector.ended_at]
        for begin, part in zip(pairwise(edges), np.split(spoken, changes), strict=True):
            label = (await who.label(part)).label
            told.append(SpeakerSpan(begin[0] / SAMPLE_RATE, begin[1] / SAMPLE_RATE, label))

    for at in range(0, len(samples) - FRAME + 1, FRAME):
        if detector.feed(await stream.probability(samples[at : at + FRAME])) is Signal.ENDED:
            await over()
    if detector.speaking:
        await over()
    return [SpeakerSpan(s.start, s.end, label_name(who.current(int(s.speaker[-2:])))) for s in told]


async def in_file(engines: Engines, samples: Samples) -> list[SpeakerSpan]:
    """As `/v1/diarization` says it."""

    async def blocks() -> AsyncIterator[Samples]:
        for at in range(0, len(samples), SAMPLE_RATE):
            yield samples[at : at + SAMPLE_RATE]

    return await diarize(engines.vad, engines.voices, blocks(), engines.speakers(), "benchmark")


async def measure(cases: Sequence[Case], threshold: float, end_ms: float) -> dict[str, Any]:
    """Every case, every way."""
    settings = load_settings()
    workers = Workers(settings.threads)
    engines = Engines(
        Silero(await model_folder(settings, "silero-vad")),
        CamPlusPlus(await model_folder(settings, "campplus-zh-en"), workers),
        threshold,
        end_ms,
    )
    systems: dict[str, Callable[[Engines, Samples], Awaitable[list[SpeakerSpan]]]] = {
        "live": partial(live, cut=False),
        "live, cut": partial(live, cut=True),
        "file": in_file,
    }
    rows: list[dict[str, Any]] = []
    try:
        for case in cases:
            note(f"{case.group}: {case.name}")
            for system, tell in systems.items():
                began = time.process_time()
                told = await tell(engines, case.samples)
                rows.append(_row(case, system, told, time.process_time() - began))
    finally:
        await engines.vad.close()
        workers.close()
    return {"threshold": threshold, "end_ms": end_ms, "cases": rows}


def _row(case: Case, system: str, told: list[SpeakerSpan], cpu: float) -> dict[str, Any]:
    seconds = len(case.samples) / SAMPLE_RATE
    errors = [diarization_errors(case.turns, told, seconds, collar) for collar in COLLARS]
    return {
        "case": case.name,
        "group": case.group,
        "system": system,
        "seconds": seconds,
        "people": case.people,
        "found": len({s.speaker for s in told}),
        "at_once_s": _at_once(case.turns, seconds),
        "cpu_s": cpu,
        "errors": [
            {"speech": e.speech, "missed": e.missed, "false": e.false, "confused": e.confused} for e in errors
        ],
    }


def _at_once(turns: Sequence[SpeakerSpan], seconds: float) -> float:
    """How long two or more speak."""
    at = np.zeros(round(seconds / BLOCK_S) + 1, np.int64)
    for turn in turns:
        at[round(turn.start / BLOCK_S) : round(turn.end / BLOCK_S)] += 1
    return float((at > 1).sum() * BLOCK_S)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print_machine(result["machine"])
    rows = result["cases"]
    for group in dict.fromkeys(r["group"] for r in rows):
        of_group = [r for r in rows if r["group"] == group]
        lines = []
        for system in dict.fromkeys(r["system"] for r in of_group):
            theirs = [r for r in of_group if r["system"] == system]
            numbers = sorted({r["people"] for r in theirs})
            for count in numbers:
                lines.append(_line(f"{system}, {count} people", [r for r in theirs if r["people"] == count]))
            if len(numbers) > 1:
                lines.append(_line(f"{system}, all", theirs))
        print_table(
            f"{group}: diarization error rate, % of speech; {percent(_overlap(of_group))} of it two at once",
            [
                "",
                "min",
                "DER",
                "missed",
                "false",
                "confused",
                "DER\n0.25 s",
                "found",
                "right",
                "CPU s\na second",
            ],
            lines,
        )


def _overlap(rows: Sequence[dict[str, Any]]) -> float:
    return float(sum(r["at_once_s"] for r in rows) / sum(r["errors"][0]["speech"] for r in rows))


def _line(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    sums = [sum((Errors(**r["errors"][i]) for r in rows), Errors()) for i in range(len(COLLARS))]
    plain, lenient = sums
    seconds = sum(r["seconds"] for r in rows)
    parts = [part / plain.speech for part in (plain.missed, plain.false, plain.confused)]
    right = sum(r["found"] == r["people"] for r in rows)
    return [
        name,
        f"{seconds / 60:.0f}",
        percent(plain.rate),
        *map(percent, parts),
        percent(lenient.rate),
        f"{np.mean([r['found'] for r in rows]):.1f}",
        f"{right} of {len(rows)}",
        f"{sum(r['cpu_s'] for r in rows) / seconds:.3f}",
    ]


def main(
    people: Annotated[str, typer.Option(help="how many speak, with commas between")] = "2,3,4,5,6",
    seeds: Annotated[int, typer.Option(help="conversations of each number, in each group")] = 3,
    seconds: Annotated[float, typer.Option(help="length of a conversation")] = 180.0,
    threshold: Annotated[float, typer.Option(help="SPEAKER_NEW_DISTANCE")] = NEW_DISTANCE,
    end_ms: Annotated[float, typer.Option(help="live: silence that ends an utterance")] = 500.0,
    quick: Annotated[bool, typer.Option(help="the telephone call only")] = False,
    json: Annotated[Path | None, typer.Option(help="file for everything measured")] = None,
) -> None:
    """Diarization error rate on mixes of recordings with known turns, and on a telephone call.

    Fetches recordings of 32 more people on first use, 200 MB; takes about ten minutes.
    """
    cases = [strangers()]
    if not quick:
        cases = mixes([int(n) for n in people.split(",")], seeds, seconds) + cases
    result = {"benchmark": "diarization", "machine": machine()}
    result |= asyncio.run(measure(cases, threshold, end_ms))
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
