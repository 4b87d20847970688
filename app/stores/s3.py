"""Objects in a bucket of S3, or of a service that speaks as it does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.roles import Misconfigured, NotFound
from app.stores.interfaces import ObjectInfo, StoreFailed, check_key, is_key

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

_AT_ONCE = 1000
"""Objects that one request lists or deletes."""


@dataclass(frozen=True, slots=True, repr=False)
class S3Access:
    """How a service is reached. What is None comes from the environment as AWS' own tools read it
    (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, …) or from the machine's role there; without `endpoint_url`
    the service is AWS."""

    endpoint_url: str | None = None
    region: str | None = None
    key_id: str | None = None
    secret: str | None = None


def open_bucket(url: str, access: S3Access) -> S3Objects:
    """Objects under `s3://BUCKET/PREFIX` (the bucket must be there). Does not connect yet. Raises
    `Misconfigured`."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise Misconfigured(
            "OBJECT_STORE_URL=s3://… needs the obstore package: install colloquy[s3]"
        ) from error
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise Misconfigured("a bucket is named as s3://BUCKET or s3://BUCKET/PREFIX")
    config: S3Config = {}
    if access.endpoint_url is not None:
        if urlsplit(access.endpoint_url).scheme not in ("http", "https"):
            raise Misconfigured("S3_ENDPOINT_URL must begin with http:// or https://")
        config["endpoint"] = access.endpoint_url
    if access.region is not None:
        config["region"] = access.region
    if access.key_id is not None:
        config["access_key_id"] = access.key_id
    if access.secret is not None:
        config["secret_access_key"] = access.secret
    try:
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config=config,
            client_options={
                "allow_http": (access.endpoint_url or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=60),
            },
            # Enough for a hiccup. Who keeps something tries again for as long as it takes.
            retry_config={
                "max_retries": 3,
                "retry_timeout": timedelta(seconds=15),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=50),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
        )
    except Exception as error:
        raise Misconfigured(f"the bucket {url} cannot be used: {_short(error)}") from error
    return S3Objects(store)


class S3Objects:
    """An `ObjectStore`; made by `open_bucket`. What is larger than 5 MB is sent in parts, which
    appear as one object; parts of a put that was cut off are for a rule of the bucket to remove."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    async def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore`."""
        import obstore

        with _failures():
            await obstore.put_async(self._store, check_key(key), data)

    async def get(self, key: str) -> bytes:
        """See `ObjectStore`."""
        import obstore

        with _failures(key):
            found = await obstore.get_async(self._store, check_key(key))
            return bytes(await found.bytes_async())

    async def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        import obstore

        with _failures():
            await obstore.delete_async(self._store, check_key(key))

    async def exists(self, key: str) -> bool:
        """See `ObjectStore`."""
        import obstore

        try:
            with _failures(check_key(key)):
                try:
                    await obstore.head_async(self._store, key)
                except FileNotFoundError:
                    # Such an answer has no text, so it might be the bucket that is not there.
                    await obstore.get_async(self._store, key)
        except NotFound:
            return False
        return True

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore`."""
        import obstore

        with _failures():
            listing = obstore.list(self._store, check_key(prefix) if prefix else None, chunk_size=_AT_ONCE)
            async for some in listing:
                for info in some:
                    if is_key(info["path"]):
                        yield ObjectInfo(info["path"], info["size"], info["last_modified"].astimezone(UTC))

    async def delete_prefix(self, prefix: str) -> int:
        """See `ObjectStore`."""
        import obstore

        check_key(prefix)
        keys = [info.key async for info in self.list(prefix)]
        with _failures():
            for at in range(0, len(keys), _AT_ONCE):
                await obstore.delete_async(self._store, keys[at : at + _AT_ONCE])
        return len(keys)

    async def close(self) -> None:
        """See `ObjectStore`. Connections end with the last use of the store."""


@contextmanager
def _failures(key: str | None = None) -> Iterator[None]:
    """What the service tells as our own errors; that there is no object `key`, if that was asked, is
    `NotFound`."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        if key is not None and "NoSuchBucket" not in str(error):
            raise NotFound(f"There is no object {key!r}.", field="key") from error
        raise _failed(error) from error
    except (BaseError, OSError) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> StoreFailed:
    return StoreFailed(
        f"The bucket for recordings cannot be used ({_short(error)}): check that it is there, that "
        "S3_ENDPOINT_URL is right and answers, and that the keys may read, write, delete and list in it."
    )


def _short(error: Exception) -> str:
    """What happened, of the much that the library tells."""
    text = str(error)
    if code := re.search(r"<Code>(\w+)</Code>", text):
        return code[1]
    return text.partition("\n")[0].strip()[:300]
