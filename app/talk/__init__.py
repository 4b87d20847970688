"""The other end of the session WebSocket: a client, a player, and recordings that speak in real time.

For the command line, benchmarks and tests. It knows the server only by its protocol.
"""

from app.talk.client import NoServer, Sound, Talk, connect, health
from app.talk.recording import Pace, Recording

__all__ = ["NoServer", "Pace", "Recording", "Sound", "Talk", "connect", "health"]
