"""What a step of an event returns, and what is kept from step to step."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self

from errors import Reason, VmImportError

# How long AWS may take to see a new role, permission, tag or AMI, in seconds.
_DELAY: Final = 90


@dataclass(frozen=True)
class State:
    """What is known of an event from step to step: part of the data of its execution."""

    started: float
    """When the execution was started, in seconds since 1970."""
    in_order: bool = False
    """Whether no later event of the resource exists, and earlier ones were stopped."""
    order_checked: bool = False
    """Whether that was checked, though an event of a moment later may not have been listed yet."""
    image: str = ""
    """The ARN of the image that is waited for."""
    resource: str = ""
    """The logical id of that image, once a poll found its tags, or from the template of a link."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What Fn::GetAtt returns for the resource."""
    record: str = ""
    """What a resource records on an AMI before it changes the settings of the AMI."""
    completed: float = 0.0
    """When a poll first found EC2's import task completed, in seconds since 1970."""
    import_failure: str = ""
    """Why the import failed, once that is known: only its clean-up and the response remain."""
    failure: str = ""
    """Why the event failed, once that is known: only the response remains."""
    hint: str = ""
    """What to do about that failure, the last one of both."""
    ids: Sequence[str] = field(default_factory=list)
    """What it is about."""
    failed_id: str = ""
    """The physical id of that response, if it differs from that of the event."""
    missed: int = 0
    """How many polls in a row did not find the image."""
    follow_up: bool = False
    """Whether CloudFormation has its response, and only tags and the log remain to be done."""
    failing: float = 0.0
    """Since when the step fails and is repeated, in seconds since 1970."""
    delayed: float = 0.0
    """Since when it fails for a reason that is brief, in seconds since 1970."""
    delayed_by: str = ""
    """What kind of error that is: each may take its time, one after the other."""
    waited: bool = False
    """Whether a poll found that the import had not ended."""
    reported: str = ""
    """The progress that the log says last. It has a line only for what changes."""
    problem: str = ""
    """The problem that the log says last, without what differs each time."""

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Self:
        """Read the state from an execution's data.

        A later release may have written it, whose deployment was rolled back meanwhile.
        """
        known = {known.name for known in fields(cls)}
        return cls(**{name: value for name, value in state.items() if name in known})

    @property
    def reason(self) -> Reason:
        """Why the event or the import failed. A release that knew no hint kept it in the text."""
        return Reason(self.failure or self.import_failure, self.hint, self.ids)

    @property
    def elapsed(self) -> float:
        """Seconds since the execution was started."""
        return time.time() - self.started

    def may_pass(self, error: VmImportError, limit: float = math.inf) -> bool:
        """Return whether to repeat the step that an error ended.

        Args:
            error: The error.
            limit: For how many seconds the step is repeated, since it failed first.
        """
        now = time.time()
        if self.failing and now - self.failing >= limit:
            return False
        is_new = self.delayed_by != error.kind or now - self.delayed < _DELAY
        # Nobody waits for a follow-up, so it has the time until somebody allows the call again.
        is_allowed_later = error.is_denied and self.follow_up
        return error.is_transient or is_allowed_later or (error.is_brief and is_new)

    def after(self, error: VmImportError) -> Self:
        """Return the state in which the step is repeated that an error ended."""
        now = time.time()
        return replace(
            self,
            # Meanwhile a later event may have been sent.
            in_order=False,
            failing=self.failing or now,
            delayed=self.delayed if error.kind == self.delayed_by else now,
            delayed_by=error.kind if error.is_brief else "",
            problem=error.summary,
        )

    def after_success(self) -> Self:
        """Return the state after a step that did not fail."""
        return replace(self, failing=0.0, delayed=0.0, delayed_by="")


@dataclass(frozen=True)
class Response:
    """The response to CloudFormation about a resource."""

    physical_id: str
    data: Mapping[str, str] = field(default_factory=dict)
    reason: Reason = field(default_factory=Reason)
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
