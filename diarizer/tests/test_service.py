"""Loading, limits, keys and crowds: what is wrong is said, in the shape that all of Colloquy uses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from app.roles import Misconfigured
from diarizer import models, worker
from diarizer.app import create_app
from diarizer.settings import ECAPA, PIPELINE, Settings, rows
from diarizer.sources import source_of
from diarizer.tests import material
from diarizer.tests.conftest import KEY, Serve, wait_until
from diarizer.tests.material import noise, silence, wav

ALL = ["/v1/vad", "/v2/embedding", "/v1/diarization"]
ROOT = Path(__file__).parents[2]
NO = "is no pipeline for speaker diarization"


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert body["code"] == code and body["message"] and len(body["trace_id"]) == 32
    return body


# --- loading --------------------------------------------------------------------------------------


def test_loading_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    go, load = threading.Event(), models.load_vad

    def slowly(*args: Any) -> Any:
        go.wait(30)
        return load(*args)

    monkeypatch.setattr(models, "load_vad", slowly)
    client = serve(ready=False)
    while client.get("/health").json()["models"]["pipeline"]["state"] != "ready":
        time.sleep(0.05)
    health = client.get("/health").json()
    assert health["status"] == "loading" and "vad: loading" in health["message"]
    assert {n: m["state"] for n, m in health["models"].items()} == {
        "pipeline": "ready",
        "vad": "loading",
        "encoder": "loading",
    }
    for path in ALL:
        response = client.post(path, files={"file": wav(noise(1))})
        assert "loading" in refused(response, 503, "NOT_READY")["message"]
        assert int(response.headers["Retry-After"]) >= 1
    go.set()
    health = wait_until(client, "healthy")
    assert health["message"] == "" and health["device"] == "cpu"
    assert client.post("/v1/vad", files={"file": wav(silence(1))}).json() == []


def test_a_folder_that_is_not_there_is_named_and_tried_again(
    serve: Serve, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RETRY_S", 0.1)
    wanted = tmp_path / "models"
    client = serve(ready=False, pipeline=str(wanted))
    health = wait_until(client, "failed")
    assert f"DIARIZER_PIPELINE={wanted}: there is no such folder" in health["message"]
    assert health["models"]["pipeline"]["state"] == "failed"
    response = client.post("/v1/vad", files={"file": wav(noise(1))})
    assert str(wanted) in refused(response, 503, "NOT_READY")["message"]
    assert "Retry-After" in response.headers
    wanted.symlink_to(folder)
    wait_until(client, "healthy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("pipeline: {name: pyannote.audio.pipelines.NoSuch}", "could not be loaded"),
        ("a: [", "could not be loaded"),
        (
            "pipeline: {name: pyannote.audio.pipelines.VoiceActivityDetection, params: {segmentation: SEG}}",
            "is no",
        ),
    ],
)
def test_a_folder_that_holds_something_else_is_named(
    serve: Serve, folder: Path, tmp_path: Path, content: str, said: str
) -> None:
    weights = folder / "segmentation" / "pytorch_model.bin"
    (tmp_path / "config.yaml").write_text(content.replace("SEG", str(weights)))
    health = wait_until(serve(ready=False, pipeline=str(tmp_path)), "failed")
    assert "DIARIZER_PIPELINE" in health["message"] and said in health["message"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed(serve: Serve) -> None:
    health = wait_until(serve(ready=False, device="cuda"), "failed")
    assert "DIARIZER_DEVICE=cuda, but" in health["message"]


def test_a_name_on_the_hub_is_pinned(tmp_path: Path) -> None:
    for name in (PIPELINE, ECAPA):
        assert len(source_of(name, "", "DIARIZER_PIPELINE", "config.yaml").revision or "") == 40
    assert source_of("a/b", "abc", "DIARIZER_PIPELINE", "config.yaml").revision == "abc"
    with pytest.raises(Misconfigured, match="set DIARIZER_ENCODER_REVISION to the commit"):
        source_of("a/b", "", "DIARIZER_ENCODER_SOURCE", "hyperparams.yaml")
    with pytest.raises(Misconfigured, match=r"there is no config.yaml in this folder"):
        source_of(str(tmp_path), "", "DIARIZER_PIPELINE", "config.yaml")


def test_as_a_program_without_a_hub() -> None:
    """As it is started everywhere; the default pipeline is on the hub, which is out of reach."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DIARIZER_", "HF_"))}
    program = [sys.executable, "-m", "diarizer"]

    def run(*args: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *args],
            env=environment | settings,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert "DIARIZER_PIPELINE_REVISION" in run("--help").stdout
    refused = run("--host", "0.0.0.0")
    assert refused.returncode == 2 and "set DIARIZER_API_KEY" in refused.stderr

    port = _free_port()
    settings = {"HF_HUB_OFFLINE": "1", "DIARIZER_API_KEY": KEY, "DIARIZER_PORT": str(port)}
    process = subprocess.Popen(program, env=environment | settings, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8)
        ) as client:
            health = wait_until(client, "failed")
        assert f"{PIPELINE}@3533c8cf8e36 could not be fetched from the hub" in health["message"]
        assert "copy it into a folder and set DIARIZER_PIPELINE" in health["message"]
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)


