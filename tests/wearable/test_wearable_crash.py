"""A server process dies in mid-sentence, and another one on the same database goes on: nothing that was firm
is lost, nothing is doubled, and times run on."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import numpy as np
from app_simulator import PACKERS, pcm
from chord_process import heard_out, kept, process
from dialogue.scripted import silence
from tones import WORD_S, numbers, phrases

CHUNK_S = 26.0
"""An utterance is made firm in pieces, of no more than this even if there is no pause in it."""
BEFORE, LONG, AFTER = [5, 9, 14], 100, [6, 8]


async def test_another_process_goes_on(tmp_path: Path) -> None:
    async with process(tmp_path) as doomed, process(tmp_path) as other:
        phone, next_ = await doomed.phone(codec="opus"), (await other.phone()).server
        await phone.connect()
        await phone.status("ready")
        # Of the last utterance no end is heard.
        await phone.play(PACKERS["opus"](phrases(0, [*BEFORE, LONG])))
        await (await phone.socket.ping())
        phone.server = next_
        async with asyncio.timeout(30):
            while not (stored := await kept(phone)) or max(_words(stored)) < sum(BEFORE) + LONG // 4:
                await asyncio.sleep(0.05)
        doomed.kill()
        assert await phone.closed() != 1000
        stored = await kept(phone)
        firm = _words(stored)
        missing = sum(BEFORE) + LONG - len(firm)
        assert firm == list(range(len(firm)))
        assert missing * WORD_S < CHUNK_S + 1

        await phone.come_back()
        await phone.until(lambda: phone.statuses.count("ready") == 2)
        assert all(phone.segments[s["id"]] == s for s in stored), (
            "the app is told again what it may have missed"
        )
        begin = sum(BEFORE) + LONG
        await phone.play(PACKERS["opus"](np.concatenate([phrases(begin, AFTER), silence(1.5)])))
        last = begin + sum(AFTER) - 1
        await phone.until(lambda: last in numbers(phone.shown[-1]["text"]))
        await phone.leave()
        await heard_out(phone)
        segments = await kept(phone)
    assert _words(segments) == [*firm, *range(begin, last + 1)]
    # It is one conversation: what was there is there, with its ids and times.
    for one, same in zip(stored, segments, strict=False):
        assert (one["id"], one["start"]) == (same["id"], same["start"])
        assert same["text"].startswith(one["text"])
    for one, later in pairwise(segments):
        assert 0 <= one["start"] <= one["end"] <= later["start"] + 0.001
    assert {s["speaker_id"] for s in segments} == {0}


def _words(segments: list[dict[str, object]]) -> list[int]:
    return [n for s in segments for n in numbers(str(s["text"]))]


async def test_it_dies_again_and_again(tmp_path: Path) -> None:
    """Each time when all but silence was heard: no word is missing."""
    said = 0
    for _ in range(3):
        async with process(tmp_path) as one:
            phone = await one.phone()
            await phone.connect()
            await phone.status("ready")
            await phone.play(pcm(np.concatenate([phrases(said, [4, 7]), silence(1.5)])))
            said += 11
            async with asyncio.timeout(30):
                while not (stored := await kept(phone)) or max(_words(stored)) < said - 1:
                    await asyncio.sleep(0.05)
            one.kill()
            await phone.closed()
    assert _words(stored) == list(range(said))
    assert len({s["id"] for s in stored}) == len(stored)
