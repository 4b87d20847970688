"""Objects of users: sealed with their owner's key before they reach a store, opened when they come back."""

from __future__ import annotations

import asyncio

from app.stores.crypt import UserKeys
from app.stores.interfaces import ObjectStore

_LARGE = 1 << 20
"""From so many bytes on, sealing is worth a thread."""


class Vault:
    """An `ObjectStore`'s objects, by owner. Who asks with another owner's name gets nothing."""

    def __init__(self, objects: ObjectStore, keys: UserKeys) -> None:
        self.objects = objects
        self._keys = keys

    async def put(self, owner: str, key: str, data: bytes) -> None:
        """Store `owner`'s `data`, replacing what is there."""
        cipher = await self._keys.cipher(owner)
        about = f"object {owner} {key}"
        if len(data) < _LARGE:
            sealed = cipher.seal(data, about)
        else:
            sealed = await asyncio.to_thread(cipher.seal, data, about)
        await self.objects.put(key, sealed)

    async def get(self, owner: str, key: str) -> bytes:
        """What is stored. `NotFound`, or `Unreadable` if it is another's or was changed."""
        sealed = await self.objects.get(key)
        if sealed[:1] != b"\x01":
            return sealed  # from before there were seals: a WAV begins with "RIFF"
        cipher = await self._keys.cipher(owner)
        about = f"object {owner} {key}"
        if len(sealed) < _LARGE:
            return cipher.open(sealed, about)
        return await asyncio.to_thread(cipher.open, sealed, about)

    async def delete(self, key: str) -> None:
        """Remove it; it is no error if it is not there."""
        await self.objects.delete(key)
