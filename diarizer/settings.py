"""Every knob of the service: environment variables with `DIARIZER_` before the name in capitals.

The hub's own variables work too: `HF_TOKEN`, `HF_HOME` (where downloads are kept), `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.roles import Misconfigured

PIPELINE = "pyannote/speaker-diarization-community-1"
ECAPA = "speechbrain/spkrec-ecapa-voxceleb"


class Settings(BaseSettings):
    """All settings. Unknown variables are ignored, wrong values stop the start."""

    model_config = SettingsConfigDict(env_prefix="DIARIZER_", extra="ignore")

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback API_KEY must be set")
    port: int = Field(8720, ge=0, le=65535, description="TCP port; 0 takes a free one")
    api_key: SecretStr = Field(SecretStr(""), description="the key that clients send as a bearer token")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level logged")

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    pipeline: str = Field(
        PIPELINE,
        min_length=1,
        description="a pipeline of pyannote.audio: a name on the hub, or a local folder",
    )
    pipeline_revision: str = Field(
        "", description="its commit on the hub; the default pipeline has one, others need it"
    )
    encoder: Literal["pyannote", "speechbrain"] = Field(
        "pyannote", description="what tells voices apart in /v2/embedding and /v1/speaker-identification"
    )
    encoder_source: str = Field(
        "",
        description="its model: a name on the hub or a local folder; default: the pipeline's own, "
        f"for speechbrain {ECAPA}",
    )
    encoder_revision: str = Field("", description="its commit on the hub")
    known_distance: float = Field(
        0.65, gt=0, lt=2, description="a segment is the user's up to this cosine distance from the profile"
    )

    max_upload_mb: float = Field(250, gt=0, description="largest request, MB")
    max_audio_s: float = Field(7200, gt=0, description="longest recording to diarize, s; 230 MB an hour")
    max_work_s: float = Field(900, gt=0, description="a request may take so long, waiting included, s")
    max_waiting: int = Field(8, ge=0, description="requests that may wait for the device; the next gets 503")

    def check(self) -> None:
        """Raises `Misconfigured` if strangers could use the service."""
        if not self.api_key.get_secret_value() and not self.on_loopback:
            raise Misconfigured(
                f"DIARIZER_HOST={self.host} lets other machines connect: set DIARIZER_API_KEY to a long "
                "random key, or listen on 127.0.0.1"
            )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in ("127.0.0.1", "localhost", "::1")


def rows() -> list[str]:
    """A line for each setting, as docs/diarizer.md has them."""
    return [
        f"| `DIARIZER_{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def _shown(default: object) -> str:
    plain = "" if isinstance(default, SecretStr) else str(default)
    return f"`{plain}`" if plain else "–"
