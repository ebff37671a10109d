"""The local AWS without sockets: botocore's own requests, answered in the same thread.

Its time is virtual: whoever pauses moves the clock. So is the Lambda function that runs on it: it
can be killed at any call, and two of them can run at once, taking turns at each call. What waits is
called again as the state machine would (step_functions.py).
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import sys
import threading
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import botocore.endpoint
import urllib3
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from ministack.core.responses import request_scope
from ministack.services import ec2

import index
from local_aws.server.clock import Clock
from local_aws.server.knobs import Knobs
from local_aws.server.world import World
from local_aws.services.ec2.vm_import import ImportTask, VmImport
from local_aws.services.imagebuilder.image_builder import Image, ImageBuilder
from local_aws.services.service_model import Ec2QueryService, RestJsonService
from tests.handler.cloudformation import ACCOUNT, REGION
from tests.lifecycle.step_functions import RefusedError, StepFunctions

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Iterator
    from types import ModuleType

    from botocore.awsrequest import AWSPreparedRequest

    from tests.lifecycle.step_functions import Execution

_HANDLER: Final = Path(index.__file__).parent
# How long CloudFormation waits for an answer, in seconds.
SERVICE_TIMEOUT: Final = 3600.0
# Reads may lag behind a write, but not for longer than this, in seconds.
_LONGEST_LAG: Final = 3.0
_READS: Final = ("GetImage", "ListImageBuildVersions")
_WRITES: Final = (
    "ImportVmImage",
    "CancelImageCreation",
    "DeleteImage",
    "TagResource",
    "UntagResource",
)
# How long what goes on after its answer is watched beside another process, in seconds.
_FOLLOWED: Final = 900.0
# Lambda gives a function 15 minutes, and calls it again 1 and 2 minutes after it failed.
_SECONDS: Final = 900.0
_PAUSES: Final = (60.0, 120.0)

# What can befall a call to AWS. Each name says what the handler sees, and what really happened.
FAULTS: Final = (
    "throttled",
    "throttled unretried",  # botocore passes CallRateLimitExceededException on
    "failed",
    "answer lost",
    "not connected",
    "outage",  # of some calls' length
    "killed before",
    "killed after",
)
ANSWER_FAULTS: Final = ("403", "500", "not connected", "taken but lost", "outage", "killed after")


class KilledError(BaseException):
    """Stands for the end of the Lambda process."""


class VirtualClock(Clock):
    """A clock that stands still unless it is moved."""

    seconds = 1_700_000_000.0

    def now(self) -> float:
        return self.seconds if self._shown is None else self._shown

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.settle()


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


class Turns:
    """Lambda processes that run at once: one goes on while the others stand at a call or sleep."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self._turn = threading.Condition()
        self._running: int | None = None
        self._wakes: dict[int, float] = {}
        self._me = threading.local()

    def run(self, *bodies: Callable[[], None], head_start: int = 0) -> None:
        """Run all to their ends; the first is that many calls ahead."""
        errors: list[BaseException] = []
        self._head_start = head_start

        def body(number: int) -> None:
            self._me.number = number
            with self._turn:
                self._turn.wait_for(lambda: self._running == number)
            try:
                bodies[number]()
            except BaseException as error:  # noqa: BLE001 - raised where they were started
                errors.append(error)
            with self._turn:
                del self._wakes[number]
                self._next()

        threads = [threading.Thread(target=body, args=(n,)) for n in range(len(bodies))]
        self._wakes = dict.fromkeys(range(len(bodies)), 0.0)
        self._running = 0
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error

    def hand_over(self, seconds: float = 0.0) -> None:
        """Let another go on, at once or for so many seconds."""
        number = self._me.number
        with self._turn:
            self._wakes[number] = self._clock.now() + seconds
            self._next()
            self._turn.wait_for(lambda: self._running == number)

    def _next(self) -> None:
        if self._head_start and 0 in self._wakes:
            self._head_start -= 1
            awake = [0]
        elif awake := [n for n, wake in self._wakes.items() if wake <= self._clock.now()]:
            awake = [self._chance.choice(awake)]
        elif self._wakes:
            awake = [min(self._wakes, key=lambda n: (self._wakes[n], n))]
        else:
            return
        self._clock.advance(max(0.0, self._wakes[awake[0]] - self._clock.now()))
        self._running = awake[0]
        self._turn.notify_all()


