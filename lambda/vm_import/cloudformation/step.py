"""What a step of an event returns, and what is kept from step to step."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """What Fn::GetAtt returns for the resource."""
    completed: float = 0.0
    """When a poll first found EC2's import task completed, in seconds since 1970."""
    failure: str = ""
    """Why the import failed, once that is known: only its clean-up and the response remain."""
    follow_up: bool = False
    """Whether CloudFormation has its response, and only tags and the log remain to be done."""

    @property
    def elapsed(self) -> float:
        """Seconds since the execution was started."""
        return time.time() - self.started


@dataclass(frozen=True)
class Response:
    """The response to CloudFormation about a resource."""

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

    response: Response
    follow_up: State | None = None
    """Where an execution begins that follows the import without anybody waiting for it."""
