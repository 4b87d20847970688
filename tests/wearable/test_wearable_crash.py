"""A server dies, and nothing that was said for sure is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from app_simulator import App, pcm
from dialogue.scripted import silence, speech
from serving import Server, make_settings, scripted

TESTS = Path(__file__).parents[1]


async def test_what_was_heard_survives_a_crash(tmp_path: Path, engines: dict[str, Any], key: str) -> None:
    settings = make_settings(tmp_path / "none", tmp_path, api_keys=[key], speaker_provider="none")
    command = [sys.executable, str(TESTS / "wearable/crash_server.py"), str(tmp_path), key]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)  # noqa: ASYNC220
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        doomed: Any = Server(url, None, settings, None)  # type: ignore[arg-type]
        phone = App(doomed, headers={"Authorization": f"Bearer {key}"})
        await phone.connect()
        await phone.status("ready")
        await phone.play([*pcm(speech(1.5)), *pcm(silence(1.5)), *pcm(speech(2.0))])
        await phone.until(lambda: phone.text.startswith("one two three four five six one"))
    finally:
        process.kill()
        process.communicate()
    await phone.closed()
    with scripted(settings, **engines) as server:
        phone.server = server
        phone.segments.clear()
        await phone.connect()
        # Of what was being said when it died there may be a part.
        await phone.until(lambda: phone.text.startswith("one two three four five six"))
        await phone.until(lambda: phone.statuses.count("ready") == 2)
        await phone.play([*pcm(speech(0.75)), *pcm(silence(1.5))])
        await phone.until(lambda: phone.text.endswith("one two three"))
        assert len(phone.segments) == 1
        await phone.leave()
