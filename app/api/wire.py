"""Between the session core's events and the session WebSocket's frames."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from pydantic import BaseModel

from app.api.messages import (
    AudioChunkOut,
    ErrorOut,
    Interrupted,
    LlmToken,
    Notice,
    PersonOut,
    ReplyPaused,
    ReplyResumed,
    SessionSettings,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolResult,
    TranscriptionFinal,
    TranscriptionPartial,
    TurnComplete,
    TurnDropped,
)
from app.api.sessions import words_out
from app.audio.codecs import Encoder, encoder
from app.dialogue import events

Frame = str | bytes


class Mouth:
    """Prints events as frames, with sound in the format that the client asked for."""

    def __init__(self, wish: SessionSettings) -> None:
        self._format = wish.audio_out
        self._encoder: tuple[str, Encoder] | None = None

    def frames(self, seq: int, event: events.Event) -> Iterator[Frame]:
        """The frames of `event`, to be sent without others between them."""
        if isinstance(event, events.ReplyAudio):
            yield from self._sound(seq, event)
        else:
            yield _printed(seq, event)

    def _sound(self, seq: int, event: events.ReplyAudio) -> Iterator[Frame]:
        if self._encoder is None or self._encoder[0] != event.turn_id:
            out = self._format
            self._encoder = event.turn_id, encoder(out.codec, event.sample_rate, out.sample_rate)
        speaker = self._encoder[1]
        pieces = speaker.encode(event.samples) if len(event.samples) else []
        if event.last:
            pieces += speaker.flush()
        binary = self._format.binary
        yield AudioChunkOut(
            seq=seq,
            turn_id=event.turn_id,
            data=None if binary else base64.b64encode(b"".join(p.data for p in pieces)).decode(),
            frames=len(pieces) if binary else 0,
            codec=self._format.codec,
            sample_rate=self._format.sample_rate,
            duration_ms=round(sum(p.duration_ms for p in pieces), 3),
            offset_ms=round(event.offset_ms, 3),
            text=event.text,
            last=event.last,
        ).model_dump_json()
        if binary:
            yield from (p.data for p in pieces)


def _printed(seq: int, event: events.Event) -> str:
    message: BaseModel
    match event:
        case events.SpeechStarted(turn_id, at):
            message = SpeechStarted(seq=seq, turn_id=turn_id, at_ms=round(at * 1000, 1))
        case events.SpeechStopped(turn_id, at):
            message = SpeechStopped(seq=seq, turn_id=turn_id, at_ms=round(at * 1000, 1))
        case events.TurnDropped(turn_id, reason):
            message = TurnDropped(seq=seq, turn_id=turn_id, reason=reason)
        case events.Partial(turn_id, text, committed, confidence):
            message = TranscriptionPartial(
                seq=seq, turn_id=turn_id, text=text, committed=committed, confidence=round(confidence, 3)
            )
        case events.Final():
            message = TranscriptionFinal(
                seq=seq,
                turn_id=event.turn_id,
                transcription_id=event.transcription_id,
                text=event.text,
                confidence=round(event.confidence, 3),
                low_confidence=event.low_confidence,
                language=event.language,
                speaker=event.speaker,
                person=None
                if event.person is None
                else PersonOut(id=event.person.id, name=event.person.name, is_user=event.person.is_user),
                words=words_out(event.words),
            )
        case events.ReplyText(turn_id, text):
            message = LlmToken(seq=seq, turn_id=turn_id, token=text)
        case events.ToolStarted(turn_id, call_id, name, arguments):
            message = ToolCall(seq=seq, turn_id=turn_id, call_id=call_id, name=name, arguments=arguments)
        case events.ToolEnded():
            message = ToolResult(
                seq=seq,
                turn_id=event.turn_id,
                call_id=event.call_id,
                ok=event.ok,
                text=event.text,
                ms=round(event.ms, 1),
            )
        case events.ReplyPaused(turn_id, at_ms):
            message = ReplyPaused(seq=seq, turn_id=turn_id, at_ms=round(at_ms, 1))
        case events.ReplyResumed(turn_id):
            message = ReplyResumed(seq=seq, turn_id=turn_id)
        case events.Interrupted(turn_id, reason, heard):
            message = Interrupted(seq=seq, turn_id=turn_id, reason=reason, heard_text=heard)
        case events.TurnComplete():
            message = TurnComplete(
                seq=seq,
                turn_id=event.turn_id,
                number=event.number,
                transcript=event.transcript,
                reply=event.reply,
                audio_ms=round(event.audio_ms, 1),
                interrupted=event.interrupted,
                latency=event.latency,
            )
        case events.Notice(code, text):
            message = Notice(seq=seq, code=code, message=text)
        case events.Failed():
            message = ErrorOut(
                seq=seq,
                code=event.code,
                message=event.message,
                trace_id=event.trace_id,
                field=event.field,
                retryable=event.retryable,
                turn_id=event.turn_id,
            )
        case _:
            raise TypeError(f"no message for {type(event).__name__}")
    return message.model_dump_json()
