"""What the client asks by HTTP: whether there is a server, and a session of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from pydantic import ValidationError

from app.api.messages import SessionCreated, SessionSettings
from app.roles import BadInput, Busy, ColloquyError, NotAllowed, NotFound, TooLarge

_HOST = re.compile(r"[\w.:%-]+$")
_TIMEOUT = httpx.Timeout(30, connect=5)
_HEALTH_S = 3.0


class NoServer(ColloquyError):
    """Nothing that speaks our protocol can be reached, or it went away and did not come back."""

    code = "NO_SERVER"
    retryable = True


def base_url(url: str) -> str:
    """`url` as http(s), without a slash at its end; `host:port` alone will do."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    try:
        good = scheme in ("http", "https") and parts.port != 0 and bool(_HOST.match(parts.hostname or ""))
    except ValueError:  # a port that is no number
        good = False
    if not good:
        raise BadInput(f"{url!r} is not the address of a server: give http://HOST:PORT", field="url")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def on_this_machine(url: str) -> bool:
    """Whether `url` is on loopback; no proxy is asked to reach that."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


@asynccontextmanager
async def rest(url: str, api_key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client for the server at `url` (see `base_url`)."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=not on_this_machine(url)
    ) as http:
        yield http


async def health(url: str) -> dict[str, Any]:
    """What `/health` of the server at `url` says. Raises `NoServer`."""
    url = base_url(url)
    async with rest(url) as http:
        answer = await _json(url, http, "GET", "/health", patience=_HEALTH_S)
    if "roles" not in answer:
        raise NoServer(f"what answers at {url} is not Colloquy")
    return answer


async def create_session(
    url: str, http: httpx.AsyncClient, settings: SessionSettings | dict[str, Any] | None
) -> SessionCreated:
    """`POST /api/v1/sessions`.

    Raises `NoServer`, `Busy` (with `retry_after` in seconds), `NotAllowed`, or `BadInput` for
    settings that the server refuses.
    """
    if isinstance(settings, SessionSettings):
        settings = settings.model_dump(exclude_unset=True)
    answer = await _json(url, http, "POST", "/api/v1/sessions", settings or {})
    try:
        return SessionCreated.model_validate(answer)
    except ValidationError:
        raise NoServer(f"what answers at {url} is not Colloquy") from None


async def _json(
    url: str,
    http: httpx.AsyncClient,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    patience: float | httpx.Timeout = _TIMEOUT,
) -> dict[str, Any]:
    try:
        response = await http.request(method, path, json=body, timeout=patience)
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise NoServer(f"no server answers at {url} ({reason}): start one with `colloquy serve`") from error
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (response.is_error and "code" not in answer):
        raise NoServer(f"what answers at {url} is not Colloquy (HTTP {response.status_code} on {path})")
    if response.is_error:
        raise _refusal(response, answer)
    return answer


def _refusal(response: httpx.Response, answer: dict[str, Any]) -> ColloquyError:
    """The server's error as the exception that it was there."""
    message = str(answer.get("message", "the server refused"))
    match response.status_code:
        case 401 | 403:
            return NotAllowed(message)
        case 404:
            return NotFound(message)
        case 413:
            return TooLarge(message)
        case 429 | 503:
            wait = response.headers.get("Retry-After", "")
            return Busy(message, retry_after=float(wait) if wait.isdigit() else 5.0)
        case status if status < 500:
            return BadInput(message, field=answer.get("field"))
    return ColloquyError(message)
