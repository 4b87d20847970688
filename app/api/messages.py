"""Messages of the session WebSocket (`/ws/{session_id}`), both ways.

These models are the protocol: the door parses and prints only them, and `docs/protocol.md` is
generated from them (`scripts/protocol_doc.py`). Numbers are strict: `"16000"` is not 16000.
Fields that a message does not know are ignored, so that either side may be newer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Codec = Literal["pcm16", "pcm8", "mulaw", "opus"]
Rate = Literal[8000, 16000, 24000, 44100, 48000]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


# --- settings a client may give, at creation or with `configure` -------------------------------


class AudioFormat(_Model):
    """How sound travels in binary frames: `pcm16` is signed 16-bit little-endian mono, `pcm8`
    unsigned 8-bit, `mulaw` G.711, `opus` one raw packet a frame."""

    codec: Codec = "pcm16"
    sample_rate: Rate = 16000


class AudioOut(_Model):
    """How the reply's sound is sent: its codec and rate, and whether as `binary` frames after a
    metadata message or as base64 inside `audio_chunk`. `opus` is only sent as binary frames, at
    8000, 16000, 24000 or 48000 Hz."""

    codec: Codec = "pcm16"
    sample_rate: Rate = 24000
    binary: bool = False


class TurnDetection(_Model):
    """When a turn starts and ends. `auto` listens for speech and silence; `manual` is
    push-to-talk: everything until `commit` is one utterance."""

    mode: Literal["auto", "manual"] = "auto"
    threshold: float = Field(0.5, ge=0.05, le=0.95, description="speech probability that counts as speech")
    start_ms: int = Field(160, ge=32, le=1000, description="speech held this long starts an utterance")
    end_ms: int = Field(500, ge=100, le=3000, description="silence held this long ends it, before adapting")
    adaptive: bool = Field(
        True, description="end sooner after a finished sentence, later after a trailing 'and…'"
    )
    eagerness: Literal["low", "medium", "high"] = Field(
        "medium", description="how soon a pause is taken for the end of the turn"
    )
    echo: bool = Field(
        True,
        description="the microphone may hear the reply; false where the client cancels that, as browsers do",
    )
    interrupt: bool = Field(True, description="speech during a reply stops the reply")


class SessionSettings(_Model):
    """What a client may choose for its session. Every field has a default; with `configure`
    only the fields given change."""

    language: str | None = Field(
        None,
        pattern=r"^([a-z]{2,3}|auto)$",
        description="spoken language, ISO 639-1, or 'auto'; the server's default if absent",
    )
    vocabulary: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=100, description="words and names to favour in recognition"
    )
    instructions: str | None = Field(None, max_length=8000, description="system prompt of the assistant")
    voice: str | None = Field(None, max_length=64, description="a voice name from /speaker_info")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="speaking rate, 1 is the voice's own")
    diarize: bool = Field(
        False, description="whether `speaker` of the transcriptions tells people apart by voice"
    )
    audio_in: AudioFormat = AudioFormat()
    audio_out: AudioOut = AudioOut()
    turn_detection: TurnDetection = TurnDetection()


# --- client → server ------------------------------------------------------------------------


class AudioChunkIn(_Model):
    """Sound as base64 of PCM16 little-endian mono. The same may be sent as a binary frame in
    the negotiated `audio_in` format."""

    type: Literal["audio_chunk"]
    data: str = Field(description="base64 of PCM16 little-endian mono")
    sr: Rate | None = Field(None, description="sample rate in Hz; `audio_in.sample_rate` if absent")
    timestamp: float | None = Field(None, description="the client's clock in ms; echoed nowhere, for logs")


class TextIn(_Model):
    """A typed turn: it is answered like a spoken one."""

    type: Literal["text"]
    text: str = Field(min_length=1, max_length=8000)
    streaming: bool = Field(True, description="false: the reply's text comes as one `llm_token`")


class SetTtsMode(_Model):
    """Which speech tier answers from the next turn on."""

    type: Literal["set_tts_mode"]
    mode: Literal["fast", "hq"]
    voice_profile_id: str | None = None


class Interrupt(_Model):
    """Stop the reply now."""

    type: Literal["interrupt"]


class Playback(_Model):
    """How much of a reply the person has heard; keeps history to what was heard."""

    type: Literal["playback"]
    turn_id: str
    played_ms: float = Field(ge=0)


class Commit(_Model):
    """End of the utterance (push-to-talk), whatever the detector thinks."""

    type: Literal["commit"]


class Configure(_Model):
    """Change the session's settings; fields not given stay."""

    type: Literal["configure"]
    settings: SessionSettings


