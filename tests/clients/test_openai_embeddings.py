"""The client of embeddings APIs against an API that is not ours (llama.cpp's) and against our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from serving import make_settings, scripted

from app.clients.openai_embeddings import OpenAiEmbeddings
from app.roles import EngineFailed, Job, Misconfigured

KEY = "a-key-for-the-test"
ENGINES = {"vad": LoudVad(), "stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}


@pytest.fixture(scope="module")
def ours(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server of ours."""
    data = tmp_path_factory.mktemp("embeddings")
    with scripted(make_settings(models_dir, data, api_keys=[KEY]), **ENGINES) as server:
        yield f"{server.url}/v1"


@pytest.fixture(scope="module")
def llamas(model_dir: Callable[[str], Path]) -> Iterator[str]:
    """Base URL of llama.cpp's server. Its model is not made for this: what counts is the protocol."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(next(model_dir("qwen2.5-coder-0.5b-instruct-q4_k_m").glob("*.gguf")))
    params.n_ctx = 512
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.api_keys = [KEY]
    params.port = 0
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.mark.parametrize("api", ["ours", "llamas"])
async def test_texts_become_vectors_of_length_1_in_their_order(
    api: str, request: pytest.FixtureRequest
) -> None:
    client = await OpenAiEmbeddings.open("m", base_url=request.getfixturevalue(api), api_key=KEY)
    try:
        assert client.dimensions == {"ours": 384, "llamas": 896}[api]
        texts = ["The weather is lovely today.", "He drove to the stadium.", "It's so sunny outside!"]
        together = await client.embed(texts, Job())
        alone = [await client.embed([text], Job()) for text in texts]
    finally:
        await client.close()
    assert together.vectors.shape == (3, client.dimensions) and together.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1.0, atol=1e-5)
    similar = together.vectors @ np.array([a.vectors[0] for a in alone]).T
    assert similar.argmax(axis=1).tolist() == [0, 1, 2]
    assert together.tokens == sum(a.tokens for a in alone) > 15


async def test_more_texts_than_one_request_takes(ours: str) -> None:
    client = await OpenAiEmbeddings.open("m", base_url=ours, api_key=KEY)
    try:
        texts = [f"number {n}" for n in range(150)]
        many = await client.embed(texts, Job())
        last = await client.embed(texts[-1:], Job())
        assert (await client.embed([], Job())).vectors.shape == (0, 384)
    finally:
        await client.close()
    assert many.vectors.shape == (150, 384)
    assert int((many.vectors @ last.vectors[0]).argmax()) == 149


async def test_what_is_wrong_says_which_setting(ours: str) -> None:
    with pytest.raises(Misconfigured, match="EMBEDDING_API_KEY"):
        await OpenAiEmbeddings.open("m", base_url=ours, api_key="wrong")
    with pytest.raises(Misconfigured, match="EMBEDDING_MODEL_NAME"):
        await OpenAiEmbeddings.open("m", base_url=ours.removesuffix("/v1"), api_key=KEY)
    with pytest.raises(EngineFailed, match="EMBEDDING_BASE_URL"):
        await OpenAiEmbeddings.open("m", base_url="http://127.0.0.1:9/v1", api_key=KEY)


def test_a_server_of_ours_may_ask_another(ours: str, tmp_path: Path) -> None:
    settings = make_settings(
        tmp_path / "none",
        tmp_path,
        embedding_provider="openai",
        embedding_model_name="m",
        embedding_base_url=ours,
        embedding_api_key=KEY,
    )
    with (
        scripted(settings, **ENGINES) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
    ):
        answer = client.embeddings.create(model="any", input=["a text", "another"], dimensions=100)
    assert [len(item.embedding) for item in answer.data] == [100, 100]
    assert not (tmp_path / "none" / "all-minilm-l6-v2-int8").exists()
