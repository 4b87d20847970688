"""A realtime session's settings: in OpenAI's shape, as the client sees and changes them, and as the core
takes them."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from app.api.context import Context
from app.api.openai.errors import Refused
from app.api.openai.realtime.client import Format, ResponseIn, SessionIn, VoiceId
from app.api.openai.voices import check_voice, own_voice
from app.dialogue.config import SessionConfig, TurnConfig
from app.roles import Tool

_PCM = {"type": "audio/pcm", "rate": 24000}
_CODECS = {"audio/pcm": "pcm16", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
_SERVER_VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD: dict[str, Any] = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_LIVES_S = 3600
_SHORTEST_END_MS = 100


class Wishes:
    """`shown` is the session as `session.created` and `session.updated` show it."""

    def __init__(self, session_id: str, model: str, kind: str, base: SessionConfig, voice: str) -> None:
        self._base = base
        self._voice = voice
        # Who says nothing of the silence gets our own endpointing; who does, gets just that.
        self._fixed_silence = False
        self.shown: dict[str, Any] = {
            "type": kind,
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "expires_at": int(time.time()) + _LIVES_S,
            "output_modalities": ["audio"],
            "instructions": base.instructions,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "include": None,
            "audio": {
                "input": {
                    "format": dict(_PCM),
                    "transcription": {"model": model} if kind == "transcription" else None,
                    "noise_reduction": None,
                    "turn_detection": dict(_SERVER_VAD),
                },
                "output": {"format": dict(_PCM), "voice": voice, "speed": 1.0},
            },
        }
        self._first = copy.deepcopy(self.shown)

    def update(self, wish: SessionIn) -> None:
        """Take over what is given."""
        given = wish.model_dump(exclude_unset=True)
        sound = given.pop("audio", None) or {}
        self.shown |= _nulls_undone(given, self._first)
        hears, speaks = self.shown["audio"]["input"], self.shown["audio"]["output"]
        heard = sound.get("input") or {}
        if "turn_detection" in heard:
            detection = heard["turn_detection"]
            heard["turn_detection"] = self._detection(detection)
        if wish.type == "transcription" and "transcription" not in heard and not hears["transcription"]:
            heard["transcription"] = {"model": self.shown["model"]}
        for there, new in ((hears, heard), (speaks, sound.get("output") or {})):
            if "format" in new:
                new["format"] = _shown_format(new["format"])
            there |= new if there is hears else _nulls_undone(new, self._first["audio"]["output"])
        if isinstance(speaks["voice"], dict):
            speaks["voice"] = speaks["voice"]["id"]

    def _detection(self, wish: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if wish is None:
            return None
        now = self.shown["audio"]["input"]["turn_detection"]
        same = now is not None and now["type"] == wish["type"]
        if not same:
            self._fixed_silence = False
        self._fixed_silence |= wish.get("silence_duration_ms") is not None
        defaults = _SERVER_VAD if wish["type"] == "server_vad" else _SEMANTIC_VAD
        before = now if same else defaults
        return {**before, **{k: v for k, v in wish.items() if v is not None or k == "idle_timeout_ms"}}

    # --- for the door -----------------------------------------------------------------------------

    @property
    def transcription(self) -> dict[str, Any] | None:
        """What the client wants to be told of its own words; None: nothing."""
        found: dict[str, Any] | None = self.shown["audio"]["input"]["transcription"]
        return found

    @property
    def detection(self) -> dict[str, Any] | None:
        """How turns end; None if the client ends them."""
        found: dict[str, Any] | None = self.shown["audio"]["input"]["turn_detection"]
        return found

    @property
    def responds(self) -> bool:
        """Whether the end of a turn brings a reply by itself."""
        return self.config.respond == "auto"

    @property
    def audio_in(self) -> tuple[str, int]:
        """Codec and sample rate of the client's sound."""
        return _codec(self.shown["audio"]["input"]["format"])

    @property
    def audio_out(self) -> tuple[str, int]:
        """Codec and sample rate of ours."""
        return _codec(self.shown["audio"]["output"]["format"])

    # --- for the core -----------------------------------------------------------------------------

    @property
    def config(self) -> SessionConfig:
        """The session's settings."""
        shown, heard = self.shown, self.shown["audio"]["input"]
        transcription = heard["transcription"] or {}
        prompt = transcription.get("prompt") or ""
        respond: Literal["auto", "manual", "never"] = "manual"
        if shown["type"] == "transcription":
            respond = "never"
        elif (heard["turn_detection"] or {}).get("create_response"):
            respond = "auto"
        language = (transcription.get("language") or "").partition("-")[0].lower() or self._base.language
        config = replace(
            self._base,
            language=language,
            vocabulary=tuple(w.strip() for w in prompt.split(",") if w.strip())[:100],
            turn=self._turn(heard["turn_detection"]),
            respond=respond,
            diarize="diarize" in (transcription.get("model") or ""),
        )
        return _with(config, shown)

    def _turn(self, detection: Mapping[str, Any] | None) -> TurnConfig:
        # A microphone close to the mouth is a headset's: it does not hear what we say.
        near = (self.shown["audio"]["input"]["noise_reduction"] or {}).get("type") == "near_field"
        base = replace(self._base.turn, echo=not near)
        if detection is None:
            return replace(base, mode="manual", interrupt=False)
        turn = replace(base, interrupt=bool(detection["interrupt_response"]))
        if detection["type"] == "semantic_vad":
            eagerness = detection["eagerness"]
            return replace(turn, eagerness="medium" if eagerness == "auto" else eagerness)
        return replace(
            turn,
            threshold=max(0.05, detection["threshold"]),
            pre_roll_ms=detection["prefix_padding_ms"],
            end_ms=max(_SHORTEST_END_MS, detection["silence_duration_ms"]),
            adaptive=not self._fixed_silence,
        )

    def of_response(self, wish: ResponseIn) -> tuple[SessionConfig, dict[str, Any]]:
        """The settings of a single reply, for the core and as `response.created` shows them."""
        given = wish.model_dump(exclude_unset=True)
        names = ("instructions", "output_modalities", "tools", "tool_choice", "max_output_tokens")
        shown = {n: self.shown[n] for n in names} | {n: given[n] for n in names if given.get(n) is not None}
        output = dict(self.shown["audio"]["output"])
        for name, value in ((given.get("audio") or {}).get("output") or {}).items():
            output[name] = _shown_format(value) if name == "format" else value
        if isinstance(output["voice"], dict):
            output["voice"] = output["voice"]["id"]
        shown["audio"] = {"output": output}
        return _with(self.config, shown), shown


