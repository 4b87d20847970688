"""How well voice detection finds speech in noise: hits, false alarms, and how soon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from app.cli.errors import load_settings
from app.dialogue.config import TurnConfig
from app.dialogue.endpointing import FRAME, Signal, TurnDetector
from app.engines.silero import Silero
from app.roles import SAMPLE_RATE, Samples
from benchmarks.common.models import model_folder
from benchmarks.common.report import (
    machine,
    ms,
    note,
    percent,
    print_machine,
    print_table,
    run,
    spread,
    write_json,
)
from benchmarks.common.truth import BLOCK_S, Blocks, spans, spoken
from corpus import Recording, load, noise, recordings
from corpus.voices import voices

RATIOS = (None, 20, 10, 5, 0)
"""Speech over noise, dB; None: the recordings as they are."""
KINDS = ("white", "babble", "pink", "hum", "clicks", "music")
_END_MS = 500.0
_COLLAR_S = 0.1
_SEED = 7
_LEVEL_DB = -26.0
_FRAME_S = FRAME / SAMPLE_RATE
_BABBLE = 6


@dataclass(frozen=True, slots=True)
class Talk:
    """Sentences with pauses between them, and where in it is speech, every 10 ms."""

    samples: Samples
    truth: Blocks


def make_talk(chosen: Sequence[Recording]) -> Talk:
    """Recordings one after the other, all equally loud, 1–3 s of silence between them."""
    random = np.random.default_rng(_SEED)
    block = round(BLOCK_S * SAMPLE_RATE)
    sound: list[Samples] = []
    truth: list[Blocks] = []
    for recording in [chosen[i] for i in random.permutation(len(chosen))]:
        gap = round(random.uniform(1, 3) / BLOCK_S)
        samples = load(recording)
        said = spoken(samples)
        samples = samples[: len(said) * block]
        loud = np.sqrt(np.mean(np.square(samples[np.repeat(said, block)], dtype=np.float64)))
        sound += [np.zeros(gap * block, np.float32), (samples * (10 ** (_LEVEL_DB / 20) / loud)).astype("f4")]
        truth += [np.zeros(gap, np.bool_), said]
    tail = round(2 / BLOCK_S)
    sound.append(np.zeros(tail * block, np.float32))
    truth.append(np.zeros(tail, np.bool_))
    return Talk(np.concatenate(sound).clip(-1, 1), np.concatenate(truth))


def make_noise(kind: str, count: int) -> Samples:
    """`count` samples, at 0 dB RMS: `babble` is six people at once who are not in the talk."""
    if kind == "babble":
        random = np.random.default_rng(_SEED)
        sound = np.zeros(count, np.float32)
        people = [r for r in voices() if "fish" in r.speaker or "-" not in r.speaker]
        for name in random.choice(sorted({r.speaker for r in people}), _BABBLE, replace=False):
            voice = np.concatenate([load(r) for r in people if r.speaker == name])
            sound += np.resize(
                np.roll(voice / np.sqrt(np.mean(voice**2)), random.integers(len(voice))), count
            )
    elif kind == "music":
        pieces = [load(r) for r in recordings("sound") if r.id.startswith("music")]
        sound = np.resize(np.concatenate(pieces), count)
    else:
        sound = noise(kind, count / SAMPLE_RATE)[:count]  # type: ignore[arg-type]
    scaled: Samples = (sound / np.sqrt(np.mean(np.square(sound, dtype=np.float64)))).astype(np.float32)
    return scaled


@dataclass(frozen=True, slots=True)
class Heard:
    """Each frame's probability, and the segments: first and last sample, and where it was noticed."""

    probabilities: np.ndarray[Any, np.dtype[np.float64]]
    segments: list[tuple[int, int, int]]


async def hear(vad: Silero, samples: Samples) -> Heard:
    """Through the detector of a session, with a fixed end wait."""
    stream = vad.stream()
    detector = TurnDetector(TurnConfig(), end_wait=lambda: _END_MS)
    found: list[float] = []
    segments: list[tuple[int, int, int]] = []
    noticed = 0
    for at in range(0, len(samples) - FRAME + 1, FRAME):
        found.append(await stream.probability(samples[at : at + FRAME]))
        signal = detector.feed(found[-1])
        if signal is Signal.STARTED:
            noticed = detector.position
        elif signal is Signal.ENDED:
            segments.append((detector.started_at, detector.ended_at, noticed))
    if detector.speaking:
        segments.append((detector.started_at, detector.ended_at, noticed))
    return Heard(np.array(found), segments)


