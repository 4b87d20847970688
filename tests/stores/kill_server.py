"""A server with scripted engines, to be killed: `python kill_server.py DATA` prints its URL and serves."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from serving import make_settings, scripted

if __name__ == "__main__":
    data = Path(sys.argv[1])
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm("It is so."), "tts": ToneTts(0.02)}
    with scripted(make_settings(data / "none", data, max_sessions=20), **engines) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        time.sleep(600)
