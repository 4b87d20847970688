"""The one family of errors that crosses module borders.

Every error that a person or a client may see is a `ColloquyError`: it has a stable `code`
(every door sends `{code, message, trace_id}`), says whether trying again makes sense, and
carries a message that says what to do. Anything else that escapes is a bug and is shown as
`INTERNAL`.
"""

from __future__ import annotations


class ColloquyError(Exception):
    """Base of all expected failures.

    Attributes:
        code: stable upper-case identifier, part of the protocol.
        message: one sentence for a person, saying what is wrong and what to do.
        retryable: whether the same request may succeed later.
        field: the offending field or parameter, where there is one.
    """

    code = "INTERNAL"
    http_status = 500
    retryable = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class BadInput(ColloquyError):
    """What the client sent cannot be used; `field` names the part."""

    code = "BAD_INPUT"
    http_status = 422


class BadAudio(BadInput):
    """Bytes that are not the audio they claim to be."""

    code = "BAD_AUDIO"


class TooLarge(ColloquyError):
    """A size or duration limit was passed."""

    code = "TOO_LARGE"
    http_status = 413


class ContextTooLong(BadInput):
    """A conversation is longer than what the language model takes."""

    code = "CONTEXT_TOO_LONG"


class NotFound(ColloquyError):
    """No such session, voice, turn or file."""

    code = "NOT_FOUND"
    http_status = 404


class NotAllowed(ColloquyError):
    """Missing or wrong credentials, or somebody else's data."""

    code = "NOT_ALLOWED"
    http_status = 401


class Expired(NotAllowed):
    """A token that was good has run out."""

    code = "TOKEN_EXPIRED"


class Revoked(NotAllowed):
    """A token that was good is not accepted any more."""

    code = "TOKEN_REVOKED"


class QuotaSpent(ColloquyError):
    """Somebody has used what they may use for now."""

    code = "QUOTA_SPENT"
    http_status = 429


class Busy(ColloquyError):
    """A limit on concurrent work was reached; try again after `retry_after` seconds. `position`,
    where there is a queue, is how many are ahead."""

    code = "BUSY"
    http_status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after: float = 5.0, position: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.position = position


class NotReady(Busy):
    """A model is still being fetched or loaded."""

    code = "NOT_READY"


class EngineFailed(ColloquyError):
    """A model or provider failed or timed out."""

    code = "ENGINE_FAILED"
    http_status = 502
    retryable = True


class Misconfigured(ColloquyError):
    """The settings ask for something that cannot be had; the message says what to change."""

    code = "MISCONFIGURED"
