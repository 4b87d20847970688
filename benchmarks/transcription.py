"""How well and how soon words are heard: ours while somebody speaks, beside the plain libraries.

Ours is `app.dialogue.utterance`, with a recogniser that follows the voice and one that gives the final,
in several pairs; the libraries get each recording whole. All run one after the other in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.errors import load_settings
from app.engines.moonshine import Moonshine
from app.engines.silero import Silero
from app.engines.whisper import Whisper
from app.engines.workers import Workers
from app.models.store import ModelStore
from app.roles import SAMPLE_RATE, Job, Samples, SpeechToText, SttOptions, Word
from app.settings import Settings
from benchmarks.common.live import Sound, hear, prepare
from benchmarks.common.report import (
    console,
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
from benchmarks.common.words import end_times, tokens, while_speaking
from corpus import Recording, load, recordings, wer

PAIRS = (("moonshine", "whisper"), ("moonshine", "moonshine"), ("whisper", "whisper"))
"""Who follows the voice and who gives the final; the first pair is the default of the server."""
_WORST = 10
_SHARES = {
    "WER %\nshown": "partial_wer",
    "WER %\nfirm": "committed_wer",
    "firm ≠\nfinal %": "committed_against_final_pass",
    "flicker\n%": "flicker",
    "early\n%": "shown_before_final",
}
"""Columns of the second table; `benchmarks/README.md` defines them."""


@dataclass(frozen=True, slots=True)
class Case:
    """A recording, ready to be heard. `ends`: seconds at which words of the reference end, by index."""

    recording: Recording
    samples: Samples
    sound: Sound
    reference: list[str]
    ends: dict[int, float]


@dataclass(frozen=True, slots=True)
class Engines:
    """Everything loaded; `library` is faster-whisper's own `WhisperModel`."""

    vad: Silero
    ours: dict[str, SpeechToText]
    library: Any


async def load_engines(settings: Settings, workers: Workers) -> Engines:
    """The models, fetched if need be, as the server loads them."""
    from faster_whisper import WhisperModel

    store = ModelStore(settings.models_dir, local=settings.models_local, hub=settings.models_hub)

    async def folder(name: str) -> Path:
        if store.present(name) is None:
            note(f"fetching {name}")
        return await store.fetch(name, lambda done, message: None)

    whisper, moonshine = await folder("whisper-tiny-en"), await folder("moonshine-tiny-en")
    threads = settings.threads
    return Engines(
        Silero(await folder("silero-vad")),
        {
            "whisper": Whisper(whisper, workers, threads=threads),
            "moonshine": Moonshine(moonshine, workers, threads=threads),
        },
        WhisperModel(str(whisper), device="cpu", compute_type="int8", cpu_threads=threads),
    )


def by_library(library: Any, samples: Samples, beam: int) -> str:
    """The text by faster-whisper, all its options but the beam as they are by default."""
    segments, _ = library.transcribe(samples, language="en", beam_size=beam)
    return " ".join(segment.text.strip() for segment in segments)


def timed_by_library(library: Any, samples: Samples) -> list[Word]:
    """Words with times: the same yardstick for all systems."""
    segments, _ = library.transcribe(samples, language="en", beam_size=5, word_timestamps=True)
    return [Word(w.word.strip(), w.start, w.end, w.probability) for s in segments for w in s.words]


async def make_cases(chosen: Sequence[Recording], engines: Engines) -> list[Case]:
    """What is the same for all systems, done before anything is measured."""
    cases = []
    for recording in chosen:
        samples, reference = load(recording), tokens(recording.text)
        words = timed_by_library(engines.library, samples)
        sound = await prepare(samples, engines.vad)
        cases.append(Case(recording, samples, sound, reference, end_times(reference, words)))
    return cases


