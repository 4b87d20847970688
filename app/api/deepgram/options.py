"""What the query of `/v1/listen` asks for.

Names and meanings are Deepgram's. What we have no counterpart for is ignored where that only costs
polish (`numerals`, `search`), and refused where it would mislead (`redact`, `callback`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from starlette.datastructures import QueryParams

from app.api.context import Context
from app.dialogue.config import SessionConfig, TurnConfig
from app.roles import BadInput, SttOptions

ENCODINGS = ("linear16", "linear32", "mulaw", "alaw", "opus", "ogg-opus", "flac")
"""What we take; without one the sound is a container that says what is in it."""

_REFUSED_ENCODINGS = ("amr-nb", "amr-wb", "speex", "g729")
_TELEPHONE = ("mulaw", "alaw")
_RATES = range(8000, 48_001)
_MOST_CHANNELS = 16
_LEAST_END_MS = 200.0
"""Pauses shorter than this are within words: a transcript cut there would be worse, not sooner."""
_PATIENT_END_MS = 2000.0
_REFUSED = {
    "callback": "results are given on this connection only: leave callback out",
    "redact": "nothing is redacted here: leave redact out, and redact the transcript yourself",
}
_IGNORED = (
    "summarize topics intents sentiment search replace profanity_filter numerals measurements dictation "
    "detect_entities filler_words"
).split()
_TRUE, _FALSE = ("true", "1", "yes", "on", ""), ("false", "0", "no", "off")
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*", re.I)
_LONGEST_TERM, _MOST_TERMS = 200, 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """A request. `language` None means: detect it; "" means: nothing was asked for.
    `endpointing` in ms, None by ours, False never. Times are seconds unless named otherwise."""

    model: str = ""
    language: str | None = ""
    encoding: str | None = None
    sample_rate: int = 0
    channels: int = 1
    interim_results: bool = False
    endpointing: float | bool | None = None
    utterance_end: float | None = None
    vad_events: bool = False
    punctuate: bool = True
    diarize: bool = False
    vocabulary: tuple[str, ...] = ()
    detect_language: bool = False
    utterances: bool = False
    utterance_gap: float = 0.8
    paragraphs: bool = False
    tags: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    """Parameters that were asked for and change nothing here."""


def parse(query: QueryParams, *, live: bool) -> Options:
    """The options of a query. `live`: of a stream, of which we must know how it is encoded. Raises
    `BadInput`, whose field is the parameter."""
    for name, why in _REFUSED.items():
        if query.get(name, "").lower() not in ("", *_FALSE):
            raise BadInput(why, field=name)
    smart = _flag(query, "smart_format", False)
    channels = _whole(query, "channels", 1, range(1, _MOST_CHANNELS + 1))
    if channels > 1 and _flag(query, "multichannel", False):
        raise BadInput(
            "channels are not told apart here: send each on a connection of its own, or leave multichannel "
            "out to have them mixed",
            field="multichannel",
        )
    encoding = query.get("encoding", "").lower() or None
    if encoding in _REFUSED_ENCODINGS or encoding not in (None, *ENCODINGS):
        raise BadInput(
            f"there is no encoding {encoding!r} here: use {', '.join(ENCODINGS)}", field="encoding"
        )
    diarize = _flag(query, "diarize", False) or query.get("diarize_model", "").lower() not in ("", *_FALSE)
    return Options(
        model=query.get("model", "")[:_LONGEST_TERM],
        language=_language(query),
        encoding=encoding,
        sample_rate=_sample_rate(query, encoding, live),
        channels=channels,
        interim_results=_flag(query, "interim_results", False),
        endpointing=_endpointing(query),
        utterance_end=_read(query, "utterance_end_ms", _positive_ms, None),
        vad_events=_flag(query, "vad_events", False),
        punctuate=_flag(query, "punctuate", True) or smart,
        diarize=diarize,
        vocabulary=_vocabulary(query),
        detect_language="detect_language" in query and query["detect_language"].lower() not in _FALSE,
        utterances=_flag(query, "utterances", False),
        utterance_gap=_read(query, "utt_split", _positive, 0.8),
        paragraphs=_flag(query, "paragraphs", False) or smart,
        tags=tuple(query.getlist("tag")),
        extra=dict(pair.split(":", 1) for pair in query.getlist("extra") if ":" in pair),
        ignored=tuple(n for n in _IGNORED if query.get(n, "false").lower() not in _FALSE),
    )


def hearing(context: Context, options: Options) -> SttOptions:
    """How to recognise what `options` asks for. Raises `BadInput` for a language we cannot hear."""
    language = options.language
    if language == "":
        language = None if options.detect_language else context.default_config().language
    if context.settings.english_only:
        if language not in ("en", None):
            raise BadInput(
                "this server hears English only: start it with LANGUAGE=auto (or the language) for others",
                field="language",
            )
        language = "en"
    return SttOptions(language, options.vocabulary)


def session_config(context: Context, options: Options) -> SessionConfig:
    """A session that only writes down what is said, as `options` asks. Raises `BadInput`."""
    stt = hearing(context, options)
    turn = TurnConfig(echo=False, speculations=0)
    if options.endpointing is False:
        end_ms = min(_PATIENT_END_MS, (options.utterance_end or math.inf) * 1000)
        turn = replace(turn, adaptive=False, end_ms=max(_LEAST_END_MS, end_ms))
    elif options.endpointing is not None:
        turn = replace(turn, adaptive=False, end_ms=max(_LEAST_END_MS, float(options.endpointing)))
    return replace(
        context.default_config(),
        language=stt.language,
        vocabulary=stt.vocabulary,
        respond="never",
        revise=True,
        speak=False,
        diarize=options.diarize,
        turn=turn,
    )


def _read(query: QueryParams, name: str, reader: Callable[[str], T], default: T) -> T:
    given = query.get(name)
    if given is None or given == "":
        return default
    try:
        return reader(given)
    except ValueError as error:
        why = f": {error}" if str(error) else ""
        raise BadInput(f"invalid {name!r} value of {given[:80]!r}{why}", field=name) from None


def _flag(query: QueryParams, name: str, default: bool) -> bool:
    def reader(given: str) -> bool:
        if given.lower() in _TRUE:
            return True
        if given.lower() in _FALSE:
            return False
        raise ValueError("it is true or false")

    return True if query.get(name) == "" else _read(query, name, reader, default)


def _whole(query: QueryParams, name: str, default: int, allowed: range) -> int:
    def reader(given: str) -> int:
        if not given.isascii() or not given.isdigit() or len(given) > 9 or int(given) not in allowed:
            raise ValueError(f"it is from {allowed[0]} to {allowed[-1]}")
        return int(given)

    return _read(query, name, reader, default)


def _positive(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 < value < 1000:
        raise ValueError("it is a number of seconds")
    return value


def _positive_ms(given: str) -> float:
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:9]) <= 60_000:
        raise ValueError("it is a number of milliseconds")
    return int(given) / 1000


def _sample_rate(query: QueryParams, encoding: str | None, live: bool) -> int:
    rate = _whole(query, "sample_rate", 0, _RATES)
    if rate or encoding not in ("linear16", "linear32", *_TELEPHONE):
        return rate
    if encoding in _TELEPHONE:
        return 8000
    if live:
        raise BadInput(f"{encoding} has no header: say its sample_rate", field="sample_rate")
    return 0


def _endpointing(query: QueryParams) -> float | bool | None:
    def reader(given: str) -> float | bool | None:
        if given.lower() in ("true", "false"):
            return None if given.lower() == "true" else False
        if not given.isascii() or not given.isdigit() or int(given[:9]) > 60_000:
            raise ValueError("it is a number of milliseconds, or false")
        return float(given)

    return _read(query, "endpointing", reader, None)


def _language(query: QueryParams) -> str | None:
    def reader(given: str) -> str | None:
        if given.lower() in ("multi", "auto"):
            return None
        found = _LANGUAGE.fullmatch(given)
        if found is None:
            raise ValueError("it is a language tag such as en, en-US or multi")
        return found[1].lower()

    nothing: str | None = ""
    return _read(query, "language", reader, nothing)


def _vocabulary(query: QueryParams) -> tuple[str, ...]:
    """Key terms as they are, and keywords without their weights; those with a negative one are words
    to avoid, which we have no means for."""
    terms = list(query.getlist("keyterm"))
    for given in query.getlist("keywords"):
        for word in given.split(","):
            text, _, weight = word.partition(":")
            if not weight.strip().startswith("-"):
                terms.append(text)
    found = dict.fromkeys(" ".join(t.split()) for t in terms)
    found.pop("", None)
    if len(found) > _MOST_TERMS or any(len(t) > _LONGEST_TERM for t in found):
        raise BadInput(f"there may be {_MOST_TERMS} key terms of {_LONGEST_TERM} characters", field="keyterm")
    return tuple(found)
