"""What is asked is answered: the real pipelines of pyannote.audio, with real weights."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pyannote.metrics.detection import DetectionErrorRate
from pyannote.metrics.diarization import DiarizationErrorRate

from app.clients.hosted_audio import HostedAudio, HostedSpeakers
from app.roles import SAMPLE_RATE, Job, Samples, SpeakerSpan
from diarizer.tests import material
from diarizer.tests.conftest import KEY, Serve
from diarizer.tests.material import alone, noise, silence, wav


def answered(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def asked(client: httpx.Client, path: str, body: bytes) -> Any:
    return answered(client.post(path, files={"file": body}))


def cut(spans: list[tuple[float, float]]) -> Samples:
    audio = material.sample()
    return np.concatenate([audio[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in spans])


def test_two_people_who_speak_over_each_other_are_told_apart(client: httpx.Client) -> None:
    """Measured: an error rate of 5.2 % without a collar, overlap counted."""
    spans = asked(client, "/v1/diarization", wav(material.sample()))
    assert all(set(s) == {"speaker", "start", "end", "duration"} for s in spans)
    assert list(dict.fromkeys(s["speaker"] for s in spans)) == ["SPEAKER_00", "SPEAKER_01"]
    assert all(one["start"] <= two["start"] for one, two in pairwise(spans))
    assert all(s["duration"] == pytest.approx(s["end"] - s["start"], abs=2e-3) for s in spans)
    found = material.annotation([(s["speaker"], s["start"], s["end"]) for s in spans])
    assert DiarizationErrorRate()(material.annotation(material.turns()), found) < 0.15


def test_speech_is_found(client: httpx.Client) -> None:
    spans = asked(client, "/v1/vad", wav(material.sample()))
    assert all(set(s) == {"start", "end", "duration"} for s in spans)
    assert all(one["end"] < two["start"] for one, two in pairwise(spans))
    found = material.annotation([("speech", s["start"], s["end"]) for s in spans])
    assert DetectionErrorRate()(material.annotation(material.turns()), found) < 0.15


@pytest.mark.parametrize("path", ["/v1/vad", "/v1/diarization"])
@pytest.mark.parametrize("sound", [silence(4), noise(4), silence(0.6)], ids=["silence", "noise", "short"])
def test_where_nobody_speaks_there_is_nothing(client: httpx.Client, path: str, sound: Samples) -> None:
    assert asked(client, path, wav(sound)) == []


def test_a_voice_is_a_flat_list_of_length_1(client: httpx.Client) -> None:
    spans = alone("speaker91")
    one, same, other = (
        np.array(asked(client, "/v2/embedding", wav(cut(part))))
        for part in (spans[:1], spans[1:], alone("speaker90"))
    )
    assert one.shape == (192,) and np.linalg.norm(one) == pytest.approx(1, abs=1e-4)
    assert one @ same > one @ other + 0.2


def test_segments_of_the_user_are_found(client: httpx.Client) -> None:
    """Measured distances to the profile: 0.27 and 0.32, the other person's 0.43 and 0.48."""
    profile, *mine = sorted(alone("speaker90"), key=lambda span: span[0] - span[1])
    segments = [{"start": a, "end": b} for a, b in [*mine, *alone("speaker91")]]
    segments.append({"start": profile[0], "end": profile[0] + 0.3})  # too short to know anybody
    files = {"audio_file": wav(material.sample()), "profile_file": wav(silence(1), cut([profile]))}
    found = answered(
        client.post("/v1/speaker-identification", files=files, data={"segments": json.dumps(segments)})
    )
    assert [v["is_user"] for v in found] == [at < len(mine) for at in range(len(segments))]
    assert all(v["person_id"] is None for v in found)


async def test_our_own_client_is_understood(client: httpx.Client) -> None:
    url, body = str(client.base_url), wav(material.sample())
    voices = await HostedSpeakers.open(url, KEY)
    audio = HostedAudio(
        KEY, vad=f"{url}/v1/vad", diarization=url, identification=f"{url}/v1/speaker-identification"
    )
    try:
        assert voices.dimensions == 192
        vector = await voices.embed(cut(alone("speaker90")), Job())
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
        turns = await audio.diarize(io.BytesIO(body))
        assert {turn.speaker for turn in turns} == {"SPEAKER_00", "SPEAKER_01"}
        assert await audio.speech(io.BytesIO(body))
        segments = [SpeakerSpan(a, b, "x") for a, b in alone("speaker91")]
        profile = io.BytesIO(wav(cut(alone("speaker90"))))
        assert await audio.is_user(io.BytesIO(body), profile, segments) == [False] * len(segments)
    finally:
        await voices.close()
        await audio.close()


# --- other models ---------------------------------------------------------------------------------


def test_a_voice_by_speechbrain(serve: Serve, tmp_path: Path) -> None:
    """Its real ECAPA-TDNN from a folder: small and untrained, so what is checked is that its numbers
    arrive."""
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    folder = material.ecapa(tmp_path / "ecapa")
    client = serve(encoder="speechbrain", encoder_source=str(folder))
    audio = cut(alone("speaker90")[:1])[: 5 * SAMPLE_RATE]
    found = np.array(asked(client, "/v2/embedding", wav(audio)))

    net = ECAPA_TDNN(
        40, lin_neurons=24, channels=[32, 32, 32, 32, 96], attention_channels=16, se_channels=16
    ).eval()
    net.load_state_dict(torch.load(folder / "embedding_model.ckpt", weights_only=True))
    with torch.inference_mode():
        features = Fbank(n_mels=40)(torch.from_numpy(audio)[None])
        wanted = net(features - features.mean(dim=1, keepdim=True)).numpy().ravel()
    assert found.shape == (24,)
    assert found @ (wanted / np.linalg.norm(wanted)) > 0.999
    assert client.get("/health").json()["models"]["encoder"]["source"] == str(folder)


def test_a_pipeline_as_the_hub_has_it(serve: Serve, tmp_path: Path) -> None:
    """VBx clustering, and an encoder of pyannote.audio's own: untrained, so people cannot be told apart, but
    speech is found where it is. The encoder may also be named alone."""
    folder = material.diarization(tmp_path / "vbx", "VBxClustering", material.untrained())
    client = serve(pipeline=str(folder), encoder_source=str(folder / "embedding"))
    spans = asked(client, "/v1/diarization", wav(material.sample()))
    found = material.annotation([("speech", s["start"], s["end"]) for s in spans])
    assert DetectionErrorRate()(material.annotation(material.turns()), found.support()) < 0.15
    assert len(asked(client, "/v2/embedding", wav(cut(alone("speaker90"))))) == 160
