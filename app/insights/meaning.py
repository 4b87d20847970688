"""Whether two lines say the same, and which lines have to do with a question: by what they mean.

How near two vectors lie says little about who, when and how many: "Call the bank at 3 pm" and "… at 5 pm"
have a cosine of 0.94, "The user has a dog named Rex" and "The user's dog is called Rex" 0.97. So names,
numbers and denials must be the same, too. With that, from `SAME` on 32 of 54 pairs of lines that say
the same are found, and 1 of 56 that differ in a word or two ("wants to write a novel", "has written a
novel"); from 0.89 on 40 and 3. A line that is noted twice is a nuisance, one that is taken for another is
lost. It was chosen on these pairs, which are in `tests/insights/test_meaning.py`, and for MiniLM only.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

from app.roles import Busy, ColloquyError, Embeddings, Job, NotFound, TextEmbedding, Urgency, Vector

log = logging.getLogger(__name__)

SAME = 0.92
"""Cosine from which on two lines say the same."""
NEAR = 0.25
"""Cosine from which on a line has to do with a question."""

_PATIENCE_S = 60.0
"""The encoder may have to be fetched first, and nothing should wait for it that long."""
_BARE = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_OTHER_SCRIPT = re.compile(r"[^\W\d_\u0000-\u024f]")
_DENIALS = frozenset("no not never none nothing nobody without cannot stop cancel".split())
_NUMBERS = {
    word: str(n)
    for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}


def bare(text: str) -> str:
    """A line without case and punctuation."""
    return _BARE.sub(" ", text.lower()).strip()


def facts(text: str) -> frozenset[str]:
    """What must be the same in lines that say the same: names, numbers, denials, where from."""
    found = set()
    for n, word in enumerate(_WORD.findall(text.replace("’", "'"))):
        lower = word.lower()
        if lower in _DENIALS or lower.endswith("n't"):
            found.add("not")
        elif lower == "from":  # "moved to Oslo", "moved from Oslo": 0.99
            found.add("from")
        elif lower in _NUMBERS or any(c.isdigit() for c in word):
            found.add(_NUMBERS.get(lower, lower))
        # A line's first word is written large anyway.
        elif n and word[0].isupper() and lower not in ("user", "user's", "i", "i'm"):
            found.add(lower.removesuffix("'s"))
    return frozenset(found)


class Meaning:
    """Places lines by what they mean. `embedding` gives the role, once it is loaded; where nobody has it, or
    it fails, lines have no place, and only equal ones are the same."""

    def __init__(self, embedding: Callable[[], Awaitable[TextEmbedding]]) -> None:
        self._embedding = embedding

    async def places(
        self, lines: Sequence[str], owner: str = "", urgency: Urgency = Urgency.BACKGROUND
    ) -> tuple[str | None, list[Vector | None]]:
        """Who places them, and where each lies; None for those that the encoder does not read."""
        nowhere: list[Vector | None] = [None] * len(lines)
        if not lines:
            return None, nowhere
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._places(lines, Job(f"meaning-{owner}", urgency))
        except NotFound:
            pass
        except TimeoutError:
            log.warning("lines were not compared by what they mean: there is no encoder yet")
        except ColloquyError as error:
            log.warning("lines were not compared by what they mean: %s", error.message)
        except Exception:
            # Nothing is lost by it but that something may be noted twice.
            log.exception("lines were not compared by what they mean")
        return None, nowhere

    async def _places(self, lines: Sequence[str], job: Job) -> tuple[str, list[Vector | None]]:
        encoder = await self._embedding()
        info = encoder.info
        places: list[Vector | None] = [None] * len(lines)
        readable = [i for i, line in enumerate(lines) if _reads(info.detail.get("language"), line)]
        if readable:
            vectors = (await _placed(encoder, [lines[i] for i in readable], job)).vectors
            for i, vector in zip(readable, vectors, strict=True):
                places[i] = vector
        return f"{info.name}/{info.model}", places


async def _placed(encoder: TextEmbedding, lines: list[str], job: Job) -> Embeddings:
    """Waits for a moment in which nobody else needs the cores."""
    while True:
        try:
            return await encoder.embed(lines, job)
        except Busy as error:
            await asyncio.sleep(error.retry_after)


def alike(a: str, b: str, one: Vector | None, other: Vector | None) -> bool:
    """Whether two lines say the same in other words. `one` and `other` are where they lie."""
    return (
        one is not None
        and other is not None
        and one.shape == other.shape
        and float(one @ other) >= SAME
        and facts(a) == facts(b)
    )


Line = tuple[str, Vector | None]


def fresh(lines: Iterable[Line], known: Iterable[Line]) -> list[Line]:
    """Those of `lines` that neither `known` says already, nor one before."""
    said = list(known)
    equal = {bare(text) for text, _ in said}
    found = []
    for text, place in lines:
        if not bare(text) or bare(text) in equal:
            continue
        if not any(alike(text, other, place, its) for other, its in said):
            said.append((text, place))
            equal.add(bare(text))
            found.append((text, place))
    return found


def _reads(language: str | None, line: str) -> bool:
    """An encoder for English sees two different Chinese lines in one place: to it they are unknown signs."""
    return language != "en" or not _OTHER_SCRIPT.search(line)
