"""What holds for all tests: their order, and that two runs draw the same random values."""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import settings

# Their tests take longest, and each file runs in one process.
_FIRST: Final = ("tests/deploy/", "tests/integ/", "tests/test_examples.py", "tests/lifecycle/")

# A change must not fail because of what a run happened to draw. CONTRIBUTING.md says how to draw
# other values.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(_FIRST))


@pytest.fixture(autouse=True)
def repeatable(request: pytest.FixtureRequest) -> None:
    """Seed the jitter of the handler and the ids of the simulated AWS."""
    random.seed(request.node.nodeid)
