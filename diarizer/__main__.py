"""`python -m diarizer`."""

from __future__ import annotations

import argparse
import logging
import warnings

import uvicorn
from pydantic import ValidationError

from app.roles import Misconfigured
from diarizer.app import create_app
from diarizer.settings import Settings, rows


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m diarizer",
        description="Who speaks when, and whose voice it is: pyannote.audio and SpeechBrain behind HTTP.",
        epilog=f"settings, as environment variables:\n{_table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="instead of DIARIZER_HOST")
    parser.add_argument("--port", type=int, help="instead of DIARIZER_PORT")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    try:
        settings = Settings(**given)
        app = create_app(settings)
    except (Misconfigured, ValidationError) as error:
        parser.error(str(error))
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The libraries warn of a decoder that is not used, of older checkpoints, of short clips.
    warnings.simplefilter("ignore")
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, timeout_graceful_shutdown=10)


def _table() -> str:
    return "\n".join("  " + row.strip("| ").replace("`", "").replace("%", "%%") for row in rows())


if __name__ == "__main__":
    main()
