"""More people, to tell voices apart by: what they say is not written down, and few of them speak English.

Fetched apart from the other recordings, when first asked for: 200 MB of packages for 32 people, of whom
90 s of speech are kept each. Words and syllables said one by one are put together to pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corpus.catalogue import DebianPackages
from corpus.fetch import INDEX, _debian_files, folder
from corpus.recordings import SAMPLE_RATE, Recording

Samples = npt.NDArray[np.float32]

_KEPT_S, _PIECE_S, _SHORTEST_S = 90.0, 3.0, 0.25
_LEVEL_DB = -26.0
_BLOCK = 160
_BELOW_LOUD_DB = 35.0


@dataclass(frozen=True, slots=True)
class Voice:
    """One person: the `files` (pattern below the package's sound folder) are all theirs."""

    name: str
    language: str
    files: str


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    root: str
    licence: str
    credit: str
    voices: tuple[Voice, ...]


def _prompts(package: str, root: str, licence: str, credit: str, *voices: Voice) -> _Package:
    return _Package(package, f"usr/share/asterisk/sounds/{root}", licence, credit, voices)


_CC = "CC-BY-SA-3.0"
_SYLLABLES = "ar cs en_GB es fr he hu it lt ml nb nds tn uk"
_WORDS = "de el en gl lt nn sl wa"
"""Languages, where one person recorded everything. In folders of other languages the voice changes from
file to file: several contributed to them."""

_PACKAGES = (
    _prompts(
        "asterisk-core-sounds-fr-wav", "fr_CA_f_June", _CC, "June Wallack", Voice("june", "fr", "*.wav")
    ),
    _prompts(
        "asterisk-core-sounds-it-wav", "it_IT_m_Carlo", _CC, "Carlo Flora", Voice("carlo", "it", "*.wav")
    ),
    _prompts(
        "asterisk-core-sounds-ru-wav",
        "ru_RU_f_IvrvoiceRU",
        _CC,
        "Maxim, http://www.ivrvoice.ru",
        Voice("ivrvoice", "ru", "*.wav"),
    ),
    _prompts(
        "asterisk-prompt-it-menardi-wav",
        "it_IT_f_Menardi",
        "CC-BY-SA-3.0",
        "Marco Menardi and Paola Dal Zot, http://www.voip.ammdomus.it",
        Voice("menardi", "it", "*.wav"),
    ),
    _prompts(
        "asterisk-prompt-fr-armelle",
        "fr",
        "BSD-2-Clause",
        "Armelle Desjardins",
        Voice("armelle", "fr", "*.gsm"),
    ),
    _prompts("asterisk-prompt-es-co", "es", "GPL-2.0-only", "Avatar Ltda.", Voice("avatar", "es", "*.gsm")),
    _Package(
        "klettres-data",
        "usr/share/klettres",
        "GPL-2.0-or-later",
        "KLettres",
        tuple(Voice(f"syllables-{name}", name[:3].strip("_"), f"{name}/*/*") for name in _SYLLABLES.split()),
    ),
    _Package(
        "ktuberling-data",
        "usr/share/ktuberling/sounds",
        "GPL-2.0-or-later",
        "KTuberling",
        tuple(Voice(f"words-{name}", name, f"{name}/*") for name in _WORDS.split()),
    ),
    *(
        _Package(
            f"fillets-ng-data-{language}",
            "usr/share/games/fillets-ng/sound",
            "GPL-2.0-only",
            "Fish Fillets: ALTAR interactive",
            tuple(
                Voice(f"{fish}-fish-{language}", language, f"*/{language}/*-{fish[0]}-*.ogg")
                for fish in ("mala", "velka")
            ),
        )
        for language in ("cs", "nl")
    ),
)


def voices() -> list[Recording]:
    """Pieces of 3–15 s of people who are in no other recording (`Recording.speaker` says of whom): all as
    loud, 16 kHz, without silence at the ends and without a text. Fetched first where they are not here."""
    return list(_all())


def languages() -> dict[str, str]:
    """What each of the people in `voices` speaks."""
    return {voice.name: voice.language for package in _PACKAGES for voice in package.voices}


@cache
def _all() -> tuple[Recording, ...]:
    place = fetch()
    entries = json.loads((place / INDEX).read_text())["recordings"]
    return tuple(
        Recording(path=place / e.pop("file"), text="", kind="piece", turn=False, turns=(), **e)
        for e in entries
    )


def fetch(say: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch what is missing and return the folder."""
    target = folder() / "voices"
    index = target / INDEX
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if index.exists() and json.loads(index.read_text())["version"] == version:
        return target
    target.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target) as work:
        for package in _PACKAGES:
            say(f"{package.name}: {package.credit} ({package.licence})")
            scratch = Path(work) / package.name
            scratch.mkdir()
            root = _debian_files(DebianPackages((package.name,), package.root), scratch) / package.root
            for voice in package.voices:
                entries += _bring(package, voice, root, target)
        ready = Path(work) / INDEX
        ready.write_text(json.dumps({"version": version, "recordings": entries}, indent=1))
        ready.replace(index)
    return target


def _bring(package: _Package, voice: Voice, root: Path, target: Path) -> Iterator[dict[str, object]]:
    kept = 0.0
    for number, piece in enumerate(_pieces(_spread(sorted(root.glob(voice.files))))):
        if kept >= _KEPT_S:
            break
        kept += len(piece) / SAMPLE_RATE
        file = f"{voice.name}-{number:02d}.wav"
        with wave.open(str(target / file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(SAMPLE_RATE)
            out.writeframes((piece * 32767).astype("<i2").tobytes())
        yield {
            "id": file.removesuffix(".wav"),
            "file": file,
            "seconds": len(piece) / SAMPLE_RATE,
            "sample_rate": SAMPLE_RATE,
            "speaker": voice.name,
            "licence": package.licence,
            "source": package.credit,
        }


def _spread(files: Sequence[Path]) -> list[Path]:
    """From all over the list first: neighbours are often of one kind."""
    return [file for first in range(5) for file in files[first::5]]


def _pieces(files: Sequence[Path]) -> Iterator[Samples]:
    """Files one after the other until they make `_PIECE_S`."""
    parts: list[Samples] = []
    for file in files:
        part = _trimmed(_decoded(file))
        if _SHORTEST_S * SAMPLE_RATE <= len(part) <= 15 * SAMPLE_RATE:
            parts.append(part)
        if sum(map(len, parts)) >= _PIECE_S * SAMPLE_RATE:
            yield np.concatenate(parts)
            parts = []


def _decoded(file: Path) -> Samples:
    import av

    blocks: list[Samples] = []
    # A few files are damaged.
    with contextlib.suppress(av.FFmpegError), av.open(str(file), metadata_errors="ignore") as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        for frame in container.decode(audio=0):
            blocks += [resampled.to_ndarray()[0] for resampled in resampler.resample(frame)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _trimmed(samples: Samples) -> Samples:
    """Without the silence at both ends, but for 50 ms, as loud as all the others."""
    whole = len(samples) // _BLOCK * _BLOCK
    power = np.square(samples[:whole].reshape(-1, _BLOCK)).mean(axis=1, dtype=np.float64)
    if not whole or power.max() < 1e-8:
        return np.zeros(0, np.float32)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-_BELOW_LOUD_DB / 10))
    spoken = samples[max(0, int(loud[0]) - 5) * _BLOCK : (int(loud[-1]) + 6) * _BLOCK]
    scale = 10 ** (_LEVEL_DB / 20) / np.sqrt(np.mean(np.square(spoken, dtype=np.float64)))
    levelled: Samples = np.clip(spoken * scale, -1, 1).astype(np.float32)
    return levelled
