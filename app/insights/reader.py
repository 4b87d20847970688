"""Asks a language model what a conversation was about, through LangChain's structured output.

Two ways in turn: held to the JSON Schema; then to JSON of any form, for servers that know no schemas, with
the form told in words and a little less bound to what was nonsense the first time. Long conversations are
read part by part, and what is read is the notes on the parts.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from app.insights.chat_model import chat_model, load
from app.insights.made import Made
from app.insights.prompts import FORM, NOTE, READ
from app.roles import ColloquyError, EngineFailed, Job, LanguageModel, Misconfigured, Urgency

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel

log = logging.getLogger(__name__)

_ANSWER_TOKENS = 600
_NOTES_TOKENS = 160
_SPARE_TOKENS = 100
_MOST_PARTS = 40
_MOST_S = 600.0
"""A conversation is given up for today after this long: less than others take it for abandoned."""


class Reader:
    """Reads conversations. `llm` gives the language model, once it is there."""

    def __init__(self, llm: Callable[[], Awaitable[LanguageModel]]) -> None:
        self._llm = llm

    async def read(self, began: datetime, lines: Sequence[str], owner: str) -> Made:
        """What is made of a conversation of these lines, "Speaker: words". Raises why nothing was."""
        try:
            await asyncio.to_thread(load)
        except ImportError as error:
            raise Misconfigured(
                "conversations get no more than their first words as title: install colloquy[insights]"
            ) from error
        from langsmith import tracing_context

        try:
            # What people said goes to nobody but the model, whatever the environment asks LangChain to trace.
            with tracing_context(enabled=False):
                async with asyncio.timeout(_MOST_S):
                    return await self._read(began, list(lines), Job(owner, Urgency.BACKGROUND))
        except TimeoutError as error:
            raise EngineFailed(f"the language model was not done after {_MOST_S:g} s") from error

    async def _read(self, began: datetime, lines: list[str], job: Job) -> Made:
        from langchain_core.exceptions import OutputParserException
        from langchain_core.prompts import ChatPromptTemplate

        llm = await self._llm()
        model = chat_model(llm, job)
        form = json.dumps(_form(), ensure_ascii=False)
        room = llm.context_tokens - _ANSWER_TOKENS - _SPARE_TOKENS - llm.count_tokens(READ + FORM + form)
        lines = await _short_enough(lines, room, llm, model)
        said = f"The conversation began at {began.isoformat(timespec='minutes')}.\n\n" + "\n".join(lines)
        user = ("human", "{said}")
        held = model.with_structured_output(Made, max_tokens=_ANSWER_TOKENS)
        free = model.with_structured_output(
            Made, method="json_mode", max_tokens=_ANSWER_TOKENS, temperature=0.3
        )
        chain = (ChatPromptTemplate([("system", READ), user]) | held).with_fallbacks(
            [ChatPromptTemplate([("system", f"{READ}\n{FORM}"), user]) | free],
            exceptions_to_handle=(OutputParserException, ColloquyError),
        )
        try:
            made = await chain.ainvoke({"form": form, "said": said})
        except OutputParserException as error:
            raise EngineFailed("the language model's answer about a conversation is of no use") from error
        return cast(Made, made)


def _form() -> dict[str, Any]:
    """The form in brief, for models that are not held to it."""
    schema = Made.model_json_schema()["properties"]
    event = {"title": "…", "description": "…", "start": "…"}
    lists = {"action_items": ["…"], "events": [event], "memories": ["…"]}
    return {name: lists.get(name, "|".join(schema[name].get("enum", ["…"]))) for name in schema}


async def _short_enough(lines: list[str], room: int, llm: LanguageModel, model: BaseChatModel) -> list[str]:
    """`lines`, or notes on them, part by part, if they are more than `room` tokens."""
    while llm.count_tokens("\n".join(lines)) > room:
        parts = _parts(lines, llm, max(room // 2, 200))
        notes: list[str] = []
        for part in parts[:_MOST_PARTS]:
            asked = [("system", NOTE), ("human", "\n".join(part))]
            notes.append(str((await model.ainvoke(asked, max_tokens=_NOTES_TOKENS)).text))
        if len(parts) == 1 or llm.count_tokens("\n".join(notes)) >= llm.count_tokens("\n".join(lines)):
            return notes[:1]
        lines = notes
    return lines


def _parts(lines: Iterable[str], llm: LanguageModel, room: int) -> list[list[str]]:
    parts: list[list[str]] = []
    used = 0
    for line in lines:
        size = llm.count_tokens(line) + 1
        if not parts or used + size > room:
            parts.append([])
            used = 0
        parts[-1].append(line)
        used += size
    return parts