def judged(heard: Heard, truth: Blocks, threshold: float) -> dict[str, Any]:
    """Frames: of those that lie in speech or in silence by 0.1 s at least. Segments: of those that are
    spoken, how many overlap one that was found, and how many were found where nothing is spoken."""
    collar = round(_COLLAR_S / BLOCK_S)
    edges = np.flatnonzero(np.diff(truth.astype(np.int8)))
    clear = np.ones(len(truth), np.bool_)
    for edge in edges:
        clear[max(0, edge - collar) : edge + collar + 1] = False
    middle = ((np.arange(len(heard.probabilities)) + 0.5) * _FRAME_S / BLOCK_S).astype(int)
    middle = np.minimum(middle, len(truth) - 1)
    speech, silence = (truth & clear)[middle], (~truth & clear)[middle]
    voiced = heard.probabilities >= threshold
    begins, hits = [], 0
    said = [(a * BLOCK_S, b * BLOCK_S) for a, b in spans(truth)]
    found = [(a / SAMPLE_RATE, b / SAMPLE_RATE, c / SAMPLE_RATE) for a, b, c in heard.segments]
    for start, end in said:
        over = [f for f in found if f[0] < end and f[1] > start]
        hits += bool(over)
        # Only where a segment begins with this one: after a long enough silence.
        if over and over[0][0] > start - 0.3:
            begins.append(over[0][2] - start)
    false = [f for f in found if not any(f[0] < end and f[1] > start for start, end in said)]
    quiet_s = float((~truth).sum()) * BLOCK_S
    return {
        "frames_hit": float(voiced[speech].mean()),
        "frames_false": float(voiced[silence].mean()),
        "spoken": len(said),
        "hit": hits,
        "found": len(found),
        "false": len(false),
        "false_a_minute": len(false) / quiet_s * 60,
        "onset_s": spread(begins),
    }


async def measure(chosen: Sequence[Recording], kinds: Sequence[str], ratios: Sequence[int | None]) -> Any:
    """Every noise at every level, and each by itself."""
    settings = load_settings()
    talk = make_talk(chosen)
    vad = Silero(await model_folder(settings, "silero-vad"))
    threshold = TurnConfig().threshold
    rows: list[dict[str, Any]] = []
    try:
        for kind in kinds:
            disturbing = make_noise(kind, len(talk.samples))
            for ratio in ratios:
                if ratio is None and rows:
                    continue
                note("as recorded" if ratio is None else f"{kind}, {ratio} dB")
                mixed = talk.samples
                if ratio is not None:
                    mixed = mixed + disturbing * np.float32(10 ** ((_LEVEL_DB - ratio) / 20))
                found = judged(await hear(vad, mixed.clip(-1, 1)), talk.truth, threshold)
                rows.append({"noise": None if ratio is None else kind, "ratio_db": ratio} | found)
    finally:
        await vad.close()
    seconds = len(talk.samples) / SAMPLE_RATE
    return {"seconds": seconds, "spoken_s": float(talk.truth.sum() * BLOCK_S), "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print_machine(result["machine"])
    rows = []
    for r in result["rows"]:
        onset = r["onset_s"]
        rows.append(
            [
                "as recorded" if r["noise"] is None else f"{r['noise']}, {r['ratio_db']} dB",
                percent(r["frames_hit"]),
                percent(r["frames_false"]),
                f"{r['hit']} of {r['spoken']}",
                str(r["found"]),
                str(r["false"]),
                f"{r['false_a_minute']:.2f}",
                ms(onset.get("p50")),
                ms(onset.get("p95")),
            ]
        )
    print_table(
        f"{result['seconds'] / 60:.1f} minutes, {result['spoken_s'] / 60:.1f} of them speech",
        ["", "frames hit %", "false %", "segments hit", "found", "false", "a minute", "onset ms p50", "p95"],
        rows,
    )


def main(
    quick: Annotated[bool, typer.Option(help="twelve recordings, one noise")] = False,
    json: Annotated[Path | None, typer.Option(help="file for everything measured")] = None,
) -> None:
    """Hit and false-alarm rates of voice detection, clean and with noise at 20, 10, 5 and 0 dB.

    Fetches recordings of 32 more people on first use, 200 MB; takes about a minute.
    """
    chosen = [r for r in recordings() if r.text and r.kind != "one_word" and r.id != "cities"]
    kinds: Sequence[str] = KINDS
    ratios: Sequence[int | None] = RATIOS
    if quick:
        chosen, kinds, ratios = chosen[:12], KINDS[:1], (None, 10)
    result = {"benchmark": "vad", "machine": machine()}
    result |= asyncio.run(measure(chosen, kinds, ratios))
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
