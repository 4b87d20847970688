"""Events as messages, and settings as the session has them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from pydantic import ValidationError
from serving import make_settings, scripted

from app.api.ears import Ears
from app.api.messages import AudioChunkIn, SessionSettings, server_message
from app.api.opening import configured
from app.api.wire import Mouth
from app.audio.codecs import encoder
from app.dialogue.events import ReplyPaused, ReplyResumed
from app.roles import BadAudio


def test_a_pause_and_its_end_are_messages() -> None:
    mouth = Mouth(SessionSettings())
    [paused] = mouth.frames(7, ReplyPaused("t", 1234.56))
    [resumed] = mouth.frames(8, ReplyResumed("t"))
    assert json.loads(paused) == {"seq": 7, "type": "reply_paused", "turn_id": "t", "at_ms": 1234.6}
    assert json.loads(resumed) == {"seq": 8, "type": "reply_resumed", "turn_id": "t"}
    for frame in (paused, resumed):
        server_message.validate_json(frame)


def test_eagerness_is_the_clients_choice(tmp_path: Path) -> None:
    engines = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}
    with scripted(make_settings(tmp_path / "none", tmp_path), **engines) as server:
        context = server.app.state.context
        assert configured(context, SessionSettings()).turn.eagerness == "medium"
        low = configured(context, SessionSettings.model_validate({"turn_detection": {"eagerness": "low"}}))
        assert low.turn.eagerness == "low"
        kept = configured(
            context, SessionSettings.model_validate({"turn_detection": {"end_ms": 700}}), base=low
        )
        assert (kept.turn.eagerness, kept.turn.end_ms) == ("low", 700)
    with pytest.raises(ValidationError):
        SessionSettings.model_validate({"turn_detection": {"eagerness": "very"}})


@pytest.mark.parametrize(
    ("codec", "rate", "width"),
    [("pcm16", 44100, 2), ("pcm8", 8000, 1), ("mulaw", 8000, 1), ("pcm16", 48000, 2)],
)
def test_sound_is_counted_to_the_sample(codec: str, rate: int, width: int) -> None:
    ears = Ears(SessionSettings.model_validate({"audio_in": {"codec": codec, "sample_rate": rate}}))
    for _ in range(1000):
        ears.binary(bytes(441 * width))
    assert round(ears.received_ms * rate / 1000, 6) == 441_000
    if width == 2:
        with pytest.raises(BadAudio):
            ears.binary(b"\0\0\0")
    assert round(ears.received_ms * rate / 1000, 6) == 441_000


def test_opus_is_counted_as_it_is_decoded() -> None:
    out = {"audio_in": {"codec": "opus", "sample_rate": 48000}}
    ears = Ears(SessionSettings.model_validate(out))
    packets = encoder("opus", 16000, 48000).encode(np.zeros(16000, np.float32))
    for packet in packets:
        ears.binary(packet.data)
    assert ears.received_ms == pytest.approx(20 * len(packets))
    ears.json(AudioChunkIn(type="audio_chunk", data="AAAA" * 160, sr=8000))
    assert ears.received_ms == pytest.approx(20 * len(packets) + 30)


async def test_what_there_was_no_room_for_is_heard_first_the_next_time() -> None:
    ears, heard, room = Ears(SessionSettings()), [], asyncio.Event()

    async def hear(samples: np.ndarray) -> None:
        await room.wait()
        heard.append(len(samples))

    for size in (2, 4):
        ears.binary(bytes(size))
    broken = asyncio.create_task(ears.pass_on(hear))
    await asyncio.sleep(0)
    broken.cancel()
    await asyncio.gather(broken, return_exceptions=True)
    ears.binary(bytes(6))
    room.set()
    await asyncio.gather(ears.pass_on(hear), ears.pass_on(hear))
    assert heard == [1, 2, 3]
