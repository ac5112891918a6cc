"""Promises are kept by processes, so they are tested on processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from store.settings import Settings
from tests.fleet import Fleet


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a short lease, so that a rescue takes seconds."""
    return settings.model_copy(update={"lease_seconds": 3.0, "log_level": "DEBUG"})


@pytest.fixture
def fleet(settings: Settings) -> Iterator[Fleet]:
    """Processes of the test's installation."""
    fleet = Fleet(settings)
    yield fleet
    fleet.stop()
