"""All-MiniLM-L6-v2 on onnxruntime: how near texts are in meaning, for English.

Source: Sentence Transformers, "all-MiniLM-L6-v2": 6 layers of BERT, 384 wide; a text's vector is the mean
over its tokens. The weights are int8: a vector has a cosine above 0.99 with that of the published weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.engines.ort_session import OrtSession
from app.engines.workers import Workers
from app.roles import Embeddings, EngineInfo, Job

DIMENSIONS = 384
MAX_TOKENS = 256
"""As much of a text as the model was made for, two tokens of its own among them; the rest is not read."""
_BATCH_TOKENS = 512
"""About 0.1 s of one core, so that whatever is more urgent waits no longer for it."""


class MiniLm:
    """`TextEmbedding` for English. Of a text, the first `MAX_TOKENS` tokens count (about 190 words)."""

    def __init__(self, model_dir: Path, workers: Workers) -> None:
        """Loads the model: blocking, about 0.4 s."""
        from tokenizers import Tokenizer

        self._session = OrtSession(model_dir / "model.onnx", threads=1)
        self._tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._workers = workers
        # One batch at a time, whoever asks: the other cores stay with the conversations, and thousands of
        # texts never stand in their queue.
        self._turn = asyncio.Lock()

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("embedding", "minilm", "all-minilm-l6-v2-int8", {"language": "en"})

    @property
    def dimensions(self) -> int:
        return DIMENSIONS

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    async def embed(self, texts: Sequence[str], job: Job) -> Embeddings:
        """See `TextEmbedding`."""
        async with self._turn:
            tokens = await self._workers.run(job, self._tokens, list(texts))
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for batch in _batches([len(ids) for ids in tokens]):
            async with self._turn:
                vectors[batch] = await self._workers.run(job, self._vectors, [tokens[i] for i in batch])
        return Embeddings(vectors, sum(len(ids) for ids in tokens))

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        # One by one: `encode_batch` would take all cores.
        return [self._tokenizer.encode(text).ids for text in texts]

    def _vectors(self, batch: list[list[int]]) -> npt.NDArray[np.float32]:
        ids = np.zeros((len(batch), max(len(row) for row in batch)), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(batch):
            ids[at, : len(row)], mask[at, : len(row)] = row, 1
        states = self._session.run(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))
        sums: npt.NDArray[np.float32] = (states * mask[..., None].astype(np.float32)).sum(axis=1)
        # The mean has the same direction.
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        return sums


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The indices of texts that go together: of like length, with padding at most `_BATCH_TOKENS`."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
