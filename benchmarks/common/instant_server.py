"""Our server with engines that answer at once, on one core: `colloquy serve` in all else.

Started by `benchmarks.overhead`. Engines come in by the runtime's table of providers, as any other.
"""

from __future__ import annotations

import argparse
import os
from typing import Any


def main() -> None:
    """Serve on 127.0.0.1 until this process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--sessions", type=int, required=True, help="as many may be open")
    parser.add_argument("--without-vad", action="store_true", help="tell speech by its level")
    options = parser.parse_args()
    # Before anything counts the cores.
    os.sched_setaffinity(0, {options.core})

    import uvicorn

    from app.cli.errors import load_settings
    from app.cli.server import build_app, config, listen
    from app.observability.logs import configure
    from app.runtime import PROVIDERS
    from benchmarks.common.instant_engines import InstantLlm, InstantStt, InstantTts, LevelVad

    def instant(make: Any) -> Any:
        async def build(_: Any) -> Any:
            return make()

        return build

    PROVIDERS.update(
        {
            ("vad", "level"): instant(LevelVad),
            ("stt", "instant"): instant(InstantStt),
            ("stt_partial", "instant_partial"): instant(InstantStt),
            ("llm", "instant"): instant(InstantLlm),
            ("tts", "instant"): instant(InstantTts),
        }
    )
    chosen = {
        "vad_provider": "level" if options.without_vad else "silero",
        "turn_provider": "none",
        "stt_provider": "instant",
        "stt_partial_provider": "instant_partial",
        "llm_provider": "instant",
        "tts_provider": "instant",
        "max_sessions": options.sessions,
        "max_waiting": 0,
    }
    settings = load_settings(host="127.0.0.1", port=options.port).model_copy(update=chosen)
    configure("WARNING", json=False)
    with listen(settings.host, settings.port) as listener:
        uvicorn.Server(config(build_app(settings))).run(sockets=[listener])


if __name__ == "__main__":
    main()
