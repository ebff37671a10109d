"""Build and match the ARNs of Image Builder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def make_arn(resource: str) -> str:
    """Return the ARN of a resource of Image Builder, in the current account and Region."""
    return f"arn:aws:imagebuilder:{seams.get_region()}:{seams.get_account_id()}:{resource}"


def slug(name: str) -> str:
    """Return a name as it is in an ARN: lower case, with hyphens for spaces and underscores."""
    return name.lower().replace(" ", "-").replace("_", "-")


def names(wanted: str, arn: str) -> bool:
    """Return whether an ARN matches another; it may have x in its version, or no build number."""
    parts, known_parts = wanted.split("/"), arn.split("/")
    nodes, known = (".".join(found[2:]).split(".") for found in (parts, known_parts))
    return (
        parts[:2] == known_parts[:2]
        and len(nodes) <= len(known)
        and all(node in ("x", is_node) for node, is_node in zip(nodes, known, strict=False))
    )


def newest(found: Iterable[tuple[str, T]]) -> T | None:
    """Return the resource with the highest version and build, of pairs of ARN and resource."""

    def numbers(entry: tuple[str, T]) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", "/".join(entry[0].split("/")[2:]))]

    return max(found, key=numbers, default=("", None))[1]


def latest_versions(arn: str) -> dict[str, str]:
    """Return the latestVersionReferences for the ARN of a version."""
    series, _, version = arn.rpartition("/")
    major, minor, patch = version.split(".")
    return {
        "latestVersionArn": f"{series}/x.x.x",
        "latestMajorVersionArn": f"{series}/{major}.x.x",
        "latestMinorVersionArn": f"{series}/{major}.{minor}.x",
        "latestPatchVersionArn": f"{series}/{major}.{minor}.{patch}",
    }
