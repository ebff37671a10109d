"""The state that all services of a server share: clock, knobs, faults, recorded calls, a lock."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from local_aws import seams
from local_aws.server.knobs import Knobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.clock import Clock
    from local_aws.server.faults import Fault, ImportFailure

# The access key of the caller: of the current request, or of the role that CloudFormation uses.
CALLER: ContextVar[str | None] = ContextVar("caller", default=None)


@dataclass
class World:
    """The shared state. `operations` are those that we serve, as pairs of service and name."""

    clock: Clock
    operations: set[tuple[str, str]] = field(default_factory=set)
    knobs: Knobs = field(default_factory=Knobs)
    faults: list[Fault] = field(default_factory=list)
    import_failures: list[ImportFailure] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    # What services do before time changes a resource: keep what reads still show.
    before_changes: list[Callable[[], None]] = field(default_factory=list)
    # CloudFormation's threads and the event loop both change the state.
    lock: threading.RLock = field(default_factory=threading.RLock)

    def now(self) -> float:
        """Return AWS time in seconds since the epoch, from any thread."""
        with self.lock:
            return self.clock.now()

    def timestamp(self) -> str:
        """Return AWS time as AWS writes it, from any thread."""
        with self.lock:
            return self.clock.timestamp()

    def take_fault(self, service: str, operation: str) -> Fault | None:
        """Return the fault for this call, if there is one."""
        with self.lock:
            for fault in self.faults:
                if (fault.service, fault.operation) == (service, operation):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def call_in(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` later, in the current account and Region."""
        account, region = seams.get_account_id(), seams.get_region()

        def scoped() -> None:
            with seams.request_scope(account, region):
                for keep in self.before_changes:
                    keep()
                action()

        self.clock.call_in(seconds, scoped)
