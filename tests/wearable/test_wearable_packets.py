"""What is no sound of the codec that was announced, and languages that are none."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from app_simulator import PACKERS, app, pcm
from dialogue.scripted import silence, speech
from serving import Server

SPOILT = {
    "opus": b"\xff\xff\xff\xff",
    "opus_fs320": b"\xfftext",
    "pcm8": b"odd",
    "pcm16": b"uneven!",
    "aac": b"\x80\x03\xab" * 9,
    "lc3_fs1030": bytes(29),
}


def words(count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.concatenate([speech(count / 4), silence(1.5)])


@pytest.mark.parametrize("codec", PACKERS)
async def test_nothing_that_is_sound(small: Server, key: str, codec: str) -> None:
    async with app(small, key, codec=codec) as phone:
        await phone.status("ready")
        await phone.play([SPOILT[codec]] * 60)
        assert await phone.closed() == 1008
        (failed,) = [e for e in phone.events if e.get("status") == "stt_failed"]
        assert failed["outcome"] == "invalid_input" and failed["retryable"] is False
        assert codec in failed["reason"]


@pytest.mark.parametrize("codec", PACKERS)
async def test_much_that_is_no_sound(small: Server, key: str, codec: str) -> None:
    """More of it than closes a connection in which nothing else comes. How many words the scripted recogniser
    counts depends on what a codec makes of noise."""
    async with app(small, key, codec=codec) as phone:
        await phone.status("ready")
        for packet in PACKERS[codec](words(5)):
            await phone.play([packet, SPOILT[codec], SPOILT[codec], b"\x8a\x00", b"\x00"])
        await phone.until(lambda: phone.text.startswith("one two"))
        await phone.play([SPOILT[codec]] * 100)
        await asyncio.sleep(0.1)
        await phone.play(PACKERS[codec](words(3)))
        await phone.until(lambda: phone.text.count("one") == 2)
        assert phone.closes == []


@pytest.mark.parametrize("language", ["auto", "multi", "MULTI", " auto ", "", "null"])
async def test_any_language_is_english_here_and_the_app_is_told(
    small: Server, key: str, language: str
) -> None:
    async with app(small, key, language=language) as phone:
        notice = await phone.event("notice")
        assert notice["code"] == "ENGLISH_ONLY" and "English" in notice["message"]
        await phone.status("ready")
        await phone.play(pcm(words(2)))
        await phone.until(lambda: phone.text == "one two")


@pytest.mark.parametrize("language", ["en", "EN", "en-US", "en_GB", "en-Latn-US"])
async def test_english_however_it_is_written(small: Server, key: str, language: str) -> None:
    async with app(small, key, language=language) as phone:
        await phone.status("ready")
        assert not [e for e in phone.events if e["type"] == "notice"]
