"""`colloquy talk`: a recording or a text in, a reply out, and wrong use told clearly."""

from __future__ import annotations

import signal
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Command, events
from serving import Server

from app.audio.wav import wav_bytes
from corpus import load, recordings, wer


def recorded(id_: str) -> tuple[Path, str]:
    recording = next(r for r in recordings() if r.id == id_)
    return recording.path, recording.text


def hear(path: Path, model_dir: Callable[[str], Path]) -> str:
    """What a recogniser hears in a file, without any of our own code."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(model_dir("whisper-tiny-en")), compute_type="int8")
    segments, _ = model.transcribe(str(path), language="en", beam_size=5)
    return " ".join(segment.text for segment in segments)


def seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


def test_a_recording_is_answered_and_the_reply_can_be_heard(
    server: Server, colloquy: Command, model_dir: Callable[[str], Path]
) -> None:
    file, text = recorded("austen-870")
    done = colloquy("talk", str(file), "--url", server.url, "--json", "--out", "answer.wav")
    assert done.returncode == 0, done.stderr
    told = events(done)
    types = [event["type"] for event in told]
    for kind in ("session_ready", "speech_started", "transcription_partial", "speech_stopped"):
        assert kind in types
    assert types.index("transcription_final") < types.index("llm_token") < types.index("turn_complete")
    assert [e["at_s"] for e in told] == sorted(e["at_s"] for e in told)
    assert not any("data" in e or "packets" in e for e in told)

    summary = told[-1]
    assert summary["type"] == "summary" and summary["failure"] is None
    assert summary["reply_file"] == "answer.wav"
    [turn] = summary["turns"]
    assert wer(text, turn["said"]) <= 0.2
    assert turn["voice_to_voice_ms"] > 0
    assert {"endpoint", "stt_final", "llm_first_token", "first_audio_sent"} <= set(turn["latency"])

    sound = colloquy.folder / "answer.wav"
    [over] = [e for e in told if e["type"] == "turn_complete"]
    assert seconds(sound) == pytest.approx(over["audio_ms"] / 1000, abs=0.05)
    assert wer(turn["reply"], hear(sound, model_dir)) <= 0.5


def test_without_a_terminal_it_prints_plain_lines(server: Server, colloquy: Command) -> None:
    file, _ = recorded("austen-880")
    done = colloquy("talk", str(file), "--url", server.url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert any("hearing" in line for line in lines)
    assert any(" words " in line and "[" in line for line in lines), "soft words in brackets"
    order = [
        next(i for i, line in enumerate(lines) if what in line) for what in ("words", "you said", "answered")
    ]
    assert order == sorted(order)
    for row in ("end of turn noticed", "first word of the reply", "first sound sent", "voice to voice"):
        assert any(row in line and " ms" in line for line in lines), row
    # There is no sound card here, so it says where the reply is.
    saved = f"{file.stem}.reply.wav"
    assert lines[-1] == f"The reply is in {saved}"
    assert seconds(colloquy.folder / saved) > 0.3


def test_all_turns_of_a_recording_are_answered(server: Server, colloquy: Command) -> None:
    """The second sentence begins while the first is answered: the recording waits for its turn."""
    wanted = [next(r for r in recordings() if r.id == id_) for id_ in ("austen-880", "prompt-vm-savefolder")]
    pause = np.zeros(14_000, np.float32)
    both = np.concatenate([load(wanted[0]), pause, load(wanted[1])])
    (colloquy.folder / "both.wav").write_bytes(wav_bytes(both, 16000))
    done = colloquy("talk", "both.wav", "--url", server.url, "--json")
    assert done.returncode == 0, done.stderr
    turns = events(done)[-1]["turns"]
    assert len(turns) == 2
    for turn, recording in zip(turns, wanted, strict=True):
        assert wer(recording.text, turn["said"]) <= 0.4
        assert turn["reply"] and not turn["interrupted"]


def test_typed_words_are_answered(server: Server, colloquy: Command) -> None:
    done = colloquy("talk", "--text", "What is the capital of France?", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "answered" in done.stdout
    assert "from the typed text" in done.stdout
    assert seconds(colloquy.folder / "reply.wav") > 0.3


def test_without_a_server_it_starts_one_for_the_talk(colloquy: Command) -> None:
    file, text = recorded("austen-880")
    done = colloquy("talk", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert "starting one for this talk" in done.stderr
    [turn] = events(done)[-1]["turns"]
    assert wer(text, turn["said"]) <= 0.4
    assert turn["reply"]


def test_the_server_on_its_port_is_used(server: Server, colloquy: Command) -> None:
    done = colloquy("talk", "--text", "Hello.", PORT=server.url.rpartition(":")[2])
    assert done.returncode == 0, done.stderr
    assert "starting one" not in done.stderr


def test_silence_has_no_answer(server: Server, colloquy: Command) -> None:
    (colloquy.folder / "silence.wav").write_bytes(wav_bytes(np.zeros(16000, np.float32), 16000))
    done = colloquy("talk", "silence.wav", "--url", server.url)
    assert done.returncode == 1
    assert not list(colloquy.folder.glob("*.reply.wav"))


def test_ctrl_c_ends_it_and_keeps_what_was_heard(server: Server, colloquy: Command) -> None:
    running = colloquy.start("talk", "--text", "Tell me a very long story, please.", "--url", server.url)
    try:
        while "speaking" not in (running.stdout.readline() if running.stdout else ""):
            assert running.poll() is None
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "The reply is in reply.wav" in out
    assert seconds(colloquy.folder / "reply.wav") > 0.2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "PNG picture"),
        (b"Dear all,\nno sound here.\n", "text"),
        (b"", "empty"),
        (bytes(range(256)) * 20, "not a recording"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_before_anything_starts(
    colloquy: Command, content: bytes, reason: str
) -> None:
    (colloquy.folder / "wrong.wav").write_bytes(content)
    done = colloquy("talk", "wrong.wav")
    assert done.returncode == 2
    assert "wrong.wav" in done.stderr and reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing.wav"], "does not exist"),
        (["."], "is a directory"),
        (["--text", "  "], "no words"),
        (["--text", "hi", "--out", "no/such/folder/x.wav"], "cannot be saved"),
        (["--text", "hi", "--url", "ftp://x"], "not the address"),
        ([], "Without a microphone give a recording"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_wrong_use_is_told(colloquy: Command, arguments: list[str], reason: str) -> None:
    done = colloquy("talk", *arguments)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_and_a_text_are_too_much(colloquy: Command) -> None:
    file, _ = recorded("austen-880")
    done = colloquy("talk", str(file), "--text", "hi")
    assert done.returncode == 2 and "not both" in done.stderr


def test_a_server_that_is_asked_for_and_not_there_is_told(colloquy: Command, free_port: int) -> None:
    done = colloquy("talk", "--text", "hi", "--url", f"http://127.0.0.1:{free_port}")
    assert done.returncode == 1
    assert "no server answers" in done.stderr and "colloquy serve" in done.stderr


def test_what_the_server_refuses_is_told(server: Server, colloquy: Command) -> None:
    done = colloquy("talk", "--text", "hi", "--url", server.url, "--voice", "nobody")
    assert done.returncode == 2 and "there is no voice 'nobody'" in done.stderr
    done = colloquy("talk", "--text", "hi", "--url", server.url, "--language", "zh")
    assert done.returncode == 2 and "LANGUAGE" in done.stderr
