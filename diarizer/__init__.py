"""Who speaks when, and whose voice it is, with pyannote.audio and SpeechBrain: a service of its own.

It answers the same paths as Colloquy's own (`app/api/hosted.py`), so that `HOSTED_DIARIZATION_API_URL` and
its sisters can point at it. Of `app` it shares only `roles` and `audio`, which need no model and no settings:
errors, values and the decoding of what strangers send are the same on both sides. docs/diarizer.md.
"""

from __future__ import annotations

import os

# Read by libraries when they are loaded, so here, before anything can load them.
# pyannote.audio reports to its makers what is loaded and how long recordings are, unless told not to.
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
# PyTorch's threads wait for each other some thousand times a second, by default in a loop. On cores that
# others use too that took minutes where it now takes seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
