"""Functions that come with the server."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field


def now(
    time_zone: Annotated[
        str | None, Field(description="IANA name such as Asia/Shanghai, only if another place is meant")
    ] = None,
) -> str:
    """The current date, weekday and time of day."""
    try:
        zone = ZoneInfo(time_zone) if time_zone else None
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"there is no time zone {time_zone!r}: use an IANA name such as Europe/Paris"
        ) from error
    here = datetime.now(zone).astimezone(zone)
    return f"{here:%A, %d %B %Y, %H:%M} ({time_zone or here.tzname()})"
