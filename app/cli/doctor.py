"""`colloquy doctor`: is everything here that a talk needs?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.text import Text

from app import __version__
from app.audio.resample import Resampler
from app.cli import checks
from app.cli.checks import Check
from app.cli.errors import load_settings
from app.cli.loading import show_loading
from app.cli.needs import needed_models
from app.dialogue.exchange import speak_all
from app.models import ModelStore
from app.observability.logs import configure
from app.roles import SAMPLE_RATE, EngineFailed, Job, SpeechOptions, SttOptions
from app.runtime import Runtime, chosen
from app.settings import Settings

_SENTENCES = {
    "en": "Good morning. I can hear myself, so you will hear me too.",
    "zh": "早上好，我能听见自己说话。",
}
_WIDTH = 24


def run(*, verify: bool, speak: bool) -> int:
    """Check all, print what was found; 1 if something that is needed is broken."""
    settings = load_settings()
    configure("WARNING", json=False)
    console = Console(highlight=False, soft_wrap=True)
    store = ModelStore(settings.models_dir, local=settings.models_local, hub=settings.models_hub)
    broken = asyncio.run(_check_all(settings, store, console, verify))
    if speak and not broken:
        console.print()
        broken = asyncio.run(_speak(settings, console))
    elif speak:
        console.print("\nWhat is broken must be mended before it can speak.")
    return 1 if broken else 0


async def _check_all(settings: Settings, store: ModelStore, console: Console, verify: bool) -> bool:
    providers = ", ".join(f"{role} {name}" for role, name in chosen(settings).items())
    console.print(f"Colloquy {__version__}, LANGUAGE={settings.language}: {providers}\n")
    wanted = await needed_models(settings)
    broken = False

    def tell(found: Iterable[Check]) -> None:
        nonlocal broken
        for check in found:
            _print(console, check)
            broken |= check.state == "bad"

    tell(checks.machine(wanted, store))
    tell(checks.folders(settings))
    tell([await checks.port(settings)])
    tell(checks.packages(settings))
    tell([checks.recordings()])
    tell(checks.models(settings, wanted, store, verify))
    if settings.llm_provider == "openai":
        tell([await checks.language_model_api(settings)])
    tell(checks.sound())
    tell([checks.chinese(settings, store)])
    console.print()
    console.print(
        "Something that is needed is broken, see above." if broken else "All that is needed is here."
    )
    return broken


def _print(console: Console, check: Check) -> None:
    fancy = console.encoding.lower().startswith("utf")
    mark = {"good": "✓", "note": "!", "bad": "✗"}[check.state] if fancy else check.state.upper().ljust(4)
    style = {"good": "green", "note": "yellow", "bad": "bold red"}[check.state]
    console.print(Text.assemble((f"{mark} ", style), f"{check.what:<{_WIDTH}} {check.found}"))
    if check.advice:
        console.print(Text(f"{' ' * (len(mark) + 2 + _WIDTH)}{check.advice}", style))


async def _speak(settings: Settings, console: Console) -> bool:
    """Load the chosen engines, speak a sentence and listen to it; whether that failed."""
    runtime = Runtime(settings)
    began = time.monotonic()
    runtime.start()
    try:
        if failed := await show_loading(runtime, Console(stderr=True, highlight=False)):
            raise EngineFailed("; ".join(failed))
        roles = await runtime.roles()
        console.print(f"loaded    all models in {time.monotonic() - began:.1f} s")
        language = "zh" if settings.language == "zh" else "en"
        sentence = _SENTENCES[language]
        began = time.monotonic()
        voice = await speak_all(roles, sentence, SpeechOptions(language=language), "doctor")
        took = time.monotonic() - began
        console.print(
            f"said      {sentence}\n          {voice.duration:.1f} s of speech, made in {took:.2f} s"
        )
        down = Resampler(voice.sample_rate, SAMPLE_RATE)
        speech = np.concatenate([down.push(voice.samples), down.flush()])
        began = time.monotonic()
        heard = await roles.stt.transcribe(speech, SttOptions(language), Job("doctor"))
        took = time.monotonic() - began
        console.print(
            f"heard     {heard.text or '(nothing)'}\n          "
            f"confidence {heard.confidence:.0%}, recognised in {took:.2f} s"
        )
        return not heard.text
    finally:
        await runtime.close()
