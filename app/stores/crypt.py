"""What lies on disks is sealed: AES-256-GCM (NIST SP 800-38D), with a key for each user.

A user's key is random and kept sealed under the operator's master key. Who has the data but not the master
key can read nothing; when a user's key is destroyed, nobody can read what was theirs, in no backup either.
What a sealed value is about (whose it is, and which) is part of the seal, so that no value can stand in for
another.

Sealed bytes: 0x01, a nonce of 12 bytes, the ciphertext with its tag of 16 bytes. Sealed text: "enc1:" and the
same in base64url.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.roles import ColloquyError, Misconfigured, Vector

_VERSION = b"\x01"
_NONCE = 12
_TEXT = "enc1:"
_KEY = 32
_NEVER = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
"""Half a pair of UTF-16 is no text; a language model may write it all the same."""
_CACHED = 2000
_CACHED_S = 60.0
"""A key that another process destroyed is not used for longer."""


class Unreadable(ColloquyError):
    """Sealed data cannot be opened: the key is another one, or it was changed."""

    code = "UNREADABLE"
    http_status = 500


class Cipher:
    """Seals and opens with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != _KEY:
            raise ValueError("a key has 32 bytes")
        self._key = key
        self._aes = AESGCM(key)

    def seal(self, data: bytes, about: str) -> bytes:
        """`data`, which is `about` that, sealed."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._aes.encrypt(nonce, data, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was sealed. `Unreadable` if it was not with this key, or is about something else."""
        from cryptography.exceptions import InvalidTag

        if sealed[:1] != _VERSION:
            raise Unreadable("what is stored is not sealed as it should be")
        try:
            return self._aes.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], about.encode())
        except (InvalidTag, ValueError) as error:
            raise Unreadable(
                "what is stored cannot be opened: it was changed, or is another user's"
            ) from error

    def seal_text(self, text: str, about: str) -> str:
        """`text` sealed; an empty one stays empty."""
        if not text:
            return ""
        data = (text if text.isascii() else text.translate(_NEVER)).replace("\0", "\ufffd").encode()
        return _TEXT + base64.urlsafe_b64encode(self.seal(data, about)).decode()

    def open_text(self, sealed: str, about: str) -> str:
        """What was sealed. Text from before there were seals comes back as it is."""
        if not sealed.startswith(_TEXT):
            return sealed
        try:
            data = base64.urlsafe_b64decode(sealed.removeprefix(_TEXT))
        except ValueError as error:
            raise Unreadable("what is stored is not sealed as it should be") from error
        return self.open(data, about).decode()

    def turn(self, vector: Vector, *, back: bool = False) -> Vector:
        """A vector, float32[d], or several, float32[d, n], turned about the origin in a way that only this
        key knows: what is alike stays alike, and can be searched, but says nothing to who has not the key.
        `back` undoes it. A key's first time takes a while: for a thread."""
        rounds = _rounds(hashlib.sha256(b"rotation" + self._key).digest(), len(vector))
        for one in reversed(rounds) if back else rounds:
            vector = one.undo(vector) if back else one(vector)
        return vector


_BLOCK = 64
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Round:
    """Numbers change places, then each block of them is turned. A few of these turn nearly as well as one
    matrix over all dimensions does, of which the making takes seconds for 1500 of them."""

    places: npt.NDArray[np.intp]
    blocks: tuple[npt.NDArray[np.float32], ...]

    def __call__(self, vector: Vector) -> Vector:
        moved, turned = vector[self.places], np.empty_like(vector)
        for n, block in enumerate(self.blocks):
            part = slice(n * _BLOCK, n * _BLOCK + len(block))
            turned[part] = block @ moved[part]
        return turned

    def undo(self, turned: Vector) -> Vector:
        vector = np.empty_like(turned)
        for n, block in enumerate(self.blocks):
            part = slice(n * _BLOCK, n * _BLOCK + len(block))
            vector[self.places[part]] = block.T @ turned[part]
        return vector


@lru_cache(maxsize=32)
def _rounds(seed: bytes, dimensions: int) -> tuple[_Round, ...]:
    """The same for the same seed, whatever NumPy: its own generators may change from one to the next."""
    rounds = []
    for n in range(_ROUNDS):
        places = np.argsort(_uniform(seed, f"places {n}", dimensions), kind="stable")
        blocks = tuple(
            _rotation(seed, f"block {n} {at}", min(_BLOCK, dimensions - at))
            for at in range(0, dimensions, _BLOCK)
        )
        rounds.append(_Round(places, blocks))
    return tuple(rounds)


def _rotation(seed: bytes, name: str, size: int) -> npt.NDArray[np.float32]:
    """An orthogonal matrix, evenly distributed, float32[size, size]: that of a QR decomposition of normal
    numbers with its signs made plain (Mezzadri 2007)."""
    count = size * size
    uniform = _uniform(seed, name, 2 * count)
    # Box-Muller.
    normal = np.sqrt(-2 * np.log(uniform[:count])) * np.cos(2 * np.pi * uniform[count:])
    q, r = np.linalg.qr(normal.reshape(size, size))
    turned: npt.NDArray[np.float32] = (q * np.sign(np.diag(r))).astype(np.float32)
    return turned


