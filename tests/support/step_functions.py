"""Step Functions: one or more state machines whose executions call the function step by step.

Each execution holds the data of the state machine that `EventStateMachine` builds
(constructs/cdk_vm_import/_event_state_machine.py): `Event`, `State` and `Seconds`. Aws calls the
function for the steps. What is not in the API reference:
https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html
- running executions are sorted by their start, closed ones by their end, the newest first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import contract
from tests.support.local_services import ACCOUNT, REGION, problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.local_services import VirtualClock

STATE_MACHINE: Final = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:events"
_MAX_NAME: Final = 80
_MAX_DATA: Final = 256 * 1024
_MAX_PAGE: Final = 1000
# The retries of the state machine: constructs/cdk_vm_import/_event_state_machine.py.
_MAX_DELAY: Final = 60.0


class RefusedError(Exception):
    """Step Functions refuses a call; the only argument is the error code."""


@dataclass
class Execution:
    """One execution of the state machine.

    Attributes:
        state_machine: ARN of its state machine.
        name: Its name, unique in the state machine.
        input: JSON that it was started with.
        data: What the function receives in the next step.
        started: When it was started.
        due: When the next step is due.
        status: As Step Functions writes it.
        stopped: When it ended.
        steps: How many steps ended without an error.
        claimed: Whether one of several concurrent processes runs the steps.
    """

    state_machine: str
    name: str
    input: str
    data: dict[str, Any]
    started: float
    due: float
    status: str = "RUNNING"
    stopped: float | None = None
    steps: int = 0
    undelivered: int = 0
    failed: int = 0
    claimed: bool = False

    @property
    def arn(self) -> str:
        return f"{self.state_machine.replace('stateMachine', 'execution')}:{self.name}"

    @property
    def is_running(self) -> bool:
        return self.status == "RUNNING"

    @property
    def is_follow_up(self) -> bool:
        """Whether it polls an image after the response, and responds to nobody."""
        return "ResponseURL" not in self.data[contract.Step.EVENT]

    @property
    def seconds(self) -> int:
        """How long the state machine waits after the last step."""
        return int(self.data[contract.Step.SECONDS])

    @property
    def image(self) -> str:
        """The ARN of the image that it waits for, once it is known."""
        return str(self.data[contract.Step.STATE]["image"])

    @property
    def event(self) -> dict[str, Any]:
        return dict(self.data[contract.Step.EVENT])

    def end(self, status: str, now: float) -> None:
        self.status, self.stopped = status, now

    def continue_after(self, outcome: str, returned: Any, now: float) -> None:
        """Do what the state machine does after a call of the function."""
        if not self.is_running:
            return  # stopped while the function ran
        delay = 0.0
        if outcome == "returned":
            assert returned.keys() == set(contract.Step), returned
            assert len(json.dumps(returned)) <= _MAX_DATA
            self.data, self.undelivered, self.failed = returned, 0, 0
            self.steps += 1
            delay = self.seconds
            if not delay:
                self.end("SUCCEEDED", now)
        elif outcome == contract.UNDELIVERED_RESPONSE:
            self.undelivered, delay = self.undelivered + 1, contract.RESPONSE_RETRY_SECONDS
            if self.undelivered > contract.RESPONSE_RETRIES:
                self.end("FAILED", now)
        else:
            self.failed += 1
            # Half of the longest delay: the mean of full jitter.
            delay = min(_MAX_DELAY, 2.0**self.failed) / 2
            if self.failed > contract.STEP_RETRIES:
                self.end("FAILED", now)
        self.due = now + delay
        if self.is_running and self.due - self.started > contract.MAX_EXECUTION:
            self.end("TIMED_OUT", now)


class StepFunctions:
    """The state machines and their executions.

    Attributes:
        state_machines: ARNs of those that exist.
        executions: All executions, in the order of their start.
        page_size: How many executions one page of ListExecutions shows at most.
        more_lag_seconds: By how much longer ListExecutions lags behind than other lists do.
    """

    def __init__(self, clock: VirtualClock, lag: Callable[[], float]) -> None:
        """Start without executions.

        Args:
            clock: The time of the executions.
            lag: For how many seconds ListExecutions shows them as they were before a change.
        """
        self._lag = lag
        self.operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "StartExecution": self._start,
            "ListExecutions": self._list,
            "StopExecution": self._stop,
        }
        self.executions: list[Execution] = []
        self.reset(clock)

    def reset(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.state_machines = {STATE_MACHINE}
        self.executions.clear()
        self.page_size = 100
        self.more_lag_seconds = 0.0

    def call(self, model: Any, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do an operation; request and response are checked against botocore's model.

        Raises:
            RefusedError: Step Functions refuses it.
        """
        shapes = model.operation_model(operation)
        assert not [*problems(shapes.input_shape, request)]
        response = self.operations[operation](request)
        assert not [*problems(shapes.output_shape, _with_dates(response))]
        return response

    def running(self) -> list[Execution]:
        return [execution for execution in self.executions if execution.is_running]

    def of(self, event: dict[str, Any]) -> Execution | None:
        """The execution that handles an event."""
        return next(
            (
                execution
                for execution in self.executions
                if execution.event["RequestId"] == event["RequestId"] and not execution.is_follow_up
            ),
            None,
        )

    def follow_ups(self) -> list[Execution]:
        return [execution for execution in self.executions if execution.is_follow_up]

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        """StartExecution: idempotent as long as the execution runs and the input is the same."""
        state_machine, name = request["stateMachineArn"], request["name"]
        if state_machine not in self.state_machines:
            raise RefusedError("StateMachineDoesNotExist")
        assert len(name) <= _MAX_NAME
        now = self._clock.now()
        for known in self.executions:
            if (known.state_machine, known.name) == (state_machine, name):
                if known.is_running and known.input == request["input"]:
                    return {"executionArn": known.arn, "startDate": known.started}
                raise RefusedError("ExecutionAlreadyExists")
        data = json.loads(request["input"])
        execution = Execution(state_machine, name, request["input"], data, started=now, due=now)
        self.executions.append(execution)
        return {"executionArn": execution.arn, "startDate": now}

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["stateMachineArn"] not in self.state_machines:
            raise RefusedError("StateMachineDoesNotExist")

        then = self._clock.now() - self._lag() - self.more_lag_seconds
        seen = [_as_of(then, execution) for execution in reversed(self.executions)]
        matching = [
            execution
            for execution in seen
            if execution is not None
            and execution["stateMachineArn"] == request["stateMachineArn"]
            and request.get("statusFilter") in {None, execution["status"]}
        ]
        matching.sort(key=lambda one: one.get("stopDate") or one["startDate"], reverse=True)
        first = int(request.get("nextToken", 0))
        count = min(request.get("maxResults") or _MAX_PAGE, self.page_size)
        page = matching[first : first + count]
        more = {"nextToken": str(first + count)} if first + count < len(matching) else {}
        return {"executions": page, **more}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """StopExecution: a call of the function that is under way still runs to its end."""
        for execution in self.executions:
            if execution.arn == request["executionArn"]:
                if execution.is_running:
                    execution.end("ABORTED", self._clock.now())
                return {"stopDate": execution.stopped}
        raise RefusedError("ExecutionDoesNotExist")


def _with_dates(value: Any) -> Any:
    """The value as the model sees it: a member such as `startDate` is a date."""
    if isinstance(value, list):
        return [_with_dates(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: datetime.fromtimestamp(member, UTC) if name.endswith("Date") else _with_dates(member)
        for name, member in value.items()
    }


def _as_of(then: float, execution: Execution) -> dict[str, Any] | None:
    """An execution as ListExecutions shows it, if it was started by then."""
    if execution.started > then:
        return None
    listed = {
        "executionArn": execution.arn,
        "stateMachineArn": execution.state_machine,
        "name": execution.name,
        "status": "RUNNING",
        "startDate": execution.started,
    }
    if execution.stopped is not None and execution.stopped <= then:
        listed |= {"status": execution.status, "stopDate": execution.stopped}
    return listed
