"""A voice for speech-to-speech: a Piper voice behind OpenAI's `POST /v1/audio/speech`.

None of speech-to-speech's own voices is ours, but it speaks through any endpoint of this kind
(`--tts openai`). Piper's own library makes the sound, sentence by sentence, in a process of its own. It is
resampled here to the rate that the server works with: the server's own filter, which upsamples by the
whole ratio of the rates, needs many seconds for one second of a Piper voice (22,050 Hz to 16,000 Hz).
This runs in the peer's environment and imports nothing of ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import soxr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from piper import PiperVoice  # type: ignore[import-not-found]
from pydantic import BaseModel

_RATE = 16_000


class Speech(BaseModel):
    """What we use of a request."""

    input: str


def main() -> None:
    """Serve PCM16 mono, 16 kHz, at http://127.0.0.1:PORT/v1 until this process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--voice", type=Path, required=True, help="a Piper voice's .onnx file")
    options = parser.parse_args()

    voice = PiperVoice.load(options.voice)
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/audio/speech")
    def speech(request: Speech) -> StreamingResponse:
        def sound() -> Iterator[bytes]:
            for chunk in voice.synthesize(request.input):
                yield soxr.resample(chunk.audio_int16_array, chunk.sample_rate, _RATE).tobytes()

        return StreamingResponse(sound(), media_type="audio/pcm")  # drawn from a thread, not on the loop

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