def test_the_docs_have_every_setting() -> None:
    text = (ROOT / "docs" / "diarizer.md").read_text()
    assert "\n".join(rows()) in text, "put this into docs/diarizer.md:\n" + "\n".join(rows())


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("body", [b"", b"no sound at all", b"RIFF\0\0\0\0WAVEfmt ", b"\xff" * 3000])
def test_what_is_no_recording_is_refused(client: httpx.Client, path: str, body: bytes) -> None:
    assert refused(client.post(path, files={"file": body}), 422, "BAD_AUDIO")["field"] == "file"


@pytest.mark.parametrize("path", ALL)
def test_less_than_half_a_second_is_refused(client: httpx.Client, path: str) -> None:
    body = refused(client.post(path, files={"file": wav(noise(0.4))}), 422, "BAD_AUDIO")
    assert "0.40 s" in body["message"]


def test_what_is_too_much_is_refused(client: httpx.Client) -> None:
    long = client.post("/v1/vad", files={"file": wav(silence(101))})
    assert "100 s" in refused(long, 413, "TOO_LARGE")["message"]
    large = client.post("/v1/vad", files={"file": wav(noise(140))})
    assert "4 MB" in refused(large, 413, "TOO_LARGE")["message"]
    assert client.post("/v1/vad", files={"file": wav(silence(1))}).json() == []


def test_what_is_missing_is_named(client: httpx.Client) -> None:
    assert refused(client.post("/v1/vad"), 422, "BAD_INPUT")["field"] == "file"
    assert refused(client.post("/v1/vad", data={"file": "x"}), 422, "BAD_INPUT")["field"] == "file"
    assert refused(client.post("/v1/vad", files={"audio": b"x"}), 422, "BAD_INPUT")["field"] == "file"
    refused(client.get("/v1/nothing"), 404, "NOT_FOUND")
    refused(client.get("/v1/vad"), 405, "BAD_INPUT")


@pytest.mark.parametrize("segments", ["", "nonsense", '{"start": 0}', '[{"start": -1, "end": 2}]'])
def test_wrong_segments_are_named(client: httpx.Client, segments: str) -> None:
    files = {"audio_file": wav(noise(1)), "profile_file": wav(noise(1))}
    response = client.post("/v1/speaker-identification", files=files, data={"segments": segments})
    assert refused(response, 422, "BAD_INPUT")["field"] == "segments"


def test_a_profile_without_speech_is_refused(client: httpx.Client) -> None:
    files = {"audio_file": wav(material.sample()), "profile_file": wav(silence(6))}
    response = client.post("/v1/speaker-identification", files=files, data={"segments": "[]"})
    assert refused(response, 422, "BAD_AUDIO")["field"] == "profile_file"


# --- who may come in ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}]
)
@pytest.mark.parametrize("path", [*ALL, "/v1/speaker-identification", "/docs"])
def test_strangers_are_refused(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    response = httpx.post(client.base_url.join(path), files={"file": wav(noise(1))}, headers=headers)
    refused(response, 401, "NOT_ALLOWED")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(client.base_url.join("/health"), headers=headers).status_code == 200


def test_without_a_key_only_programs_of_this_machine_come_in(serve: Serve) -> None:
    client = serve(api_key="")
    assert client.post("/v1/vad", files={"file": wav(silence(1))}).json() == []
    for headers in ({"Origin": "https://example.org"}, {"Host": "example.org"}):
        refused(client.post("/v1/vad", files={"file": wav(silence(1))}, headers=headers), 401, "NOT_ALLOWED")
    with pytest.raises(Misconfigured, match="DIARIZER_API_KEY"):
        create_app(Settings(host="0.0.0.0"))


# --- crowds ---------------------------------------------------------------------------------------


def test_a_crowd_waits_in_line_and_no_longer(serve: Serve) -> None:
    """One at work, one waits, the others are told to come later; meanwhile the service answers."""
    client = serve(max_waiting=1)
    body = wav(material.sample())
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(client.post, "/v1/diarization", files={"file": body}) for _ in range(5)]
        while not all(future.done() for future in asked):
            assert client.get("/health").json()["status"] == "healthy"
            time.sleep(0.1)
    answers = [future.result() for future in asked]
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(good) >= 2 and all(found == good[0] for found in good)
    busy = [answer for answer in answers if answer.status_code != 200]
    assert busy
    for answer in busy:
        refused(answer, 503, "BUSY")
        assert int(answer.headers["Retry-After"]) >= 1


def test_work_for_a_client_that_left_is_stopped(serve: Serve) -> None:
    client = serve(max_waiting=0)
    long = wav(np.tile(material.sample(), 40))  # minutes of work
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/diarization", files={"file": long}, timeout=4)
    while (response := client.post("/v1/vad", files={"file": wav(silence(1))})).status_code == 503:
        time.sleep(0.1)
    assert response.json() == []


def test_work_that_takes_too_long_is_stopped(serve: Serve) -> None:
    client = serve(max_work_s=1, max_waiting=0)
    response = client.post("/v1/diarization", files={"file": wav(np.tile(material.sample(), 40))})
    assert "send it in shorter parts" in refused(response, 502, "ENGINE_FAILED")["message"]
    while (response := client.post("/v1/vad", files={"file": wav(silence(1))})).status_code == 503:
        time.sleep(0.1)
    assert response.status_code == 200
