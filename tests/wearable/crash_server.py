"""A server that is killed: `python crash_server.py DATA KEY` prints its URL and serves until then."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from serving import make_settings, scripted

if __name__ == "__main__":
    data, key = Path(sys.argv[1]), sys.argv[2]
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm("{}"), "tts": ToneTts()}
    with scripted(
        make_settings(data / "none", data, api_keys=[key], speaker_provider="none"), **engines
    ) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        time.sleep(600)
