"""The simulated AWS without sockets: botocore's requests are answered in the thread of the test.

Time is virtual: only a sleep moves the clock. The Lambda function can be killed at any AWS call,
and two of its processes can run concurrently and take turns at each call. The steps of the state
machine's executions run when the test lets time pass or waits for a response.
"""

from __future__ import annotations

import functools
import itertools
import json
import threading
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import boto3
import botocore.endpoint
import botocore.retries.quota
import urllib3
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from botocore.retries.quota import RetryQuota

import contract
from tests.support.lambda_function import TIMEOUT, KilledError, LambdaProcess, Turns
from tests.support.local_services import REGION, LocalServices
from tests.support.step_functions import RefusedError, StepFunctions

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from botocore.awsrequest import AWSPreparedRequest

    from tests.support.local_services import Image, ImportTask, VirtualClock
    from tests.support.step_functions import Execution

    Event = dict[str, Any]
    Answer = dict[str, Any]

SERVICE_TIMEOUT: Final = float(contract.MAX_SERVICE_TIMEOUT)
"""How long CloudFormation waits for a response, in seconds."""

# What creates something with tags needs the permission to tag it.
_ALSO_NEEDS: Final = {"ImportVmImage": ["TagResource"], "ImportImage": ["CreateTags"]}
# How long a follow-up execution runs beside a concurrent process, in seconds.
_FOLLOWED: Final = 900.0
# Lambda retries a failed asynchronous invocation after one minute and after two more.
_RETRIES: Final = (60.0, 120.0)
_OK: Final = 200

# What can happen to a call to AWS. Each name says what the handler sees and what really happened.
FAULTS: Final = (
    "throttled",
    "throttled unretried",  # botocore does not retry CallRateLimitExceededException
    "failed",
    "answer lost",
    "not connected",
    "outage",  # of several calls
    "not found",  # GetImage, once
    "denied at first",  # for 80 seconds
    "killed before",
    "killed after",
)
RESPONSE_FAULTS: Final = (
    "403",
    "500",
    "not connected",
    "taken but lost",
    "outage",
    "killed after",
)
_REFUSALS: Final = {
    "throttled": ("TooManyRequestsException", 429),
    "throttled unretried": ("CallRateLimitExceededException", 429),
    "failed": ("ServiceException", 500),
}


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


@dataclass
class Fault:
    """What happens to the next calls of one operation.

    Attributes:
        service: botocore's name of the service.
        operation: The operation, such as `ImportVmImage`.
        times: How many calls it happens to.
        skip: How many calls succeed before.
        error: `code`, `message` and `status` of the error that the service returns.
        lose_answer: Whether the service does what it is asked and the answer is lost.
        delay: Seconds that pass before the call is answered.
    """

    service: str
    operation: str
    times: int = 1
    skip: int = 0
    error: Mapping[str, Any] | None = None
    lose_answer: bool = False
    delay: float = 0.0


STACK_STATUS: Final = "StackStatus"
"""The status of the stack during an event, for this simulation: real events do not say it."""
STACK_CHANGED: Final = "StackChanged"
"""When the stack operation of an event began, for this simulation."""
ROLLS_BACK: Final = {STACK_STATUS: "UPDATE_ROLLBACK_IN_PROGRESS"}
"""What marks an event of a rollback."""
_STACK: Final = (
    '<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
    "<DescribeStacksResult><Stacks><member><StackName>images</StackName>"
    "<CreationTime>2020-11-24T00:00:00Z</CreationTime><LastUpdatedTime>{}</LastUpdatedTime>"
    "<StackStatus>{}</StackStatus>"
    "</member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
)


