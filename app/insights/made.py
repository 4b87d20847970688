"""The form of what is made of a conversation, and how nonsense is taken out of it.

Models that are held to a JSON Schema keep the form, not the sense; others do not even keep the form. So each
field is cleaned on its own, and one that is nonsense never costs the others.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.dialogue.agreement import join_words, split_words

CATEGORIES = (
    "personal education health finance legal philosophy spiritual science entrepreneurship parenting "
    "romantic travel inspiration technology business social work sports politics literature history "
    "architecture music weather news entertainment psychology design family economics environment other"
).split()

_TITLE_WORDS, _TITLE_LENGTH = 10, 100
_OVERVIEW_LENGTH = 1000
_LINE_LENGTH = 300
_MOST_ITEMS, _MOST_EVENTS, _MOST_MEMORIES = 10, 5, 4
_PICTURE = (
    "[\U0001f000-\U0001faff\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\u3030\u303d\u3297\u3299]"
    "[\ufe0f\U0001f3fb-\U0001f3ff]*"
)
_EMOJI = re.compile(f"[\U0001f1e6-\U0001f1ff]{{2}}|{_PICTURE}(?:\u200d{_PICTURE}){{0,4}}")
_SENTENCE_END = re.compile(r"[.!?。！？]")


def short(text: str) -> str:
    """The first words of a text, as a title."""
    words = join_words(split_words(text)[:_TITLE_WORDS])
    return words[:_TITLE_LENGTH].rstrip(" ,;:，；：")


def _text(value: Any) -> str:
    """A line of text; what is none is empty."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _words(value: Any) -> str:
    """The same; signs alone say nothing."""
    text = _text(value)
    return text if any(c.isalnum() for c in text) else ""


def _title(value: Any) -> str:
    return short(_words(value))


def _overview(value: Any) -> str:
    """Whole sentences, if it is too long."""
    text = _words(value)
    if len(text) <= _OVERVIEW_LENGTH:
        return text
    text = text[:_OVERVIEW_LENGTH]
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text.rsplit(" ", 1)[0]


def _emoji(value: Any) -> str:
    """The first emoji in it; empty if there is none."""
    found = _EMOJI.search(_text(value))
    return found[0] if found else ""


def _category(value: Any) -> str:
    named = _text(value).lower()
    return named if named in CATEGORIES else "other"


def _lines(value: Any, most: int) -> list[str]:
    """Texts of a list, each once. Models that were not held to the form wrap each in an object."""
    found: dict[str, None] = {}
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            item = next((item[key] for key in ("description", "content", "text") if key in item), None)
        # What is so long is no task and no fact.
        if (line := _words(item)) and len(line) <= _LINE_LENGTH:
            found[line] = None
    return list(found)[:most]


def _start(value: Any) -> str:
    """An ISO 8601 time with a zone; the conversation's own times are told in UTC."""
    start = datetime.fromisoformat(_text(value))
    return (start if start.tzinfo is not None else start.replace(tzinfo=UTC)).isoformat()


class Meeting(BaseModel):
    """An appointment that was agreed on."""

    model_config = ConfigDict(extra="forbid")
    title: str = Field(min_length=1)
    description: str
    start: Annotated[str, Field(description="ISO 8601")]

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, given: Any) -> dict[str, str]:
        given = given if isinstance(given, dict) else {}
        lines = {name: _words(given.get(name))[:_LINE_LENGTH] for name in ("title", "description")}
        return {**lines, "start": _start(given.get("start"))}


def _meetings(value: Any) -> list[Meeting]:
    """Those that have a title and a time."""
    found = []
    for item in value if isinstance(value, list) else ():
        try:
            found.append(Meeting.model_validate(item))
        except ValueError:
            continue
    return found[:_MOST_EVENTS]


class Made(BaseModel):
    """What is made of a conversation. What is of no use is left out; if nothing stays, it is invalid."""

    model_config = ConfigDict(extra="forbid")
    title: Annotated[str, BeforeValidator(_title)]
    overview: Annotated[str, BeforeValidator(_overview)]
    emoji: Annotated[str, BeforeValidator(_emoji)]
    category: Annotated[str, BeforeValidator(_category), Field(json_schema_extra={"enum": [*CATEGORIES]})]
    action_items: Annotated[
        list[str], BeforeValidator(lambda v: _lines(v, _MOST_ITEMS)), Field(max_length=_MOST_ITEMS)
    ]
    events: Annotated[list[Meeting], BeforeValidator(_meetings), Field(max_length=_MOST_EVENTS)]
    memories: Annotated[
        list[str], BeforeValidator(lambda v: _lines(v, _MOST_MEMORIES)), Field(max_length=_MOST_MEMORIES)
    ]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise ValueError("no object")
        return {name: given.get(name) for name in cls.model_fields}

    @model_validator(mode="after")
    def _says_something(self) -> Made:
        if not (self.title or self.overview or self.action_items or self.events or self.memories):
            raise ValueError("it says nothing")
        return self

    def stored(self, text: str) -> dict[str, Any]:
        """As it is kept with a conversation whose words are `text`, without its action items."""
        kept: dict[str, Any] = {
            "title": self.title or short(text),
            "overview": self.overview,
            "category": self.category,
            "events": [{**event.model_dump(), "duration": 30, "created": False} for event in self.events],
        }
        return kept | ({"emoji": self.emoji} if self.emoji else {})


NOTHING = Made.model_construct(
    title="", overview="", emoji="", category="other", action_items=[], events=[], memories=[]
)
"""What is made of a conversation of which nothing could be made."""