class Lambda:
    """A process of the function: its modules are its own."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        names = {path.stem for path in _HANDLER.glob("*.py")}
        others = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
        # whoever answers or signals makes itself a pool
        answering = SimpleNamespace(request=aws.put)
        with patch.object(urllib3, "PoolManager", lambda **_: answering):
            importlib.import_module("index")
        self.modules: dict[str, ModuleType] = {
            name: sys.modules.pop(name) for name in names & sys.modules.keys()
        }
        sys.modules.update(others)

    def invoke(self, event: dict[str, Any]) -> tuple[str, Any]:
        """Call the function; return how that went (ended, killed, undelivered) and the result."""
        start = self._aws.clock.now()

        def remaining() -> int:
            return int((_SECONDS - (self._aws.clock.now() - start)) * 1000)

        context = SimpleNamespace(
            aws_request_id=str(uuid.uuid4()),
            invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f",
            log_group_name="/aws/lambda/f",
            log_stream_name="stream",
            get_remaining_time_in_millis=remaining,
        )
        self._aws.dead.discard(threading.get_ident())
        try:
            answer = self.modules["index"].handler(json.loads(json.dumps(event)), context)
        except KilledError:
            return "killed", None
        except self.modules["cfn_resource"].UndeliveredAnswerError:
            return "undelivered", None
        assert remaining() > 0, "the function went on after its time"
        return "ended", json.loads(json.dumps(answer))


@dataclass
class Aws:
    """Image Builder, import tasks, waits and the ResponseURLs; and what goes wrong with them.

    Attributes:
        faults: What befalls which call to AWS, counted from the last reset of `calls`.
        answer_faults: The same of answers to CloudFormation.
        denied: Operations that IAM denies now.
        lag: How many reads of each kind show Image Builder as it was before a write.
        answers: What arrived at each ResponseURL, in order.
        answered: When the first of them did.
    """

    clock: VirtualClock = field(default_factory=VirtualClock)
    faults: dict[int, str] = field(default_factory=dict)
    answer_faults: dict[int, str] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    lag: int = 0
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    turns: Turns | None = None
    calls: int = 0
    puts: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.clock)
        self._vm_import = VmImport(self.world)
        self._images = ImageBuilder(self.world, self._vm_import)
        self._services: dict[str, RestJsonService | Ec2QueryService] = {
            "imagebuilder": RestJsonService(
                "imagebuilder", self._images.operations, self.world, lambda *_: None
            ),
            "ec2": Ec2QueryService(
                self._vm_import.operations, self.world, lambda *_: None, ec2.handle_request
            ),
        }
        self.step_functions = StepFunctions(self.clock)
        self.functions = [Lambda(self), Lambda(self)]
        self._outage = self._answer_outage = 0
        self._before: tuple[float, dict[str, Image]] | None = None
        self._lagging: dict[str, int] = {}
        self._numbers = itertools.count()

    def reset(self, **knobs: object) -> None:
        """Forget everything."""
        self._images.reset()
        self._vm_import.reset()
        ec2._images.clear()
        ec2._snapshots.clear()
        ec2._tags.clear()
        self.clock = self.world.clock = self.step_functions.clock = VirtualClock()
        self.world.knobs = Knobs().changed(knobs)
        self.world.calls.clear()
        self.answers.clear()
        self.answered.clear()
        self.step_functions.executions.clear()
        self.lag, self._before = 0, None
        self._lagging.clear()
        self.expect()

    def expect(
        self,
        faults: dict[int, str] | None = None,
        answer_faults: dict[int, str] | None = None,
        denied: set[str] | None = None,
    ) -> None:
        """Have these go wrong from here on, and nothing else."""
        self.faults, self.answer_faults = faults or {}, answer_faults or {}
        self.denied = denied or set()
        self.calls = self.puts = self._outage = self._answer_outage = 0

    # --- what people do ---

    def import_task(self, seconds: float = 60, ends: str = "completed") -> str:
        """An import task; after so many seconds it is `completed`, or `failed`, or `never` ends."""
        task = ImportTask(
            task_id=f"import-ami-{next(self._numbers):017x}",
            request={},
            details=[{"DeviceName": "/dev/sda1", "SnapshotId": "snap-1", "DiskImageSize": 1.0}],
        )
        with request_scope(ACCOUNT, REGION):
            self._vm_import._tasks[task.task_id] = task
            if ends == "completed":
                self.world.call_in(seconds, lambda: self._vm_import._complete(task))
            if ends == "failed":
                why = "ClientError: Unknown OS / Missing OS files."
                self.world.call_in(seconds, lambda: self._vm_import.fail(task, why))
        return task.task_id

    @property
    def images(self) -> dict[str, Image]:
        """All images, by ARN."""
        with request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(self._images._images.items())

    @property
    def tasks(self) -> dict[str, ImportTask]:
        """All import tasks, by id."""
        with request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(self._vm_import._tasks.items())

    @property
    def amis(self) -> list[str]:
        """All AMIs."""
        with request_scope(ACCOUNT, REGION):
            return list(ec2._images.keys())

    def delete(self, arn: str) -> None:
        """Delete an image by hand, whatever its state."""
        with request_scope(ACCOUNT, REGION):
            del self._images._images[arn]

    # --- the function ---

    def deliver(self, event: dict[str, Any]) -> None:
        """Have Lambda call the function, and again if that fails; and wait for the answer."""
        sent = self.clock.now()
        self._call(event, self.functions[0])
        answered = lambda: event["ResponseURL"] in self.answers  # noqa: E731
        self.work(answered, sent + SERVICE_TIMEOUT)

    def _call(self, event: dict[str, Any], function: Lambda) -> None:
        for pause in (*_PAUSES, None):
            outcome, _ = function.invoke(event)
            if outcome == "ended":
                taken = self.answers.get(event["ResponseURL"]) or self.step_functions.of(event)
                assert taken, "an event was neither answered nor handed over"
                return
            if pause:
                self.sleep(pause)

    def bring_again(self, event: dict[str, Any]) -> None:
        """Have Lambda call the function with an event that was answered, in another process."""
        self._call(event, self.functions[1])
        self.work(lambda: False)

    def deliver_at_once(
        self,
        *events: dict[str, Any],
        chance: random.Random,
        head_start: int = 0,
        delay: float = 0.0,
    ) -> None:
        """Have two processes handle two events, or one event twice, taking turns.

        Args:
            events: The events.
            chance: Says whose turn it is.
            head_start: By how many calls the first is ahead.
            delay: By how many seconds it is.
        """
        self.turns = Turns(self.clock, chance)

        def body(number: int) -> Callable[[], None]:
            def handle() -> None:
                function = self.functions[number]
                if number:
                    self.sleep(delay)
                self._call(events[number], function)
                if execution := self.step_functions.of(events[number]):
                    self._follow(execution, function)

            return handle

        try:
            self.turns.run(*map(body, range(len(events))), head_start=head_start)
        finally:
            self.turns = None

    # --- the state machine ---

    def work(self, until: Callable[[], bool], end: float = float("inf")) -> None:
        """Take the steps of all waits, in the order of their time.

        Of one whose event is answered, and that goes on beside what CloudFormation does next, only
        those that are due before the others are over.
        """

        def goes_on(due: float) -> bool:
            waited_for = any(not e.is_answered for e in self.step_functions.running())
            return not until() and due <= end and (waited_for or due <= self.clock.now())

        self._take_steps(goes_on)

    def let_pass(self, seconds: float) -> None:
        """Let time pass, and take all steps that are due in it."""
        end = self.clock.now() + seconds
        self._take_steps(lambda due: due <= end)
        self.clock.advance(max(0.0, end - self.clock.now()))

    def _take_steps(self, goes_on: Callable[[float], bool]) -> None:
        """Take the steps of all executions, as long as it goes on with the one that is due next."""
        while running := self.step_functions.running():
            execution = min(running, key=lambda execution: execution.due)
            if not goes_on(execution.due):
                return
            self.clock.advance(max(0.0, execution.due - self.clock.now()))
            self._step(execution, self.functions[0])

    def _follow(self, execution: Execution, function: Lambda) -> None:
        """Take the steps of one wait, while another process does something else."""
        if execution.taken:
            return
        execution.taken = True
        end = self.clock.now() + _FOLLOWED
        while execution.is_running and not (execution.is_answered and execution.due > end):
            self.sleep(max(0.0, execution.due - self.clock.now()))
            if execution.is_running:
                self._step(execution, function)

    def _step(self, execution: Execution, function: Lambda) -> None:
        outcome, answer = function.invoke(execution.state)
        execution.go_on(outcome, answer, self.clock.now())

    @contextmanager
    def installed(self) -> Iterator[Aws]:
        """Have the handler's clients, pauses and answers end here."""
        credentials = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
        virtual = SimpleNamespace(sleep=self.sleep, time=self._now, monotonic=self._now)
        handlers = [function.modules for function in self.functions]
        modules = [module for modules in handlers for module in modules.values()]
        with ExitStack() as stack:
            stack.enter_context(patch.dict("os.environ", credentials))
            for module in (botocore.endpoint, *modules):
                if hasattr(module, "time"):
                    stack.enter_context(patch.object(module, "time", virtual))
            for handler in handlers:
                # a line a look
                unread = SimpleNamespace(write=lambda _: None, flush=lambda: None)
                silent = SimpleNamespace(stdout=unread)
                stack.enter_context(patch.object(handler["progress"], "sys", silent))
                aws_client = handler["aws_calls"].aws_client
                aws_client.cache_clear()
                stack.callback(aws_client.cache_clear)
                for service in (*self._services, "stepfunctions"):
                    aws_client(service).meta.events.register("before-send", self._answer)
            yield self

    def _now(self) -> float:
        return self.clock.now()

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        if self.turns:
            self.turns.hand_over(seconds)
        else:
            self.clock.advance(seconds)

    # --- AWS's side ---

    def _answer(self, request: AWSPreparedRequest, event_name: str, **_more: Any) -> AWSResponse:
        _, service, operation = event_name.split(".")
        if self.turns:
            self.turns.hand_over()
        self._live()
        fault = self._next_fault()
        refusal = _REFUSALS.get(fault)
        if fault == "killed before":
            self._kill()
        if fault == "not connected":
            raise ConnectionClosedError(endpoint_url=request.url)
        if refusal is None and operation in self.denied:
            refusal = ("AccessDeniedException", 403)
        if refusal:
            return _error(request, service, *refusal)
        if service == "sfn":
            response = self._serve_waits(request, operation)
        else:
            response = self._serve(request, service, operation)
        if fault == "killed after":
            self._kill()
        if fault == "answer lost":
            return AWSResponse(request.url, 500, {}, _Raw(b""))  # type: ignore[arg-type]
        return response

    def _next_fault(self) -> str:
        number, self.calls = self.calls, self.calls + 1
        fault = self.faults.get(number, "")
        if fault == "outage":
            self._outage = 6
        if self._outage:
            self._outage -= 1
            return "failed"
        return fault

    def _serve_waits(self, request: AWSPreparedRequest, operation: str) -> AWSResponse:
        asked = json.loads(_body(request))
        try:
            answer = self.step_functions.operations[operation](asked)
        except RefusedError as error:
            return _error(request, "sfn", str(error), 400)
        return AWSResponse(request.url, 200, {}, _Raw(json.dumps(answer).encode()))  # type: ignore[arg-type]

    @contextmanager
    def _lagged(self, operation: str) -> Iterator[None]:
        """Have some reads show the images as they were before the last write."""
        images, now = self._images._images, self.clock.now()
        if self.lag and operation in _WRITES:
            self._before = now, copy.deepcopy(dict(images.items()))
            self._lagging = dict.fromkeys(_READS, self.lag)
        seconds, before = self._before or (0.0, {})
        if now - seconds > _LONGEST_LAG or not self._lagging.get(operation):
            yield
            return
        self._lagging[operation] -= 1
        truth = dict(images.items())
        images.clear()
        images.update(before)
        yield
        images.clear()
        images.update(truth)

    def _serve(self, request: AWSPreparedRequest, service: str, operation: str) -> AWSResponse:
        url = urlsplit(str(request.url))
        self.clock.settle()
        with request_scope(ACCOUNT, REGION), self._lagged(operation):
            status, headers, content = _run(
                self._services[service].handle_request(
                    str(request.method),
                    url.path,
                    {},
                    _body(request),
                    parse_qs(url.query, keep_blank_values=True),
                )
            )
        return AWSResponse(request.url, status, headers, _Raw(content))

    def _live(self) -> None:
        if threading.get_ident() in self.dead:
            raise KilledError

    def _kill(self) -> None:
        self.dead.add(threading.get_ident())
        raise KilledError

    def put(self, _method: str, url: str, *, body: bytes, **_: Any) -> SimpleNamespace:
        """Take an answer to CloudFormation, or not."""
        if self.turns:
            self.turns.hand_over()
        self._live()
        number, self.puts = self.puts, self.puts + 1
        fault = self.answer_faults.get(number, "")
        if fault == "outage":
            self._answer_outage = 60
        if self._answer_outage:
            self._answer_outage -= 1
            fault = "500"
        if fault.isdigit():
            return SimpleNamespace(status=int(fault))
        if fault != "not connected":
            assert len(body) <= 4096
            answer = json.loads(body)
            assert answer["PhysicalResourceId"]
            self.answers.setdefault(url, []).append(answer)
            self.answered.setdefault(url, self.clock.now())
        if fault == "killed after":
            self._kill()
        if fault:
            raise urllib3.exceptions.ProtocolError
        return SimpleNamespace(status=200)


# What AWS says when it refuses; EC2's throttling has another name, but is one to botocore too.
_REFUSALS: Final = {
    "throttled": ("TooManyRequestsException", 429),
    "throttled unretried": ("CallRateLimitExceededException", 429),
    "failed": ("ServiceException", 500),
}


def _body(request: AWSPreparedRequest) -> bytes:
    body = request.body or b""
    return body if isinstance(body, bytes) else str(body).encode()


def _error(request: AWSPreparedRequest, service: str, code: str, status: int) -> AWSResponse:
    if service == "sfn" and status == 429:
        code = "ThrottlingException"
    body = json.dumps({"__type": code, "message": "no"})
    if service == "ec2":
        body = f"<Response><Errors><Error><Code>{code}</Code></Error></Errors></Response>"
    headers = {"X-Amzn-Errortype": code}
    return AWSResponse(request.url, status, headers, _Raw(body.encode()))  # type: ignore[arg-type]


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")
