"""What a language model is told of a Python function, and how it is called with what the model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from tools import sample_tools

from app.roles import Misconfigured
from app.tools import Caller
from app.tools.builtin import now
from app.tools.function import PythonFunction, Unusable, text_of

CALLER = Caller("ann", "s1")
BOOK = {"place": {"city": "Rome"}, "size": "l", "days": ["2026-01-05"]}


def test_the_schema_says_what_the_signature_says() -> None:
    tool = PythonFunction(sample_tools.book).tool
    assert tool.name == "book"
    assert tool.description == "Book a room.\n\nOnly after the person has agreed to it."
    assert tool.parameters == {
        "type": "object",
        "$defs": {
            "Place": {
                "type": "object",
                "description": "Somewhere.",
                "properties": {
                    "city": {"type": "string"},
                    "country": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                    "title": {"type": "string", "default": "plain"},
                },
                "required": ["city"],
            },
            "Size": {"enum": ["s", "l"], "type": "string"},
        },
        "properties": {
            "place": {"$ref": "#/$defs/Place"},
            "size": {"$ref": "#/$defs/Size"},
            "days": {
                "type": "array",
                "items": {"type": "string", "format": "date"},
                "minItems": 1,
                "description": "which days",
            },
            "board": {"type": "string", "enum": ["half", "full"], "default": "half"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "json": {"type": "boolean", "default": False},
        },
        "required": ["place", "size", "days"],
    }


async def test_what_a_model_writes_becomes_what_the_function_takes() -> None:
    book = PythonFunction(sample_tools.book)
    given = BOOK | {"note": "by the sea", "json": True, "made_up": 1}
    result = await book.call(json.dumps(given), CALLER)
    assert json.loads(text_of(result)) == {
        "city": "Rome",
        "size": "l",
        "days": ["2026-01-05"],
        "board": "half",
        "note": "by the sea",
        "json": True,
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (json.dumps(BOOK | {"board": "none"}), "board: Input should be 'half' or 'full'"),
        (json.dumps(BOOK | {"place": {"town": "Rome"}}), "place.city: Field required"),
        (json.dumps(BOOK | {"days": []}), "days: List should have at least 1 item"),
        ("{}", "place: Field required; size: Field required"),
        ('{"place": ', "Invalid JSON"),
        ("[1]", "Input should be an object"),
    ],
)
async def test_a_model_is_told_what_does_not_fit(arguments: str, told: str) -> None:
    with pytest.raises(Unusable, match="the arguments do not fit") as error:
        await PythonFunction(sample_tools.book).call(arguments, CALLER)
    assert told in str(error.value)


async def test_who_calls_is_known_to_the_function_only() -> None:
    whose = PythonFunction(sample_tools.whose)
    assert whose.tool.parameters["properties"] == {"thing": {"type": "string"}}
    made_up = '{"thing": "hat", "caller": {"owner": "bob", "session_id": "s2"}}'
    assert await whose.call(made_up, CALLER) == "hat of ann in s1"


async def test_a_function_that_takes_nothing_and_one_on_a_thread() -> None:
    thread = PythonFunction(sample_tools.thread)
    assert thread.tool.parameters == {"type": "object", "properties": {}}
    assert await thread.call("", CALLER) == await thread.call("{}", CALLER) == "tool"


def _no_docstring(a: int) -> None: ...


def _no_type(a) -> None:  # type: ignore[no-untyped-def]
    """Text."""


def _any_number(*a: int) -> None:
    """Text."""


def _unknown(a: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Text."""


def _no_schema(a: Callable[[], int], b: object = ...) -> None:
    """Text."""


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (_no_docstring, "docstring"),
        (_no_type, "parameter a needs a type"),
        (_any_number, "cannot be filled by name"),
        (_unknown, "Nowhere"),
        (_no_schema, "no schema"),
        (lambda: None, "a name"),
    ],
)
def test_what_no_schema_can_be_made_of_is_refused(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        PythonFunction(function)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "done"),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        (1.5, "1.5"),
        ({3j}, '["3j"]'),
    ],
)
def test_results_become_text(value: object, text: str) -> None:
    assert text_of(value) == text


def test_the_time_is_told_for_any_zone() -> None:
    assert f"{datetime.now():%Y}" in now() or f"{datetime.now().year}" in now()
    assert now("Asia/Shanghai").endswith("(Asia/Shanghai)")
    for unknown in ("Mars/Olympus", "../../etc/passwd", ""):
        if unknown:
            with pytest.raises(ValueError, match="no time zone"):
                now(unknown)
        else:
            assert now(unknown)
