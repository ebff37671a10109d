"""Reads resource properties. CloudFormation sends every scalar as a string."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from contract import TAG_PREFIX
from errors import PropertyError


def check(
    properties: Mapping[str, Any],
    *,
    required: Collection[str],
    strings: Collection[str],
    lists: Collection[str] = (),
    mappings: Collection[str] = (),
) -> None:
    """Check that properties have the form that the constructs give them.

    Args:
        properties: ResourceProperties or OldResourceProperties.
        required: Properties that must be there.
        strings: Properties that must be strings, if they are there.
        lists: Properties that must be lists of mappings, if they are there.
        mappings: Properties that must be mappings of strings to strings, if they are there.

    Raises:
        PropertyError: One is missing, has another type, or is a reserved tag key.
    """
    if missing := [name for name in required if not properties.get(name)]:
        raise PropertyError(f"missing resource property: {', '.join(missing)}")
    present = {name: value for name, value in properties.items() if value is not None}
    wrong = [
        *(name for name in strings if not isinstance(present.get(name, ""), str)),
        *(name for name in lists if not _is_list_of_mappings(present.get(name, []))),
        *(name for name in mappings if not _is_mapping_of_strings(present.get(name, {}))),
    ]
    if wrong:
        raise PropertyError(f"resource property of a wrong type: {', '.join(wrong)}")
    tags = present.get("Tags", {})
    if reserved := [key for key in tags if key.startswith(TAG_PREFIX)]:
        raise PropertyError(
            f"tag keys that start with {TAG_PREFIX!r} are reserved: {', '.join(reserved)}"
        )


def is_true(value: object) -> bool:
    """Read a boolean property."""
    return str(value).lower() == "true"


def _is_list_of_mappings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_mapping_of_strings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
