"""A server in this process: in the foreground for `serve`, on a thread for `talk`."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from app.cli.leaving import LeavingProtocol
from app.cli.loading import show_loading
from app.main import create_app
from app.observability.logs import guard
from app.roles import ColloquyError, EngineFailed, Misconfigured
from app.settings import Settings
from app.talk import NoServer, health

_SHUTDOWN_S = 10
_UNREAD_MS = 30_000


class PortTaken(ColloquyError):
    """Somebody else listens where we should."""

    code = "PORT_TAKEN"


def build_app(settings: Settings) -> FastAPI:
    """The application; `Misconfigured` if its data has no place to be."""
    try:
        return create_app(settings)
    except OSError as error:
        raise Misconfigured(
            f"DATA_DIR={settings.data_dir} cannot be used: {error.strerror}. Choose a folder of your own"
        ) from error


def config(app: FastAPI, *, access_log: bool = False) -> uvicorn.Config:
    """How uvicorn serves us."""
    guard()
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        ws=LeavingProtocol,
        ws_max_size=16 << 20,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        # Sound is compressed already, and what is left is not worth the time of everybody's loop.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. `PortTaken` or `Misconfigured` say why not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio asks for this only on sockets that name their protocol, which these do not. Connections
        # inherit it; without it each piece of a reply waits for the client to acknowledge the one before.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Else the kernel keeps what it could not deliver to a peer that reads no more, for good.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        return listener
    except OSError as error:
        # Python puts the address into the text, for which we have words of our own.
        reason = (error.strerror or str(error)).partition(" (while ")[0]
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(_who_has(page_url(host, port), port)) from error
        if error.errno == errno.EACCES:
            reason += ", choose a port above 1023"
        raise Misconfigured(f"cannot listen on HOST={host} PORT={port}: {reason}") from error


def _who_has(url: str, port: int) -> str:
    other = "choose another with --port, or --port 0 for a free one"
    try:
        asyncio.run(health(url))
    except ColloquyError:
        return f"port {port} is used by another program: {other}"
    return f"Colloquy already runs at {url} - open that; or {other}"


def page_url(host: str, port: int) -> str:
    """The URL to open on this machine."""
    if host in ("0.0.0.0", "::", ""):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def embedded(settings: Settings, console: Console) -> AsyncIterator[str]:
    """A server of our own on a free port of loopback, for as long as the block runs; gives its URL
    once its models are there. Raises `EngineFailed` if they cannot be had."""
    settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0})
    app = build_app(settings)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(config(app))
    # On a thread of its own, so that what the client measures is not its own waiting for the server.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise NoServer("the server did not start; its log above says why")
            await asyncio.sleep(0.02)
        if failed := await show_loading(app.state.context.runtime, console):
            raise EngineFailed("; ".join(failed))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join, 3 * _SHUTDOWN_S)
        listener.close()
