"""What a step of an event returns, and what is kept from step to step."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from errors import VmImportError

# How long AWS may take to see a new role, permission, tag or AMI, in seconds.
_DELAY: Final = 90


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
    missed: int = 0
    """How many polls in a row did not find the image."""
    follow_up: bool = False
    """Whether CloudFormation has its response, and only tags and the log remain to be done."""
    delayed: float = 0.0
    """Since when errors that are brief follow one another, in seconds since 1970."""

    @property
    def elapsed(self) -> float:
        """Seconds since the execution was started."""
        return time.time() - self.started

    def may_pass(self, error: VmImportError, limit: float = math.inf) -> bool:
        """Return whether to repeat the step that an error ended.

        Args:
            error: The error.
            limit: For how many seconds after the start of the execution steps are repeated.
        """
        if self.elapsed >= limit:
            return False
        is_new = not self.delayed or time.time() - self.delayed < _DELAY
        return error.is_transient or (error.is_brief and is_new)

    def after(self, error: VmImportError) -> Self:
        """Return the state in which the step is repeated that an error ended."""
        return replace(self, delayed=(self.delayed or time.time()) if error.is_brief else 0.0)


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