async def check(context: Context, wish: SessionIn | ResponseIn) -> None:
    """Refuse what this server cannot do. Raises `BadInput`."""
    sound = wish.audio.output if wish.audio else None
    if sound is not None and sound.voice is not None:
        name = sound.voice.id if isinstance(sound.voice, VoiceId) else sound.voice
        place = "session" if isinstance(wish, SessionIn) else "response"
        check_voice((await context.runtime.role("tts")).voices(), name, f"{place}.audio.output.voice")
    heard = wish.audio.input if isinstance(wish, SessionIn) and wish.audio else None
    language = heard.transcription.language if heard and heard.transcription else None
    if language and context.settings.english_only and not language.lower().startswith("en"):
        raise Refused(
            "this server hears English only: start it with LANGUAGE=auto (or the language) for others",
            param="session.audio.input.transcription.language",
        )


def _with(config: SessionConfig, shown: Mapping[str, Any]) -> SessionConfig:
    most, choice = shown["max_output_tokens"], shown["tool_choice"]
    output = shown["audio"]["output"]
    tools = [
        Tool(t["name"], t.get("description") or "", t.get("parameters") or {}) for t in shown["tools"] or ()
    ]
    return replace(
        config,
        instructions=shown["instructions"],
        voice=own_voice(output["voice"]),
        speed=min(2.0, max(0.5, output["speed"] or 1.0)),
        speak=shown["output_modalities"] != ["text"],
        tools=tuple(tools),
        tool_choice=choice["name"] if isinstance(choice, dict) else choice or "auto",
        max_reply_tokens=config.max_reply_tokens if most in ("inf", None) else most,
    )


def _nulls_undone(given: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """A null is the wish for what there was at first."""
    return {name: first[name] if value is None else value for name, value in given.items()}


def _shown_format(given: Mapping[str, Any] | Format | None) -> dict[str, Any]:
    if given is None:
        return dict(_PCM)
    given = given.model_dump() if isinstance(given, Format) else given
    if given["type"] != "audio/pcm":
        return {"type": given["type"]}
    return {"type": "audio/pcm", "rate": given.get("rate") or 24000}


def _codec(shown: Mapping[str, Any]) -> tuple[str, int]:
    return _CODECS[shown["type"]], shown.get("rate", 8000)
