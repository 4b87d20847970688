"""A person's recording through a server that is heard by recognisers of others, over their own protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from clients.streaming.hearing import KEY, Behaviour
from clients.streaming.soniox_server import soniox_server
from clients.streaming.speechmatics_server import speechmatics_server
from scripted import CountingStt, ScriptedLlm, ToneTts
from serving import Server, make_settings, scripted
from wire_client import join, new_session

from app.engines.moonshine import Moonshine
from app.engines.workers import Workers
from corpus import load, questions, wer

RECORDING = next(r for r in questions() if 4 < len(load(r)) / 16000 < 7)


@asynccontextmanager
async def spoken(models_dir: Path, data: Path, **settings: Any) -> AsyncIterator[tuple[dict[str, Any], Any]]:
    """What is told of the recording, and all that was told before. Nobody here could recognise it: the
    recogniser of this server only counts."""
    made = make_settings(models_dir, data, **settings)
    with scripted(made, stt=CountingStt(), llm=ScriptedLlm(), tts=ToneTts()) as house:
        session = await new_session(house.url)
        async with join(house.url, session) as wire:
            await wire.until("session_ready")
            await wire.play(np.concatenate([np.zeros(8000, np.float32), load(RECORDING)]), pace=3)
            await wire.play(np.zeros(24000, np.float32), pace=3)
            final = await wire.until("transcription_final")
            await wire.until("turn_complete")
            yield final, wire.seen
        async with httpx.AsyncClient(base_url=house.url) as http:
            await http.delete(f"/api/v1/sessions/{session['session_id']}")
            metrics = (await http.get("/api/v1/metrics")).text
    final["metrics"] = [line for line in metrics.splitlines() if "colloquy_stt_streams_total{" in line]


async def test_deepgrams_client_and_our_own_door(models_dir: Path, tmp_path: Path, server: Server) -> None:
    streaming = {"stt_streaming_providers": "deepgram", "deepgram_api_key": "any"}
    async with spoken(models_dir, tmp_path, deepgram_base_url=server.url, **streaming) as (final, seen):
        assert wer(RECORDING.text, final["text"]) < 0.35
        shown = [m["text"] for m in seen if m["type"] == "transcription_partial"]
        assert shown
        starts = [w["start"] for w in final["words"]]
        assert starts == sorted(starts)
        assert not [m for m in seen if m["type"] == "notice"]


@pytest.mark.parametrize("trouble", ["drop", "hang"])
async def test_the_first_one_dies_mid_sentence(
    models_dir: Path,
    tmp_path: Path,
    model_dir: Callable[[str], Path],
    workers: Workers,
    trouble: Any,
) -> None:
    engine = Moonshine(model_dir("moonshine-tiny-en"), workers, threads=1)
    sick = Behaviour(trouble=trouble, after_s=2.0)
    async with soniox_server(engine, sick) as first, speechmatics_server(engine) as second:
        streaming = {
            "stt_streaming_providers": "soniox,speechmatics",
            "soniox_api_key": KEY,
            "soniox_base_url": first,
            "speechmatics_api_key": KEY,
            "speechmatics_base_url": second,
        }
        async with spoken(models_dir, tmp_path, **streaming) as (final, seen):
            assert wer(RECORDING.text, final["text"]) < 0.4
            [notice] = [m for m in seen if m["type"] == "notice"]
            assert notice["code"] == "STT_SWITCHED" and "speechmatics" in notice["message"]
            assert not any(w.isdigit() for w in final["text"].split())
    dead = "timeout" if trouble == "hang" else "upstream_error"
    assert any('provider="soniox"' in line and dead in line for line in final["metrics"])