class Ping(_Model):
    """Heartbeat; answered by `pong`."""

    type: Literal["ping"]
    timestamp: float | None = None


class Pong(_Model):
    """Answer to the server's `ping`."""

    type: Literal["pong"]


class Resume(_Model):
    """First message after a reconnect: events after `last_seq` are sent again, in order."""

    type: Literal["resume"]
    last_seq: int = Field(ge=0)


ClientMessage = Annotated[
    AudioChunkIn | TextIn | SetTtsMode | Interrupt | Playback | Commit | Configure | Ping | Pong | Resume,
    Field(discriminator="type"),
]
client_message: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)


# --- server → client ------------------------------------------------------------------------


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)

    seq: int = Field(0, description="rises by one with every event of the session")


class SessionReady(_Event):
    """The session can be spoken to. Sent on every connect; `resumed` after a `resume`.
    Transient, like `loading`."""

    type: Literal["session_ready"] = "session_ready"
    session_id: str
    resumed: bool = False
    settings: SessionSettings
    heartbeat_s: float = Field(description="the server pings this often; answer with pong")
    received_ms: float = Field(description="how much of the session's sound the server has taken in")
    received_messages: int = Field(
        description="how many messages it has taken in, without sound, `ping`, `pong`, `playback`, `resume`"
    )


class RoleProgress(BaseModel):
    """State of one role's model: `absent`, `fetching`, `loading`, `ready` or `failed`."""

    role: str
    model: str
    state: Literal["absent", "fetching", "loading", "ready", "failed"]
    progress: float = Field(0.0, description="0–1 while fetching")
    message: str = ""


class Loading(_Event):
    """Models are still being fetched or loaded; the session is served when they are ready.
    Transient: not kept for `resume`, its `seq` is that of the last kept event."""

    type: Literal["loading"] = "loading"
    roles: list[RoleProgress]


class Queued(_Event):
    """All places are taken: the session waits, and `session_ready` comes when it is its turn. Sent
    when `position` changes; 1 is the next. Transient, like `loading`."""

    type: Literal["queued"] = "queued"
    position: int
    retry_after_s: float = Field(description="a guess at how long until a place is free")


class SpeechStarted(_Event):
    """The person began to speak. `at_ms` is the session's audio time."""

    type: Literal["speech_started"] = "speech_started"
    turn_id: str
    at_ms: float


class SpeechStopped(_Event):
    """The person stopped speaking; `at_ms` is the end of speech in the session's audio time."""

    type: Literal["speech_stopped"] = "speech_stopped"
    turn_id: str
    at_ms: float


class TurnDropped(_Event):
    """What began as speech held no words (noise, a cough) or was cut off; there is no reply."""

    type: Literal["turn_dropped"] = "turn_dropped"
    turn_id: str
    reason: str


class TranscriptionPartial(_Event):
    """Words so far. `text` is all of it; `committed` is its firm beginning, which only grows
    and which `transcription_final` begins with; the rest may change."""

    type: Literal["transcription_partial"] = "transcription_partial"
    turn_id: str
    text: str
    committed: str
    confidence: float
    is_final: Literal[False] = False


class WordOut(BaseModel):
    """A word with its times, in seconds from the start of the utterance's recording."""

    text: str
    start: float
    end: float
    confidence: float


class PersonOut(BaseModel):
    """Somebody whose voice is known; `id` is `user` for the one whose session it is."""

    id: str
    name: str
    is_user: bool = False


class TranscriptionFinal(_Event):
    """What was said. `low_confidence` marks words not to be relied on (noise, mumbling). `speaker` tells
    voices apart (`SPEAKER_00` …) with `diarize`; `person` is who that is, if their voice is known."""

    type: Literal["transcription_final"] = "transcription_final"
    turn_id: str
    transcription_id: str
    text: str
    confidence: float
    low_confidence: bool
    language: str
    speaker: str
    person: PersonOut | None = None
    words: list[WordOut]
    is_final: Literal[True] = True


class LlmToken(_Event):
    """The next piece of the reply's text."""

    type: Literal["llm_token"] = "llm_token"
    turn_id: str
    token: str


