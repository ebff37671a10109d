"""Faults that a test can cause: in the calls of an operation, and in disk imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass
class Fault:
    """A fault in the next calls of an operation.

    Two operations do not belong to an API. `cloudformation` `ResponseURL` is the PUT of a
    function's response. `cloudformation` `CustomResourceEvent` is the event that it receives.

    Attributes:
        service: botocore's name of the service, such as `imagebuilder`.
        operation: The operation, such as `ImportVmImage`.
        times: In how many calls it occurs.
        error: `code`, `message` and HTTP `status` of an error, returned instead of a call.
        throttle: Return the throttling error of the service instead of a call.
        lose_answer: Perform the call, then respond with an empty 500.
        delay: Real seconds to wait first.
        kill: Kill the Lambda process that makes the call, `before` or `after` it is performed.
        duplicate: Deliver the event twice. The only fault of `CustomResourceEvent`.
    """

    service: str
    operation: str
    times: int = 1
    error: dict[str, Any] | None = None
    throttle: bool = False
    lose_answer: bool = False
    delay: float = 0.0
    kill: Literal["before", "after"] | None = None
    duplicate: bool = False


@dataclass(frozen=True)
class ImportFailure:
    """The failure of a disk import.

    Attributes:
        message: EC2's StatusMessage. With None the task stays at its progress forever.
        task_id: The task. With None, the next task that reaches the progress.
        fail_at_progress: The progress, 0 to 100, at or after which the task fails.
    """

    message: str | None
    task_id: str | None = None
    fail_at_progress: int = 28
