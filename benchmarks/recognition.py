"""How well each recogniser hears, alone and in a session, and what it costs, beside the plain library.

Each system runs in a process of its own, one after the other.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.errors import load_settings
from app.roles import SAMPLE_RATE, Job, Samples, SttOptions
from benchmarks.common.heard import Listening, listening
from benchmarks.common.models import model_folder
from benchmarks.common.process import memory_mb
from benchmarks.common.report import machine, note, percent, print_machine, print_table, run, write_json
from benchmarks.common.unit_errors import UnitErrors, between, unit_errors
from corpus import Recording, load, recordings
from corpus.conversation import conversation

MODELS = ("whisper-tiny-en", "whisper-base", "moonshine-tiny-en")
LIVE = {
    "session, moonshine → whisper-tiny-en": ("moonshine-tiny-en", "whisper-tiny-en"),
    "stream, moonshine → whisper-tiny-en": ("moonshine-tiny-en", "whisper-tiny-en"),
    "session, moonshine → whisper-base": ("moonshine-tiny-en", "whisper-base"),
    "session, moonshine → moonshine": ("moonshine-tiny-en", "moonshine-tiny-en"),
}
"""Who follows the voice, and who gives the final words; the first pair is the default of the server. A
session keeps to the words that were firm while somebody spoke; a stream (`/v4/listen`, `/v1/listen`) shows
them anew."""
LIBRARY = {
    "faster-whisper tiny.en, beam 5": ("whisper-tiny-en", 5),
    "faster-whisper tiny.en, beam 1": ("whisper-tiny-en", 1),
    "faster-whisper base, beam 5": ("whisper-base", 5),
}
SYSTEMS = (*LIVE, *MODELS, *LIBRARY)
SETS = ("utterances", "reading", "conversation")
_SEED = 11
_WINDOW_S = 30.0
"""What a model hears at once; longer sound is cut by a session, or by the library."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Something to hear. `texts`: what is said in it, piece by piece."""

    samples: Samples
    texts: list[str]


Transcribe = Callable[[Samples], Awaitable[str]]


def sounds(which: str, minutes: float, few: bool) -> list[Sound]:
    """What there is to hear of one set."""
    if which == "utterances":
        spoken = [r for r in recordings() if r.text and r.id != "cities"]
        return [Sound(load(r), [r.text]) for r in (_few(spoken) if few else spoken)]
    if which == "reading":
        return [Sound(load(r), [r.text]) for r in recordings("long") if r.id == "cities"]
    talk = conversation(_SEED, minutes * 60)
    return [Sound(talk.sound(), [turn.text for turn in talk.turns])]


def _few(spoken: Sequence[Recording]) -> list[Recording]:
    return [r for r in spoken if r.speaker == "cities-reader"][:2]


async def _library(name: str, beam: int) -> Transcribe:
    from faster_whisper import WhisperModel

    settings = load_settings()
    folder = await model_folder(settings, name)
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=settings.threads)

    async def transcribe(samples: Samples) -> str:
        def work() -> str:
            segments, _ = model.transcribe(samples, language="en", beam_size=beam)
            return " ".join(segment.text.strip() for segment in segments)

        return await asyncio.to_thread(work)

    return transcribe


def _whole(ears: Listening) -> Transcribe:
    async def transcribe(samples: Samples) -> str:
        options = SttOptions(language="en", word_times=False)
        return (await ears.roles.stt.transcribe(samples, options, Job())).text

    return transcribe


async def _measured(system: str, sets: Sequence[str], minutes: float, few: bool) -> dict[str, Any]:
    before = memory_mb()
    if system in LIBRARY:
        transcribe = await _library(*LIBRARY[system])
        return await _heard(system, sets, minutes, few, transcribe, before)
    pair = LIVE.get(system, (system, system))
    async with listening(*pair, revise=system.startswith("stream")) as ears:
        transcribe = ears.text if system in LIVE else _whole(ears)
        return await _heard(system, sets, minutes, few, transcribe, before)


