"""`colloquy talk`: one conversation from the terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.api.messages import Interrupted, Loading, SessionReady, SpeechStopped
from app.cli.errors import explained, load_settings
from app.cli.exchange import Exchange, Tally
from app.cli.screen import Screen, screen_for
from app.observability.logs import configure
from app.roles import SAMPLE_RATE, BadInput, ColloquyError, EngineFailed
from app.settings import Settings
from app.talk import NoServer, Pace, Recording, Sound, Talk, connect, health
from app.talk.devices import Devices, find, microphone
from app.talk.play import Loudspeaker, Player, Tape, report

_AFTER_S = 2.5
"""Silence after a recording within which the server must have noticed the last speech."""
_SILENT_S = 60.0
"""So long without a word from the server, in the middle of a turn, means that none will come."""
_POLL_S = 0.05
_LATER = int(0.3 * SAMPLE_RATE)
"""The server may hear the end of speech so much earlier than it is in the file."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command was given."""

    file: Path | None
    text: str | None
    url: str | None
    out: Path | None
    language: str | None
    voice: str | None
    api_key: str | None
    json: bool


def run(wish: Wish) -> int:
    """Talk; gives the exit code: 0 if every turn was answered, 1 if not."""
    if wish.file is not None and wish.text is not None:
        raise BadInput("give a FILE or --text, not both")
    if wish.text is not None and not wish.text.strip():
        raise BadInput("--text has no words")
    folder = (wish.out or Path("x")).parent
    if not os.access(folder, os.W_OK):
        raise BadInput(f"the reply cannot be saved in {folder.resolve()}: give --out a file that can be written")
    settings = load_settings(language=wish.language)
    configure("WARNING" if settings.log_level == "INFO" else settings.log_level, json=False)
    tally = Tally()
    talker = _Talker(wish, settings, tally)
    try:
        asyncio.run(talker.run())
    except KeyboardInterrupt:
        # How a talk by microphone ends; a recording or text that was cut off is not answered.
        if wish.file is not None or wish.text is not None:
            return 130
    return 0 if tally.answered and not tally.failure and not any(t.failure for t in tally) else 1


