"""What clients of OpenAI's realtime protocol send (GA names), as far as it means something here.

Fields that we have no use for are ignored, as OpenAI's clients send many; a wrong type or value is refused.
Source: OpenAI's "Realtime API" reference, client events, 2025-08 and later.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from app.api.errors import from_validation
from app.roles import BadInput

_Id = Annotated[str, Field(min_length=1, max_length=512)]
_Text = Annotated[str, Field(max_length=200_000)]
MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


# --- the session ----------------------------------------------------------------------------------


class Format(_Part):
    """How sound travels: PCM16 little-endian mono at 24 kHz, or G.711 at 8 kHz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: Literal[8000, 16000, 24000, 44100, 48000] | None = None


class Transcription(_Part):
    """That the client wants to be told what it said. `model` may be any."""

    model: str | None = None
    language: str | None = Field(None, max_length=16)
    prompt: str | None = Field(None, max_length=4000)


class ServerVad(_Part):
    """Turns end after a silence."""

    type: Literal["server_vad"]
    threshold: float | None = Field(None, ge=0, le=1)
    prefix_padding_ms: int | None = Field(None, ge=0, le=5000)
    silence_duration_ms: int | None = Field(None, ge=0, le=10_000)
    idle_timeout_ms: int | None = Field(None, ge=1000, le=60_000)
    create_response: bool | None = None
    interrupt_response: bool | None = None


class SemanticVad(_Part):
    """Turns end when the person seems to be done."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class AudioIn(_Part):
    """`turn_detection` null: the client commits."""

    format: Format | None = None
    transcription: Transcription | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = None
    noise_reduction: dict[str, Any] | None = None


class VoiceId(_Part):
    """A voice by an object."""

    id: _Id


class AudioOut(_Part):
    """How replies sound."""

    format: Format | None = None
    voice: _Id | VoiceId | None = None
    speed: float | None = Field(None, ge=0.25, le=1.5)


class Audio(_Part):
    """Both ways."""

    input: AudioIn | None = None
    output: AudioOut | None = None


class FunctionTool(_Part):
    """A function that the model may ask for. `parameters` is a JSON Schema."""

    type: Literal["function"] = "function"
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")]
    description: str | None = Field(None, max_length=20_000)
    parameters: dict[str, Any] | None = None


class NamedTool(_Part):
    """The one function to be called."""

    type: Literal["function"]
    name: _Id


_Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=2)]
_Tools = Annotated[list[FunctionTool], Field(max_length=128)]
_ToolChoice = Literal["auto", "none", "required"] | NamedTool


_BETA = {
    "modalities",
    "voice",
    "input_audio_format",
    "output_audio_format",
    "input_audio_transcription",
    "turn_detection",
    "max_response_output_tokens",
}


class SessionIn(_Part):
    """The settings that `session.update` changes: those that are given."""

    type: Literal["realtime", "transcription"] = "realtime"
    model: str | None = Field(None, max_length=256)
    instructions: _Text | None = None
    output_modalities: _Modalities | None = None
    audio: Audio | None = None
    tools: _Tools | None = None
    tool_choice: _ToolChoice | None = None
    max_output_tokens: MaxTokens | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_beta(cls, given: Any) -> Any:
        # Ignored like any unknown name, they would leave the client with settings it did not choose.
        if isinstance(given, dict) and "type" not in given and (old := sorted(_BETA & given.keys())):
            raise ValueError(
                f"{old[0]} is a name of the protocol's beta, which is not spoken here: update the client, or"
                " send session.type with output_modalities and audio.input and audio.output"
            )
        return given


# --- items ------------------------------------------------------------------------------------------


class Content(_Part):
    """A part of a message."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio"]
    text: _Text | None = None
    audio: str | None = None
    transcript: _Text | None = None


class MessageIn(_Part):
    """Something that was said or written."""

    type: Literal["message"]
    id: _Id | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[list[Content], Field(max_length=256)]


class CallIn(_Part):
    """A function call of earlier."""

    type: Literal["function_call"]
    id: _Id | None = None
    call_id: _Id | None = None
    name: _Id
    arguments: _Text


