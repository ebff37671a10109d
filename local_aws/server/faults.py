"""What can be made to go wrong: calls of an operation, and disk imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass
class Fault:
    """One thing that goes wrong with the next calls of an operation.

    Two operations are none of an API: `cloudformation` `ResponseURL` is the answer that a
    function PUTs, `cloudformation` `CustomResourceEvent` the event that it gets.

    Attributes:
        service: botocore's name of the service, such as `imagebuilder`.
        operation: The operation, such as `ImportVmImage`.
        times: How many calls it befalls.
        error: `code`, `message` and HTTP `status` to answer instead of doing anything.
        throttle: Answer the service's throttling error.
        lose_answer: Do what was asked, then answer an empty 500.
        delay: Real seconds to wait first.
        kill: Kill the Lambda process that made the call, `before` it is performed, or `after`.
        duplicate: Deliver the event twice; of `CustomResourceEvent`, and nothing else is.
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
    """How a disk import goes wrong: at which progress, and with which words of EC2.

    Attributes:
        task_id: The task, or None for the next ones to come there.
        fail_at_progress: The progress, 0 to 100, at or after which it happens.
        message: EC2's StatusMessage, or None: the task stays there for ever.
    """

    message: str | None
    task_id: str | None = None
    fail_at_progress: int = 28
