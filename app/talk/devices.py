"""The machine's sound card, where it has one: through `sounddevice` (extra `mic`) and PortAudio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from app.roles import Misconfigured

_RATES_IN = (16000, 48000, 44100, 24000, 8000)
_RATES_OUT = (24000, 48000, 44100, 16000)
_WAITING_FRAMES = 50
"""Microphone frames (20 ms) that wait to be sent; the oldest go."""


@dataclass(frozen=True, slots=True)
class Device:
    """A default device: its `name`, and a sample rate that it and the session protocol can do."""

    name: str
    sample_rate: int


@dataclass(frozen=True, slots=True)
class Devices:
    """What there is; `problem` says why something is None, and what to do."""

    microphone: Device | None
    speaker: Device | None
    problem: str = ""


def find() -> Devices:
    """Look for the default microphone and loudspeaker. Takes some tenths of a second."""
    with _quiet():
        try:
            import sounddevice
        except ImportError:
            return Devices(None, None, "the package sounddevice is not installed: install colloquy[mic]")
        except OSError:
            return Devices(
                None, None, "the library PortAudio is missing: install libportaudio2 (Debian, Ubuntu)"
            )
        microphone = _device(sounddevice, "input", _RATES_IN)
        speaker = _device(sounddevice, "output", _RATES_OUT)
    found = {"microphone": microphone, "loudspeaker": speaker}
    missing = " and no ".join(what for what, device in found.items() if device is None)
    return Devices(microphone, speaker, f"this machine has no {missing}" if missing else "")


def _device(sounddevice: Any, kind: str, rates: tuple[int, ...]) -> Device | None:
    try:
        name = str(sounddevice.query_devices(kind=kind)["name"])
    except (sounddevice.PortAudioError, ValueError):
        return None
    check = sounddevice.check_input_settings if kind == "input" else sounddevice.check_output_settings
    for rate in rates:
        with contextlib.suppress(sounddevice.PortAudioError, ValueError):
            check(samplerate=rate, channels=1, dtype="int16")
            return Device(name, rate)
    return None


async def microphone(device: Device) -> AsyncGenerator[bytes, None]:
    """What the default microphone hears: PCM16 mono at `device.sample_rate`, 20 ms a piece, until the
    iterator is closed."""
    import sounddevice

    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_FRAMES)

    def put(frame: bytes) -> None:
        if heard.full():
            heard.get_nowait()
        heard.put_nowait(frame)

    def callback(data: Any, frames: int, when: Any, status: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            loop.call_soon_threadsafe(put, bytes(data))

    with _quiet():
        try:
            stream = sounddevice.RawInputStream(
                samplerate=device.sample_rate,
                channels=1,
                dtype="int16",
                blocksize=device.sample_rate // 50,
                callback=callback,
            )
            stream.start()
        except sounddevice.PortAudioError as error:
            raise Misconfigured(f"the microphone {device.name!r} cannot be opened: {error}") from error
    try:
        while True:
            yield await heard.get()
    finally:
        stream.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ALSA prints pages of complaints about devices that it looked for in vain, past Python."""
    if sys.platform != "linux":
        yield
        return
    sys.stderr.flush()
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
