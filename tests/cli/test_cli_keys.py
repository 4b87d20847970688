"""`colloquy keys`: a new master key, which there are, and a change of keys with data."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

from command import Command

from app.stores.crypt import UserKeys, key_name, load_master_keys
from app.stores.database import sqlite_url
from app.stores.spool import Entry, Spool
from app.stores.sql import open_conversations
from app.stores.sql_keys import SqlKeys


def name_of(key: str) -> str:
    return key_name(base64.b64decode(key))


async def sealed(folder: Path, *given: str, opens: bytes | None = None) -> bytes:
    """Something of Ann's, sealed in the database of `folder`; with `opens` that is opened instead."""
    store = await open_conversations(sqlite_url(folder / "colloquy.db"))
    keys = UserKeys(load_master_keys(given, folder / "none"), SqlKeys(store.engine))
    cipher = await keys.cipher("ann")
    done = cipher.open(opens, "note") if opens else cipher.seal(b"hello", "note")
    await store.close()
    return done


def test_keys_are_changed(colloquy: Command, tmp_path: Path) -> None:
    old, new = (colloquy("keys", "new").stdout.strip() for _ in range(2))
    assert old != new and len(base64.b64decode(old)) == 32
    data = Path(colloquy.settings["DATA_DIR"])
    note = asyncio.run(sealed(data, old))
    waiting = Spool(data / "spool", load_master_keys([old], data / "none").derived("spool"), 1000)
    waiting.open()
    path = waiting.write(Entry("turn", "ann", "x", {}))

    listed = colloquy("keys", "list", MASTER_KEYS=json.dumps([new, old]))
    assert listed.returncode == 0, listed.stderr
    words = [name_of(new), *"seals and opens 0 users".split(), name_of(old), *"opens 1 users".split()]
    assert listed.stdout.split() == words
    gone = colloquy("keys", "list", MASTER_KEYS=json.dumps([new]))
    assert gone.returncode == 1 and f"{name_of(old)}  MISSING" in gone.stdout
    refused = colloquy("keys", "rotate", MASTER_KEYS=json.dumps([new]))
    assert refused.returncode == 2 and name_of(old) in refused.stderr

    turned = colloquy("keys", "rotate", MASTER_KEYS=json.dumps([new, old]))
    assert turned.returncode == 0 and turned.stdout.startswith(
        f"1 users' keys are sealed with {name_of(new)}"
    )
    assert f"Nothing needs {name_of(old)} any more" in turned.stdout
    assert new not in turned.stdout and old not in turned.stdout
    assert colloquy("keys", "list", MASTER_KEYS=json.dumps([new])).returncode == 0
    assert asyncio.run(sealed(data, new, opens=note)) == b"hello"
    both = Spool(data / "spool", load_master_keys([new, old], data / "none").derived("spool"), 1000)
    assert both.read(path).id == "x", "what waited from before is stored, too"
    waiting.close()


def test_the_file_may_have_several_keys(colloquy: Command, tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    old, new = (colloquy("keys", "new").stdout.strip() for _ in range(2))
    file.write_text(old)
    only = colloquy("keys", "rotate", MASTER_KEY_FILE=str(file))
    assert only.stdout.startswith("0 users' keys") and "There is one master key only" in only.stdout
    file.write_text(f"{new}\n{old}\n")
    listed = colloquy("keys", "list", MASTER_KEY_FILE=str(file))
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [name_of(new), name_of(old)]
