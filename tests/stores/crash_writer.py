"""Writes without end and prints the id of each write once it is acknowledged; to be killed.

`python crash_writer.py turns URL` or `python crash_writer.py objects FOLDER`.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from store_records import a_session, spoken

from app.stores.folder import open_folder
from app.stores.sql import open_conversations


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def turns(url: str) -> None:
    store = await open_conversations(url)
    session = a_session()
    await store.add_session(session)
    say(session.id)
    for number in count(1):
        turn = spoken(session.id, number, transcript=f"number {number} " * 200)
        await store.add_turn(turn)
        say(turn.id)


async def objects(folder: str) -> None:
    store = await open_folder(Path(folder))
    for number in count():
        # Old keys are replaced too, by as many other bytes.
        key = f"a/{number % 7}/{number % 20}.wav"
        await store.put(key, content(number))
        say(f"{key} {number}")


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 50_000


if __name__ == "__main__":
    asyncio.run({"turns": turns, "objects": objects}[sys.argv[1]](sys.argv[2]))
