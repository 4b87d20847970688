"""What a language model says of a conversation, as far as it is of use."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from pydantic import ValidationError

from app.insights.chat_model import parsed
from app.insights.made import CATEGORIES, NOTHING, Made

GOOD = {
    "title": "Lunch on Friday",
    "overview": "They agree to have lunch.",
    "emoji": "🍜",
    "category": "social",
    "action_items": ["Book a table"],
    "events": [{"title": "Lunch", "description": "At noon", "start": "2026-11-20T12:00:00+01:00"}],
    "memories": ["The user likes noodles"],
}


def cleaned(**changes: Any) -> Made:
    return Made.model_validate(GOOD | changes)


def test_what_is_good_stays() -> None:
    made = cleaned()
    assert json.loads(made.model_dump_json()) == GOOD
    stored = made.stored("whatever they said")
    assert stored["events"] == [{**GOOD["events"][0], "duration": 30, "created": False}]  # type: ignore[index]
    assert {"title", "overview", "emoji", "category"} <= set(stored)


@pytest.mark.parametrize(
    ("field", "said", "kept"),
    [
        ("title", "one two three four five six seven eight nine ten eleven,", None),
        ("title", 7, ""),
        ("title", " Lunch\n on  Friday ", "Lunch on Friday"),
        ("title", "…", ""),
        ("title", "x" * 500, "x" * 100),
        ("overview", ["They", "talk"], ""),
        ("overview", "A sentence. " * 100, "A sentence. " * 83 + "A"),
        ("emoji", "Noodles 🍜🍲", "🍜"),
        ("emoji", "👩🏽‍💻", "👩🏽‍💻"),
        ("emoji", "🇫🇷🇩🇪", "🇫🇷"),
        ("emoji", "❤️", "❤️"),
        ("emoji", "面条", ""),
        ("emoji", ":)", ""),
        ("emoji", None, ""),
        ("category", " Social ", "social"),
        ("category", "gossip", "other"),
        ("category", ["social"], "other"),
        ("action_items", ["a", 3, None, "", "a", {"description": "b"}, ["c"], "x" * 301, "…"], ["a", "b"]),
        ("action_items", "Book a table", []),
        ("action_items", [f"Do {n}" for n in range(30)], [f"Do {n}" for n in range(10)]),
        ("memories", [f"Fact {n}" for n in range(30)], [f"Fact {n}" for n in range(4)]),
        ("memories", {"0": "a"}, []),
        ("events", [{"title": "Lunch", "start": "soon"}, 5, {"start": "2026-11-20"}, {"title": 4}], []),
        ("events", None, []),
    ],
)
def test_nonsense_in_a_field_costs_no_other(field: str, said: Any, kept: Any) -> None:
    made = json.loads(cleaned(**{field: said}).model_dump_json())
    if field == "overview" and kept:
        kept = ("A sentence. " * 83).strip()
    if kept is None:
        kept = "one two three four five six seven eight nine ten"
    assert made.pop(field) == kept
    assert made == {name: value for name, value in GOOD.items() if name != field}


def test_a_time_without_a_zone_is_utc() -> None:
    (event,) = cleaned(events=[{"title": "Lunch", "start": "2026-11-20T12:00", "place": "?"}]).events
    assert event.start == "2026-11-20T12:00:00+00:00" and event.description == ""


@pytest.mark.parametrize(
    "said", [[], 7, "text", None, {}, {"title": "!"}, {"category": "work", "emoji": "🍜"}]
)
def test_what_says_nothing_is_nothing(said: Any) -> None:
    with pytest.raises(ValidationError):
        Made.model_validate(said)
    assert NOTHING.stored("how it begins")["title"] == "how it begins"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=400),
    lambda inner: (
        st.lists(inner, max_size=12) | st.dictionaries(st.sampled_from([*GOOD, "start", "x"]), inner)
    ),
    max_leaves=30,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(list(GOOD)), VALUES))
def test_whatever_is_said_has_the_form_in_the_end(said: dict[str, Any]) -> None:
    try:
        made = Made.model_validate(said)
    except ValidationError:
        return
    assert len(made.title.split()) <= 10 and len(made.title) <= 100
    assert made.category in CATEGORIES
    assert len(made.emoji) <= 20
    assert len(made.action_items) <= 10 and len(made.memories) <= 4 and len(made.events) <= 5
    assert all(line.strip() for line in [*made.action_items, *made.memories])
    for event in made.stored("text")["events"]:
        assert datetime.fromisoformat(event["start"]).tzinfo is not None and event["title"]
    json.dumps(made.stored("text"))


def test_json_is_found_in_what_is_around_it() -> None:
    text = json.dumps(GOOD)
    for around in (text, f"```json\n{text}\n```", f"Here you are:\n{text}\nIs there anything else?"):
        assert parsed(around) == GOOD


def test_of_an_answer_that_was_cut_what_is_whole_is_kept() -> None:
    text = json.dumps(GOOD | {"action_items": ["Book a table", "Call Maria"]})
    assert parsed(text[: text.index("Maria") + 3])["action_items"] == ["Book a table"]
    for length in range(2, len(text)):
        got = parsed(text[:length])
        assert isinstance(got, dict)
        if got:
            assert GOOD["title"].startswith(got.get("title", ""))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[1, 2]", "{" * 4000, "{" * 100_000, '{"a": ' + "[" * 200_000]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(OutputParserException):
        parsed(text)
