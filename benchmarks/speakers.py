"""How well people are told apart by voice, by length of clip: equal error rates of the speaker encoder, and
what the thresholds of `app.dialogue.speakers` make of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from app.cli.errors import load_settings
from app.dialogue.speakers import HALF_S, KNOWN_DISTANCE, NEW_DISTANCE
from app.engines.campplus import CamPlusPlus
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, Job, Samples, Vector
from benchmarks.common.models import model_folder
from benchmarks.common.report import (
    console,
    machine,
    note,
    percent,
    print_machine,
    print_table,
    run,
    write_json,
)
from benchmarks.common.truth import BLOCK_S, spans, spoken
from corpus import Recording, load, recordings
from corpus.voices import languages, voices

LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
KNOWN_FROM_S = 10.0
"""What somebody is known by, whom a piece is held against."""
DISTANCES = (0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60)
_LEAST_S = 5.0
_CLIPS = 12
_DRAWS = 200
_SEED = 5
_READ_ALONE = ("syllables", "words")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody's speech in one piece, without silence."""

    name: str
    language: str
    speech: Samples


@dataclass(frozen=True, slots=True)
class Scores:
    """Cosines of pairs of clips, and who is in each: indexes of the two people, equal if it is one."""

    cosines: Floats
    one: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]

    @property
    def same(self) -> npt.NDArray[np.bool_]:
        """Whether a pair is of one person."""
        return np.equal(self.one, self.other)


def people(quick: bool) -> dict[str, list[Person]]:
    """Who there is, in two groups that nobody is in twice. Thresholds were chosen on the first."""
    known = [r for r in recordings() if r.speaker and r.kind not in ("sound", "dialogue", "one_word")]
    if quick:
        return {"development": _people([r for r in known if r.id != "cities"])}
    more = voices()
    held_out = [r for r in more if "-" in r.speaker]
    prompts = [r for r in more if "-" not in r.speaker]
    return {
        "development": _people([r for r in known if r.id != "cities"] + prompts),
        "held out": _people(held_out),
    }


def _people(of: Iterable[Recording]) -> list[Person]:
    by: dict[str, list[Samples]] = defaultdict(list)
    for recording in of:
        if sum(map(len, by[recording.speaker])) < 120 * SAMPLE_RATE:
            by[recording.speaker].append(_speech(load(recording)))
    tongues = languages()
    found = [Person(name, tongues.get(name, "en"), np.concatenate(parts)) for name, parts in by.items()]
    return [person for person in found if len(person.speech) >= _LEAST_S * SAMPLE_RATE]


def _speech(samples: Samples) -> Samples:
    block = round(BLOCK_S * SAMPLE_RATE)
    parts = [samples[a * block : b * block] for a, b in spans(spoken(samples))]
    return np.concatenate(parts) if parts else samples[:0]


def clips(person: Person, seconds: float, most: int = _CLIPS) -> list[Samples]:
    """Pieces of that length, none of which overlap, from all over what there is."""
    size = round(seconds * SAMPLE_RATE)
    count = len(person.speech) // size
    chosen = np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(int))
    return [person.speech[i * size : (i + 1) * size] for i in chosen]


async def embedded(voice: CamPlusPlus, group: Sequence[Person], seconds: float) -> list[list[Vector]]:
    """The vectors of each person's clips."""
    return [[await voice.embed(clip, Job()) for clip in clips(person, seconds)] for person in group]


def pairs(group: Sequence[Person], vectors: Sequence[Sequence[Vector]]) -> Scores:
    """Every clip with every other. Two who said words of one language to two word games may be one person:
    they are not held against each other."""
    owner = np.repeat(np.arange(len(group)), [len(v) for v in vectors])
    matrix = np.array([vector for theirs in vectors for vector in theirs])
    first, second = np.triu_indices(len(owner), 1)
    cosines = np.einsum("ij,ij->i", matrix[first], matrix[second], dtype=np.float64)
    return _told_apart(group, Scores(cosines, owner[first], owner[second]))


def against_known(
    group: Sequence[Person], vectors: Sequence[Sequence[Vector]], known: Sequence[Vector | None]
) -> Scores:
    """Every clip with what each person is known by."""
    rows = [
        (float(vector @ voice), i, j)
        for i, theirs in enumerate(vectors)
        for vector in theirs
        for j, voice in enumerate(known)
        if voice is not None
    ]
    cosines, one, other = (np.array(column) for column in zip(*rows, strict=True))
    return _told_apart(group, Scores(cosines, one, other))


def _told_apart(group: Sequence[Person], scores: Scores) -> Scores:
    source = np.array([p.name.split("-")[0] in _READ_ALONE for p in group])
    language = np.array([p.language for p in group])
    one, other = scores.one, scores.other
    doubtful = source[one] & source[other] & (language[one] == language[other]) & (one != other)
    return Scores(scores.cosines[~doubtful], one[~doubtful], other[~doubtful])


