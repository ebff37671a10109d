"""Step Functions, as far as the waits need it; its calls of the function are made by Aws.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.handler.cloudformation import ACCOUNT, REGION

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.clock import Clock

STATE_MACHINE: Final = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:waiter"
_LONGEST_NAME: Final = 80
# constructs/cdk_vm_import/_waiter.py: how long an execution lives, and what it tries again.
_LONGEST_EXECUTION: Final = 13 * 3600.0
_TRIES_OF_AN_ANSWER: Final = 2
_TRIES: Final = 64


class RefusedError(Exception):
    """Step Functions refuses a call; its only argument is the error's code."""


@dataclass
class Execution:
    """A wait.

    Attributes:
        input: What it was started with.
        state: What the function is called with next.
        due: When that is.
        taken: Whether somebody makes its calls.
    """

    name: str
    input: str
    state: dict[str, Any]
    started: float
    due: float
    status: str = "RUNNING"
    undelivered: int = 0
    failed: int = 0
    taken: bool = False

    @property
    def arn(self) -> str:
        return f"{STATE_MACHINE.replace('stateMachine', 'execution')}:{self.name}"

    @property
    def is_running(self) -> bool:
        return self.status == "RUNNING"

    @property
    def is_answered(self) -> bool:
        """Whether its event is answered, and it goes on all the same."""
        return bool(self.state["Waiting"]["Answered"])

    def go_on(self, outcome: str, answer: Any, now: float) -> None:
        """Do what the state machine does after a call of the function."""
        if not self.is_running:
            return  # stopped meanwhile
        if outcome == "ended":
            self.state, self.undelivered, self.failed = answer, 0, 0
            pause = answer["Waiting"]["Seconds"]
            if not pause:
                self.status = "SUCCEEDED"
        elif outcome == "undelivered":
            self.undelivered, pause = self.undelivered + 1, 60
            if self.undelivered > _TRIES_OF_AN_ANSWER:
                self.status = "FAILED"
        else:
            self.failed, pause = self.failed + 1, min(60, 2 ** (self.failed + 1))
            if self.failed > _TRIES:
                self.status = "FAILED"
        self.due = now + pause
        if self.is_running and self.due - self.started > _LONGEST_EXECUTION:
            self.status = "TIMED_OUT"


class StepFunctions:
    """One state machine and its executions."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.executions: dict[str, Execution] = {}
        self.operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "StartExecution": self._start,
            "ListExecutions": self._list,
            "StopExecution": self._stop,
        }

    def running(self) -> list[Execution]:
        return [execution for execution in self.executions.values() if execution.is_running]

    def of(self, event: dict[str, Any]) -> Execution | None:
        """The execution that an event was handed over to."""
        ends = f"-{event['RequestId']}"
        return next((e for name, e in self.executions.items() if name.endswith(ends)), None)

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        """StartExecution: the same again while it runs is no error, else its name is taken."""
        name, now = request["name"], self.clock.now()
        assert len(name) <= _LONGEST_NAME
        assert request["stateMachineArn"] == STATE_MACHINE
        known = self.executions.get(name)
        if known and not (known.is_running and known.input == request["input"]):
            raise RefusedError("ExecutionAlreadyExists")
        if known is None:
            state = json.loads(request["input"])
            known = Execution(name, request["input"], state, started=now, due=now)
            self.executions[name] = known
        return {"executionArn": known.arn, "startDate": known.started}

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        listed = [
            {
                "executionArn": execution.arn,
                "stateMachineArn": STATE_MACHINE,
                "name": execution.name,
                "status": execution.status,
                "startDate": execution.started,
            }
            for execution in reversed(self.executions.values())
            if request.get("statusFilter") in {None, execution.status}
        ]
        return {"executions": listed}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """StopExecution; a call of the function that is under way goes on to its end."""
        for execution in self.executions.values():
            if execution.arn == request["executionArn"]:
                if execution.is_running:
                    execution.status = "ABORTED"
                return {"stopDate": self.clock.now()}
        raise RefusedError("ExecutionDoesNotExist")
