"""A server in Chinese: the multilingual recogniser, the Chinese voice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import Server, make_settings, running
from wire_client import talking

import corpus
from app.audio.files import decode_file


@pytest.fixture(scope="module")
def chinese(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All models of LANGUAGE=zh."""
    with running(make_settings(models_dir, tmp_path_factory.mktemp("zh"), language="zh")) as server:
        while not server.app.state.context.runtime.ready:
            statuses = server.app.state.context.runtime.status.values()
            assert not [s.message for s in statuses if s.state == "failed"]
            asyncio.run(asyncio.sleep(0.2))
        yield server


async def test_chinese_is_spoken_heard_and_answered(chinese: Server) -> None:
    question = "今天天气很好，我们去公园散步，好不好？"
    async with httpx.AsyncClient(base_url=chinese.url, timeout=120) as http:
        speech = await http.post("/tts", json={"text": question})
        assert speech.status_code == 200, speech.text
    sound = await decode_file(speech.content, max_seconds=60)
    async with talking(chinese.url) as wire:
        await wire.play(np.concatenate([sound, np.zeros(32000, np.float32)]), pace=1)
        final = await wire.until("transcription_final")
        assert final["language"] == "zh"
        assert corpus.cer(question, final["text"]) < 0.3
        done = await wire.until("turn_complete")
        assert any("\u4e00" <= c <= "\u9fff" for c in done["reply"])
        assert done["audio_ms"] > 300
    partials = [m["text"] for m in wire.seen if m["type"] == "transcription_partial"]
    assert partials
