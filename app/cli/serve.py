"""`colloquy serve`: the server in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import webbrowser
from types import FrameType

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from app.cli.errors import load_settings
from app.cli.loading import show_loading
from app.cli.server import build_app, config, listen, page_url
from app.observability.logs import configure
from app.settings import Settings


def run(*, host: str | None, port: int | None, open_page: bool, language: str | None) -> None:
    """Serve until a signal comes."""
    settings = load_settings(host=host, port=port, language=language)
    as_json = settings.log_json if settings.log_json is not None else not sys.stderr.isatty()
    configure(settings.log_level, as_json)
    app = build_app(settings)
    with listen(settings.host, settings.port) as listener:
        # In a terminal a line for each request would hide what matters.
        server = _Server(config(app, access_log=as_json or settings.log_level == "DEBUG"))
        # uvicorn puts these back and raises the signal again when it is done: being asked to end is no failure.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        url = page_url(settings.host, listener.getsockname()[1])
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(server, app, settings, url, open_page, [listener]))


class _Server(uvicorn.Server):
    """Ends at once with a second Ctrl-C, whatever it waits for."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)
        super().handle_exit(sig, frame)


async def _serve(
    server: uvicorn.Server, app: FastAPI, settings: Settings, url: str, open_page: bool, listeners: list[object]
) -> None:
    announcing = asyncio.create_task(_announce(server, app, settings, url, open_page))
    try:
        await server.serve(sockets=listeners)  # type: ignore[arg-type]
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)


async def _announce(
    server: uvicorn.Server, app: FastAPI, settings: Settings, url: str, open_page: bool
) -> None:
    while not server.started:
        await asyncio.sleep(0.05)
    failed = await show_loading(app.state.context.runtime, Console(stderr=True))
    console = Console(soft_wrap=True, highlight=False)
    for sentence in failed:
        console.print(f"[bold red]Not ready:[/] {sentence}", style=None)
    console.print(f"\nColloquy listens at [bold cyan]{url}[/]  (Ctrl-C ends it)\n")
    if not settings.on_loopback:
        console.print("Other machines can connect too, with a key of API_KEYS.")
    if open_page:
        if not has_display() or not await asyncio.to_thread(webbrowser.open, url):
            console.print("There is no browser to open here: open that page yourself.")


def has_display() -> bool:
    """Whether a browser would be seen."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