class AudioChunkOut(_Event):
    """The next piece of the reply's sound. With `data` null, the very next `frames` frames are
    binary and hold it (several for `opus`, one packet each). `text` is set on the first chunk of
    each spoken segment; the chunk with `last` ends the sound and may hold none."""

    type: Literal["audio_chunk"] = "audio_chunk"
    turn_id: str
    data: str | None
    frames: int = 0
    codec: Codec
    sample_rate: int
    mode: Literal["fast", "hq"] = "fast"
    duration_ms: float
    offset_ms: float = Field(description="where in the reply's sound this piece begins")
    text: str | None = None
    last: bool = False


class ToolCall(_Event):
    """The assistant calls a function of the server (not one of the client). `arguments` is JSON text as
    the language model wrote it. `tool_result` follows, unless the reply is stopped before."""

    type: Literal["tool_call"] = "tool_call"
    turn_id: str
    call_id: str
    name: str
    arguments: str


class ToolResult(_Event):
    """What the function gave (`text`, its first 1,000 characters), after `ms` milliseconds. If not `ok`,
    `text` says what went wrong. The reply goes on."""

    type: Literal["tool_result"] = "tool_result"
    turn_id: str
    call_id: str
    ok: bool
    text: str
    ms: float


class ReplyPaused(_Event):
    """Somebody may be speaking: stop the reply's sound at once, but keep what is still to be
    played. `reply_resumed` or `interrupted` follows. `at_ms` is about how much of it was heard."""

    type: Literal["reply_paused"] = "reply_paused"
    turn_id: str
    at_ms: float


class ReplyResumed(_Event):
    """It was nothing: play on from where the sound was stopped."""

    type: Literal["reply_resumed"] = "reply_resumed"
    turn_id: str


class Interrupted(_Event):
    """The reply was stopped: throw away what is still to be played. `heard_text` is what the
    person had heard, and all that history keeps."""

    type: Literal["interrupted"] = "interrupted"
    turn_id: str
    reason: Literal["speech", "client", "text", "closed"]
    heard_text: str


class TurnComplete(_Event):
    """The turn is over: the whole reply was sent, or it was stopped or failed."""

    type: Literal["turn_complete"] = "turn_complete"
    turn_id: str
    number: int
    transcript: str
    reply: str
    audio_ms: float
    interrupted: bool
    latency: dict[str, float] = Field(description="milliseconds from the end of speech to each stage")


class Notice(_Event):
    """Something the person should know that is not an error, such as a fall-back voice."""

    type: Literal["notice"] = "notice"
    code: str
    message: str


class ErrorOut(_Event):
    """Something failed or was refused; the session lives unless the socket closes."""

    type: Literal["error"] = "error"
    code: str
    message: str
    trace_id: str
    field: str | None = None
    retryable: bool = False
    turn_id: str | None = None


class PingOut(_Event):
    """Heartbeat; answer with `pong`. `received_ms` and `received_messages` as in `session_ready`.
    Transient, like `loading`."""

    type: Literal["ping"] = "ping"
    received_ms: float
    received_messages: int


class PongOut(_Event):
    """Answer to the client's `ping`. Transient, like `loading`."""

    type: Literal["pong"] = "pong"
    timestamp: float | None = None


ServerMessage = Annotated[
    SessionReady
    | Loading
    | Queued
    | SpeechStarted
    | SpeechStopped
    | TurnDropped
    | TranscriptionPartial
    | TranscriptionFinal
    | LlmToken
    | AudioChunkOut
    | ToolCall
    | ToolResult
    | ReplyPaused
    | ReplyResumed
    | Interrupted
    | TurnComplete
    | Notice
    | ErrorOut
    | PingOut
    | PongOut,
    Field(discriminator="type"),
]
server_message: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


# --- REST bodies of the same resource --------------------------------------------------------


class SessionCreated(BaseModel):
    """Answer of `POST /api/v1/sessions`. Connect to `ws_url` with `?token=`. `queue_position` 0 is
    admitted, 1 is the next to be; who waits must connect within 10 s."""

    session_id: str
    ws_url: str
    token: str
    queue_position: int = 0


class TurnOut(BaseModel):
    """A kept turn, as `GET /api/v1/sessions/{id}/turns` lists it. `audio_url` is a path on this server that
    gives the recording to whoever has it, for an hour; it is null, like `audio_key`, when nothing was
    recorded or the recording was kept long enough."""

    turn_id: str
    number: int
    created_at: str
    source: Literal["speech", "text", "upload"]
    transcript: str
    reply: str
    interrupted: bool
    confidence: float | None
    words: list[WordOut]
    latency: dict[str, float]
    audio_key: str | None
    audio_seconds: float | None
    audio_url: str | None


Json = dict[str, Any]
