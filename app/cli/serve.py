"""`colloquy serve`: the server in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import webbrowser
from types import FrameType

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.text import Text

from app.cli.errors import load_settings
from app.cli.loading import show_loading
from app.cli.server import build_app, config, listen, page_url
from app.observability.logs import configure


def run(*, host: str | None, port: int | None, open_page: bool, language: str | None) -> None:
    """Serve until a signal comes."""
    settings = load_settings(host=host, port=port, language=language)
    as_json = settings.log_json if settings.log_json is not None else not sys.stderr.isatty()
    configure(settings.log_level, as_json)
    app = build_app(settings)
    with listen(settings.host, settings.port) as listener:
        # In a terminal a line for each request would hide what matters.
        server = _Server(config(app, access_log=as_json or settings.log_level == "DEBUG"))
        # uvicorn puts these back when it is done and raises the signal again: being asked to end
        # is no failure.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        url = page_url(settings.host, listener.getsockname()[1])
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(server, listener, app, url, open_page))


class _Server(uvicorn.Server):
    """Ends at once with a second Ctrl-C, whatever it waits for."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)
        super().handle_exit(sig, frame)


async def _serve(server: _Server, listener: socket.socket, app: FastAPI, url: str, open_page: bool) -> None:
    announcing = asyncio.create_task(_announce(server, app, url, open_page))
    try:
        await server.serve(sockets=[listener])
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)


async def _announce(server: _Server, app: FastAPI, url: str, open_page: bool) -> None:
    """Show how the models come, then say where the page is."""
    while not server.started:  # noqa: ASYNC110 - uvicorn has only this flag
        await asyncio.sleep(0.05)
    runtime = app.state.context.runtime
    failed = await show_loading(runtime, Console(stderr=True, highlight=False))
    console = Console(soft_wrap=True, highlight=False)
    for sentence in failed:
        console.print(Text(f"Not ready: {sentence}", "red"))
    console.print(f"\nColloquy listens at [bold cyan]{url}[/]  (Ctrl-C ends it)\n")
    if open_page and (not has_display() or not await asyncio.to_thread(webbrowser.open, url)):
        console.print("There is no browser to open here: open that page yourself.")


def has_display() -> bool:
    """Whether a browser would be seen."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
