"""Text embeddings: what the model's authors say of it, and nothing lost by batches or by hurry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import corpus
from app.engines.minilm import MAX_TOKENS, MiniLm
from app.engines.workers import Workers
from app.roles import Embeddings, Job, Urgency


@pytest.fixture(scope="module")
def minilm(model_dir: Callable[[str], Path]) -> Iterator[MiniLm]:
    pool = Workers(1)
    yield MiniLm(model_dir("all-minilm-l6-v2-int8"), pool)
    pool.close()


async def embedded(minilm: MiniLm, *texts: str) -> Embeddings:
    return await minilm.embed(texts, Job("test"))


async def cosines(minilm: MiniLm, *texts: str) -> np.ndarray:
    vectors = (await embedded(minilm, *texts)).vectors
    return vectors @ vectors.T


async def test_cosines_are_those_that_the_authors_publish(minilm: MiniLm) -> None:
    # The quick start of Sentence Transformers prints these for the unquantised model.
    texts = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(await cosines(minilm, *texts), published, atol=0.01)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Which medicine must she not take?", "I am allergic to penicillin."),
        ("Where does the trip go in spring?", "In May we fly to Lisbon."),
        ("What is the name of the pet?", "Our dog is called Bruno."),
        ("When is the meeting with the bank?", "The loan officer sees us on Tuesday at nine."),
    ],
)
async def test_a_question_is_nearest_to_what_answers_it(minilm: MiniLm, asked: str, answer: str) -> None:
    said = [
        "I am allergic to penicillin.",
        "In May we fly to Lisbon.",
        "Our dog is called Bruno.",
        "The loan officer sees us on Tuesday at nine.",
        "The printer on the second floor is out of paper.",
    ]
    near = (await cosines(minilm, asked, *said))[0, 1:]
    assert said[int(near.argmax())] == answer


async def test_a_batch_gives_what_each_text_gives_alone(minilm: MiniLm) -> None:
    texts = [r.text for r in corpus.recordings()][:20]
    texts += ["", " ", "x", "你好，今天天气怎么样？", "word " * 1000]
    together = await embedded(minilm, *texts)
    alone = [await embedded(minilm, text) for text in texts]
    assert together.vectors.shape == (len(texts), minilm.dimensions)
    assert together.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(together.vectors, [a.vectors[0] for a in alone], atol=1e-4)
    assert together.tokens == sum(a.tokens for a in alone)


async def test_no_texts_are_no_vectors(minilm: MiniLm) -> None:
    none = await embedded(minilm)
    assert none.vectors.shape == (0, minilm.dimensions) and none.tokens == 0


async def test_of_a_long_text_the_beginning_counts(minilm: MiniLm) -> None:
    start = "The ferry to the island leaves at noon. " * 40
    end = "Penicillin makes me ill. " * 200
    short = await embedded(minilm, "It leaves at noon.")
    assert short.tokens == 7  # five words and marks, and two tokens around every text
    long, longer = await embedded(minilm, start), await embedded(minilm, start + end)
    assert long.tokens == longer.tokens == MAX_TOKENS
    np.testing.assert_allclose(long.vectors, longer.vectors, atol=1e-6)


async def test_what_is_urgent_goes_between_two_batches(model_dir: Callable[[str], Path]) -> None:
    pool = Workers(1)
    try:
        minilm = MiniLm(model_dir("all-minilm-l6-v2-int8"), pool)
        many = asyncio.create_task(minilm.embed(["word " * 250] * 40, Job("many", Urgency.SPEECH)))
        await asyncio.sleep(0)
        few = asyncio.create_task(minilm.embed(["a word"], Job("few", Urgency.SPEECH)))
        assert pool.waiting <= 1
        assert await pool.run(Job("person"), threading.get_ident)
        assert not many.done()
        await few
        assert not many.done(), "one who asks for little waited for one who asks for much"
        assert (await many).vectors.shape == (40, minilm.dimensions)
    finally:
        pool.close()
