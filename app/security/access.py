"""API keys, session tokens and the checks that keep other web pages out.

Without `API_KEYS` the server is in development mode: everybody who can connect is the owner
"local". That is only allowed on loopback, and there a page of another site, or a host name that
somebody points at this machine, is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.roles import Expired, Misconfigured, NotAllowed, Revoked
from app.settings import Settings

TOKEN_S = 24 * 3600
"""How long a session token is good for; a session that is left alone ends long before."""
_USER = "user"
"""What a token is for that stands for a key."""
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who was let in; `until` a Unix time, where a token was shown that runs out then."""

    owner: str
    until: float | None = None


class Access:
    """Checks of one server. `secret` signs session tokens."""

    def __init__(self, settings: Settings, secret: bytes) -> None:
        """Raises `Misconfigured` if strangers could use the server."""
        self._keys = [k.get_secret_value().encode() for k in settings.api_keys if k.get_secret_value()]
        if not self._keys and not settings.on_loopback:
            raise Misconfigured(
                f"HOST={settings.host} lets other machines connect: set API_KEYS='[\"a-long-random-key\"]', "
                "or listen on 127.0.0.1"
            )
        self._local_only = not self._keys
        self._owners = {_owner(key) for key in self._keys}
        self._origins = {o.rstrip("/") for o in settings.allowed_origins}
        self._secret = secret

    def owner(self, headers: Mapping[str, str]) -> str:
        """Whose request this is; see `admit`."""
        return self.admit(headers).owner

    def admit(self, headers: Mapping[str, str]) -> Admitted:
        """Whose request this is, from its `Authorization: Bearer KEY` (or `Token KEY`); a user's token does
        instead of a key. Raises `NotAllowed`, of a token that was good `Expired` or `Revoked`.

        Who shows a key may do so from the page of another site: browsers never add one by themselves."""
        if self._local_only:
            self.check_origin(headers)
            return Admitted("local")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "token"):
            for key in self._keys:
                if hmac.compare_digest(given.strip().encode(), key):
                    return Admitted(_owner(key))
            opened = self._read(given.strip())
            if opened is not None and opened[0] == _USER:
                admitted = Admitted(opened[1], opened[2])
                self.check(admitted)
                return admitted
        raise NotAllowed("this server needs an API key: send Authorization: Bearer KEY")

    def check(self, admitted: Admitted) -> None:
        """Whether who was let in may still be here. Raises `Expired` and `Revoked`."""
        if admitted.until is not None and admitted.until <= time.time():
            raise Expired("the token has run out: get a new one")
        if not self._local_only and admitted.owner not in self._owners:
            raise Revoked("the API key that this token stands for is not accepted any more")

    def user_token(self, owner: str, seconds: int) -> tuple[str, int]:
        """A token that stands for the key of `owner`, and the Unix time when it runs out."""
        until = int(time.time()) + seconds
        return self._token(_USER, owner, until), until

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Refuse browsers that act for another site; programs send no Origin and pass."""
        host = headers.get("host", "")
        if self._local_only and (urlsplit(f"//{host}").hostname or "") not in _LOOPBACK:
            raise NotAllowed("this server answers only to localhost: set API_KEYS to open it to other names")
        origin = headers.get("origin")
        if not origin or origin.rstrip("/") in self._origins:
            return
        if urlsplit(origin).netloc != host:
            raise NotAllowed("pages of other sites may not use this server: add theirs to ALLOWED_ORIGINS")

    def session_token(self, session_id: str, owner: str) -> str:
        """A token that opens this one session, for URLs: `payload.signature`."""
        return self._token(session_id, owner, int(time.time()) + TOKEN_S)

    def session_owner(self, token: str, session_id: str) -> str:
        """Whose session `token` opens. Raises `NotAllowed` if it does not open `session_id`."""
        named, owner = self.opened(token)
        if named != session_id:
            raise NotAllowed("the session token is of another session")
        return owner

    def opened(self, token: str) -> tuple[str, str]:
        """The session that `token` opens, and whose it is. Raises `NotAllowed`."""
        found = self._read(token)
        if found is None or found[0] == _USER or found[2] <= time.time():
            raise NotAllowed("the session token is wrong or has run out: create a new session")
        return found[:2]

    def _token(self, named: str, owner: str, until: int) -> str:
        payload = f"{named}|{owner}|{until}".encode()
        return f"{_b64(payload)}.{_b64(self._sign(payload))}"

    def _read(self, token: str) -> tuple[str, str, int] | None:
        """What a token says, if it is one of ours: what for, whose, until when."""
        try:
            payload, signature = (_unb64(part) for part in token.split("."))
            named, owner, until = payload.decode().split("|")
            if hmac.compare_digest(self._sign(payload), signature):
                return named, owner, int(until)
        except ValueError:
            pass
        return None

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, payload, "sha256")


def load_secret(path: Path) -> bytes:
    """The server's secret, made on first use and readable only by its user."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = secrets.token_bytes(32)
        # Of two servers that start at once the first one's secret counts.
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            temporary.unlink()
        return secret


def _owner(key: bytes) -> str:
    return "key-" + hashlib.sha256(key).hexdigest()[:16]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