async def _heard(
    system: str, sets: Sequence[str], minutes: float, few: bool, transcribe: Transcribe, before: float
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for which in sets:
        material = sounds(which, minutes, few)
        if system in MODELS and any(len(s.samples) > _WINDOW_S * SAMPLE_RATE for s in material):
            continue
        await transcribe(material[0].samples[: 2 * SAMPLE_RATE])  # to warm up
        began, cpu = time.monotonic(), time.process_time()
        texts = [await transcribe(sound.samples) for sound in material]
        wall, cpu = time.monotonic() - began, time.process_time() - cpu
        seconds = sum(len(s.samples) for s in material) / SAMPLE_RATE
        errors = [e for s, text in zip(material, texts, strict=True) for e in unit_errors(s.texts, text)]
        found[which] = {
            "seconds": seconds,
            "pieces": [{"said": " ".join(s.texts), "heard": t} for s, t in zip(material, texts, strict=True)],
            "errors": [[e.substituted, e.missing, e.inserted, e.words] for e in errors],
            "real_time": wall / seconds,
            "cpu": cpu / seconds,
        }
    return {"system": system, "sets": found, "memory_mb": memory_mb(peak=True) - before}


def measure_system(system: str, sets: Sequence[str], minutes: float, few: bool) -> dict[str, Any]:
    """Everything of one system, in this process."""
    return asyncio.run(_measured(system, sets, minutes, few))


def measure(systems: Sequence[str], sets: Sequence[str], minutes: float, few: bool) -> list[dict[str, Any]]:
    """All systems, each in a new process."""
    results = []
    recordings()  # fetched once, before several processes want them
    for system in systems:
        note(system)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results.append(pool.submit(measure_system, system, list(sets), minutes, few).result())
    return results


def show(result: dict[str, Any]) -> None:
    """Print a table for each set."""
    print_machine(result["machine"])
    for which in result["sets"]:
        rows = []
        theirs = [(s, s["sets"][which]) for s in result["systems"] if which in s["sets"]]
        for system, found in theirs:
            errors = [UnitErrors(*e) for e in found["errors"]]
            total = sum(errors, UnitErrors())
            low, high = between(errors)
            kinds = [total.substituted, total.missing, total.inserted]
            rows.append(
                [
                    system["system"],
                    percent(total.rate, 2),
                    f"{percent(low)}–{percent(high)}" if len(errors) > 1 else "–",
                    *(percent(k / total.words) for k in kinds),
                    f"{found['real_time']:.3f}",
                    f"{found['cpu']:.3f}",
                    f"{system['memory_mb']:.0f}",
                ]
            )
        first = theirs[0][1]
        count = f"{len(first['errors'])} of them, " if which == "utterances" else ""
        words = sum(e[3] for e in first["errors"])
        print_table(
            f"{which}: {count}{first['seconds'] / 60:.1f} minutes, {words} words",
            ["", "WER %", "95 %", "wrong", "missing", "added", "s / s", "CPU s / s", "MB"],
            rows,
        )


def main(
    system: Annotated[list[str] | None, typer.Option(help="one of those in the table; repeatable")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(SETS)}; repeatable")] = None,
    minutes: Annotated[float, typer.Option(help="length of the conversation")] = 10.0,
    quick: Annotated[bool, typer.Option(help="two utterances, the default and its peer")] = False,
    json: Annotated[Path | None, typer.Option(help="file for everything measured")] = None,
) -> None:
    """Word error rate, real-time factor and memory of each recogniser, beside the plain library.

    Sound is given as fast as it is heard; takes about a quarter of an hour.
    """
    systems = [s for s in SYSTEMS if not system or s in system]
    sets: Sequence[str] = [s for s in SETS if not only or s in only]
    if unknown := {*(system or ()), *(only or ())} - {*SYSTEMS, *SETS}:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    if quick:
        systems, sets = [SYSTEMS[0], "faster-whisper tiny.en, beam 5"], SETS[:1]
    result: dict[str, Any] = {"benchmark": "recognition", "machine": machine(), "sets": sets}
    result["systems"] = measure(systems, sets, minutes, quick)
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
