"""What `doctor` looks at. A check gives what it found, whether that will do, and what to do if not."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import httpx

from app.cli.needs import CHINESE, extra_of, needed_packages
from app.cli.server import PortTaken, listen, page_url
from app.models import ModelStore
from app.roles import ColloquyError, Misconfigured
from app.runtime import Role, chosen
from app.settings import Settings
from app.talk.devices import find
from app.talk.rest import health

_MB = 1_000_000
_BASE_MB = 400
"""Memory of the server without models."""
_CODECS = ("aac", "flac", "mp3", "opus", "pcm_s16le", "vorbis")
_OPENAI = "https://api.openai.com/v1"

State = Literal["good", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Check:
    """`bad` is something that is needed and broken, `note` something that may matter."""

    state: State
    what: str
    found: str
    advice: str = ""


def machine(models: dict[Role, str], store: ModelStore) -> Iterator[Check]:
    """Python, cores, memory and room on the disk."""
    version = platform.python_version()
    yield Check("good", "Python", f"{version} on {platform.system()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    few = "replies will be slow: two are enough for one person" if cores < 2 else ""
    yield Check("note" if few else "good", "cores", str(cores), few)
    sizes = {name: store.manifest.model(name).size for name in set(models.values())}
    need = _BASE_MB * _MB + 1.3 * sum(sizes.values())
    if (free := _memory()) is not None:
        short = free < need
        advice = f"about {need / _MB:.0f} MB are needed: close other programs, or choose smaller models"
        yield Check(
            "note" if short else "good", "free memory", f"{free / _MB:.0f} MB", advice if short else ""
        )
    missing = sum(size for name, size in sizes.items() if store.present(name) is None)
    # A model is joined from its parts before these go.
    room, want = shutil.disk_usage(_existing(store.root)).free, 2 * missing
    advice = (
        f"{want / _MB:.0f} MB are needed to fetch the models: free some, or set MODELS_DIR to another disk"
    )
    yield Check(
        "bad" if room < want else "good", "free disk", f"{room / _MB:.0f} MB", advice if room < want else ""
    )


def _memory() -> float | None:
    """Bytes that can be had: what the system says, or what is left to this container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        names = os.sysconf_names if hasattr(os, "sysconf") else {}
        if "SC_PHYS_PAGES" not in names:
            return None
        free = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, int(limit) - used) if limit.isdigit() else free


def folders(settings: Settings) -> Iterator[Check]:
    """Whether what must be kept can be."""
    for name, path in (("DATA_DIR", settings.data_dir), ("MODELS_DIR", settings.models_dir)):
        place = _existing(path)
        good = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
        advice = "" if good else f"it cannot be written: make it yours, or set {name} to another folder"
        yield Check("good" if good else "bad", name, str(path), advice)


def _existing(path: Path) -> Path:
    """`path`, or the first folder above it that there is."""
    path = path.absolute()
    return next((p for p in (path, *path.parents) if p.exists()), path)


def packages(settings: Settings) -> Iterator[Check]:
    """Whether what the chosen providers import can be imported."""
    for name in [*needed_packages(settings), "av", "opuslib_next"]:
        trouble = _import_trouble(name)
        advice = f"install colloquy[{extra_of(name)}]: {trouble}" if trouble else ""
        yield Check(
            "bad" if trouble else "good",
            f"package {name}",
            "missing or broken" if trouble else "works",
            advice,
        )


def _import_trouble(name: str) -> str:
    """Why `name` cannot be imported. In a process of its own: a library built for another processor
    takes its process with it."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", f"import {name}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode < 0:
        return f"its import ends with signal {-done.returncode}: it is built for another processor"
    return (done.stderr.strip().splitlines() or ["?"])[-1] if done.returncode else ""


def recordings() -> Check:
    """Whether common recordings can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import av
        except ImportError:
            return Check("bad", "recordings", "cannot be read", "install the package av")
    missing = [codec for codec in _CODECS if codec not in av.codecs_available]
    advice = (
        f"this build of FFmpeg cannot read {', '.join(missing)}: install av from its wheel" if missing else ""
    )
    return Check("bad" if missing else "good", "recordings", f"FFmpeg reads {', '.join(_CODECS)}", advice)