async def run_whole(
    name: str, cases: Sequence[Case], transcribe: Callable[[Samples], Awaitable[str]]
) -> dict[str, Any]:
    """Give a recogniser each recording whole."""
    note(name)
    await transcribe(cases[0].samples)  # to warm up
    texts, waits = [], []
    cpu = time.process_time()
    for case in cases:
        began = time.monotonic()
        texts.append(await transcribe(case.samples))
        waits.append(time.monotonic() - began)
    cpu = time.process_time() - cpu
    rows = [_row(c, t) | {"wait_s": round(w, 4)} for c, t, w in zip(cases, texts, waits, strict=True)]
    return {"system": name, "summary": _summary(rows, cases, cpu, waits), "recordings": rows}


async def run_live(
    name: str, cases: Sequence[Case], stt: SpeechToText, partial: SpeechToText, *, paced: bool
) -> dict[str, Any]:
    """Speak the recordings to a pair of recognisers, one after the other."""
    note(name)
    await hear(cases[0].sound, stt, partial, paced=False)  # to warm up
    heard = []
    cpu = time.process_time()
    for case in cases:
        heard.append(await hear(case.sound, stt, partial, paced=paced))
    cpu = time.process_time() - cpu
    waits = [h.final_at - c.sound.speech_end / SAMPLE_RATE for c, h in zip(cases, heard, strict=True)]
    rows = []
    for case, h, wait in zip(cases, heard, waits, strict=True):
        shown = [{"at_s": round(s.at, 3), "text": s.text, "committed": s.committed} for s in h.shown]
        row = _row(case, h.final) | {"final_pass": h.final_pass, "wait_s": round(wait, 4), "shown": shown}
        rows.append(row | while_speaking(case.reference, case.ends, h))
    summary = _summary(rows, cases, cpu, waits)
    summary |= {
        "wer_without_splice": wer([r["reference"] for r in rows], [r["final_pass"] for r in rows]),
        "partial_wer": _share(rows, "partial_errors", "partial_words"),
        "committed_wer": _share(rows, "committed_errors", "committed_words"),
        "committed_against_final_pass": _share(rows, "committed_unlike_final_pass", "committed_heard"),
        "flicker": _share(rows, "changed_words", "final_words"),
        "shown_before_final": _share(rows, "shown_early", "right_words"),
        "firm_before_final": _share(rows, "firm_early", "right_words"),
        "shown_delay_s": spread(d for r in rows for d in r["shown_delays_s"]),
        "firm_delay_s": spread(d for r in rows for d in r["firm_delays_s"]),
        "passes_per_audio_second": sum(h.passes for h in heard) / _seconds(cases),
    }
    return {"system": name, "summary": summary, "recordings": rows}


def _row(case: Case, text: str) -> dict[str, Any]:
    reference = case.recording.text
    return {
        "recording": case.recording.id,
        "reference": reference,
        "text": text,
        "wer": round(wer(reference, text), 4),
        "words": len(case.reference),
    }


def _seconds(cases: Sequence[Case]) -> float:
    return sum(case.recording.seconds for case in cases)


def _summary(
    rows: Sequence[dict[str, Any]], cases: Sequence[Case], cpu: float, waits: Sequence[float]
) -> dict[str, Any]:
    return {
        "wer": wer([r["reference"] for r in rows], [r["text"] for r in rows]),
        "cpu_seconds_per_audio_second": cpu / _seconds(cases),
        "text_after_speech_s": spread(waits),
    }


def _share(rows: Sequence[dict[str, Any]], part: str, whole: str) -> float | None:
    total = sum(row[whole] for row in rows)
    return sum(row[part] for row in rows) / total if total else None


