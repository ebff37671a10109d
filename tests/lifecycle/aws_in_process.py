"""The local AWS without sockets: botocore's own requests, answered in the same thread.

Its time is virtual: whoever pauses moves the clock. So is the Lambda function that runs on it: it
can be killed at any call, and two of them can run at once, taking turns at each call.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
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

import aws_calls
import cfn_resource
import deadline
import image_builder
from local_aws.clock import Clock
from local_aws.imagebuilder import Image, ImageBuilder
from local_aws.knobs import Knobs
from local_aws.service_model import Ec2QueryService, RestJsonService
from local_aws.vm_import import ImportTask, VmImport
from local_aws.world import World
from tests.handler.cloudformation import ACCOUNT, REGION

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Iterator

    from botocore.awsrequest import AWSPreparedRequest

_INDEX: Final = Path(image_builder.__file__).with_name("index.py")
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


@dataclass
class Lambda:
    """A process of the function: its module, and so its crhelper, is its own."""

    aws: Aws
    index: Any = None

    def __post_init__(self) -> None:
        spec = importlib.util.spec_from_file_location(f"index_{id(self)}", _INDEX)
        assert spec
        assert spec.loader
        self.index = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.index)
        self.index.cfn_resource._http = SimpleNamespace(request=self.aws.put)

    def invoke(self, event: dict[str, Any]) -> bool:
        """Call the function; whether it came to its end."""
        start = self.aws.clock.now()

        def remaining() -> int:
            return int((_SECONDS - (self.aws.clock.now() - start)) * 1000)

        context = SimpleNamespace(
            aws_request_id=str(uuid.uuid4()),
            invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f",
            log_group_name="/aws/lambda/f",
            log_stream_name="stream",
            get_remaining_time_in_millis=remaining,
        )
        self.aws.dead.discard(threading.get_ident())
        try:
            self.index.handler(dict(event), context)
        except (KilledError, cfn_resource.UndeliveredAnswerError):
            return False
        assert remaining() > 0, "the function went on after its time"
        return True


@dataclass
class Aws:
    """Image Builder, EC2's import tasks and the ResponseURLs; and what goes wrong with them.

    Attributes:
        faults: What befalls which call to AWS, counted from the last reset of `calls`.
        answer_faults: The same of answers to CloudFormation.
        denied: Operations that IAM denies now.
        answers: What arrived at each ResponseURL, in order.
    """

    clock: VirtualClock = field(default_factory=VirtualClock)
    faults: dict[int, str] = field(default_factory=dict)
    answer_faults: dict[int, str] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
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
        self.functions = [Lambda(self), Lambda(self)]
        self._outage = self._answer_outage = 0
        self._numbers = itertools.count()

    def reset(self, **knobs: object) -> None:
        """Forget everything."""
        self._images.reset()
        self._vm_import.reset()
        ec2._images.clear()
        ec2._tags.clear()
        self.clock = self.world.clock = VirtualClock()
        self.world.knobs = Knobs().changed(knobs)
        self.world.calls.clear()
        self.answers.clear()
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

    def import_task(self) -> str:
        """An import task; its AMI is there soon."""
        task = ImportTask(
            task_id=f"import-ami-{next(self._numbers):017x}",
            request={},
            details=[{"DeviceName": "/dev/sda1", "SnapshotId": "snap-1", "DiskImageSize": 1.0}],
        )
        with request_scope(ACCOUNT, REGION):
            self._vm_import._tasks[task.task_id] = task
            self.world.call_in(300, lambda: self._vm_import._complete(task))
        return task.task_id

    @property
    def images(self) -> dict[str, Image]:
        """All images, by ARN."""
        with request_scope(ACCOUNT, REGION):
            self.clock.settle()
            return dict(self._images._images.items())

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
        """Have Lambda call the function, and again if that fails."""
        for pause in (*_PAUSES, None):
            if self.functions[0].invoke(event):
                assert self.answers.get(event["ResponseURL"]), "an event was not answered"
                return
            if pause:
                self.sleep(pause)

    def deliver_at_once(
        self, *events: dict[str, Any], chance: random.Random, head_start: int = 0
    ) -> None:
        """Have two processes handle two events, or one event twice, taking turns."""
        self.turns = Turns(self.clock, chance)
        ended: dict[int, bool] = {}

        def body(number: int) -> Callable[[], None]:
            def invoke() -> None:
                ended[number] = self.functions[number].invoke(events[number])

            return invoke

        try:
            self.turns.run(*map(body, range(len(events))), head_start=head_start)
        finally:
            self.turns = None
        for number, event in enumerate(events):
            if not ended[number]:
                self.deliver(event)

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
        aws_calls.aws_client.cache_clear()
        with ExitStack() as stack:
            stack.enter_context(patch.dict("os.environ", credentials))
            for module in (deadline, cfn_resource, image_builder, botocore.endpoint):
                stack.enter_context(patch.object(module, "time", virtual))
            for service in self._services:
                events = aws_calls.aws_client(service).meta.events
                events.register("before-send", self._answer)
            yield self
        aws_calls.aws_client.cache_clear()

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
        response = self._serve(request, service)
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

    def _serve(self, request: AWSPreparedRequest, service: str) -> AWSResponse:
        url = urlsplit(str(request.url))
        body = request.body or b""
        with request_scope(ACCOUNT, REGION):
            status, headers, content = _run(
                self._services[service].handle_request(
                    str(request.method),
                    url.path,
                    {},
                    body if isinstance(body, bytes) else str(body).encode(),
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


def _error(request: AWSPreparedRequest, service: str, code: str, status: int) -> AWSResponse:
    body = json.dumps({"message": "no"})
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