class CallOutputIn(_Part):
    """What a function gave."""

    type: Literal["function_call_output"]
    id: _Id | None = None
    call_id: _Id
    output: _Text


class ItemReference(_Part):
    """An item that is in the conversation."""

    type: Literal["item_reference"]
    id: _Id


NewItem = Annotated[MessageIn | CallIn | CallOutputIn, Field(discriminator="type")]
InputItem = Annotated[MessageIn | CallIn | CallOutputIn | ItemReference, Field(discriminator="type")]


class ResponseAudio(_Part):
    """How this reply sounds."""

    output: AudioOut | None = None


class ResponseIn(_Part):
    """What a single reply is to be like, where it differs from the session's."""

    instructions: _Text | None = None
    output_modalities: _Modalities | None = None
    audio: ResponseAudio | None = None
    tools: _Tools | None = None
    tool_choice: _ToolChoice | None = None
    max_output_tokens: MaxTokens | None = None
    conversation: Literal["auto", "none"] | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = (
        Field(None, max_length=16)
    )
    input: Annotated[list[InputItem], Field(max_length=512)] | None = None


# --- events -----------------------------------------------------------------------------------------


class _Event(_Part):
    event_id: Annotated[str, Field(max_length=512)] | None = None


class SessionUpdate(_Event):
    """Change settings."""

    type: Literal["session.update"]
    session: SessionIn


class Append(_Event):
    """Sound, base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class Commit(_Event):
    """The turn ends here."""

    type: Literal["input_audio_buffer.commit"]


class Clear(_Event):
    """Forget what was not committed."""

    type: Literal["input_audio_buffer.clear"]


class ClearOutput(_Event):
    """Say no more of the reply."""

    type: Literal["output_audio_buffer.clear"]


class ItemCreate(_Event):
    """Put an item into the conversation, behind another one ("root": at its beginning)."""

    type: Literal["conversation.item.create"]
    previous_item_id: _Id | None = None
    item: NewItem


class ItemDelete(_Event):
    """Take an item out of the conversation."""

    type: Literal["conversation.item.delete"]
    item_id: _Id


class ItemRetrieve(_Event):
    """Ask for an item."""

    type: Literal["conversation.item.retrieve"]
    item_id: _Id


class ItemTruncate(_Event):
    """Of that reply only so much was heard."""

    type: Literal["conversation.item.truncate"]
    item_id: _Id
    content_index: int = Field(0, ge=0)
    audio_end_ms: int = Field(ge=0)


class ResponseCreate(_Event):
    """Answer now."""

    type: Literal["response.create"]
    response: ResponseIn | None = None


class ResponseCancel(_Event):
    """Stop answering."""

    type: Literal["response.cancel"]
    response_id: _Id | None = None


ClientEvent = Annotated[
    SessionUpdate
    | Append
    | Commit
    | Clear
    | ClearOutput
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel,
    Field(discriminator="type"),
]
_client_event: TypeAdapter[Any] = TypeAdapter(ClientEvent)
_VARIANTS = {
    *("message", "function_call", "function_call_output", "item_reference"),
    *("server_vad", "semantic_vad", "constrained-int", "constrained-str", "NamedTool", "VoiceId"),
}
"""What pydantic puts into a field's place for the members of unions."""


def parsed(data: str) -> Any:
    """The event that `data` is. Raises `BadInput`, with the field's place as the client wrote it."""
    try:
        return _client_event.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
    place = tuple(p for p in first["loc"][1:] if p not in _VARIANTS)
    if first["loc"] and first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        field = ".".join(str(p) for p in (*place, "type"))
        known = first["ctx"].get("expected_tags")
        raise BadInput(f"{field} must be one of {known}" if known else f"{field} is missing", field=field)
    if first["type"] == "union_tag_invalid":
        raise BadInput(f"there is no event of the type {first['ctx']['tag']!r}", field="type")
    raise from_validation([{**first, "loc": place, "msg": first["msg"].removeprefix("Value error, ")}])
