"""Suggests to the app who a voice may be: somebody nearly recognised, or who said their name."""

from __future__ import annotations

import logging
from collections.abc import Callable

from app.api.wearable.segments import Json
from app.dialogue.events import Named
from app.dialogue.names import name_said
from app.dialogue.who import Who
from app.roles import ColloquyError
from app.stores.diary import Diary

log = logging.getLogger(__name__)

_MOST = 1000


class Introductions:
    """Those of one connection; each name once for a voice, whatever connection it was on."""

    def __init__(self, around: Who, diary: Diary, owner: str, tell: Callable[[Json], None]) -> None:
        self._around, self._diary, self._owner, self._tell = around, diary, owner, tell
        self._said: list[tuple[int, str, str]] = []

    def said(self, number: int, text: str, segment_id: str) -> None:
        """A voice that nobody knows said this, which is in that segment."""
        self._said.append((number, text, segment_id))

    async def suggest(self) -> None:
        """Suggest who it is, of what was said since the last time."""
        said, self._said = self._said, []
        for number, text, segment_id in said:
            perhaps = self._around.perhaps(number)
            name = perhaps.name if perhaps is not None else name_said(text)
            if name is None or (number, name) in self._around.suggested:
                continue
            if len(self._around.suggested) < _MOST:
                self._around.suggested.add((number, name))
            person = perhaps or await self._called(name)
            told = {"speaker_id": number, "person_id": person.id, "person_name": person.name}
            self._tell({"type": "speaker_label_suggestion", **told, "segment_id": segment_id})

    async def _called(self, name: str) -> Named:
        """Who of the user's people has that name; somebody new has no id."""
        try:
            for person in await self._diary.people(self._owner):
                if person.name.casefold() == name.casefold():
                    return Named(person.id, person.name)
        except ColloquyError as error:
            log.warning("who has a name was not looked up: %s", error.message)
        return Named("", name)