async def measure(chosen: Sequence[Recording], *, paced: bool) -> dict[str, Any]:
    """All systems on the same recordings."""
    settings = load_settings()
    workers = Workers(settings.threads, reserved=1)
    engines = await load_engines(settings, workers)
    try:
        cases = await make_cases(chosen, engines)
        systems = []
        for partial, final in PAIRS:
            stt, follows = engines.ours[final], engines.ours[partial]
            systems.append(await run_live(f"{partial} → {final}", cases, stt, follows, paced=paced))
            await asyncio.sleep(1)  # a pass that was cancelled runs to its end
        for beam in (1, 5):

            async def library(samples: Samples, beam: int = beam) -> str:
                return await asyncio.to_thread(by_library, engines.library, samples, beam)

            systems.append(await run_whole(f"faster-whisper tiny.en, beam {beam}", cases, library))

        async def moonshine(samples: Samples) -> str:
            options = SttOptions(language="en", word_times=False)
            return (await engines.ours["moonshine"].transcribe(samples, options, Job())).text

        systems.append(await run_whole("moonshine tiny", cases, moonshine))
    finally:
        await engines.vad.close()
        workers.close()
    return {"recordings": len(cases), "audio_seconds": round(_seconds(cases), 1), "systems": systems}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print_machine(result["machine"])
    how = "in real time" if result["paced"] else "unpaced, as on an infinitely quick machine"
    console.print(f"{result['recordings']} recordings, {result['audio_seconds']} s; ours is fed {how}")
    rows, live = [], []
    for system in result["systems"]:
        s = system["summary"]
        wait = s["text_after_speech_s"]
        cells = [percent(s["wer"], 2), percent(s.get("wer_without_splice"), 2)]
        cells += [f"{s['cpu_seconds_per_audio_second']:.3f}", ms(wait["p50"]), ms(wait["p95"])]
        rows.append([system["system"], *cells])
        if "partial_wer" in s:
            shares = [percent(s[name]) for name in _SHARES.values()]
            delays = [
                ms(s[name].get(p)) for name in ("shown_delay_s", "firm_delay_s") for p in ("p50", "p95")
            ]
            live.append([system["system"], *shares, *delays, f"{s['passes_per_audio_second']:.1f}"])
    print_table(
        "The final text (a → b is ours: a follows the voice, b gives the final)",
        ["", "WER %", "unspliced WER %", "CPU s / audio s", "ms after speech p50", "p95"],
        rows,
    )
    print_table(
        "While somebody speaks",
        ["", *_SHARES, "shown ms\np50", "\np95", "firm ms\np50", "\np95", "passes\na second"],
        live,
    )
    first = result["systems"][0]
    worst = sorted(first["recordings"], key=lambda r: (-round(r["wer"] * r["words"]), -r["wer"]))
    console.print(f"[bold]Most errors, {first['system']}[/bold]")
    for row in worst[:_WORST]:
        if row["wer"]:
            console.print(f"{row['recording']} ({round(row['wer'] * row['words'])} of {row['words']} words)")
            console.print(f"  said   {row['reference']}\n  heard  {row['text']}", markup=False)
            if tokens(row["text"]) != tokens(row["final_pass"]):
                console.print(f"  final pass by itself: {row['final_pass']}", markup=False)


def main(
    paced: Annotated[
        bool, typer.Option("--paced/--unpaced", help="feed ours in real time, or wait for each pass")
    ] = True,
    only: Annotated[
        list[str] | None, typer.Option(help="a recording (`python -m corpus list`); repeatable")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for everything measured, word by word")] = None,
) -> None:
    """Word error rate, delay and cost of transcription, ours beside the plain libraries.

    Paced, the recordings are fed in real time three times over: half an hour
    for the whole corpus, with nothing else running on the machine. Unpaced, each
    pass is waited for: the words are much the same, delays are those of the
    method alone, and what it costs is an upper bound.
    """
    chosen = [r for r in recordings() if r.text and (not only or r.id in only)]
    if unknown := set(only or ()) - {r.id for r in chosen}:
        raise SystemExit(f"no such recording with a text: {', '.join(sorted(unknown))}")
    info = machine()
    result = {"benchmark": "transcription", "machine": info, "paced": paced}
    result |= asyncio.run(measure(chosen, paced=paced))
    show(result)
    write_json(json, result)


if __name__ == "__main__":
    run(main)
