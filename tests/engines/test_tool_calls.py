"""Calls in what a model writes, however it is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engines.tool_calls import CallReader, call_schema
from app.roles import Tool, ToolCallPiece

TOOLS = (Tool("get_weather"), Tool("get_time"))
PARIS = '{"city": "Paris {[\\"]}"}'
CALL = f'{{"name": "get_weather", "arguments": {PARIS}}}'
TAGGED = f"<tool_call>\n{CALL}\n</tool_call>"

Found = tuple[str, list[tuple[str, str]]]


def read(*pieces: str) -> Found:
    """The text, and the name and arguments of every call."""
    reader = CallReader(TOOLS)
    found = []
    for piece in pieces:
        found += reader.feed(piece)
    found += reader.finish()
    calls: list[tuple[str, str]] = []
    for part in found:
        if isinstance(part, ToolCallPiece):
            if part.index == len(calls):
                assert part.id
                calls.append((part.name, part.arguments))
            else:
                assert part.index == len(calls) - 1
                calls[-1] = calls[-1][0], calls[-1][1] + part.arguments
    assert reader.calls == len(calls)
    return "".join(part for part in found if isinstance(part, str)), calls


WRITTEN: list[tuple[str, Found]] = [
    (CALL, ("", [("get_weather", PARIS)])),
    (f"{CALL}\n{CALL}\n{CALL}", ("", [("get_weather", PARIS)])),
    (f"```json\n{CALL}\n```", ("", [("get_weather", PARIS)])),
    (f"Let me see.\n\n{TAGGED}", ("Let me see.", [("get_weather", PARIS)])),
    (
        f'{TAGGED}\n<tool_call>{{"name":"get_time","arguments":{{}}}}</tool_call>',
        ("", [("get_weather", PARIS), ("get_time", "{}")]),
    ),
    (
        '{\n  "name": "get_time",\n  "parameters": {\n    "a": [{}]\n  }\n}',
        ("", [("get_time", '{\n    "a": [{}]\n  }')]),
    ),
    ('{"name": "get_time"}', ("", [("get_time", "{}")])),
    # What is no call stays text.
    ("\n\n Two < three, and {this} too.\n", ("Two < three, and {this} too.", [])),
    ('{"name": "Ann", "age": 30}', ('{"name": "Ann", "age": 30}', [])),
    ('{"name": "get_rain", "arguments": {}}', ('{"name": "get_rain", "arguments": {}}', [])),
    ('{"name": "get_time", "arguments": null}', ('{"name": "get_time", "arguments": null}', [])),
    ("```python\nprint(1)\n```", ("```python\nprint(1)\n```", [])),
    ('Here: {"name": "get_w', ('Here: {"name": "get_w', [])),
    ("", ("", [])),
    # Cut off, and not JSON: told as it was written.
    ('{"name": "get_time", "arguments": {"a": ', ("", [("get_time", '{"a": ')])),
    ('{"name": "get_time", "arguments": {a: \'b\'}}', ("", [("get_time", "{a: 'b'}")])),
]


@pytest.mark.parametrize(("written", "found"), WRITTEN)
def test_calls_are_told_from_text(written: str, found: Found) -> None:
    assert read(written) == found
    assert read(*written) == found, "letter by letter"


@given(st.sampled_from(WRITTEN), st.lists(st.integers(0, 120)))
def test_how_it_is_cut_does_not_matter(case: tuple[str, Found], cuts: list[int]) -> None:
    written, found = case
    places = [0, *sorted(cut for cut in cuts if cut < len(written)), len(written)]
    assert read(*(written[a:b] for a, b in pairwise(places))) == found


@given(st.text('{}<>`"\\\\: nameargutoolcl_/\n[]', max_size=60))
def test_nothing_is_lost_of_text(written: str) -> None:
    text, calls = read(written)
    assert not calls and text == written.strip()


def test_text_is_not_held_up() -> None:
    reader = CallReader(TOOLS)
    assert reader.feed("It is") == ["It is"]
    assert "".join(map(str, reader.feed(" {warm} <"))) == " {warm}"
    assert "".join(map(str, reader.feed("b> today"))) == " <b> today"


def test_what_a_schema_refers_to_is_put_in_its_place() -> None:
    """As pydantic writes nested models; one that contains itself is left open there."""
    person = {"type": "object", "properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/P"}}}
    parameters = {"properties": {"who": {"$ref": "#/$defs/P"}}, "$defs": {"P": person}}
    [call] = call_schema([Tool("greet", parameters=parameters)])["anyOf"]
    who = call["properties"]["arguments"]["properties"]["who"]
    assert who["properties"] == {"name": {"type": "string"}, "friend": {}}
    assert "$defs" not in str(call) and "$ref" not in str(call)