def _uniform(seed: bytes, name: str, count: int) -> npt.NDArray[np.float64]:
    """Numbers between 0 and 1."""
    stream = hashlib.shake_256(seed + name.encode()).digest(4 * count)
    return (np.frombuffer(stream, "<u4").astype(np.float64) + 0.5) / 2**32


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A user's key as it is kept. `master` names the master key that opens it."""

    master: str
    sealed: bytes


class KeyStore(Protocol):
    """Where sealed keys are kept."""

    async def key(self, owner: str) -> SealedKey | None:
        """`owner`'s, if there is one."""
        ...

    async def add_key(self, owner: str, key: SealedKey) -> SealedKey:
        """Keep a first key; if there is one already that one is given and stays."""
        ...

    async def replace_key(self, owner: str, key: SealedKey) -> None:
        """Keep the same key under another master key."""
        ...

    async def destroy_key(self, owner: str) -> bool:
        """Delete it for good; whether there was one."""
        ...

    async def keys(self) -> list[tuple[str, SealedKey]]:
        """All of them, by owner."""
        ...


class MasterKeys:
    """The operator's keys: the first seals, all of them open. `Misconfigured` if there is none that is
    one."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != _KEY for key in keys):
            raise Misconfigured("MASTER_KEYS are of 32 bytes each, in base64: `colloquy keys new` makes one")
        self._ciphers = {key_name(key): Cipher(key) for key in keys}
        self._keys = list(keys)
        self.name = key_name(keys[0])

    @property
    def names(self) -> list[str]:
        """What the keys are called where they are referred to: the beginning of their hash."""
        return list(self._ciphers)

    def derived(self, purpose: str) -> list[bytes]:
        """Keys for something else, one of each, in the same order."""
        return [hashlib.blake2b(purpose.encode(), key=key, digest_size=_KEY).digest() for key in self._keys]

    def seal(self, key: bytes, owner: str) -> SealedKey:
        """`owner`'s key, to be kept."""
        return SealedKey(self.name, self._ciphers[self.name].seal(key, f"key {owner}"))

    def open(self, kept: SealedKey, owner: str) -> bytes:
        """`owner`'s key."""
        if (cipher := self._ciphers.get(kept.master)) is None:
            raise Misconfigured(
                f"the data is sealed with master key {kept.master}, which is not among MASTER_KEYS "
                f"({', '.join(self.names)}): add it"
            )
        return cipher.open(kept.sealed, f"key {owner}")


class UserKeys:
    """The keys of a server's users. A user gets one when something of theirs is first to be sealed."""

    def __init__(self, master: MasterKeys, store: KeyStore) -> None:
        self._master, self._store = master, store
        self._ciphers: OrderedDict[str, tuple[float, Cipher]] = OrderedDict()

    async def cipher(self, owner: str) -> Cipher:
        """What seals and opens `owner`'s data. `StoreFailed` if the keys cannot be reached."""
        found = self._ciphers.get(owner)
        if found is not None and time.monotonic() - found[0] < _CACHED_S:
            self._ciphers.move_to_end(owner)
            return found[1]
        kept = await self._store.key(owner)
        if kept is None:
            kept = await self._store.add_key(owner, self._master.seal(secrets.token_bytes(_KEY), owner))
        cipher = found[1] if found is not None else None
        key = self._master.open(kept, owner)
        if cipher is None or cipher._key != key:
            cipher = Cipher(key)
        self._ciphers[owner] = time.monotonic(), cipher
        self._ciphers.move_to_end(owner)
        while len(self._ciphers) > _CACHED:
            self._ciphers.popitem(last=False)
        return cipher

    async def destroy(self, owner: str) -> bool:
        """Nobody can read `owner`'s data any more; whether there was a key."""
        self._ciphers.pop(owner, None)
        return await self._store.destroy_key(owner)

    async def check(self) -> None:
        """`Misconfigured` if there are keys that no master key opens: better at the start than later."""
        for owner, kept in await self._store.keys():
            if kept.master not in self._master.names:
                self._master.open(kept, owner)

    async def rotate(self) -> int:
        """Seal every key that another master key sealed with the first one; how many that were. What the keys
        themselves seal stays as it is."""
        moved = 0
        for owner, kept in await self._store.keys():
            if kept.master != self._master.name:
                await self._store.replace_key(owner, self._master.seal(self._master.open(kept, owner), owner))
                moved += 1
        return moved


def key_name(key: bytes) -> str:
    """What a master key is called."""
    return hashlib.sha256(b"colloquy master key" + key).hexdigest()[:8]


def new_key() -> str:
    """A new master key, in base64."""
    return base64.b64encode(secrets.token_bytes(_KEY)).decode()


def load_master_keys(given: Sequence[str], path: Path) -> MasterKeys:
    """The keys `given` (base64), or those in the lines of the file at `path`, which is made on first use."""
    if given:
        return MasterKeys([_decoded(key) for key in given])
    try:
        return MasterKeys([_decoded(line) for line in path.read_text().split()])
    except FileNotFoundError:
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Of two servers that start at once the first one's key counts.
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        raise Misconfigured(
            f"no master key can be kept in {path} ({error}): set MASTER_KEYS (`colloquy keys new` makes one)"
        ) from error
    return MasterKeys([_decoded(line) for line in path.read_text().split()])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise Misconfigured("a master key is not base64: `colloquy keys new` makes one") from error
