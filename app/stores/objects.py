"""Which object store a URL names."""

from __future__ import annotations

from pathlib import Path

from app.roles import Misconfigured
from app.stores.folder import open_folder
from app.stores.interfaces import ObjectStore
from app.stores.s3 import S3Access, open_bucket


async def open_objects(url: str, access: S3Access) -> ObjectStore:
    """The objects at `url`: `s3://BUCKET/PREFIX`, which `access` opens, or a folder's path. Raises
    `Misconfigured`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return await open_folder(Path(url))
    if scheme == "s3":
        return open_bucket(url, access)
    if scheme == "file" and rest.startswith("/"):
        return await open_folder(Path(rest))
    raise Misconfigured(f"objects are kept in a folder or at s3://BUCKET/PREFIX, not at {scheme}://")
