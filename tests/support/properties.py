"""Properties of resources that a test changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import StrEnum


def checked(names: type[StrEnum], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Properties that a test gives as keywords.

    Raises:
        ValueError: One of the names is not in the contract.
    """
    return {names(name).value: value for name, value in changes.items()}
