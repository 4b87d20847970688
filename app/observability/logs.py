"""Structured logs on the standard library's logging.

One line a record on stderr: JSON for machines, or a short form for a terminal. Every record
carries the `trace_id` and `session_id` bound around it; secrets are cut out of message, extra
fields and traceback. What people say is never logged: our own code does not, and libraries that
print payloads when debugging are held at WARNING whatever our own level.

`uvicorn` must be started with `log_config=None`, so that its loggers stay as set here.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from json import dumps
from typing import Any

_trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
_session_id: ContextVar[str | None] = ContextVar("session_id", default=None)

_REDACTED = "[redacted]"
# The ends of names that hold credentials, whatever comes before: `access_token`, `clientSecret`.
_SECRET_NAME = r"(?:token|secret|password|passwd|api[_-]?key|signature)"
_SECRET_FIELD = re.compile(rf"(?:{_SECRET_NAME}|authorization|cookie)$", re.IGNORECASE)
_HEADER = re.compile(
    # The name, however it is quoted; then, if the value is quoted, all up to that quote, else
    # all of the line: a scheme or a second parameter must not save the rest.
    r"""(\b(?:proxy-)?(?:authorization|x-api-key|api-key|(?:set-)?cookie)\b['"]?\s*[:=,]\s*b?)"""
    r"""(?:(?P<q>['"])(?:\\.|(?!(?P=q)).)*|[^\r\n]*)""",
    re.IGNORECASE,
)
_QUERY = re.compile(rf"""({_SECRET_NAME}(?:=|%3D))[^&\s"'<>#;,)]+""", re.IGNORECASE)
_JSON_FIELD = re.compile(rf"""({_SECRET_NAME}['"]\s*:\s*(['"]))(?:\\.|(?!\2).)*""", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]+", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_KEY_SHAPE = re.compile(r"()\b(?:eyJ[\w-]+\.[\w-]+\.[\w-]*|(?:sk|gsk|dg)[-_][\w-]{16,})")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def new_trace_id() -> str:
    """A fresh id: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def current_trace_id() -> str | None:
    """The trace that this task works for, if any."""
    return _trace_id.get()


@contextmanager
def bind(*, trace_id: str | None = None, session_id: str | None = None) -> Iterator[None]:
    """Within the block (and tasks started in it), log records carry these ids; what is None
    stays as it was."""
    given = [(var, value) for var, value in ((_trace_id, trace_id), (_session_id, session_id)) if value]
    tokens = [(var, var.set(value)) for var, value in given]
    try:
        yield
    finally:
        for var, token in reversed(tokens):
            var.reset(token)


def redact(text: str) -> str:
    """`text` without credentials: authorization and cookie headers, `token=` and the like in
    queries, bearer tokens, keys and passwords in URLs."""
    text = _HEADER.sub(lambda found: found[1] + (found["q"] or "") + _REDACTED, text)
    for pattern in (_QUERY, _JSON_FIELD, _BEARER, _URL_PASSWORD, _KEY_SHAPE):
        text = pattern.sub(lambda found: found[1] + _REDACTED, text)
    return text


def _clean(name: str, value: Any) -> Any:
    """`value` of an extra field in a form for JSON, without secrets."""
    if _SECRET_FIELD.search(name):
        return _REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {redact(str(key)): _clean(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", inner) for inner in value]
    return redact(str(value))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The ids in force and the record's `extra`."""
    ids = {"trace_id": _trace_id.get(), "session_id": _session_id.get()}
    fields: dict[str, Any] = {name: value for name, value in ids.items() if value}
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return fields | {name: _clean(name, value) for name, value in extra.items()}


class _Lines(logging.Formatter):
    def trace_of(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            parts.append(record.stack_info)
        return redact("\n".join(parts))


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        if trace := self.trace_of(record):
            line["exception"] = trace
        return dumps(line, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


class _TerminalLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        fields = _fields(record)
        for name in ("trace_id", "session_id"):
            if name in fields:
                fields[name] = fields[name][:8]
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{clock} {record.levelname:<7} {record.name}: {redact(record.getMessage())}{tail}"
        # One record is one line: text from outside must not forge another, nor drive the terminal.
        line = _CONTROL.sub(lambda found: repr(found[0])[1:-1], line)
        trace = self.trace_of(record)
        return f"{line}\n{trace}" if trace else line


def configure(level: str | int, json: bool) -> None:
    """Send all logs to stderr, `app`'s from `level` up, as JSON lines or (`json` false) in the
    short form for a terminal. May be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if json else _TerminalLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, _Lines):
            root.removeHandler(old)
    root.addHandler(handler)

    own = logging.getLogger("app")
    own.setLevel(level)
    # aiosqlite, websockets, openai and others print what people said when at DEBUG.
    root.setLevel(max(own.level, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    # uvicorn hands its own logger to `websockets`, which prints frames at DEBUG.
    logging.getLogger("uvicorn").setLevel(max(own.level, logging.INFO))
    guard()


def guard() -> None:
    """Whoever handles them, uvicorn's records hold no credentials: it logs URLs, and some have a token.
    May be called again."""
    logging.getLogger("uvicorn.error").addFilter(_not_refused)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addFilter(_redacted)


def _redacted(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(redact(a) if isinstance(a, str) else a for a in record.args)
    return True


def _not_refused(record: logging.LogRecord) -> bool:
    # uvicorn takes a WebSocket that we refuse with an HTTP answer of our own for one that we forgot.
    return record.getMessage() != "ASGI callable returned without completing handshake."
