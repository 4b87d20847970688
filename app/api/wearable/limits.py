"""What ends a connection that is well otherwise: a token that runs out, a day's minutes that are spent, the
time that a platform gives to a connection."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from app.api.context import Context
from app.roles import ColloquyError, Expired, NotAllowed, QuotaSpent, Revoked
from app.security.access import Admitted
from app.stores.interfaces import StoreFailed

log = logging.getLogger(__name__)

_COUNT_S = 10.0
"""So often it is written down how long was listened."""
_RESERVE_S = 60.0
"""So long before a platform's limit is a connection ended, at the first pause, at most a quarter of the
limit: what was said must be heard and stored before that."""

_CLOSES: tuple[tuple[type[ColloquyError], int], ...] = (
    (Expired, 4001),
    (Revoked, 4004),
    (QuotaSpent, 4002),
    (NotAllowed, 1008),
)


def close_code(error: ColloquyError, default: int) -> int:
    """The code that tells the app of `error`."""
    return next((code for kind, code in _CLOSES if isinstance(error, kind)), default)


class Limits:
    """Those of one connection; made when it begins."""

    def __init__(self, context: Context, admitted: Admitted) -> None:
        self._access, self._diary, self._admitted = context.access, context.diary, admitted
        self._quota_s = context.settings.listen_quota_minutes_per_day * 60
        self._limit_s = context.settings.connection_time_limit_s
        self._began = self._counted_at = time.monotonic()
        self._counted_s = 0.0
        self._day_s = 0.0

    async def begin(self) -> None:
        """Raises `QuotaSpent` where nothing is left of the day."""
        await self._count(0.0)
        self._check_quota(0.0)

    async def check(self, heard_s: float) -> None:
        """`heard_s` seconds of sound have come. Raises `Expired`, `Revoked` and `QuotaSpent`."""
        self._access.check(self._admitted)
        if time.monotonic() - self._counted_at > _COUNT_S:
            await self._count(heard_s)
        self._check_quota(heard_s)

    async def end(self, heard_s: float) -> None:
        """Note what was listened to."""
        await self._count(heard_s)

    def time_is_up(self, *, speaking: bool) -> bool:
        """Whether the connection should end now, because the platform would end it soon; `speaking`: somebody
        is in the middle of something."""
        reserve = min(_RESERVE_S, self._limit_s / 4)
        left = self._limit_s - (time.monotonic() - self._began)
        return bool(self._limit_s) and left < (reserve / 2 if speaking else reserve)

    def _check_quota(self, heard_s: float) -> None:
        if self._quota_s and self._day_s + heard_s - self._counted_s >= self._quota_s:
            raise QuotaSpent(
                f"the day's {self._quota_s / 60:g} minutes of listening are spent: come back tomorrow"
            )

    async def _count(self, heard_s: float) -> None:
        if not self._quota_s:
            return
        self._counted_at = time.monotonic()
        new, today = heard_s - self._counted_s, datetime.now(UTC).date()
        try:
            self._day_s = await self._diary.listened(self._admitted.owner, today, new)
        except StoreFailed as error:
            log.warning("how long was listened is not noted yet: %s", error.message)
        else:
            self._counted_s = heard_s
