"""The voices that OpenAI's clients ask for."""

from __future__ import annotations

from collections.abc import Sequence

from app.roles import BadInput, Voice

_THEIRS = frozenset("alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split())
"""OpenAI's voices: all of them are our default voice."""


def own_voice(wanted: str | None) -> str | None:
    """Our name of the voice `wanted`; None is the default voice."""
    return None if wanted in _THEIRS else wanted


def check_voice(voices: Sequence[Voice], wanted: str | None, field: str) -> None:
    """Raises `BadInput` where there is no such voice."""
    name = own_voice(wanted)
    if name is not None and all(voice.name != name for voice in voices):
        known = ", ".join(voice.name for voice in voices)
        raise BadInput(
            f"voice: there is none named {wanted!r}; choose one of {known}, or any name of OpenAI's",
            field=field,
        )
