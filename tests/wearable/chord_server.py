"""A server that hears chords, to be killed: `python chord_server.py DATA KEY` prints its URL and serves.

For sound that comes a hundred times as fast as it is spoken, it shows more often what it hears."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from serving import make_settings, scripted
from tones import chord_engines

from app.api.wearable import connection

if __name__ == "__main__":
    connection._SHOW_S /= 20
    data, key = Path(sys.argv[1]), sys.argv[2]
    with scripted(make_settings(data / "none", data, api_keys=[key]), **chord_engines()) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        time.sleep(3600)
