"""The ARNs of Image Builder: what they are made of, and which others they name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from ministack.core.responses import get_account_id, get_region

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def make_arn(resource: str) -> str:
    """The ARN of a resource of Image Builder, in the account and Region of now."""
    return f"arn:aws:imagebuilder:{get_region()}:{get_account_id()}:{resource}"


def slug(name: str) -> str:
    """The name in an ARN: names that differ only in case, spaces or underscores are one."""
    return name.lower().replace(" ", "-").replace("_", "-")


def names(wanted: str, arn: str) -> bool:
    """Whether an ARN, maybe with x for nodes of its version or without a build, names another."""
    parts, known_parts = wanted.split("/"), arn.split("/")
    nodes, known = (".".join(found[2:]).split(".") for found in (parts, known_parts))
    return (
        parts[:2] == known_parts[:2]
        and len(nodes) <= len(known)
        and all(node in ("x", is_node) for node, is_node in zip(nodes, known, strict=False))
    )


def newest(found: Iterable[tuple[str, T]]) -> T | None:
    """Of resources by ARN, the one with the highest version and build."""

    def numbers(entry: tuple[str, T]) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", "/".join(entry[0].split("/")[2:]))]

    return max(found, key=numbers, default=("", None))[1]


def latest_versions(arn: str) -> dict[str, str]:
    """The latestVersionReferences of a version's ARN."""
    series, _, version = arn.rpartition("/")
    major, minor, patch = version.split(".")
    return {
        "latestVersionArn": f"{series}/x.x.x",
        "latestMajorVersionArn": f"{series}/{major}.x.x",
        "latestMinorVersionArn": f"{series}/{major}.{minor}.x",
        "latestPatchVersionArn": f"{series}/{major}.{minor}.{patch}",
    }
