"""Fixtures of the dialogue's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from session_rig import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.session.close()