@dataclass
class Aws:
    """Image Builder, EC2, Step Functions, Lambda and the ResponseURLs, and what fails in them.

    Attributes:
        faults: What happens to which call to AWS, by its number since the last `expect`.
        response_faults: The same for responses to CloudFormation.
        operation_faults: What happens to the next calls of an operation.
        denied: Operations that IAM denies now.
        stack_changes: When an event was sent, the status of its stack, and when its stack operation
            began.
        responses: The responses that arrived at each ResponseURL, in order.
        responded: When the first of them arrived.
        bodies: The bodies of all responses, in order.
        headers: Their HTTP headers.
    """

    faults: dict[int, str] = field(default_factory=dict)
    response_faults: dict[int, str] = field(default_factory=dict)
    operation_faults: list[Fault] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    stack_changes: list[tuple[float, str, float]] = field(default_factory=list)
    responses: dict[str, list[Answer]] = field(default_factory=dict)
    responded: dict[str, float] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.local = LocalServices()
        self.step_functions = StepFunctions(self.clock, lambda: self.local.knobs.read_lag_seconds)
        self.turns: Turns | None = None
        self.processes = [LambdaProcess(self.now, self.put), LambdaProcess(self.now, self.put)]
        self._killed: set[int] = set()
        self._ends: dict[int, float] = {}  # when Lambda ends the invocation of each thread
        self._calls = self._puts = self._outage = self._response_outage = 0
        self._denied_until: dict[str, float] = {}
        self._numbers = itertools.count()
        self._connected = False
        self._retry_quotas: list[RetryQuota] = []  # of botocore: a client stops to retry

    def reset(self, **knobs: object) -> None:
        """Delete everything, and set the clock back."""
        self.local.reset(**knobs)
        self.step_functions.reset(self.clock)
        self.responses.clear()
        self.responded.clear()
        self.bodies.clear()
        self.headers.clear()
        self.operation_faults.clear()
        self.stack_changes.clear()
        self._denied_until.clear()
        for quota in self._retry_quotas:
            quota.release(RetryQuota.INITIAL_CAPACITY)
        self.expect()

    def expect(
        self,
        faults: dict[int, str] | None = None,
        response_faults: dict[int, str] | None = None,
        denied: set[str] | None = None,
    ) -> None:
        """Have these fail from here on, and nothing else."""
        unknown = {*(faults or {}).values()} - {*FAULTS}
        unknown |= {*(response_faults or {}).values()} - {*RESPONSE_FAULTS}
        assert not unknown, f"no such faults: {unknown}"
        self.faults, self.response_faults = faults or {}, response_faults or {}
        self.denied = denied or set()
        self._calls = self._puts = self._outage = self._response_outage = 0

    def deny_for(self, seconds: float, operation: str) -> None:
        """Have IAM deny an operation until so many seconds have passed."""
        self._denied_until[operation] = self.now() + seconds

    def fault(self, service: str, operation: str, **what: Any) -> None:
        """Have the next calls of an operation fail; see `Fault`."""
        self.operation_faults.append(Fault(service, operation, **what))

    # --- what people do and see ---

    def import_task(self, seconds: float = 60, ends: str = "completed") -> str:
        """Add an import task; after so many seconds it is `completed` or `failed`, or `never`."""
        task_id = f"import-ami-{next(self._numbers):017x}"
        self.local.add_task(task_id, seconds, ends)
        return task_id

    @property
    def images(self) -> dict[str, Image]:
        """All images, by ARN."""
        return self.local.images

    @property
    def tasks(self) -> dict[str, ImportTask]:
        """All import tasks, by id."""
        return self.local.tasks

    def delete(self, arn: str) -> None:
        """Delete an image by hand, whatever its state."""
        self.local.delete_image(arn)

    def client(self, service: str) -> Any:
        """A boto3 client of a person: nothing fails, and no time passes."""
        client = _client(service)

        def answer(request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse:
            operation = event_name.rpartition(".")[2]
            return self._serve(request, service, operation)

        client.meta.events.register("before-send", answer, unique_id="person")
        return client

    # --- time ---

    @property
    def clock(self) -> VirtualClock:
        return self.local.clock

    def now(self) -> float:
        return self.clock.now()

    def sleep(self, seconds: float) -> None:
        """Let time pass for one process; no step of an execution runs meanwhile."""
        if self.turns:
            self.turns.pass_on(seconds)
        else:
            self.clock.advance(seconds)
        self._fail_if_killed()

    def let_pass(self, seconds: float) -> None:
        """Let time pass, and run all steps that are due in it."""
        end = self.now() + seconds
        self._run_steps(lambda due: due <= end)
        self.clock.advance(max(0.0, end - self.now()))

    # --- the function ---

    def deliver(self, event: Event) -> None:
        """Have Lambda call the function with an event, and wait for the response."""
        sent = self.now()
        self.call(event, self.processes[0])
        self.work(lambda: event["ResponseURL"] in self.responses, sent + SERVICE_TIMEOUT)

    def call(self, event: Event, process: LambdaProcess | None = None) -> None:
        """Have Lambda call the function with an event, and retry if the function fails."""
        process = process or self.processes[0]
        status = event.get(STACK_STATUS, "UPDATE_IN_PROGRESS")
        self.stack_changes.append((self.now(), status, event.get(STACK_CHANGED, self.now())))
        for pause in (*_RETRIES, None):
            outcome, _ = self._invoke(process, event)
            if outcome == "returned":
                handled = event["ResponseURL"] in self.responses or self.step_functions.of(event)
                assert handled, "an event was neither responded to nor has it an execution"
                return
            if pause:
                self.sleep(pause)

    def _invoke(
        self, process: LambdaProcess, payload: dict[str, Any]
    ) -> tuple[str, dict[str, Any] | None]:
        me = threading.get_ident()
        self._ends[me] = self.now() + TIMEOUT
        try:
            return process.invoke(payload)
        finally:
            del self._ends[me]
            self._killed.discard(me)

    def deliver_again(self, event: Event) -> None:
        """Have Lambda call another process with an event that CloudFormation is done with."""
        self.call(event, self.processes[1])
        self.work(lambda: False)

    def deliver_at_once(
        self,
        *events: Event,
        chance: random.Random,
        head_start: int = 0,
        delay: float = 0.0,
    ) -> None:
        """Have two processes handle two events, or one event twice, concurrently.

        Args:
            events: The events.
            chance: Chooses the process that runs next.
            head_start: How many calls the first process makes before the second begins.
            delay: How many seconds later the second event is delivered.
        """
        self.turns = Turns(self.now, self.clock.advance, chance)

        def body(number: int) -> Callable[[], None]:
            def handle() -> None:
                process = self.processes[number]
                if number:
                    self.sleep(delay)
                self.call(events[number], process)
                if execution := self.step_functions.of(events[number]):
                    self._run_beside_others(execution, process)

            return handle

        try:
            self.turns.run(*map(body, range(len(events))), head_start=head_start)
        finally:
            self.turns = None

    # --- the state machine ---

    def work(self, until: Callable[[], bool], end: float = float("inf")) -> None:
        """Run the steps of all executions in the order of their time.

        Follow-up executions only run as long as others do: CloudFormation does not wait for them.
        """

        def continues(due: float) -> bool:
            waited_for = any(not e.is_follow_up for e in self.step_functions.running())
            return not until() and due <= end and (waited_for or due <= self.now())

        self._run_steps(continues)

    def step(self, execution: Execution, process: LambdaProcess | None = None) -> None:
        """Wait until a step is due, and run it."""
        self.sleep(max(0.0, execution.due - self.now()))
        if execution.is_running:
            outcome, returned = self._invoke(process or self.processes[0], execution.data)
            execution.continue_after(outcome, returned, self.now())

    def _run_steps(self, continues: Callable[[float], bool]) -> None:
        """Run the step that is due next, as long as `continues` allows its time."""
        while running := self.step_functions.running():
            execution = min(running, key=lambda execution: execution.due)
            if not continues(execution.due):
                return
            self.step(execution)

    def _run_beside_others(self, execution: Execution, process: LambdaProcess) -> None:
        if execution.claimed:
            return
        execution.claimed = True
        end = self.now() + _FOLLOWED
        while execution.is_running and not (execution.is_follow_up and execution.due > end):
            self.step(execution, process)

    @contextmanager
    def installed(self, *, silent: bool = True) -> Iterator[Aws]:
        """Have the handler use this AWS and its time.

        Args:
            silent: Whether the lines that the handler prints are discarded.
        """
        credentials = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
        virtual = SimpleNamespace(sleep=self.sleep, time=self.now, monotonic=self.now)
        discarded = SimpleNamespace(write=lambda _: None, flush=lambda: None)
        modules = [m for process in self.processes for m in process.modules.values()]
        with ExitStack() as stack:
            stack.enter_context(patch.dict("os.environ", credentials))
            stack.enter_context(self.local.permitted())
            for module in (botocore.endpoint, *modules):
                if hasattr(module, "time"):
                    stack.enter_context(patch.object(module, "time", virtual))
                if silent and module is not botocore.endpoint and hasattr(module, "sys"):
                    stack.enter_context(
                        patch.object(module, "sys", SimpleNamespace(stdout=discarded))
                    )
            if not self._connected:  # no other Aws uses these clients
                self._connect()
            yield self

    def _connect(self) -> None:
        """Have the handler's clients, which are created only once, send their requests here."""

        def retry_quota() -> RetryQuota:
            self._retry_quotas.append(RetryQuota())
            return self._retry_quotas[-1]

        with patch.object(botocore.retries.quota, "RetryQuota", retry_quota):
            for process in self.processes:
                aws_client = process.modules["aws.session"].aws_client
                for service in (*self.local.names, "stepfunctions", "cloudformation"):
                    aws_client(service).meta.events.register("before-send", self._answer)
        self._connected = True

    # --- AWS's side ---

    def _answer(self, request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse:
        service, operation = event_name.split(".")[1:]
        if self.turns:
            self.turns.pass_on()
        self._fail_if_killed()
        fault = self._next_fault()
        if fault == "killed before":
            self._kill()
        if fault == "denied at first":
            self.deny_for(80, operation)
        if fault == "not connected":
            raise ConnectionClosedError(endpoint_url=request.url)
        if refusal := self._refusal(fault, operation):
            return self._refuse(request, service, operation, *refusal)
        planned = self._planned_fault(service, operation)
        if planned and planned.delay:
            self.sleep(planned.delay)
        if planned and planned.error:
            error = planned.error
            return self._refuse(
                request, service, operation, error["code"], error["status"], error["message"]
            )
        response = self._serve(request, service, operation)
        if fault == "killed after":
            self._kill()
        if fault == "answer lost" or (planned and planned.lose_answer):
            return _response(request, 500, {}, b"")
        return response

    def _refusal(self, fault: str, operation: str) -> tuple[str, int] | None:
        """The error code and the HTTP status with which an operation is refused, if it is."""
        if fault == "not found" and operation == "GetImage":
            return "ResourceNotFoundException", 404
        needs = {operation, *_ALSO_NEEDS.get(operation, ())}
        late = {name for name, end in self._denied_until.items() if self.now() < end}
        is_denied = needs & (self.denied | late)
        return _REFUSALS.get(fault, ("AccessDeniedException", 403) if is_denied else None)

    def _next_fault(self) -> str:
        number, self._calls = self._calls, self._calls + 1
        fault = self.faults.get(number, "")
        if fault == "outage":
            self._outage = 6
        if self._outage:
            self._outage -= 1
            return "failed"
        return fault

    def _planned_fault(self, service: str, operation: str) -> Fault | None:
        for fault in self.operation_faults:
            if (fault.service, fault.operation) == (_model_name(service), operation):
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                if fault.times <= 0:
                    self.operation_faults.remove(fault)
                return fault
        return None

    def _refuse(
        self,
        request: AWSPreparedRequest,
        service: str,
        operation: str,
        code: str,
        status: int,
        message: str = "no",
    ) -> AWSResponse:
        if service == "sfn" and status == 429:
            code, status = "ThrottlingException", 400
        self.local.calls.append(
            {"service": service, "operation": operation, "request": None, "error": code}
        )
        request_id = str(uuid.uuid4())
        body = json.dumps({"__type": code, "message": message})
        if service == "ec2":
            body = (
                f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message>"
                f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
            )
        if service == "cloudformation":
            body = (
                f"<ErrorResponse><Error><Code>{code}</Code><Message>{escape(message)}</Message>"
                f"</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
            )
        headers = {"X-Amzn-Errortype": code, "x-amzn-requestid": request_id}
        return _response(request, status, headers, body.encode())

    def _serve(self, request: AWSPreparedRequest, service: str, operation: str) -> AWSResponse:
        if _model_name(service) == "stepfunctions":
            return self._serve_step_functions(request, operation)
        if service == "cloudformation":
            then = self.now() - self.local.knobs.stack_lag_seconds
            seen = [change for change in self.stack_changes if change[0] <= then]
            _, shown, changed = (seen or self.stack_changes[:1])[-1]
            body = _STACK.format(datetime.fromtimestamp(changed, UTC).isoformat(), shown)
            return _response(request, _OK, {}, body.encode())
        url = urlsplit(str(request.url))
        self.clock.settle()
        status, headers, content = self.local.handle(
            service,
            str(request.method),
            url.path,
            _body(request),
            parse_qs(url.query, keep_blank_values=True),
        )
        return _response(
            request, status, {**headers, "x-amzn-requestid": str(uuid.uuid4())}, content
        )

    def _serve_step_functions(self, request: AWSPreparedRequest, operation: str) -> AWSResponse:
        asked = json.loads(_body(request))
        try:
            answer = self.step_functions.call(_model("stepfunctions"), operation, asked)
        except RefusedError as error:
            return self._refuse(request, "sfn", operation, str(error), 400)
        record = {"service": "stepfunctions", "operation": operation, "request": asked}
        self.local.calls.append({**record, "error": None})
        return _response(request, _OK, {}, json.dumps(answer).encode())

    def _fail_if_killed(self) -> None:
        me = threading.get_ident()
        if self.now() > self._ends.get(me, float("inf")):
            self._killed.add(me)  # Lambda ends a function that runs too long
        if me in self._killed:
            raise KilledError

    def _kill(self) -> None:
        self._killed.add(threading.get_ident())
        raise KilledError

    def put(
        self,
        _method: str,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> SimpleNamespace:
        """Receive a response to CloudFormation, or fail to."""
        if self.turns:
            self.turns.pass_on()
        self._fail_if_killed()
        number, self._puts = self._puts, self._puts + 1
        fault = self.response_faults.get(number, "")
        if fault == "outage":
            self._response_outage = 60
        if self._response_outage:
            self._response_outage -= 1
            fault = "500"
        if fault.isdigit():
            return SimpleNamespace(status=int(fault))
        if fault != "not connected":
            assert len(body) <= 4096
            answer = json.loads(body)
            assert answer["PhysicalResourceId"]
            self.responses.setdefault(url, []).append(answer)
            self.responded.setdefault(url, self.now())
            self.bodies.append(body)
            self.headers.append(headers or {})
        if fault == "killed after":
            self._kill()
        if fault:
            raise urllib3.exceptions.ProtocolError
        return SimpleNamespace(status=_OK)


@functools.cache
def shared_aws() -> Aws:
    """The one Aws of the test process: MiniStack's stores exist once, too."""
    return Aws()


@functools.cache
def _client(service: str) -> Any:
    session: Any = boto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION
    )
    return session.client(service)


@functools.cache
def _model(service: str) -> Any:
    return _client(service).meta.service_model


def _model_name(service: str) -> str:
    """The name in boto3.client of a name in botocore's events."""
    return "stepfunctions" if service == "sfn" else service


def _response(
    request: AWSPreparedRequest, status: int, headers: dict[str, str], body: bytes
) -> AWSResponse:
    return AWSResponse(request.url, status, headers, _Raw(body))  # type: ignore[arg-type]


def _body(request: AWSPreparedRequest) -> bytes:
    body = request.body or b""
    return body if isinstance(body, bytes) else str(body).encode()
