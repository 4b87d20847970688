"""What a client sees while models are fetched and loaded, and when that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
from serving import make_settings, running
from wire_client import join, new_session

import corpus


async def test_a_session_that_comes_first_is_told_and_then_served(
    models_dir: Path, tmp_path: Path, server: object
) -> None:
    # Every model is fetched anew, from a folder; `server` has made sure that it is there.
    settings = make_settings(tmp_path / "models", tmp_path, models_local=models_dir, models_hub=False)
    [found] = [r for r in corpus.recordings() if r.id == "austen-930"]
    with running(settings) as fresh:
        async with httpx.AsyncClient(base_url=fresh.url) as http:
            health = (await http.get("/health")).json()
            assert health["status"] == "loading"
            refused = await http.post("/chat", data={"text": "hello"})
            assert refused.status_code == 503 and refused.json()["code"] == "NOT_READY"
            assert int(refused.headers["Retry-After"]) >= 1
        session = await new_session(fresh.url)
        async with join(fresh.url, session) as wire:
            # Spoken before anything can hear it.
            await wire.play(np.concatenate([corpus.load(found), np.zeros(24000, np.float32)]))
            await wire.until("session_ready")
            final = await wire.until("transcription_final")
            assert corpus.wer(found.text, final["text"]) < 0.3
            await wire.until("turn_complete")
        loading = [m for m in wire.seen if m["type"] == "loading"]
        states = {r["state"] for m in loading for r in m["roles"]}
        assert loading and "fetching" in states | {"loading"}
        assert {r["role"] for r in loading[-1]["roles"]} == {
            "vad",
            "turn",
            "stt",
            "stt_partial",
            "llm",
            "tts",
        }
        assert [m["type"] for m in wire.seen].index("session_ready") >= len(loading)


async def test_a_model_that_cannot_be_had_is_said(models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(models_dir, tmp_path, llm_model_name=str(tmp_path / "missing.gguf"))
    with running(settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for _ in range(600):
                health = (await http.get("/health")).json()
                if (
                    health["status"] == "degraded"
                    and sum(r["state"] == "ready" for r in health["roles"]) == 4
                ):
                    break
                await asyncio.sleep(0.1)
            roles = {r["role"]: r for r in health["roles"]}
            assert roles["llm"]["state"] == "failed" and "missing.gguf" in roles["llm"]["message"]
            assert roles["stt"]["state"] == "ready"
            session = await new_session(server.url)
            async with join(server.url, session) as wire:
                error = await wire.until("error")
                assert "missing.gguf" in error["message"]
