"""`colloquy serve` that writes down what each event of a wearable's stream costs it.

Started by `benchmarks.wearable`: `python -m benchmarks.common.wearable_server PORT FILE`. A line of FILE is
an event: `at` (seconds of sound), `ms` of thread time to make segments of it, `memory` in MB; or a piece of
speech put to a speaker: `speaker_ms`; or segments stored: `store_ms` of wall time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_mb() -> float:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_MB


def measure(out: Any) -> None:
    """Put clocks around what is done for each event."""
    from app.api.wearable.connection import Connection
    from app.api.wearable.conversations import Conversations
    from app.dialogue.speakers import Speakers

    at = 0.0
    take, keep, assign = Connection._take, Conversations.keep, Speakers.assign

    def write(**values: float) -> None:
        line = {name: round(value, 4) for name, value in {"at": at, **values}.items()}
        out.write(json.dumps(line) + "\n")

    def measured_take(self: Connection, *given: Any, **named: Any) -> None:
        nonlocal at
        began = time.thread_time()
        take(self, *given, **named)
        if self._session is not None:
            at = self._clock.at(self._session.listened_s)
        write(ms=(time.thread_time() - began) * 1000, memory=memory_mb())

    def measured_assign(self: Speakers, *given: Any, **named: Any) -> Any:
        began = time.thread_time()
        found = assign(self, *given, **named)
        write(speaker_ms=(time.thread_time() - began) * 1000)
        return found

    async def measured_keep(self: Conversations, *given: Any, **named: Any) -> None:
        began = time.monotonic()
        await keep(self, *given, **named)
        write(store_ms=(time.monotonic() - began) * 1000)

    changes: list[tuple[type, str, Any]] = [
        (Connection, "_take", measured_take),
        (Conversations, "keep", measured_keep),
        (Speakers, "assign", measured_assign),
    ]
    for owner, name, measured in changes:
        setattr(owner, name, measured)


def main() -> None:
    """Serve on 127.0.0.1 until this process is ended."""
    import uvicorn

    from app.cli.errors import load_settings
    from app.cli.server import build_app, config, listen
    from app.observability.logs import configure

    port, file = int(sys.argv[1]), Path(sys.argv[2])
    settings = load_settings(host="127.0.0.1", port=port)
    configure("WARNING", json=False)
    with (
        file.open("w", encoding="ascii", buffering=1) as out,
        listen(settings.host, settings.port) as listener,
    ):
        measure(out)
        uvicorn.Server(config(build_app(settings))).run(sockets=[listener])


if __name__ == "__main__":
    main()