def models(settings: Settings, wanted: dict[Role, str], store: ModelStore, verify: bool) -> Iterator[Check]:
    """Whether the models are here, and what the manifest says they are."""
    for name in dict.fromkeys(wanted.values()):
        size = store.manifest.model(name).size / _MB
        if store.present(name) is None:
            advice = f"the first start fetches it ({size:.0f} MB), or now: colloquy models fetch {name}"
            yield Check("note", f"model {name}", "not here yet", advice)
        elif verify and (problems := store.verify(name)):
            yield Check("bad", f"model {name}", "damaged", " ".join(problems))
        else:
            yield Check("good", f"model {name}", f"{size:.0f} MB{', every byte is right' if verify else ''}")
    path = settings.llm_model_name or ""
    if chosen(settings)["llm"] == "llama" and path.endswith(".gguf"):
        there = Path(path).is_file()
        advice = "" if there else "there is no such file: correct LLM_MODEL_NAME"
        yield Check("good" if there else "bad", "LLM_MODEL_NAME", path, advice)


async def language_model_api(settings: Settings) -> Check:
    """Whether the API of the language model answers, and takes the key."""
    url = settings.llm_base_url or _OPENAI
    headers = {"Authorization": f"Bearer {settings.llm_api_key.get_secret_value()}"}
    what = "LLM_BASE_URL"
    try:
        async with httpx.AsyncClient(timeout=10, headers=headers) as http:
            status = (await http.get(f"{url.rstrip('/')}/models")).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Check(
            "bad", what, url, f"it does not answer ({error or type(error).__name__}): is it running?"
        )
    if status in (401, 403):
        return Check("bad", what, url, f"it refuses LLM_API_KEY (HTTP {status})")
    return Check(
        "bad" if status >= 500 else "good", what, f"{url} answers", f"HTTP {status}" if status >= 500 else ""
    )


async def port(settings: Settings) -> Check:
    """Whether the server can listen, or already does."""
    what = f"port {settings.port}"
    try:
        # On a thread: to say who has the port it asks there.
        (await asyncio.to_thread(listen, settings.host, settings.port)).close()
        return Check("good", what, "free")
    except PortTaken:
        trouble = "taken"
    except Misconfigured as error:
        return Check("bad", what, "not to be had", error.message)
    url = page_url(settings.host, settings.port)
    try:
        await health(url)
    except ColloquyError:
        return Check(
            "bad", what, trouble, "another program uses it: set PORT to another, or to 0 for a free one"
        )
    return Check("good", what, f"Colloquy runs at {url}")


def sound() -> Iterator[Check]:
    """Microphone and loudspeaker, which only `talk` without a file needs."""
    devices = find()
    for what, device in (("microphone", devices.microphone), ("loudspeaker", devices.speaker)):
        found = f"{device.name}, {device.sample_rate} Hz" if device else "none"
        advice = "" if device else f"{devices.problem}; only `talk` in the terminal wants one"
        yield Check("good" if device else "note", what, found, advice)


def chinese(settings: Settings, store: ModelStore) -> Check:
    """What Chinese would need."""
    missing_packages = [name for name in CHINESE if find_spec(name) is None]
    missing_models = [name for name in ("whisper-base", "kokoro-82m") if store.present(name) is None]
    ways: Sequence[str] = [
        *(["install colloquy[zh]"] if missing_packages else []),
        *([f"colloquy models fetch {' '.join(missing_models)}"] if missing_models else []),
    ]
    found = "there" if not ways else f"lacks {', '.join(missing_packages + missing_models)}"
    use = "" if settings.language == "zh" else "only LANGUAGE=zh needs it"
    return Check("note" if ways else "good", "Chinese", found, "; ".join([*ways, use] if ways else []))
