"""Four hundred images at the same time, with the API limits of an account, on a virtual clock.

Each execution has a Lambda process of its own, so its calls mix with those of all others. An AWS
call takes a tenth of a second. A call above the limit of its API is throttled.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest
from botocore.retries.quota import RetryQuota

from contract import ImageAttribute, ImageProperty, OwnTag, ResourceType
from tests.support.account import Account
from tests.support.aws import ROLLS_BACK, Aws, Fault
from tests.support.cloudformation import CustomResource, new_stack_id
from tests.support.lambda_function import LambdaProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGES: Final = 400
# Every tenth is cancelled while it is created.
CANCELLED: Final = 10
IMPORT: Final = 900
LATENCY: Final = 0.1
LIMITS: Final = {"imagebuilder": 10.0, "ec2": 10.0, "ListExecutions": 5.0}
"""Calls a second. A burst of as many is allowed."""
THROTTLED: Final = {
    "imagebuilder": ("TooManyRequestsException", 429),
    "ec2": ("RequestLimitExceeded", 503),
    "stepfunctions": ("ThrottlingException", 429),
}


class Scheduler:
    """Runs threads in virtual time: one at a time, the one that wakes next."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._waiting: list[tuple[float, int, threading.Semaphore]] = []
        self._numbers = itertools.count()
        self._end = threading.Semaphore(0)
        self.errors: list[BaseException] = []

    def run(self, *bodies: Callable[[], None]) -> None:
        """Run all to their ends."""
        threads = [threading.Thread(target=self._run, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
            self._end.acquire()  # until it waits for its turn
        self._next()
        for thread in threads:
            thread.join()
        for error in self.errors:
            raise error

    def pass_on(self, seconds: float = LATENCY) -> None:
        """Let the others run, and continue after so many seconds."""
        turn = self._wait_for_turn(seconds)
        self._next()
        turn.acquire()

    def _run(self, body: Callable[[], None]) -> None:
        turn = self._wait_for_turn(0)
        self._end.release()
        turn.acquire()
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - raised where they were started
            self.errors.append(error)
        self._next()

    def _wait_for_turn(self, seconds: float) -> threading.Semaphore:
        turn = threading.Semaphore(0)
        heapq.heappush(self._waiting, (self._aws.now() + seconds, next(self._numbers), turn))
        return turn

    def _next(self) -> None:
        if self._waiting:
            wakes, _, turn = heapq.heappop(self._waiting)
            self._aws.clock.advance(max(0.0, wakes - self._aws.now()))
            turn.release()


class Limits:
    """Token buckets of the APIs."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._tokens = dict(LIMITS)
        self._filled = dict.fromkeys(LIMITS, aws.now())
        self.throttled: collections.Counter[str] = collections.Counter()

    def fault(self, service: str, operation: str) -> Fault | None:
        """The fault of a call: None if its API's limit allows the call."""
        service = "stepfunctions" if service == "sfn" else service
        name = operation if operation in LIMITS else service
        if name not in LIMITS:
            return None
        now, limit = self._aws.now(), LIMITS[name]
        tokens = self._tokens[name] + (now - self._filled[name]) * limit
        self._tokens[name], self._filled[name] = min(limit, tokens), now
        if self._tokens[name] >= 1:
            self._tokens[name] -= 1
            return None
        self.throttled[name] += 1
        code, status = THROTTLED[service]
        error = {"code": code, "message": "Rate exceeded", "status": status}
        return Fault(service, operation, error=error)


class Function:
    """The function, with as many processes as run at the same time."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._idle: list[LambdaProcess] = []
        # Clients are shared: each would load the models of its service again.
        self._client = aws.processes[0].modules["aws.session"].aws_client
        self._time = SimpleNamespace(sleep=aws.sleep, time=aws.now, monotonic=aws.now)

    @contextmanager
    def process(self) -> Iterator[LambdaProcess]:
        """A process that nobody else uses meanwhile."""
        process = self._idle.pop() if self._idle else self._new_process()
        yield process
        self._idle.append(process)

    def _new_process(self) -> LambdaProcess:
        process = LambdaProcess(self._aws.now, self._aws.put)
        discarded = SimpleNamespace(write=lambda _: None, flush=lambda: None)
        for module in process.modules.values():
            for name, replacement in (
                ("time", self._time),
                ("sys", SimpleNamespace(stdout=discarded)),
                ("aws_client", self._client),
            ):
                if hasattr(module, name):
                    setattr(module, name, replacement)
        return process

    def handle(self, event: dict[str, Any]) -> None:
        """Handle an event, from its delivery to the end of its execution."""
        with self.process() as process:
            self._aws.call(event, process)
        execution = self._aws.step_functions.of(event)
        assert execution
        while execution.is_running:
            self._aws.sleep(max(0.0, execution.due - self._aws.now()))
            if execution.is_running:
                with self.process() as process:
                    self._aws.step(execution, process)


@pytest.fixture
def limits(aws: Aws) -> Iterator[Limits]:
    """Throttle calls above the limits."""
    limits = Limits(aws)
    with (
        patch.object(aws, "_planned_fault", limits.fault),
        # Each process of Lambda has a quota of its own, which so few calls never use up.
        patch.object(RetryQuota, "acquire", lambda *_: True),
    ):
        yield limits
    aws.turns = None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_400_images_at_the_same_time_are_imported_in_order_under_throttled_apis(
    aws: Aws, limits: Limits
) -> None:
    aws.local.change_knobs(import_seconds=float(IMPORT))
    aws.step_functions.page_size = 1000  # as AWS: the handler asks for so many
    account, function, stack_id = Account(aws), Function(aws), new_stack_id()
    images = [
        CustomResource(aws, logical_id=f"Image{number}", stack_id=stack_id)
        for number in range(IMAGES)
    ]
    cancelled, others = images[::CANCELLED], [i for n, i in enumerate(images) if n % CANCELLED]
    creates = {
        image.logical_id: image.create_event(account.waiting(Name=f"many-{number}"))
        for number, image in enumerate(images)
    }
    most = 0

    def create(image: CustomResource) -> None:
        function.handle(creates[image.logical_id])

    def cancel(image: CustomResource) -> None:
        nonlocal most
        aws.sleep(60)
        most = max(most, len(aws.step_functions.running()))
        function.handle(image.delete_event("an-id-that-cloudformation-invents") | ROLLS_BACK)

    def play(*bodies: Callable[[], None]) -> None:
        aws.turns = scheduler = Scheduler(aws)  # type: ignore[assignment]
        scheduler.run(*bodies)

    began = aws.now()
    play(
        *((lambda image=image: create(image)) for image in images),
        *((lambda image=image: cancel(image)) for image in cancelled),
    )

    print(  # noqa: T201 - what is worth to know of a run
        f"{most} executions at once; throttled: {dict(limits.throttled)}; "
        f"all ended after {(aws.now() - began) / 60:.0f} minutes"
    )
    assert most >= IMAGES
    assert set(limits.throttled) == set(LIMITS)
    _assert_one_response_each(aws, others, cancelled)
    for image in others:
        (response,) = aws.responses[creates[image.logical_id]["ResponseURL"]]
        image.physical_id = response["PhysicalResourceId"]
        assert response["Data"][ImageAttribute.IMAGE_ID]
    _assert_images(aws, others)

    updates = [
        image.update_event({**image.properties, ImageProperty.TAGS: {"stage": "live"}})
        for image in others
    ]
    play(*((lambda event=event: function.handle(event)) for event in updates))

    for event in updates:
        (response,) = aws.responses[event["ResponseURL"]]
        assert response["Status"] == "SUCCESS"
        assert aws.images[response["PhysicalResourceId"]].tags["stage"] == "live"
    _assert_images(aws, others)

    deletes = [image.delete_event() for image in others]
    play(*((lambda event=event: function.handle(event)) for event in deletes))

    assert {aws.responses[e["ResponseURL"]][0]["Status"] for e in deletes} == {"SUCCESS"}
    assert aws.images == {}


def _assert_one_response_each(
    aws: Aws, others: list[CustomResource], cancelled: list[CustomResource]
) -> None:
    """Each event has one response, and a cancelled Create none after that of its Delete."""
    counted = collections.Counter(
        (response["LogicalResourceId"], response["Status"])
        for responses in aws.responses.values()
        for response in responses
    )
    for image in others:
        assert counted[image.logical_id, "SUCCESS"] == 1
    for image in cancelled:
        last = [r for r in image.responses() if r["LogicalResourceId"] == image.logical_id][-1]
        assert last["Status"] == "SUCCESS"
        assert last["PhysicalResourceId"] == "an-id-that-cloudformation-invents"
    assert counted.total() - len(others) - len(cancelled) <= len(cancelled)
    superseded = [execution for execution in aws.step_functions.executions if execution.is_running]
    assert superseded == []


def _assert_images(aws: Aws, images: list[CustomResource]) -> None:
    """Exactly one image of each resource exists, and it is AVAILABLE."""
    owners = collections.Counter(image.tags[OwnTag.RESOURCE] for image in aws.images.values())
    assert owners == collections.Counter(image.logical_id for image in images)
    assert {image.status for image in aws.images.values()} == {"AVAILABLE"}
    assert all(resource.resource_type == ResourceType.IMAGE for resource in images)
