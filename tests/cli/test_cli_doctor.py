"""`colloquy doctor` and `colloquy models`: what is here, what is broken, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import Command
from serving import Server


def test_a_good_machine_is_well(server: Server, colloquy: Command) -> None:
    done = colloquy("doctor", PORT=server.url.rpartition(":")[2])
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    assert "All that is needed is here." in done.stdout
    assert f"Colloquy runs at {server.url}" in done.stdout
    for what in ("Python", "cores", "free memory", "DATA_DIR", "xllamacpp", "whisper-tiny-en", "microphone"):
        assert f"{what}" in done.stdout


def test_what_is_broken_is_told_with_what_to_do(colloquy: Command, models_dir: Path) -> None:
    models = colloquy.folder / "models"
    shutil.copytree(models_dir / "silero-vad", models / "silero-vad")
    [weights] = [p for p in (models / "silero-vad").iterdir() if p.suffix == ".onnx"]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    settings = {"MODELS_DIR": str(models), "DATA_DIR": "/dev/null/x", "LLM_MODEL_NAME": "no/such.gguf"}

    done = colloquy("doctor", "--verify", "--speak", **settings)
    assert done.returncode == 1
    broken = {line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith("✗")}
    assert broken == {"✗ DATA_DIR", "✗ model silero-vad", "✗ LLM_MODEL_NAME"}
    assert "fetch silero-vad again" in done.stdout
    assert "! model piper-joe" in done.stdout and "colloquy models fetch piper-joe" in done.stdout
    assert "must be mended" in done.stdout


def test_a_dead_api_is_found(colloquy: Command, free_port: int) -> None:
    done = colloquy(
        "doctor", LLM_PROVIDER="openai", LLM_MODEL_NAME="x", LLM_BASE_URL=f"http://127.0.0.1:{free_port}/v1"
    )
    assert done.returncode == 1
    assert "✗ LLM_BASE_URL" in done.stdout and "does not answer" in done.stdout
    assert "qwen" not in done.stdout, "no model is needed for it"


def test_it_speaks_and_hears_itself(colloquy: Command) -> None:
    done = colloquy("doctor", "--speak")
    assert done.returncode == 0, done.stdout + done.stderr
    said = next(line for line in done.stdout.splitlines() if line.startswith("said"))
    heard = next(line for line in done.stdout.splitlines() if line.startswith("heard"))
    assert "Good morning" in said and "ood morning" in heard


def test_models_are_listed(colloquy: Command) -> None:
    for arguments in (["models"], ["models", "list"]):
        done = colloquy(*arguments)
        assert done.returncode == 0
        rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
        assert rows["whisper-tiny-en"][-2:] == ["yes", "yes"]
        assert len(rows["kokoro-82m"]) == len(rows["whisper-tiny-en"]) - 1, "English does not use it"
        assert "MIT" in rows["piper-joe"]


def test_models_are_fetched_and_verified(colloquy: Command) -> None:
    settings = {
        "MODELS_LOCAL": colloquy.settings["MODELS_DIR"],
        "MODELS_DIR": str(colloquy.folder / "models"),
    }
    assert "no models" in colloquy("models", "verify", **settings).stdout
    done = colloquy("models", "fetch", "silero-vad", "smart-turn-v3.2", **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["silero-vad: fetched", "smart-turn-v3.2: fetched"]
    assert "silero-vad: is here" in colloquy("models", "fetch", "silero-vad", **settings).stdout
    done = colloquy("models", "verify", **settings)
    assert done.returncode == 0 and "silero-vad: every byte is right" in done.stdout
    [weights] = (colloquy.folder / "models" / "silero-vad").glob("*.onnx")
    weights.write_bytes(bytes(weights.stat().st_size))
    done = colloquy("models", "verify", **settings)
    assert done.returncode == 1 and str(weights) in done.stdout


def test_an_unknown_model_is_told(colloquy: Command) -> None:
    done = colloquy("models", "fetch", "gpt-9")
    assert done.returncode == 2 and "gpt-9" in done.stderr and "piper-joe" in done.stderr


@pytest.mark.parametrize("name", ["silero-vad"])
def test_a_model_that_cannot_be_had_says_what_was_tried(colloquy: Command, name: str) -> None:
    settings = {"MODELS_DIR": str(colloquy.folder / "models"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    settings |= {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_NO_INDEX": "1"}
    done = colloquy("models", "fetch", name, **settings)
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr and "packages" in done.stderr
