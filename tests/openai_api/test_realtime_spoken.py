"""A conversation by voice over `/v1/realtime`: real models, recordings of people, OpenAI's own client."""

from __future__ import annotations

import base64
import io
import json
import wave

import numpy as np
import openai
import pytest
from realtime_client import FRAMES, STRICT, realtime
from serving import Server

from app.audio.codecs import encoder
from corpus import load, questions, wer

PAUSE = np.zeros(24000, np.float32)


def wav(pcm: bytes, rate: int = 24000) -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(pcm)
    file.name = "reply.wav"
    file.seek(0)
    return file


async def test_a_spoken_round_trip(server: Server) -> None:
    """What we say, heard again by our own recogniser, is what we wrote."""
    recording = next(r for r in questions() if r.id == "prompt-vm-savefolder")
    async with realtime(server) as talk:
        await talk.update(audio={"input": {"transcription": {"model": "whisper-1", "language": "en"}}})
        await talk.play(np.concatenate([PAUSE, load(recording), 2 * PAUSE]), paced=True)
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        done = await talk.until("response.done")
    heard = completed["transcript"]
    said = done["response"]["output"][0]["content"][0]["transcript"]
    sound = talk.sound(done["response"]["id"])
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        again = await client.audio.transcriptions.create(model="whisper-1", file=wav(sound))
    print(f"\nperson: {heard}\nreply: {said}\nheard again: {again.text}\n{FRAMES['checked']} frames")  # noqa: T201
    assert wer(recording.text, heard) <= 0.25
    assert done["response"]["status"] == "completed" and said
    assert wer(said, again.text) <= 0.35
    usage = done["response"]["usage"]
    assert usage["input_tokens"] > 10 and usage["output_tokens"] > 1
    words = "".join(e["delta"] for e in talk.of("conversation.item.input_audio_transcription.delta"))
    assert words == heard


async def test_speaking_over_the_reply_stops_it(server: Server) -> None:
    """With the server's own judgement of what is an interruption."""
    recording = next(r for r in questions() if len(load(r)) > 3 * 16000)
    async with realtime(server) as talk:
        await talk.update(audio={"output": {"speed": 0.5}})
        for _ in range(3):
            await talk.say("Count from one to forty, in words, and say nothing else.")
            await talk.send("response.create")
            await talk.until("response.output_audio.delta", 3)
            await talk.play(np.concatenate([PAUSE, load(recording), 2 * PAUSE]), paced=True)
            stopped = await talk.until("response.done")
            # What was said is the next turn, and is answered.
            answered = await talk.until("response.done")
            if stopped["response"]["status"] == "cancelled":
                break  # else the model had little to say, and was heard to the end
    assert stopped["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert answered["response"]["status"] == "completed" and answered["response"]["output"]


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
def test_the_client_without_asyncio(server: Server) -> None:
    """Three turns in one conversation, typed and spoken, by the plain client."""
    recording = questions()[0]
    pack = encoder("pcm16", 16000, 24000)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        done = []

        def until_done() -> dict[str, object]:
            while True:
                frame = json.loads(connection.recv_bytes())
                STRICT.validate_python(frame)
                assert frame["type"] != "error", frame
                if frame["type"] == "response.done":
                    done.append(frame)
                    return frame  # type: ignore[no-any-return]

        connection.session.update(
            session={
                "type": "realtime",
                "output_modalities": ["text"],
                "audio": {"input": {"turn_detection": None}},
            }
        )
        connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "My name is Ada."}],
            }
        )
        connection.response.create()
        until_done()
        sound = np.concatenate([load(recording), PAUSE])
        for at in range(0, len(sound), 8000):
            data = b"".join(p.data for p in pack.encode(sound[at : at + 8000]))
            connection.input_audio_buffer.append(audio=base64.b64encode(data).decode())
        connection.input_audio_buffer.commit()
        connection.response.create()
        until_done()
        connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "What is my name? Answer with the name."}],
            }
        )
        connection.response.create(response={"max_output_tokens": 30})
        until_done()
    texts = [f["response"]["output"][0]["content"][0]["text"] for f in done]
    assert all(texts) and "ada" in texts[-1].lower()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "set_light"}])
async def test_the_model_calls_a_function(server: Server, choice: object) -> None:
    tool = {
        "type": "function",
        "name": "set_light",
        "description": "Turn the light of a room on or off.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
        },
    }
    async with realtime(server) as talk:
        await talk.update(tools=[tool], tool_choice=choice)
        await talk.say("Please turn on the light in the kitchen.")
        await talk.send("response.create")
        done = await talk.until("response.done")
        [call] = [o for o in done["response"]["output"] if o["type"] == "function_call"]
        arguments = json.loads(call["arguments"])
        assert call["name"] == "set_light" and set(arguments) == {"room", "on"}
        streamed = "".join(e["delta"] for e in talk.of("response.function_call_arguments.delta"))
        assert streamed == call["arguments"]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"ok": true}'}
        await talk.send("conversation.item.create", item=result)
        await talk.send("response.create", response={"tool_choice": "none"})
        answer = await talk.until("response.done")
    assert answer["response"]["output"][0]["content"][0]["transcript"]
