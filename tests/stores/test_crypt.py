"""Seals: who has not the key reads nothing, and nothing can stand in for anything else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.roles import Misconfigured
from app.stores.crypt import (
    Cipher,
    MasterKeys,
    SealedKey,
    Unreadable,
    UserKeys,
    load_master_keys,
    new_key,
)

KEY = bytes(range(32))
CIPHER = Cipher(KEY)


class Shelf:
    """A `KeyStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, SealedKey] = {}

    async def key(self, owner: str) -> SealedKey | None:
        return self.kept.get(owner)

    async def add_key(self, owner: str, key: SealedKey) -> SealedKey:
        return self.kept.setdefault(owner, key)

    async def replace_key(self, owner: str, key: SealedKey) -> None:
        self.kept[owner] = key

    async def destroy_key(self, owner: str) -> bool:
        return self.kept.pop(owner, None) is not None

    async def keys(self) -> list[tuple[str, SealedKey]]:
        return sorted(self.kept.items())


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_is_sealed_can_be_opened(data: bytes, about: str) -> None:
    sealed = CIPHER.seal(data, about)
    assert CIPHER.open(sealed, about) == data
    assert len(data) < 8 or data not in sealed
    assert sealed != CIPHER.seal(data, about), "the same twice would tell that it is the same"


@given(st.text(max_size=100))
def test_text_too(text: str) -> None:
    sealed = CIPHER.seal_text(text, "t")
    assert CIPHER.open_text(sealed, "t") == text.replace("\0", "\ufffd"), "no database takes NUL"
    assert sealed.isascii()


def test_old_text_without_a_seal_comes_back_as_it_is() -> None:
    assert CIPHER.open_text("as it was", "t") == "as it was"


@given(st.integers(0, 60), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, change: int) -> None:
    sealed = bytearray(CIPHER.seal(b"0123456789" * 4, "a"))
    sealed[at % len(sealed)] ^= change
    with pytest.raises(Unreadable):
        CIPHER.open(bytes(sealed), "a")


@pytest.mark.parametrize("cut", [0, 1, 12, 28])
def test_a_piece_is_nothing(cut: int) -> None:
    with pytest.raises(Unreadable):
        CIPHER.open(CIPHER.seal(b"something", "a")[:cut], "a")


def test_it_opens_only_with_its_key_and_as_what_it_is() -> None:
    sealed = CIPHER.seal(b"mine", "object ann a.wav")
    with pytest.raises(Unreadable):
        CIPHER.open(sealed, "object bob a.wav")
    with pytest.raises(Unreadable):
        Cipher(os.urandom(32)).open(sealed, "object ann a.wav")


def test_turned_vectors_are_as_near_to_each_other_and_say_nothing() -> None:
    rng = np.random.default_rng(5)
    made = rng.standard_normal((40, 384)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    turned = np.stack([CIPHER.turn(v) for v in made])
    assert np.abs(turned @ turned.T - made @ made.T).max() < 1e-4
    assert np.abs((turned * made).sum(axis=1)).max() < 0.3, (
        "a vector and its turned one have nothing in common"
    )
    assert np.allclose(CIPHER.turn(turned[0], back=True), made[0], atol=1e-5)
    assert np.array_equal(Cipher(KEY).turn(made[1]), turned[1]), "the same in another process"
    assert abs(float(Cipher(os.urandom(32)).turn(made[0]) @ turned[0])) < 0.3


async def test_each_user_has_a_key_and_nobody_opens_anothers() -> None:
    keys = UserKeys(MasterKeys([KEY]), Shelf())
    ann, bob = await keys.cipher("ann"), await keys.cipher("bob")
    sealed = ann.seal(b"mine", "a")
    with pytest.raises(Unreadable):
        bob.open(sealed, "a")
    assert await keys.cipher("ann") is ann


async def test_a_destroyed_key_takes_everything_with_it() -> None:
    shelf = Shelf()
    keys = UserKeys(MasterKeys([KEY]), shelf)
    sealed = (await keys.cipher("ann")).seal(b"mine", "a")
    assert await keys.destroy("ann") and not await keys.destroy("ann")
    again = await keys.cipher("ann")
    with pytest.raises(Unreadable):
        again.open(sealed, "a")


async def test_a_new_master_key_seals_and_the_old_one_still_opens() -> None:
    shelf, new = Shelf(), os.urandom(32)
    sealed = (await UserKeys(MasterKeys([KEY]), shelf).cipher("ann")).seal(b"mine", "a")
    both = UserKeys(MasterKeys([new, KEY]), shelf)
    await both.check()
    assert (await both.cipher("ann")).open(sealed, "a") == b"mine"
    await both.cipher("bob")
    assert await both.rotate() == 1 and await both.rotate() == 0
    only_new = UserKeys(MasterKeys([new]), shelf)
    await only_new.check()
    assert (await only_new.cipher("ann")).open(sealed, "a") == b"mine"
    with pytest.raises(Misconfigured, match="MASTER_KEYS"):
        await UserKeys(MasterKeys([KEY]), shelf).check()


async def test_a_sealed_key_is_its_owners() -> None:
    shelf = Shelf()
    keys = UserKeys(MasterKeys([KEY]), shelf)
    await keys.cipher("ann")
    shelf.kept["bob"] = shelf.kept["ann"]
    with pytest.raises(Unreadable):
        await keys.cipher("bob")


def test_the_master_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "config" / "master.key"
    made = load_master_keys([], path)
    assert load_master_keys([], path).name == made.name
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_master_keys([path.read_text()], tmp_path / "none").name == made.name


@pytest.mark.parametrize("given", ["", "not base64!", "c2hvcnQ="])
def test_what_is_no_key_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="colloquy keys new"):
        load_master_keys([given], tmp_path / "master.key")


def test_new_keys_are_keys() -> None:
    assert len(load_master_keys([new_key(), new_key()], Path("none")).names) == 2
