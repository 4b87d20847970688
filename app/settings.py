"""Every knob, grouped by role, each with its meaning and unit.

Each is an environment variable of the same name in capitals (`STT_MODEL_NAME`), or a line of a
`.env` file. The defaults are the embedded deployment in English.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.dialogue.speakers import HALF_S, KNOWN_DISTANCE, KNOWN_MARGIN, KNOWN_S, NEW_DISTANCE, SHORT_S


class McpSettings(BaseModel):
    """One of `MCP_SERVERS`: a command that is started and spoken to over its standard input and output,
    or the URL of a server."""

    model_config = ConfigDict(extra="forbid")

    command: str | None = None
    args: list[str] = Field(default_factory=list)
    env: dict[str, SecretStr] = Field(default_factory=dict)
    """Beside PATH, HOME, USER and the like."""
    url: str | None = Field(None, pattern=r"^https?://")
    headers: dict[str, SecretStr] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> McpSettings:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server needs either a command or a url")
        return self


class Settings(BaseSettings):
    """All settings. Unknown variables are ignored, wrong values stop the start."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore")

    # --- server ---
    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback API_KEYS must be set")
    port: int = Field(8710, ge=0, le=65535, description="TCP port; 0 takes a free one")
    data_dir: Path = Field(
        Path(platformdirs.user_data_dir("colloquy")), description="recordings, database and secrets live here"
    )
    database_url: SecretStr | None = Field(
        None,
        description="a PostgreSQL database with pgvector, postgresql://USER:PASSWORD@HOST/NAME; default: "
        "SQLite in DATA_DIR",
    )
    master_keys: list[SecretStr] = Field(
        default_factory=list,
        description="keys (32 bytes, base64) that seal what is stored, as JSON: the first seals, all open; "
        "default: the one in MASTER_KEY_FILE",
    )
    master_key_file: Path = Field(
        Path(platformdirs.user_config_dir("colloquy")) / "master.key",
        description="made on first use; keep a copy: without it nothing that is stored can be read",
    )
    spool_max_mb: float = Field(2000, gt=0, description="what waits on this disk to be stored, at most, MB")
    api_keys: list[SecretStr] = Field(
        default_factory=list, description='keys that may use the API, as JSON: ["key1", "key2"]'
    )
    allowed_origins: list[str] = Field(
        default_factory=list, description="web origins besides our own that may open sessions, as JSON"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level logged")
    log_json: bool | None = Field(None, description="logs as JSON lines; default: unless on a terminal")

    # --- sessions ---
    language: str = Field(
        "en", pattern=r"^([a-z]{2,3}|auto)$", description="language spoken, ISO 639-1, or auto to detect it"
    )
    max_sessions: int = Field(5, ge=1, description="open sessions at once")
    max_waiting: int = Field(10, ge=0, description="sessions that may wait for a place")
    session_keep_s: float = Field(
        60, gt=0, description="a session waits this long for its client to return, s"
    )
    shared_state_url: SecretStr | None = Field(
        None,
        description="a Redis server (redis://host:6379/0) through which sessions go on in another process",
    )
    session_secret: SecretStr | None = Field(
        None, description="signs session tokens: the same for all processes; default: one made in DATA_DIR"
    )
    listen_quota_minutes_per_day: float = Field(
        0, ge=0, description="sound of a wearable that each user may send in a day (UTC), minutes; 0: any"
    )
    connection_time_limit_s: float = Field(
        0,
        ge=0,
        description="the platform ends connections after so long, s: a wearable's is ended well before, and "
        "comes back; 0: it does not",
    )
    heartbeat_s: float = Field(15, gt=0, description="WebSocket ping interval, s; three missed close it")
    max_upload_mb: float = Field(1000, gt=0, description="largest file that REST takes, MB")
    max_audio_s: float = Field(7200, gt=0, description="longest recording that REST takes, s")

    # --- recordings ---
    object_store_url: str | None = Field(
        None,
        description="where recordings are kept: a folder or s3://BUCKET/PREFIX; default: objects in DATA_DIR",
    )
    s3_endpoint_url: str | None = Field(
        None, description="URL of a service that speaks S3; default: AWS, or AWS_ENDPOINT_URL"
    )
    s3_region: str | None = Field(None, description="its region; default: AWS_REGION, or us-east-1")
    s3_access_key_id: str | None = Field(
        None, description="its key's id; default: AWS_ACCESS_KEY_ID, or the machine's role"
    )
    s3_secret_access_key: SecretStr | None = Field(
        None, description="its key; default: AWS_SECRET_ACCESS_KEY, or the machine's role"
    )
    raw_retention_days: float = Field(
        30, ge=0, description="what people were heard to say is deleted after so many days; 0: never"
    )
    synthesized_retention_days: float = Field(
        7, ge=0, description="what was synthesized is deleted after so many days; 0: never"
    )
    audio_to_opus_after_days: float = Field(
        7, ge=0, description="recordings are made smaller, WAV to Opus, after so many days; 0: never"
    )

    # --- models ---
    models_dir: Path = Field(
        Path(platformdirs.user_cache_dir("colloquy")) / "models", description="where fetched models are kept"
    )
    models_local: Path | None = Field(None, description="a folder NAME/FILES to take models from first")
    models_hub: bool = Field(True, description="whether models may be fetched from the hub")
    threads: int = Field(
        max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        ge=1,
        description="cores for in-process models",
    )

    # --- voice activity ---
    vad_provider: Literal["silero"] = Field("silero", description="who detects speech")

    # --- end of turn ---
    turn_provider: Literal["smart_turn", "none"] = Field(
        "smart_turn",
        description="who hears from the voice whether a turn is over; none: silence and words only",
    )

    # --- speech to text ---
    stt_provider: Literal["whisper", "moonshine"] = Field("whisper", description="who gives the final words")
    stt_model_name: str | None = Field(None, description="its model; default: by LANGUAGE")
    stt_device: str = Field("cpu", description="cpu or cuda")
    stt_compute_type: str = Field("int8", description="CTranslate2 compute type")
    stt_partial_provider: Literal["moonshine", "whisper", "same"] | None = Field(
        None, description="who follows the voice; default: moonshine for English, else the same as the final"
    )

    # --- speech to text elsewhere, as a stream ---
    stt_streaming_providers: str = Field(
        "",
        pattern=r"^((deepgram|soniox|speechmatics)( *, *|$))*$",
        description="who hears what is said instead, in the order in which they are tried: deepgram, soniox, "
        "speechmatics; default: nobody, the models above do",
    )
    stt_streaming_timeout_s: float = Field(
        10, gt=0, description="how long such a provider may say nothing while it owes an answer, s"
    )
    deepgram_api_key: SecretStr = Field(SecretStr(""), description="key for Deepgram")
    deepgram_base_url: str | None = Field(
        None, description="what stands before /v1/listen; default: Deepgram's own"
    )
    deepgram_model: str = Field("nova-3", description="Deepgram's model")
    soniox_api_key: SecretStr = Field(SecretStr(""), description="key for Soniox")
    soniox_base_url: str | None = Field(None, description="URL of the WebSocket; default: Soniox' own")
    soniox_model: str = Field("stt-rt-v5", description="Soniox' model")
    speechmatics_api_key: SecretStr = Field(SecretStr(""), description="key for Speechmatics")
    speechmatics_base_url: str | None = Field(
        None, description="URL of the WebSocket; default: Speechmatics' own in Europe"
    )
    speechmatics_model: str = Field(
        "enhanced", description="Speechmatics' model; melia-1 is the one that tells languages apart"
    )

    # --- language model ---
    llm_provider: Literal["llama", "openai"] = Field(
        "llama", description="llama: a GGUF in process; openai: any OpenAI-compatible API"
    )
    llm_model_name: str | None = Field(
        None, description="a model of the manifest, a path to a .gguf file, or the API's model name"
    )
    llm_base_url: str | None = Field(None, description="for openai: base URL of the API")
    llm_api_key: SecretStr = Field(SecretStr(""), description="for openai: its key")
    llm_context_tokens: int = Field(
        2048, ge=512, description="context window, tokens; in process, a longer one is slower to read"
    )
    llm_max_tokens: int = Field(256, ge=1, description="longest reply, tokens")
    llm_temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature")
    llm_drafts: int | None = Field(
        None,
        ge=0,
        description="replies begun on a likely end of turn, at most so many an utterance; an API bills "
        "each; default: 3 in process, 1 with an API",
    )
    llm_timeout_s: float = Field(20, gt=0, description="for openai: longest wait for the next piece, s")
    llm_gpu_layers: int = Field(0, ge=0, description="for llama: layers put on a GPU")
    llm_system_prompt: str | None = Field(
        None, description="who the assistant is; default: a voice assistant, told so in LANGUAGE"
    )

    # --- tools ---
    tools: str = Field(
        "",
        description="functions that the language model may call, as import paths: module:function, or a "
        "module for all its public ones, with commas between; see tools.md",
    )
    tool_timeout_s: float = Field(10, gt=0, description="longest call of a function, s")
    mcp_servers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")], McpSettings] = Field(
        default_factory=dict,
        description="MCP servers whose tools it may call too, as JSON: {name: {command, args, env}} or "
        "{name: {url, headers}}",
    )

    # --- text to speech ---
    tts_provider: Literal["piper", "kokoro"] | None = Field(
        None, description="the voice; default: by LANGUAGE"
    )
    tts_model_name: str | None = Field(None, description="its model; default: the provider's")

    # --- text embeddings ---
    embedding_provider: Literal["minilm", "openai", "none"] = Field(
        "minilm",
        description="who makes embeddings; minilm: in process, English, loaded when it is first asked for; "
        "openai: any OpenAI-compatible API",
    )
    embedding_model_name: str | None = Field(None, description="for openai: the API's model name")
    embedding_base_url: str | None = Field(None, description="for openai: base URL of the API")
    embedding_api_key: SecretStr = Field(SecretStr(""), description="for openai: its key")

    # --- speakers ---
    speaker_provider: Literal["campplus", "hosted", "none"] = Field(
        "campplus",
        description="who tells voices apart; campplus: in process, loaded when it is first asked for; "
        "hosted: HOSTED_SPEAKER_EMBEDDING_API_URL",
    )
    max_speakers: int = Field(8, ge=1, le=64, description="speakers told apart in one conversation")
    speaker_new_distance: float = Field(
        NEW_DISTANCE, ge=0, le=1, description="cosine distance from which on a voice is somebody new"
    )
    speaker_known_distance: float = Field(
        KNOWN_DISTANCE, ge=0, le=1, description="cosine distance up to which a voice is an enrolled person's"
    )
    speaker_known_margin: float = Field(
        KNOWN_MARGIN, ge=0, le=1, description="how much farther the next enrolled person must be"
    )
    speaker_known_s: float = Field(
        KNOWN_S, ge=SHORT_S, description="speech before an enrolled person is recognised, s"
    )
    speaker_half_s: float = Field(
        HALF_S,
        ge=0,
        description="speech of which two vectors of one voice have a cosine of 0.5, s: how distances are "
        "corrected for length; 0: not at all",
    )
    hosted_speaker_embedding_api_url: str | None = Field(
        None,
        description="for SPEAKER_PROVIDER=hosted: a service with POST /v2/embedding; its base or full URL",
    )
    hosted_diarization_api_url: str | None = Field(
        None,
        description="a service that answers /v1/diarization instead of this one; its base or full URL",
    )
    hosted_vad_api_url: str | None = Field(
        None, description="a service that answers /v1/vad instead of this one; its full URL"
    )
    hosted_speech_profile_api_url: str | None = Field(
        None,
        description="a service that answers /v1/speaker-identification instead of this one; its full URL",
    )
    hosted_api_key: SecretStr = Field(SecretStr(""), description="the key for these services")

    @property
    def objects_url(self) -> str:
        """Where recordings are kept."""
        return self.object_store_url or str(self.data_dir / "objects")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def english_only(self) -> bool:
        """Whether English is all that will be spoken; then smaller, quicker models do."""
        return self.language == "en"
