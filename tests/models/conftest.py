from __future__ import annotations

from collections.abc import Iterator

import pytest
from model_helpers import FileServer, serve, stop


@pytest.fixture
def server() -> Iterator[FileServer]:
    state = FileServer()
    running = serve(state)
    yield state
    state.slow = {}
    stop(running)
