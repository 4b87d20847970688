"""`/v1/embeddings` with OpenAI's own client: the model is real, what a conversation needs besides is not
loaded."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from serving import Server, make_settings, scripted

from app import runtime

KEY = "a-key-for-the-test"
MODEL = "text-embedding-3-small"


@contextmanager
def serving(models: Path, data: Path, **changes: Any) -> Iterator[Server]:
    settings = make_settings(models, data, api_keys=[KEY], **changes)
    with scripted(settings, vad=LoudVad(), stt=CountingStt(), llm=ScriptedLlm(), tts=ToneTts()) as server:
        yield server


@pytest.fixture(scope="module")
def small(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(models_dir, tmp_path_factory.mktemp("embeddings")) as server:
        yield server


@contextmanager
def sdk(server: Server, **changes: Any) -> Iterator[openai.OpenAI]:
    given: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": KEY, "max_retries": 0}
    with openai.OpenAI(**(given | changes)) as client:
        yield client


@pytest.fixture
def client(small: Server) -> Iterator[openai.OpenAI]:
    with sdk(small) as client:
        yield client


def roles(server: Server) -> dict[str, str]:
    return {r["role"]: r["state"] for r in httpx.get(f"{server.url}/health").json()["roles"]}


def vectors(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


# --- what it gives --------------------------------------------------------------------------------


def test_texts_that_mean_the_same_are_near(client: openai.OpenAI) -> None:
    texts = ["How do I reset my password?", "I forgot the login secret.", "Bananas are rich in potassium."]
    answer = client.embeddings.create(model=MODEL, input=texts)
    found = vectors(answer)
    assert found.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert found[0] @ found[1] > 0.35 > 0.2 > found[0] @ found[2]
    assert (answer.object, answer.model) == ("list", MODEL)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15


def test_base64_floats_and_one_text_alone_are_the_same(client: openai.OpenAI) -> None:
    texts = ["one text", "another, which is a little longer"]
    by_default = vectors(client.embeddings.create(model=MODEL, input=texts))  # base64, read by the SDK
    floats = vectors(client.embeddings.create(model=MODEL, input=texts, encoding_format="float"))
    alone = vectors(client.embeddings.create(model=MODEL, input=texts[1]))
    raw = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="base64").data[0].embedding
    decoded = np.frombuffer(base64.b64decode(raw), "<f4")  # type: ignore[arg-type]
    np.testing.assert_array_equal(by_default.astype(np.float32), floats.astype(np.float32))
    np.testing.assert_allclose(floats[1], alone[0], atol=1e-5)
    np.testing.assert_allclose(decoded, floats[0], atol=1e-5)


def test_many_texts_come_back_in_their_order(client: openai.OpenAI) -> None:
    texts = [f"{'very ' * (n * 7 % 23)}number {n}" for n in range(300)]
    found = vectors(client.embeddings.create(model=MODEL, input=texts))
    for n in (0, 17, 142, 299):
        alone = vectors(client.embeddings.create(model=MODEL, input=texts[n]))[0]
        assert int((found @ alone).argmax()) == n


def test_fewer_dimensions_are_the_first_ones_at_length_1(client: openai.OpenAI) -> None:
    full = vectors(client.embeddings.create(model=MODEL, input="a text"))[0]
    fewer = vectors(client.embeddings.create(model=MODEL, input="a text", dimensions=64))[0]
    np.testing.assert_allclose(fewer, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)


def test_half_a_character_is_no_reason_to_fail(small: Server) -> None:
    answer = httpx.post(
        f"{small.url}/v1/embeddings",
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        content=rb'{"model": "m", "input": "broken \ud83d emoji"}',
    )
    assert answer.status_code == 200 and len(answer.json()["data"][0]["embedding"]) == 384


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says", "param"),
    [
        ({"input": [1, 2, 3]}, "send text", "input"),
        ({"input": [[1, 2], [3]]}, "send text", "input"),
        ({"input": ""}, "none of them empty", "input"),
        ({"input": []}, "none of them empty", "input"),
        ({"input": ["a", ""]}, "none of them empty", "input"),
        ({"input": {"text": "a"}}, "send a text", "input"),
        ({"input": ["a"] * 2049}, "at most 2048", "input"),
        ({"input": "a" * 32_769}, "at most 32768", "input"),
        ({"input": ["a" * 32_000] * 40}, "at most 1200000", "input"),
        ({"input": "a", "dimensions": 385}, "384", "dimensions"),
        ({"input": "a", "dimensions": 0}, "greater than or equal to 1", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "base64", "encoding_format"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_embedded_is_a_bad_request(
    client: openai.OpenAI, given: dict[str, Any], says: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=MODEL, **given)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.param == param
    assert says in refused.value.message


def test_a_stranger_is_refused(small: Server) -> None:
    with sdk(small, api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
        client.embeddings.create(model=MODEL, input="a")
    assert refused.value.code == "invalid_api_key"


def test_a_model_of_another_role_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="all-minilm-l6-v2-int8") as refused:
        client.embeddings.create(model="llama", input="a")
    assert refused.value.code == "model_not_found"


def test_a_server_without_the_role_says_which_setting(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "none", tmp_path, embedding_provider="none") as server,
        sdk(server) as client,
        pytest.raises(openai.NotFoundError, match="EMBEDDING_PROVIDER"),
    ):
        client.embeddings.create(model=MODEL, input="a")


def test_for_a_client_that_leaves_no_more_is_done(small: Server, client: openai.OpenAI) -> None:
    client.embeddings.create(model=MODEL, input="so that it is loaded")
    metrics = small.app.state.context.metrics

    def batches() -> float:
        return float(
            metrics.registry.get_sample_value("colloquy_workers_wait_seconds_count", {"urgency": "speech"})
        )

    before = batches()
    hurried = client.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        hurried.embeddings.create(model=MODEL, input=["word " * 250] * 300)
    done = -1.0
    while done != batches():
        done = batches()
        time.sleep(1)
    assert done - before < 100, "two such texts go together: all of them are 150 batches"


# --- when it is loaded ----------------------------------------------------------------------------


def test_it_is_loaded_once_and_when_it_is_first_asked_for(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    build = runtime.PROVIDERS["embedding", "minilm"]

    async def counted(given: runtime.Build) -> Any:
        loads.append(given)
        return await build(given)

    monkeypatch.setitem(runtime.PROVIDERS, ("embedding", "minilm"), counted)
    with serving(models_dir, tmp_path) as server:
        assert set(roles(server)) == {"vad", "stt", "llm", "tts"} and not loads

        def ask(n: int) -> int:
            with sdk(server) as client:
                return len(client.embeddings.create(model=MODEL, input=f"number {n}").data)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ask, range(4))) == [1, 1, 1, 1]
        assert len(loads) == 1 and roles(server)["embedding"] == "ready"


def test_a_model_that_cannot_be_had_does_not_keep_people_from_talking(
    models_dir: Path, small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sdk(small) as client:
        client.embeddings.create(model=MODEL, input="so that it has been fetched")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    models = tmp_path / "models"
    with serving(models, tmp_path, models_hub=False) as server, sdk(server) as client:
        with pytest.raises(openai.InternalServerError, match="all-minilm-l6-v2-int8"):
            client.embeddings.create(model=MODEL, input="a")
        assert roles(server)["embedding"] == "failed"
        assert server.app.state.context.runtime.ready
        (models / "all-minilm-l6-v2-int8").symlink_to(models_dir / "all-minilm-l6-v2-int8")
        assert len(client.embeddings.create(model=MODEL, input="a").data) == 1
        assert roles(server)["embedding"] == "ready"