def equal_error(cosines: Floats, same: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Where as many pairs of one person are held for two people's as the other way round: that rate, and
    the cosine from which on a pair is one person's."""
    right, wrong = np.sort(cosines[same]), np.sort(cosines[~same])
    at = np.concatenate([right, wrong])
    missed = np.searchsorted(right, at, "left") / len(right)
    accepted = 1 - np.searchsorted(wrong, at, "left") / len(wrong)
    best = int(np.argmin(np.abs(missed - accepted)))
    return float((missed[best] + accepted[best]) / 2), float(at[best])


def spread_over_people(scores: Scores, count: int) -> tuple[float, float]:
    """The 95 % interval of the equal error rate if other people had come: they are drawn again."""
    random = np.random.default_rng(_SEED)
    rates = []
    for _ in range(_DRAWS):
        weight = np.bincount(random.integers(count, size=count), minlength=count)
        # Whoever is drawn twice has pairs with themselves only as one person.
        times = np.where(scores.same, weight[scores.one], weight[scores.one] * weight[scores.other])
        same = np.repeat(scores.same, times)
        if same.any() and not same.all():
            rates.append(equal_error(np.repeat(scores.cosines, times), same)[0])
    return float(np.percentile(rates, 2.5)), float(np.percentile(rates, 97.5))


def errors_at(scores: Scores, seconds: float, distances: Sequence[float]) -> list[dict[str, float]]:
    """Of pieces of `seconds` against voices known from `KNOWN_FROM_S`, by distance as `speakers` has it: how
    many of the same person are farther, and how many of another are nearer."""
    scale = np.sqrt((1 + HALF_S / seconds) * (1 + HALF_S / KNOWN_FROM_S))
    far = 1 - scores.cosines * scale
    return [
        {
            "distance": d,
            "missed": float((far[scores.same] > d).mean()),
            "accepted": float((far[~scores.same] <= d).mean()),
        }
        for d in distances
    ]


async def measure(quick: bool) -> dict[str, Any]:
    """All lengths, both groups."""
    settings = load_settings()
    workers = Workers(settings.threads)
    voice = CamPlusPlus(await model_folder(settings, "campplus-zh-en"), workers)
    groups = []
    try:
        for name, group in people(quick).items():
            # Whoever is known is known by speech that is in none of the clips.
            split = round(KNOWN_FROM_S * SAMPLE_RATE)
            known = [
                await voice.embed(p.speech[:split], Job()) if len(p.speech) >= 2 * split else None
                for p in group
            ]
            rest = [
                Person(p.name, p.language, p.speech[split:] if k is not None else p.speech)
                for p, k in zip(group, known, strict=True)
            ]
            lengths = []
            for seconds in LENGTHS[:4] if quick else LENGTHS:
                note(f"{name}: {len(group)} people, clips of {seconds} s")
                vectors = await embedded(voice, rest, seconds)
                lengths.append(_row(rest, vectors, known, seconds))
            groups.append({"group": name, "people": [p.name for p in group], "lengths": lengths})
    finally:
        workers.close()
    return {"half_s": HALF_S, "groups": groups}


def _row(
    group: Sequence[Person],
    vectors: Sequence[Sequence[Vector]],
    known: Sequence[Vector | None],
    seconds: float,
) -> dict[str, Any]:
    scores = pairs(group, vectors)
    rate, at = equal_error(scores.cosines, scores.same)
    low, high = spread_over_people(scores, len(group))
    held = against_known(group, vectors, known)
    known_rate, known_at = equal_error(held.cosines, held.same)
    scale = float(np.sqrt((1 + HALF_S / seconds) * (1 + HALF_S / KNOWN_FROM_S)))
    return {
        "seconds": seconds,
        "people": sum(1 for v in vectors if v),
        "clips": sum(map(len, vectors)),
        "pairs_of_one": int(scores.same.sum()),
        "pairs_of_two": int((~scores.same).sum()),
        "equal_error": rate,
        "equal_error_95": [low, high],
        "at_cosine": at,
        "mean_cosine_of_one": float(scores.cosines[scores.same].mean()),
        "mean_cosine_of_two": float(scores.cosines[~scores.same].mean()),
        "equal_error_known": known_rate,
        "at_distance_known": 1 - known_at * scale,
        "at_distances": errors_at(held, seconds, DISTANCES),
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print_machine(result["machine"])
    for group in result["groups"]:
        rows, known = [], []
        for r in group["lengths"]:
            low, high = r["equal_error_95"]
            counts = [r["people"], r["clips"], r["pairs_of_one"], r["pairs_of_two"]]
            cells = [percent(r["equal_error"]), f"{percent(low)}–{percent(high)}", f"{r['at_cosine']:.2f}"]
            cells += [f"{r['mean_cosine_of_one']:.2f}", f"{r['mean_cosine_of_two']:.2f}"]
            rows.append([f"{r['seconds']:g} s", *map(str, counts), *cells])
            at = [f"{percent(d['missed'])} / {percent(d['accepted'])}" for d in r["at_distances"]]
            known.append(
                [f"{r['seconds']:g} s", percent(r["equal_error_known"]), f"{r['at_distance_known']:.2f}", *at]
            )
        print_table(
            f"{len(group['people'])} people, {group['group']}: two clips of one length",
            ["clip", "people", "clips", "pairs of one", "of two", "EER %", "95 %", "at cosine", "one", "two"],
            rows,
        )
        print_table(
            f"{group['group']}: a clip and a voice known from {KNOWN_FROM_S:g} s; the same person missed % / "
            "another accepted %, by distance",
            ["clip", "EER %", "at", *(f"{d:.2f}" for d in DISTANCES)],
            known,
        )
    console.print(f"The defaults: {NEW_DISTANCE} makes somebody new, {KNOWN_DISTANCE} somebody known.")


def main(
    quick: Annotated[
        bool, typer.Option(help="the people of the other benchmarks only, clips up to 2 s")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="file for everything measured")] = None,
) -> None:
    """Equal error rate of the speaker encoder by length of clip, and what each threshold costs.

    Fetches recordings of 32 more people on first use, 200 MB; takes some minutes.
    """
    result = {"benchmark": "speakers", "machine": machine(), "quick": quick}
    result |= asyncio.run(measure(quick))
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
