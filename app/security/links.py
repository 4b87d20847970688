"""Links to stored objects that work for an hour, for whoever has them, and cannot be altered.

A link is a URL of our own, not one that the store signed: what is stored is sealed, so it has to come
through us, and the link is the same for a folder and for a bucket.
"""

from __future__ import annotations

import hmac
import time
from urllib.parse import urlencode

from app.roles import ColloquyError
from app.stores.interfaces import check_key

LINK_S = 3600
"""How long a link is good for, in seconds."""


class BadLink(ColloquyError):
    """A link was altered, or has run out."""

    code = "BAD_LINK"
    http_status = 403


class Links:
    """Makes links and checks them. `secret`: the same for all processes that serve the same objects."""

    def __init__(self, secret: bytes) -> None:
        # Of its own, so that no other thing that is signed can ever pass for a link.
        self._secret = hmac.digest(secret, b"links to objects", "sha256")

    def link(self, key: str, owner: str, seconds: int = LINK_S) -> str:
        """Path and query of a URL that gives `owner`'s object `key` to whoever has it, for so long. That it
        is theirs, the caller has checked."""
        expires = str(int(time.time()) + seconds)
        query = {"owner": owner, "expires": expires, "signature": self._sign(key, owner, expires)}
        return f"/objects/{check_key(key)}?{urlencode(query)}"

    def check(self, key: str, owner: str, expires: str, signature: str) -> None:
        """Raises `BadLink` unless these came from `link` and the time is not over. What the object is
        served as follows from its key, so that cannot be altered either."""
        if not hmac.compare_digest(
            self._sign(key, owner, expires).encode(), signature.encode(errors="surrogatepass")
        ):
            raise BadLink("this link is not one of ours, or was altered: ask for a new one")
        if int(expires) <= time.time():
            raise BadLink("this link has run out: ask for a new one")

    def _sign(self, key: str, owner: str, expires: str) -> str:
        # Lengths first: no two different links give the same text.
        text = f"{len(key)} {len(expires)} {key}{expires}{owner}"
        return hmac.digest(self._secret, text.encode(errors="surrogatepass"), "sha256").hex()