class _Talker:
    """One run of the command."""

    def __init__(self, wish: Wish, settings: Settings, tally: Tally) -> None:
        self._wish = wish
        self._settings = settings
        self._tally = tally
        self._pace: Pace | None = None
        self._sent: list[float] = []  # when each 20 ms of the microphone were sent
        self._typed_at: float | None = None
        self._last_news = time.monotonic()

    async def run(self) -> None:
        wish = self._wish
        if wish.file is not None:
            # Before anything is started: a file that is no recording is told at once.
            self._pace = Pace(await Recording.load(wish.file))
        by_microphone = wish.file is None and wish.text is None
        devices = Devices(None, None)
        if by_microphone or wish.out is None:
            devices = await asyncio.to_thread(find)
        if by_microphone and devices.microphone is None:
            raise BadInput(
                f"{devices.problem}. Give a recording (colloquy talk FILE) or words (colloquy talk --text \"Hello\")"
            )
        async with AsyncExitStack() as stack:
            url, api_key = await stack.enter_async_context(self._server())
            player: Player = Tape()
            if wish.out is None and devices.speaker is not None:
                player = Loudspeaker(devices.speaker)
            stack.callback(player.close)
            talk = await stack.enter_async_context(connect(url, self._session(player, devices), api_key))
            screen = stack.enter_context(screen_for(self._tally, wish.json))
            try:
                await self._converse(talk, player, screen, devices)
            finally:
                screen.__exit__()
                screen.end(self._tally, self._save(player))

    # --- the server ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[tuple[str, str | None]]:
        """The URL of the server to talk to, and the key for it: the one asked for, the one on this
        machine, or one of our own for as long as it takes."""
        wish, settings = self._wish, self._settings
        if wish.url is not None:
            yield wish.url, wish.api_key
            return
        # Our own keys open our own server, and are shown to nobody else.
        key = wish.api_key or next((k.get_secret_value() for k in settings.api_keys), None)
        from app.cli.server import embedded, page_url

        url = page_url(settings.host, settings.port)
        try:
            await health(url)
        except NoServer:
            console = Console(stderr=True)
            console.print(f"No server at {url}: starting one for this talk.", style="dim", highlight=False)
            async with embedded(settings, console) as own:
                yield own, key
        else:
            yield url, key

    def _session(self, player: Player, devices: Devices) -> dict[str, Any]:
        """The session's settings."""
        wish = self._wish
        rate = devices.microphone.sample_rate if self._by_microphone and devices.microphone else SAMPLE_RATE
        asked = {"language": wish.language, "voice": wish.voice}
        return {name: value for name, value in asked.items() if value is not None} | {
            "audio_in": {"codec": "pcm16", "sample_rate": rate},
            "audio_out": {"codec": "pcm16", "sample_rate": player.sample_rate, "binary": True},
        }

    @property
    def _by_microphone(self) -> bool:
        return self._wish.file is None and self._wish.text is None

    # --- the talk ------------------------------------------------------------------------------

    async def _converse(self, talk: Talk, player: Player, screen: Screen, devices: Devices) -> None:
        """Until all is said and answered, the session ends, or this is cancelled."""
        ready = asyncio.Event()
        listening = asyncio.create_task(self._listen(talk, player, screen, ready))
        others = [
            asyncio.create_task(self._speak(talk, screen, devices, ready)),
            asyncio.create_task(report(player, talk)),
            asyncio.create_task(self._until_over(player)),
        ]
        tasks = [listening, *others]
        try:
            waiting = {listening, others[0], others[2]}
            while not (listening.done() or others[2].done()):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if talk.lost_s:
            screen.note(f"{talk.lost_s:.0f} s of sound were lost while the server was away")

    async def _listen(self, talk: Talk, player: Player, screen: Screen, ready: asyncio.Event) -> None:
        told = ""
        async for message in talk:
            self._last_news = time.monotonic()
            if isinstance(message, SessionReady):
                ready.set()
            if isinstance(message, Loading):
                states = ", ".join(f"{r.role} {r.state} {r.progress:.0%}" for r in message.roles if r.state != "ready")
                if not self._wish.json and states != told:
                    told = states
                    screen.note(f"the server still loads its models: {states}")
                    continue
            turn = self._tally.take(message, talk.received_at)
            if turn is not None and turn.voice_ended is None:
                turn.voice_ended = self._voice_ended(message)
            if isinstance(message, Sound):
                player.play(message.turn_id, b"".join(message.packets))
            elif isinstance(message, Interrupted):
                player.stop()
            if not isinstance(message, SessionReady | Loading) or self._wish.json:
                screen.show(message, turn)

    def _voice_ended(self, message: object) -> float | None:
        """When the last sound that the person made before the reply was sent."""
        if self._typed_at is not None:
            return self._typed_at
        if not isinstance(message, SpeechStopped):
            return None
        if self._pace is None:
            frame = int(message.at_ms / 20)
            return self._sent[frame] if frame < len(self._sent) else None
        reached = self._pace.sample_at(message.at_ms)
        last = self._pace.recording.last_speech(before=reached + _LATER)
        return None if last is None else self._pace.sent_at(last)

    async def _speak(self, talk: Talk, screen: Screen, devices: Devices, ready: asyncio.Event) -> None:
        await ready.wait()
        if self._wish.text is not None:
            self._typed_at = time.monotonic()
            await talk.text(self._wish.text)
        elif self._pace is not None:
            await self._pace.run(talk.send_audio)
        elif devices.microphone is not None:
            screen.note("Speak; Ctrl-C ends. With a loudspeaker in the room wear headphones: it hears itself.")
            async with aclosing(microphone(devices.microphone)) as frames:
                async for frame in frames:
                    self._sent.append(time.monotonic())
                    await talk.send_audio(frame)

    async def _until_over(self, player: Player) -> None:
        """Returns when everything has been said, answered and heard. The recording waits meanwhile
        where it is answered."""
        quiet_since: float | None = None
        while True:
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()
            turns = self._tally.open
            if self._pace is not None:
                self._pace.hold = player.busy or any(t.state in ("thinking", "speaking") for t in turns)
            if (turns or self._typed_at) and not self._tally.answered and now - self._last_news > _SILENT_S:
                raise EngineFailed(f"the server has said nothing for {_SILENT_S:.0f} s")
            if turns or player.busy or not self._all_said():
                quiet_since = None
                continue
            quiet_since = quiet_since or now
            if self._pace is None or now - quiet_since > _AFTER_S:
                return

    def _all_said(self) -> bool:
        if self._pace is not None:
            return self._pace.finished.is_set()
        return self._typed_at is not None and any(t.complete for t in self._tally)

    def _save(self, player: Player) -> str | None:
        """Put the reply where it was asked for; gives where that is."""
        if not isinstance(player, Tape) or not player.seconds:
            return None
        name = f"{self._wish.file.stem}.reply.wav" if self._wish.file else "reply.wav"
        path = self._wish.out or Path(name)
        player.save(path)
        return str(path)
