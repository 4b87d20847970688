"""Our language model as one of LangChain's, so that its structured output serves them all.

`langchain-openai` would be a second client of the same API, with its own pool and limits, and could not
reach a model in this process at all. This way every provider of the role is served, by the connections,
slots and metrics that the conversations use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from app.roles import ChatMessage, Job, LanguageModel, LlmEnd, LlmOptions

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import BaseMessage

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "ai": "assistant",
}
_LONGEST = 8000
"""Characters of an answer up to which its whole part is looked for: the search takes the square of it, here
half a second. (LangChain has a thread for it.)"""


def chat_model(llm: LanguageModel, job: Job) -> BaseChatModel:
    """`llm` as LangChain sees a chat model; asynchronous only. What it raises are our own errors."""
    made: BaseChatModel = _class()(llm=llm, job=job)
    return made


def load() -> None:
    """Import LangChain: 0.7 s of one core, so not on the event loop. `ImportError` if it is not installed."""
    _class()


def parsed(text: str) -> Any:
    """The first JSON object in a model's answer, whatever words are around it. Of an answer that was cut,
    what is whole. `OutputParserException` if there is none."""
    from langchain_core.exceptions import OutputParserException
    from langchain_core.utils.json import parse_partial_json

    begin = text.find("{")
    if begin < 0:
        raise OutputParserException("the answer is no JSON")
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, begin)[0]
    except (ValueError, RecursionError):
        pass
    if len(text) > _LONGEST:
        raise OutputParserException("the answer is no JSON, and long")
    try:
        cut = parse_partial_json(text[begin:])
    except (ValueError, RecursionError) as error:
        raise OutputParserException("the answer is no JSON") from error
    # A line of a list that was cut says who knows what.
    if isinstance(cut, dict) and cut and isinstance(last := cut[list(cut)[-1]], list) and last:
        last.pop()
    return cut


@cache
def _class() -> Any:
    from langchain_core.exceptions import OutputParserException
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.runnables import RunnableLambda
    from langchain_core.utils.function_calling import convert_to_json_schema
    from pydantic import SkipValidation, ValidationError

    class RoleChatModel(BaseChatModel):
        """See `chat_model`."""

        llm: SkipValidation[Any]
        job: Job
        max_tokens: int = 256
        temperature: float = 0.0

        @property
        def _llm_type(self) -> str:
            return "colloquy"

        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            raise NotImplementedError("this model can only be awaited")

        async def _agenerate(
            self, messages: list[BaseMessage], stop: list[str] | None = None, *args: Any, **kwargs: Any
        ) -> ChatResult:
            options = LlmOptions(
                max_tokens=kwargs.get("max_tokens", self.max_tokens),
                temperature=kwargs.get("temperature", self.temperature),
                json_schema=kwargs.get("json_schema"),
                stop=tuple(stop or ()),
            )
            written, end = [], LlmEnd("stop")
            async with aclosing(self.llm.reply(_ours(messages), options, self.job)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        written.append(piece)
                    elif isinstance(piece, LlmEnd):
                        end = piece
            message = AIMessage("".join(written), response_metadata={"finish_reason": end.reason})
            return ChatResult(generations=[ChatGeneration(message=message)])

        def with_structured_output(
            self, schema: Any, *, method: str = "json_schema", include_raw: bool = False, **kwargs: Any
        ) -> Any:
            """Answers as `schema`, a pydantic model: held to its JSON Schema, or with `method="json_mode"`
            to JSON of any form. What it cannot take is `OutputParserException`."""
            wanted = convert_to_json_schema(schema) if method == "json_schema" else {}

            def read(message: AIMessage) -> Any:
                try:
                    return schema.model_validate(parsed(message.text))
                except ValidationError as error:
                    raise OutputParserException("the answer is not of the form asked for") from error

            return self.bind(json_schema=wanted, **kwargs) | RunnableLambda(read)

    return RoleChatModel


def _ours(messages: Sequence[BaseMessage]) -> list[ChatMessage]:
    return [ChatMessage(_ROLES[m.type], m.text) for m in messages]
