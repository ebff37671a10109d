"""What the services of one server share: clock, knobs, faults, the record of calls, a lock."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ministack.core.responses import get_account_id, get_region, request_scope

from local_aws.knobs import Knobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.clock import Clock

# The access key that acts: of the request under way, or of the role that CloudFormation acts by.
CALLER: ContextVar[str | None] = ContextVar("caller", default=None)


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


@dataclass
class World:
    """The shared state of one server; `operations` are those that we serve, by service."""

    clock: Clock
    operations: set[tuple[str, str]] = field(default_factory=set)
    knobs: Knobs = field(default_factory=Knobs)
    faults: list[Fault] = field(default_factory=list)
    import_failures: list[ImportFailure] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    # CloudFormation's threads and the event loop both change state
    lock: threading.RLock = field(default_factory=threading.RLock)

    def take_fault(self, service: str, operation: str) -> Fault | None:
        """The fault that befalls this call, if any."""
        with self.lock:
            for fault in self.faults:
                if (fault.service, fault.operation) == (service, operation):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def call_in(self, seconds: float, action: Callable[[], None]) -> None:
        """Have `action` done later, in the account and region of now."""
        account, region = get_account_id(), get_region()

        def scoped() -> None:
            with request_scope(account, region):
                action()

        self.clock.call_in(seconds, scoped)
