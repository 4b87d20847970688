"""An hour through every codec, with all that a day does to a phone's connection: what is heard is what was
sent, word for word, in order, once; and the sixtieth minute costs what the tenth did."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_simulator import PACKERS, PONG, App
from chord_process import KEY, SCALE, heard_out, kept, process
from serving import make_settings, scripted
from tones import WORD_S, ChordStt, Said, chord_engines, numbers, talk

from app.dialogue import session
from app.dialogue.outbox import Outbox

MINUTES = 60
OFF_S = 15
"""What is said until the phone is back is not heard: the app does not send it again."""
FLIGHT_S = 10
"""No more than so much is sent and not shown yet when a connection breaks: sound comes as it is spoken."""


class Sender:
    """Sends minutes of talk, and keeps what of it has to be heard, and what may be."""

    def __init__(self, phone: App, codec: str) -> None:
        self.phone, self._codec = phone, codec
        self._random = np.random.default_rng(4)
        self._number = 0
        self._said: list[Said] = []
        self.sure: list[Said] = []
        self.perhaps: set[int] = set()
        self.unspoilt: list[tuple[int, list[Said]]] = []

    async def minute(self, number: int) -> None:
        sound, said = talk(number, 60.0, first=self._number)
        self._number += len(said)
        packets = PACKERS[self._codec](sound)
        self._said = said
        kinds: dict[int, Callable[[list[bytes]], Any]] = {
            1: self._lossy,
            3: self._kept_alive,
            4: self._dropped,
            5: self._read_slowly,
            6: self._left,
            7: self._cut_off,
            8: self._left_for_a_moment,
        }
        fate = await kinds.get(number % 10, self._plain)(packets)
        packet_s = 60.0 / len(packets)
        for word in said:
            # Codecs are late by up to a frame or two.
            first, last = (int((word.start + s) / packet_s) for s in (-0.1, WORD_S + 0.1))
            its = fate[max(first, 0) : last + 1]
            if all(f == 2 for f in its):
                self.sure.append(word)
            elif any(its):
                self.perhaps.add(word.number)

    # What becomes of packets: 0 is not sent, 1 sent, 2 sent and arrived whole.

    async def _plain(self, packets: list[bytes]) -> list[int]:
        await self.phone.play(packets)
        return [2] * len(packets)

    async def _lossy(self, packets: list[bytes]) -> list[int]:
        """Some packets are lost on the radio, some spoilt."""
        fate = [2] * len(packets)
        sent: list[bytes] = []
        for i, packet in enumerate(packets):
            chance = self._random.random()
            if chance < 0.015:
                fate[i] = 1
            if chance < 0.01:
                continue
            sent.append(self._spoilt(packet) if chance < 0.015 else packet)
        await self.phone.play(sent)
        return fate

    def _spoilt(self, packet: bytes) -> bytes:
        if self._random.random() < 0.5:
            return packet[: int(self._random.integers(1, len(packet)))]
        return self._random.bytes(len(packet))

    async def _kept_alive(self, packets: list[bytes]) -> list[int]:
        for at in range(0, len(packets), 50):
            await self.phone.play([PONG, *packets[at : at + 50], b"\x00"])
        return [2] * len(packets)

    async def _read_slowly(self, packets: list[bytes]) -> list[int]:
        self.phone.socket.transport.pause_reading()
        await self.phone.play(packets)
        await asyncio.sleep(0.3)
        self.phone.socket.transport.resume_reading()
        return [2] * len(packets)

    async def _dropped(self, packets: list[bytes]) -> list[int]:
        """The radio is gone in mid-word, after all had arrived."""
        return await self._away(packets, self.phone.drop, sure=True)

    async def _cut_off(self, packets: list[bytes]) -> list[int]:
        """The radio is gone, and the last words with it."""
        return await self._away(packets, self.phone.drop, sure=False)

    async def _left(self, packets: list[bytes]) -> list[int]:
        return await self._away(packets, self.phone.leave, sure=True)

    async def _left_for_a_moment(self, packets: list[bytes]) -> list[int]:
        """It is back before what it sent was heard."""
        return await self._away(packets, self.phone.leave, sure=True, calm=False)

    async def _away(
        self, packets: list[bytes], go: Callable[[], Any], *, sure: bool, calm: bool = True
    ) -> list[int]:
        half, off = len(packets) // 2, len(packets) * OFF_S // 60
        calmly = half - len(packets) * FLIGHT_S // 60
        await self.phone.play(packets[:calmly])
        over = [
            w.number for w, next_ in pairwise(self._said) if WORD_S + 2 < next_.start - w.start < 19 - w.start
        ]
        last = over[-1] if over else self.sure[-1].number
        await self.phone.until(lambda: any(last in numbers(s["text"]) for s in self.phone.shown[-9:]))
        await self.phone.play(packets[calmly:half])
        if sure:
            await (await self.phone.socket.ping())
        await go()
        await self.phone.play(packets[half : half + off])
        if calm:
            await heard_out(self.phone)
        before = self.phone.statuses.count("ready")
        await self.phone.come_back()
        await self.phone.until(lambda: self.phone.statuses.count("ready") > before)
        await self.phone.play(packets[half + off :])
        return [2 if sure else 1] * half + [0] * off + [2] * (len(packets) - half - off)


def check(sender: Sender, segments: list[dict[str, Any]]) -> None:
    """In order, nothing doubled, nothing invented, and nothing lost that has arrived."""
    heard = [n for s in segments for n in numbers(s["text"])]
    assert all(a < b for a, b in pairwise(heard)), "out of order, or doubled"
    sure = {word.number for word in sender.sure}
    assert sure <= set(heard), f"lost: {sorted(sure - set(heard))}"
    assert set(heard) <= sure | sender.perhaps, "heard what was never sent"
    assert len({s["id"] for s in segments}) == len(segments)
    for one, other in pairwise(segments):
        assert 0 <= one["start"] <= one["end"] <= other["start"] + 0.001


@pytest.mark.parametrize("codec", PACKERS)
async def test_an_hour(tmp_path: Path, codec: str) -> None:
    async with process(tmp_path) as server:
        phone = await server.phone(codec=codec)
        await phone.connect()
        await phone.status("ready")
        sender = Sender(phone, codec)
        cpu, memory = [server.cpu_s], [server.memory_mb]
        for minute in range(MINUTES):
            await sender.minute(minute)
            if minute % 10 == 9:
                cpu.append(server.cpu_s)
                memory.append(server.memory_mb)
        last = sender.sure[-1].number
        await phone.until(lambda: numbers(phone.shown[-1]["text"])[-1:] == [last])
        await phone.leave()
        await heard_out(phone)
        segments = await kept(phone)
    check(sender, segments)
    # What the app has put together by ids is what is kept.
    assert [s for s in segments if phone.segments.get(s["id"]) != s] == []
    assert len(phone.segments) == len(segments)
    voice_of = {word.number: word.voice for word in sender.sure}
    heard = Counter(
        (voice_of[n], s["speaker_id"]) for s in segments for n in numbers(s["text"]) if n in voice_of
    )
    # Of a word or two nobody new comes: they go to who spoke last.
    labels = [pair for pair, words in heard.items() if words > 9]
    assert sorted(voice for voice, _ in labels) == sorted(label for _, label in labels) == [0, 1, 2, 3]
    spent = np.diff(cpu)
    assert spent[-1] < 2 * spent[1] + 1.0
    assert memory[-1] < memory[1] + 60


async def test_a_slow_database_makes_the_phone_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was heard and not looked at yet is no more than what is kept for it."""
    monkeypatch.setattr(session, "Outbox", partial(Outbox, max_events=200))
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=[KEY])
    with scripted(settings, **chord_engines() | {"stt": ChordStt(0.0)}) as server:
        diary = server.app.state.context.diary
        keep = diary.keep

        async def slowly(*given: Any, **named: Any) -> Any:
            await asyncio.sleep(0.1)
            return await keep(*given, **named)

        monkeypatch.setattr(diary, "keep", slowly)
        phone = App(server, headers={"Authorization": f"Bearer {KEY}"}, scale=SCALE)
        await phone.connect()
        await phone.status("ready")
        sender = Sender(phone, "pcm16")
        for _ in range(8):
            await sender.minute(0)
        await phone.leave()
        await heard_out(phone)
        check(sender, await kept(phone))
