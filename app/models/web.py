"""Downloading one file over HTTP, going on where a broken connection stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx

from app.models.errors import SourceFailed, Unreachable

# A host that cannot be reached must cost seconds, not minutes: there are other sources.
TIMEOUT = httpx.Timeout(connect=3.0, read=10.0, write=10.0, pool=None)
TRIES_WITHOUT_PROGRESS = 2
RETRY_WAIT = 0.5

_NO_ANSWER = (httpx.ConnectError, httpx.TimeoutException, httpx.ProxyError, httpx.UnsupportedProtocol)


def client() -> httpx.AsyncClient:
    """A client for downloads; reads certificates, so make it in a thread."""
    return httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=True)


async def download(
    http: httpx.AsyncClient, url: str, target: Path, size: int, on_bytes: Callable[[int], None]
) -> None:
    """Fetch `url`, `size` bytes long, to `target`; `on_bytes` is told how many bytes there are so far.

    What has arrived stays in `target` when this fails or is cancelled, and the next call asks only for
    the rest. `Unreachable` if the host cannot be connected to, `SourceFailed` otherwise; `OSError` if
    the disk does not take it.
    """
    tries = 0
    while (before := _length(target)) != size:
        try:
            await _receive(http, url, target, before, size, on_bytes)
            continue
        except httpx.TransportError as error:
            failure = error
        except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise SourceFailed(str(error)) from error
        if _length(target) > before:
            tries = 0
        elif tries == 0 and isinstance(failure, _NO_ANSWER):
            raise Unreachable(f"cannot be reached ({_reason(failure)})") from failure
        tries += 1
        if tries > TRIES_WITHOUT_PROGRESS:
            raise SourceFailed(f"the connection keeps breaking ({_reason(failure)})") from failure
        await asyncio.sleep(RETRY_WAIT * tries)


async def _receive(
    http: httpx.AsyncClient, url: str, target: Path, have: int, size: int, on_bytes: Callable[[int], None]
) -> None:
    # Compressed transfer would make lengths and ranges mean something else.
    headers = {"Accept-Encoding": "identity"}
    if 0 < have < size:
        headers["Range"] = f"bytes={have}-"
    async with http.stream("GET", url, headers=headers) as response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status_code == 206 and "Range" in headers and resumed:
            mode = "ab"
        elif response.status_code == 200:
            mode, have = "wb", 0
        else:
            raise SourceFailed(f"answered {response.status_code} for {response.url.path}")
        length = response.headers.get("Content-Length")
        if length is not None and have + int(length) != size:
            raise SourceFailed(f"has {have + int(length)} bytes for {response.url.path} instead of {size}")
        out: IO[bytes] = await asyncio.to_thread(target.open, mode)
        try:
            async for piece in response.aiter_bytes():
                have += len(piece)
                if have > size:
                    raise SourceFailed(f"sends more than {size} bytes for {response.url.path}")
                await asyncio.to_thread(out.write, piece)
                on_bytes(have)
        finally:
            out.close()
    if have != size:
        raise httpx.RemoteProtocolError(f"the answer ended at {have} of {size} bytes")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
