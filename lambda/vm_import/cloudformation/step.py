"""What a step of an event returns, and what is kept from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class State:
    """What is known of an event from step to step: part of the data of its execution."""

    started: float
    """When the execution was started, in seconds since 1970."""
    in_order: bool = False
    """Whether no later event of the resource exists, and earlier ones were stopped."""
    image: str = ""
    """The ARN of the image that is waited for."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What Fn::GetAtt returns for the image."""
    completed: float = 0.0
    """When a poll first found EC2's import task completed, in seconds since 1970."""
    follow_up: bool = False
    """Whether CloudFormation has its response, and only tags and the log remain to be done."""

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Self:
        """Read the state from the data of an execution."""
        return cls(**{_field_name(name): value for name, value in state.items()})

    def write(self) -> dict[str, Any]:
        """Write the state as the data of an execution."""
        return {_json_name(name): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Response:
    """What CloudFormation is told of a resource."""

    physical_id: str
    data: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    status: str = "SUCCESS"


@dataclass(frozen=True)
class Pending:
    """The event is not over: take another step after a pause."""

    state: State
    seconds: int


@dataclass(frozen=True)
class Done:
    """The event is over."""

    response: Response | None
    """None if nobody waits for a response."""
    follow_up: State | None = None
    """Where an execution begins that follows the import without anybody waiting for it."""


def _field_name(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _json_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
