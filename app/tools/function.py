"""Python functions as tools: what a language model is told of one, and how it is called with what the
model wrote."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from app.roles import Misconfigured, Tool
from app.tools import Caller

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the APIs of language models take for a name."""
_ANY = TypeAdapter(Any)
_MOST_THREADS = 64
_threads = threading.BoundedSemaphore(_MOST_THREADS)


class Unusable(Exception):
    """A call that cannot be made; its message is for the language model."""


class PythonFunction:
    """`tool` is what a language model is told."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises `Misconfigured` for what no schema can be made of."""
        self._function = function
        self._caller: str | None = None
        # By the model's field: fields have names of their own, since some are not free ("json", "_x").
        self._parameters: dict[str, str] = {}
        name = getattr(function, "__name__", "")
        where = f"TOOLS: {getattr(function, '__module__', '')}.{name}"
        description = inspect.getdoc(function) or ""
        if not NAME.fullmatch(name):
            raise Misconfigured(f"{where}: a function needs a name of at most 64 plain characters")
        if not description:
            raise Misconfigured(f"{where} needs a docstring: it tells the language model what it is for")
        try:
            hints = get_type_hints(function, include_extras=True)
            self._model = self._model_of(inspect.signature(function), hints, where)
            schema = self._model.model_json_schema(by_alias=True)
        except (NameError, TypeError, ValueError, PydanticUserError) as error:
            raise Misconfigured(f"{where}: no schema can be made of its signature: {error}") from error
        self.tool = Tool(name, description, _without_titles(schema))

    def _model_of(self, signature: inspect.Signature, hints: dict[str, Any], where: str) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for parameter in signature.parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise Misconfigured(f"{where}: {parameter} cannot be filled by name")
            if parameter.name not in hints:
                raise Misconfigured(f"{where}: the parameter {parameter.name} needs a type")
            hint = hints[parameter.name]
            if hint is Caller or (get_origin(hint) is Annotated and get_args(hint)[0] is Caller):
                self._caller = parameter.name
                continue
            field = f"p{len(fields)}"
            self._parameters[field] = parameter.name
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[field] = Annotated[hint, Field(alias=parameter.name)], default
        # What a model makes up beside them does no harm.
        return create_model("Arguments", __config__=ConfigDict(extra="ignore"), **fields)

    async def call(self, arguments: str, caller: Caller) -> Any:
        """Call it with JSON text; cancelling is heard by coroutines only. Raises `Unusable`, and what it
        raises."""
        try:
            given = self._model.model_validate_json(arguments or "{}")
        except ValidationError as error:
            raise Unusable(_told(error)) from error
        filled = {name: getattr(given, field) for field, name in self._parameters.items()}
        if self._caller is not None:
            filled[self._caller] = caller
        if inspect.iscoroutinefunction(self._function):
            return await self._function(**filled)
        return await _in_thread(lambda: self._function(**filled))


def text_of(value: Any) -> str:
    """A result as text: a text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "done" if value is None else _ANY.dump_json(value, fallback=str).decode()


async def _in_thread(work: Callable[[], Any]) -> Any:
    """On a thread of its own, which nothing waits for: one that hangs must hold up neither other work nor
    the server's end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def tell(value: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((value, error))

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(work)
        except BaseException as raised:  # noqa: BLE001
            # `sys.exit` there must not end the server.
            error = raised if isinstance(raised, Exception) else RuntimeError(f"{raised!r}")
        finally:
            _threads.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, value, error)

    if not _threads.acquire(blocking=False):
        raise Unusable(f"{_MOST_THREADS} functions are still running; try again later")
    threading.Thread(target=run, name="tool", daemon=True).start()
    value, error = await ended
    if error is not None:
        raise error
    return value


def _told(error: ValidationError) -> str:
    """What is wrong with the arguments, for a model that may write them again."""
    wrong = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in one["loc"])
        wrong.append(f"{place}: {one['msg']}" if place else one["msg"])
    return f"the arguments do not fit: {'; '.join(wrong)}"


def _without_titles(schema: Any, names: bool = False) -> Any:
    """Without the titles that are made of names: they only cost tokens. `names`: its keys are names."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value, not names and key in ("properties", "$defs"))
        if key not in ("default", "enum", "const", "examples") or names
        else value
        for key, value in schema.items()
        if names or key != "title"
    }
