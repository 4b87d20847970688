"""`colloquy talk`: one conversation from the terminal."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.api.messages import Interrupted, Queued, ReplyPaused, ReplyResumed, SessionReady, SpeechStopped
from app.cli.errors import load_settings
from app.cli.exchange import Tally
from app.cli.screen import Screen, screen_for
from app.observability.logs import configure
from app.roles import SAMPLE_RATE, BadInput, EngineFailed
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
    settings = load_settings(language=wish.language)
    configure("WARNING" if settings.log_level == "INFO" else settings.log_level, json=False)
    tally = Tally()
    try:
        asyncio.run(_Talker(wish, settings, tally).run())
    except KeyboardInterrupt:
        # How a talk by microphone ends; a recording or a text that was cut off has no answer.
        if wish.file is not None or wish.text is not None:
            return 130
        tally.hang_up()
    failed = tally.failure or any(t.open or t.failure for t in tally)
    return 0 if tally.answered and not failed else 1


class _Talker:
    """One run of the command."""

    def __init__(self, wish: Wish, settings: Settings, tally: Tally) -> None:
        self._wish = wish
        self._settings = settings
        self._tally = tally
        self._by_microphone = wish.file is None and wish.text is None
        self._out = wish.out or Path(f"{wish.file.stem}.reply.wav" if wish.file else "reply.wav")
        self._devices = Devices(None, None)
        self._player: Player = Tape()
        self._ready = asyncio.Event()
        self._pace: Pace | None = None
        self._heard_at: list[float] = []  # when each 20 ms of the microphone were sent
        self._typed_at: float | None = None
        self._news_at = time.monotonic()

    async def run(self) -> None:
        """Talk until all is said and answered. What was heard is saved however it ends."""
        await self._prepare()
        async with AsyncExitStack() as stack:
            url, api_key = await stack.enter_async_context(self._server())
            if self._wish.out is None and self._devices.speaker is not None:
                self._player = Loudspeaker(self._devices.speaker)
                stack.callback(self._player.close)
            talk = await stack.enter_async_context(connect(url, self._session(), api_key))
            screen = screen_for(self._tally, self._wish.json)
            try:
                with screen:
                    await self._converse(talk, screen)
            finally:
                screen.end(self._tally, self._save())

    async def _prepare(self) -> None:
        """Refuse what cannot be before anything is started."""
        wish = self._wish
        if wish.file is not None:
            self._pace = Pace(await Recording.load(wish.file))
        if self._by_microphone or wish.out is None:
            self._devices = await asyncio.to_thread(find)
        if self._by_microphone and self._devices.microphone is None:
            raise BadInput(
                f"{self._devices.problem}. Without a microphone give a recording, as `colloquy talk FILE`, "
                'or words, as `colloquy talk --text "Hello"`'
            )
        will_save = wish.out is not None or self._devices.speaker is None
        if will_save and not os.access(self._out if self._out.exists() else self._out.parent, os.W_OK):
            raise BadInput(f"the reply cannot be saved as {self._out}: give --out a file that can be written")

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

    def _session(self) -> dict[str, Any]:
        """The session's settings."""
        wish, microphone = self._wish, self._devices.microphone
        rate = microphone.sample_rate if self._by_microphone and microphone else SAMPLE_RATE
        asked = {"language": wish.language, "voice": wish.voice}
        return {name: value for name, value in asked.items() if value is not None} | {
            "audio_in": {"codec": "pcm16", "sample_rate": rate},
            "audio_out": {"codec": "pcm16", "sample_rate": self._player.sample_rate, "binary": True},
        }

    # --- the talk ------------------------------------------------------------------------------

    async def _converse(self, talk: Talk, screen: Screen) -> None:
        """Until all is said and answered, the session ends, or this is cancelled."""
        ending = {
            asyncio.create_task(self._listen(talk, screen)),
            asyncio.create_task(self._until_over()),
        }
        speaking = asyncio.create_task(self._speak(talk, screen))
        reporting = asyncio.create_task(report(self._player, talk))
        try:
            waiting = ending | {speaking}
            while ending <= waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            tasks = [*ending, speaking, reporting]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if talk.lost_s:
            screen.note(f"{talk.lost_s:.0f} s of sound were lost while the server was away")

    async def _listen(self, talk: Talk, screen: Screen) -> None:
        """Take what the server says; ends with the session."""
        async for message in talk:
            self._news_at = time.monotonic()
            turn = self._tally.take(message, talk.received_at)
            if turn is not None and turn.voice_ended is None:
                turn.voice_ended = self._voice_ended(message)
            if isinstance(message, Sound):
                self._player.play(message.turn_id, b"".join(message.packets))
            elif isinstance(message, ReplyPaused):
                self._player.pause(message.turn_id)
            elif isinstance(message, ReplyResumed):
                self._player.resume()
            elif isinstance(message, Interrupted):
                self._player.stop()
            elif isinstance(message, Queued):
                screen.note(f"busy: position {message.position}")
            elif isinstance(message, SessionReady):
                self._ready.set()
            screen.show(message, turn)

    def _voice_ended(self, message: object) -> float | None:
        """When the last sound that the person made before the reply was sent."""
        if self._typed_at is not None:
            return self._typed_at
        if not isinstance(message, SpeechStopped):
            return None
        if self._pace is None:
            frame = int(message.at_ms / 20)
            return self._heard_at[frame] if frame < len(self._heard_at) else None
        reached = self._pace.sample_at(message.at_ms)
        last = self._pace.recording.last_speech(before=reached + _LATER)
        return None if last is None else self._pace.sent_at(last)

    async def _speak(self, talk: Talk, screen: Screen) -> None:
        await self._ready.wait()
        if self._wish.text is not None:
            self._typed_at = time.monotonic()
            await talk.text(self._wish.text)
        elif self._pace is not None:
            await self._pace.run(talk.send_audio)
        elif self._devices.microphone is not None:
            screen.note("Speak. Ctrl-C ends. Wear headphones, or the reply hears itself and stops.")
            async with aclosing(microphone(self._devices.microphone)) as frames:
                async for frame in frames:
                    self._heard_at.append(time.monotonic())
                    await talk.send_audio(frame)

    async def _until_over(self) -> None:
        """Returns when everything has been said, answered and heard. Meanwhile the recording waits
        where it is answered."""
        await self._ready.wait()
        quiet_since: float | None = None
        while True:
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()
            turns, playing = self._tally.open, self._player.busy
            if self._pace is not None:
                self._pace.hold = playing or any(t.state in ("thinking", "speaking") for t in turns)
            if (turns or not self._answered_text()) and now - self._news_at > _SILENT_S:
                raise EngineFailed(f"the server has said nothing for {_SILENT_S:.0f} s")
            said = self._pace is not None and self._pace.finished.is_set()
            if turns or playing or not (said or (self._typed_at and self._answered_text())):
                quiet_since = None
                continue
            quiet_since = quiet_since or now
            if self._typed_at or now - quiet_since > _AFTER_S:
                return

    def _answered_text(self) -> bool:
        """Whether there is no typed text that waits for its turn to be over."""
        return self._typed_at is None or any(t.complete for t in self._tally)

    def _save(self) -> str | None:
        """Put the reply where it was asked for; gives where that is."""
        if not isinstance(self._player, Tape) or not self._player.seconds:
            return None
        self._player.save(self._out)
        return str(self._out)
