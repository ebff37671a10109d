"""The order of all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

# Their tests take longest, and each file runs in one process.
_FIRST: Final = ("tests/deploy/", "tests/integ/", "tests/test_examples.py", "tests/lifecycle/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(_FIRST))
