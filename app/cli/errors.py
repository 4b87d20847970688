"""How failures end a command: one line that says what to do, and an exit code."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.roles import BadInput, Busy, ColloquyError, Misconfigured, TooLarge
from app.settings import Settings


def load_settings(**given: Any) -> Settings:
    """The settings, with what is given and not None before the environment. `Misconfigured` names
    each wrong one."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].lower()}" for e in error.errors()]
        raise Misconfigured(f"wrong settings: {'; '.join(wrong)}") from error
    except SettingsError as error:
        # Its cause says what is wrong with the value, but also shows the value, which may be a key.
        raise Misconfigured(f"wrong settings: {error}: its value must be JSON") from error


def explained(error: BaseException) -> tuple[str, int] | None:
    """What to tell of `error` and the exit code; None if it is a bug."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return explained(error.exceptions[0])
    if isinstance(error, Busy):
        return f"{error.message} (Retry-After: {error.retry_after:.0f} s)", 1
    if isinstance(error, ColloquyError):
        return error.message, 2 if isinstance(error, BadInput | Misconfigured | TooLarge) else 1
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", 1
    return None
