"""What the query of a connection asks for. Phones are lenient, and so is this."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from app.api.context import Context
from app.roles import BadInput

_FALSE = ("0", "false", "no", "off", "none", "null", "disabled", "")
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*", re.IGNORECASE)
_ANY_LANGUAGE = ("auto", "multi", "detect", "null", "none", "undefined", "")
_LEAST_TIMEOUT_S = 120
_NEVER_S = 14_400


@dataclass(frozen=True, slots=True)
class Wish:
    """A connection's wishes. `timeout_s` is the silence that ends a conversation; `language` None means:
    detect it."""

    language: str | None = "en"
    codec: str = "pcm8"
    sample_rate: int = 8000
    channels: int = 1
    timeout_s: int = _LEAST_TIMEOUT_S
    include_speech_profile: bool = True
    custom_stt: bool = False
    source: str | None = None


def parse(query: QueryParams) -> Wish:
    """The wishes of a query. Who sends it is not in it: the token says that. Raises `BadInput` where
    guessing would mislead."""
    timeout = _whole(query, "conversation_timeout", _LEAST_TIMEOUT_S)
    return Wish(
        language=_language(query.get("language", "en")),
        codec=query.get("codec", "pcm8").strip().lower() or "pcm8",
        sample_rate=_whole(query, "sample_rate", 8000),
        channels=_whole(query, "channels", 1),
        timeout_s=_NEVER_S if timeout == -1 else min(max(timeout, _LEAST_TIMEOUT_S), _NEVER_S),
        include_speech_profile=_flag(query, "include_speech_profile", True),
        custom_stt=_flag(query, "custom_stt", False),
        source=query.get("source", "").strip()[:64] or None,
    )


def heard_language(context: Context, wish: Wish) -> str | None:
    """In which language to listen; None detects it. Raises `BadInput` for one that is not heard here."""
    if context.settings.english_only:
        if wish.language not in ("en", None):
            raise BadInput(
                "this server hears English only: start it with LANGUAGE=auto (or the language) for others",
                field="language",
            )
        return "en"
    return wish.language


def _language(given: str) -> str | None:
    given = given.strip().lower()
    if given in _ANY_LANGUAGE:
        return None
    if (found := _LANGUAGE.fullmatch(given)) is None:
        raise BadInput(f"{given[:40]!r} is no language: use a code such as en, or multi", field="language")
    return found[1]


def _whole(query: QueryParams, name: str, default: int) -> int:
    given = query.get(name, "").strip()
    if not given:
        return default
    try:
        return int(float(given))
    except (ValueError, OverflowError):
        raise BadInput(f"{name} is a whole number, not {given[:40]!r}", field=name) from None


def _flag(query: QueryParams, name: str, default: bool) -> bool:
    given = query.get(name)
    return default if given is None else given.strip().lower() not in _FALSE
