"""A recording that arrives while it is being made, such as a browser's recorder gives: a container's
bytes in, as they come, 16 kHz mono out.

FFmpeg asks for bytes and waits for them, so each recording has a thread of its own. Both ways between it
and the event loop hold little: who sends faster than is decoded, or than is taken, waits.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from app.audio.files import ACCEPTED, NO_CONTAINER, Reading, Stopped, decoded, open_container, sound_track
from app.audio.sniff import describe
from app.roles import BadAudio, ColloquyError, Samples

HEAD_BYTES = 12
"""By so many, containers are known."""

_MAGIC = (b"OggS", b"\x1aE\xdf\xa3", b"fLaC", b"ID3", b"caff", b"FORM")
_INPUT_BYTES = 1 << 20
_OUTPUT_PIECES = 50
_QUICK = {"probesize": "65536", "analyzeduration": "500000", "fpsprobesize": "0"}
"""FFmpeg looks at up to 5 s of a file before it begins: nobody who speaks waits that long."""


def is_container(head: bytes) -> bool:
    """Whether a recording that begins so (`HEAD_BYTES`) is in a container that we open. What is not may
    still be MP3 or AAC, which begin in almost any way."""
    riff = head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"
    return head.startswith(_MAGIC) or riff or head[4:8] == b"ftyp"


def _may_be_frames(head: bytes) -> bool:
    """MPEG audio or ADTS without anything in front."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


class LiveFile:
    """Give it bytes with `feed`, then `end`; take the sound from `sound`. Always `close` it."""

    def __init__(self, name: str = "audio") -> None:
        """`name`: the field that errors name."""
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._reading = Reading(name, math.inf, 0, self._stop)
        self._pipe = _Pipe(self._stop, lambda: self._call(self._room.set))
        self._room = asyncio.Event()
        self._out: asyncio.Queue[Samples | ColloquyError | None] = asyncio.Queue()
        self._places = threading.Semaphore(_OUTPUT_PIECES)
        self._thread = threading.Thread(target=self._run, name="live-file", daemon=True)
        self._thread.start()

    async def feed(self, data: bytes) -> None:
        """The next bytes. Waits while there is much to decode; what comes after the end of the
        recording is dropped."""
        self._pipe.put(data)
        while self._pipe.full and self._thread.is_alive():
            self._room.clear()
            if self._pipe.full:
                await self._room.wait()

    def end(self) -> None:
        """No more bytes come."""
        self._pipe.put(b"")

    async def sound(self) -> AsyncGenerator[Samples, None]:
        """float32[n] at 16 kHz, in pieces as they come, to the end. Raises `BadAudio` where the recording
        is none, or is damaged."""
        while (item := await self._out.get()) is not None:
            if isinstance(item, ColloquyError):
                raise item
            self._places.release()
            yield item

    async def close(self) -> None:
        """Stop, and wait until the thread has. Idempotent."""
        self._stop.set()
        self._pipe.put(b"")
        self._places.release()
        self._room.set()
        await asyncio.to_thread(self._thread.join)

    # --- on the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._decode()
            self._give(None)
        except Stopped:
            self._give(None)
        except ColloquyError as error:
            self._give(error)
        except Exception:  # FFmpeg's bindings are not ours; whoever waits must hear of it
            self._give(self._reading.broken("cannot be decoded"))
            raise
        finally:
            self._pipe.drop()
            self._call(self._room.set)

    def _decode(self) -> None:
        from av.error import FFmpegError

        head = self._pipe.peek(HEAD_BYTES)
        if not head:
            return
        if not is_container(head) and not _may_be_frames(head):
            what = describe(head)
            raise BadAudio(
                f"`{self._reading.name}` is {what or 'not a recording in a container'}: send {ACCEPTED}, or "
                "say which encoding and sample rate it has",
                field=self._reading.name,
            )
        try:
            container = open_container(self._pipe, **_QUICK)
        except FFmpegError as error:
            raise self._reading.refuse(NO_CONTAINER) from error
        with container:
            for samples in decoded(container, sound_track(container, self._reading), self._reading):
                if len(samples):
                    self._places.acquire()
                    if self._stop.is_set():
                        raise Stopped
                    self._give(samples)

    def _give(self, item: Samples | ColloquyError | None) -> None:
        self._call(lambda: self._out.put_nowait(item))

    def _call(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(what)


class _Pipe:
    """Bytes between two threads; all that FFmpeg sees of the recording, which it cannot seek."""

    def __init__(self, stop: threading.Event, on_room: Callable[[], None]) -> None:
        self._stop = stop
        self._on_room = on_room
        self._waiting = bytearray()
        self._ended = False
        self._news = threading.Condition()

    @property
    def full(self) -> bool:
        """Whether whoever writes had better wait."""
        return len(self._waiting) > _INPUT_BYTES

    def put(self, data: bytes) -> None:
        """More bytes; none: that was all."""
        with self._news:
            if not self._ended:
                self._waiting += data
                self._ended = not data
            self._news.notify()

    def drop(self) -> None:
        """Nobody reads any more."""
        with self._news:
            self._ended = True
            self._waiting.clear()

    def peek(self, size: int) -> bytes:
        """The first `size` bytes, or fewer if there are no more."""
        with self._news:
            self._await(size)
            return bytes(self._waiting[:size])

    def read(self, size: int) -> bytes:
        """At least one byte, at most `size`; none at the end. Waits for them."""
        with self._news:
            self._await(1)
            if self._stop.is_set():
                raise Stopped
            was_full = self.full
            data = bytes(self._waiting[:size])
            del self._waiting[:size]
        if was_full and not self.full:
            self._on_room()
        return data

    def _await(self, size: int) -> None:
        while len(self._waiting) < size and not self._ended and not self._stop.is_set():
            self._news.wait()
