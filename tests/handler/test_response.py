"""The response to CloudFormation: each defect of plain crhelper does not exist in our subclass."""

from __future__ import annotations

import io
import logging
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from unittest.mock import Mock

import crhelper
import crhelper.resource_helper
import crhelper.utils
import pytest
import trustme

from cloudformation.response import CfnResource, UndeliveredResponseError
from cloudformation.step import Done, Pending, Response, State
from contract import ImageAttribute, ResourceType
from errors import VmImportError, failures_name
from tests.support.cloudformation import SIGNATURE, new_stack_id
from tests.support.lambda_function import LOG_GROUP, Context, handler_modules
from tests.support.response_urls import ResponseUrls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Function = Callable[[], str | None]

# crhelper ships types for its public names only
PLAIN: Any = crhelper.resource_helper
ARN = "arn:aws:imagebuilder:us-east-1:123456789012:image/rhel9/1.0.0/1"


class StillSendingError(BaseException):
    """The Lambda process ends at this point."""


class ManualClock:
    """A clock that moves when somebody sleeps, at most `max_sleeps` times."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps = 0
        self.max_sleeps = 50

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        if self.sleeps > self.max_sleeps:
            raise StillSendingError
        self.seconds += seconds


class Timers:
    """threading.Timer, which fires when `fire` is called."""

    def __init__(self) -> None:
        self.started: list[Callable[[], None]] = []

    def timer(self, _seconds: float, function: Callable[[], None]) -> SimpleNamespace:
        def start() -> None:
            self.started.append(function)

        return SimpleNamespace(start=start, cancel=lambda: None)

    def fire(self) -> None:
        for function in self.started:
            function()


class Helper(Protocol):
    """crhelper or our subclass of it."""

    def handle(
        self,
        event: dict[str, Any],
        context: Context,
        function: Function,
        data: Mapping[str, str] | None = None,
    ) -> object:
        """Handle an event with a function that returns the physical id."""

    poll_create: Callable[..., object]


@dataclass
class Bench:
    """What a scenario needs.

    Attributes:
        plain: Whether plain crhelper is tested.
    """

    urls: ResponseUrls
    log: io.StringIO
    clock: ManualClock
    timers: Timers
    boto3: Mock
    plain: bool
    stack_id: str = field(default_factory=new_stack_id)

    def helper(self) -> Helper:
        """Create a helper whose sleeps move the clock."""
        base: Any = crhelper.CfnResource if self.plain else CfnResource
        sleep, plain = self.clock.sleep, self.plain

        class Adapter(base):  # type: ignore[misc]  # the base is known at run time
            def _wait_for_cwlogs(self) -> None:
                super()._wait_for_cwlogs(sleep=sleep)

            def handle(
                self,
                event: dict[str, Any],
                context: Context,
                function: Function,
                data: Mapping[str, str] | None = None,
            ) -> object:
                if not plain:
                    return self.respond(
                        event, context, lambda: Done(Response(function() or "", data or {}))
                    )

                def handler(*_: object) -> str | None:
                    self.Data.update(data or {})
                    return function()

                for register in (self.create, self.update, self.delete):
                    register(handler)
                return self(event, context)

        adapter: Helper = Adapter()
        return adapter

    def event(self, request_type: str = "Create") -> dict[str, Any]:
        physical_id = {} if request_type == "Create" else {"PhysicalResourceId": ARN}
        return {
            "RequestType": request_type,
            "RequestId": f"request-{random.getrandbits(64)}",
            "StackId": self.stack_id,
            "ResponseURL": self.urls.url,
            "ResourceType": ResourceType.IMAGE.value,
            "LogicalResourceId": "GoldenImageF00D",
            "ResourceProperties": {},
            **physical_id,
        }

    def send(
        self,
        function: Function,
        request_type: str = "Create",
        *,
        data: Mapping[str, str] | None = None,
        seconds: float = 900,
    ) -> list[dict[str, Any]]:
        """Handle one event and return all responses so far."""
        context = Context(self.clock.now, seconds)
        self.helper().handle(self.event(request_type), context, function, data)
        return self.urls.responses


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def urls(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ResponseUrls]:
    bundle, certificate = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with ResponseUrls(certificate) as urls:
        yield urls


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that the process logs; Lambda's runtime installs such a handler on the root logger."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    level = logging.root.level
    logging.root.addHandler(handler)
    yield stream
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)


@pytest.fixture
def bench(urls: ResponseUrls, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench for our helper."""
    clock, timers, boto3 = ManualClock(), Timers(), Mock()
    time = SimpleNamespace(time=clock.now, monotonic=clock.now, sleep=clock.sleep)
    for module in handler_modules().values():
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", time)
    monkeypatch.setattr(crhelper.utils, "time", time)
    monkeypatch.setattr(PLAIN, "boto3", boto3)
    monkeypatch.setattr(PLAIN, "threading", SimpleNamespace(Timer=timers.timer))
    return Bench(urls, log, clock, timers, boto3, plain=False)


def fail(text: str) -> Function:
    def function() -> str:
        raise VmImportError(text)

    return function


# Each scenario returns whether the defect is there.


def a_repeated_failed_create_gets_another_id(bench: Bench) -> bool:
    helper, event = bench.helper(), bench.event()
    for _delivery in range(2):
        helper.handle(dict(event), Context(bench.clock.now), fail("no"))
    first, second = (response["PhysicalResourceId"] for response in bench.urls.responses)
    return bool(first != second)


def the_beginning_of_the_reason_is_lost(bench: Bench) -> bool:
    (response,) = bench.send(fail("what failed, and then " + "more " * 100))
    return not response["Reason"].startswith("what failed")


def the_response_is_longer_than_cloudformation_accepts(bench: Bench) -> bool:
    bench.send(lambda: ARN, data={"Attribute": "é" * 1000})
    return len(bench.urls.bodies[0]) > 4096


def a_refused_response_counts_as_delivered(bench: Bench) -> bool:
    bench.urls.replies += [403, 503]
    return bench.send(lambda: ARN) == []


def a_response_is_sent_until_the_process_is_killed(bench: Bench) -> bool:
    bench.urls.replies += [None] * 50
    bench.clock.max_sleeps = 12
    try:
        bench.send(lambda: ARN, seconds=5)
    except StillSendingError:
        return True
    except UndeliveredResponseError:
        return False
    return True


def a_timer_responds_while_the_function_continues(bench: Bench) -> bool:
    def function() -> str:
        bench.timers.fire()
        return ARN

    return [response["PhysicalResourceId"] for response in bench.send(function)] != [ARN]


def a_delete_sleeps_before_it_responds(bench: Bench) -> bool:
    bench.send(lambda: ARN, "Delete")
    return bench.clock.now() > 0


def clients_are_created_that_nobody_needs(bench: Bench) -> bool:
    bench.helper()
    return bool(bench.boto3.client.called)


def the_signed_response_url_is_in_the_log(bench: Bench) -> bool:
    bench.urls.replies += [500, None]
    bench.send(fail("no"))
    return SIGNATURE in bench.log.getvalue()


def each_polled_resource_creates_a_rule_and_a_permission(bench: Bench) -> bool:
    client = bench.boto3.client.return_value
    client.put_rule.return_value = {"RuleArn": "arn:aws:events:us-east-1:123456789012:rule/r"}
    helper = bench.helper()
    try:
        helper.poll_create(lambda *_: None)
    except TypeError:
        return False
    helper.handle(bench.event(), Context(bench.clock.now), lambda: ARN)
    return bool(client.put_rule.called and client.add_permission.called)


DEFECTS = [
    a_repeated_failed_create_gets_another_id,
    the_beginning_of_the_reason_is_lost,
    the_response_is_longer_than_cloudformation_accepts,
    a_refused_response_counts_as_delivered,
    a_response_is_sent_until_the_process_is_killed,
    a_timer_responds_while_the_function_continues,
    a_delete_sleeps_before_it_responds,
    clients_are_created_that_nobody_needs,
    the_signed_response_url_is_in_the_log,
    each_polled_resource_creates_a_rule_and_a_permission,
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_plain_crhelper_has_the_defect(
    bench: Bench, defect: Callable[[Bench], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.plain = True
    monkeypatch.delenv("AWS_SAM_LOCAL", raising=False)  # ours sets it

    assert defect(bench)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_our_subclass_of_crhelper_does_not_have_the_defect(
    bench: Bench, defect: Callable[[Bench], bool]
) -> None:
    assert not defect(bench)


def test_a_response_has_the_empty_content_type_that_its_url_is_signed_for(bench: Bench) -> None:
    bench.send(lambda: ARN)

    assert bench.urls.content_types == [""]


def test_a_response_has_what_cloudformation_needs(bench: Bench) -> None:
    event = bench.event()

    bench.helper().handle(
        event, Context(bench.clock.now), lambda: ARN, {ImageAttribute.IMAGE_ARN: ARN}
    )

    assert bench.urls.responses == [
        {
            "Status": "SUCCESS",
            "Reason": "",
            "PhysicalResourceId": ARN,
            "StackId": bench.stack_id,
            "RequestId": event["RequestId"],
            "LogicalResourceId": "GoldenImageF00D",
            "NoEcho": False,
            "Data": {ImageAttribute.IMAGE_ARN: ARN},
        }
    ]


def test_a_long_reason_in_any_alphabet_is_cut_to_fit_the_response(bench: Bench) -> None:
    (response,) = bench.send(fail("das Abbild ist beschädigt: " + "äöü\U0001f4a5" * 5000))

    assert 4000 < len(bench.urls.bodies[0]) <= 4096
    assert response["Reason"].startswith("das Abbild ist beschädigt: äöü")
    assert response["Reason"].endswith(f"(log group {LOG_GROUP})")


def test_attributes_that_are_too_long_fail_the_resource(bench: Bench) -> None:
    (response,) = bench.send(lambda: ARN, data={"Attribute": "x" * 5000})

    assert response["Status"] == "FAILED"
    assert response["Reason"] == "the attributes are longer than CloudFormation accepts"


def test_a_response_that_cannot_be_delivered_fails_the_invocation(bench: Bench) -> None:
    bench.urls.replies += [500] * 50

    with pytest.raises(UndeliveredResponseError, match="HTTP 500"):
        bench.send(lambda: ARN, seconds=60)

    assert bench.urls.responses == []
    assert 15 < bench.clock.now() < 60  # with jitter, and with time to fail the invocation


def test_the_error_for_an_undelivered_response_does_not_contain_the_url(bench: Bench) -> None:
    bench.urls.replies += [None] * 50

    with pytest.raises(UndeliveredResponseError) as error:
        bench.send(lambda: ARN, seconds=30)

    assert SIGNATURE not in repr(error.getrepr(chain=True))


def test_an_unexpected_error_is_the_reason_of_the_failure(bench: Bench) -> None:
    (response,) = bench.send(lambda: {"a": ARN}["b"])

    assert response["Status"] == "FAILED"
    assert response["Reason"] == f"KeyError('b') (log group {LOG_GROUP})"


def test_a_failed_response_names_what_may_have_been_created(bench: Bench) -> None:
    def function() -> str:
        with failures_name("rhel9/1.0.0/token"):
            raise VmImportError("no")

    (response,) = bench.send(function, "Update")

    assert response["PhysicalResourceId"] == "rhel9/1.0.0/token"


@pytest.mark.parametrize("request_type", ["Update", "Delete"])
def test_a_failure_that_created_nothing_keeps_the_physical_id(
    bench: Bench, request_type: str
) -> None:
    (response,) = bench.send(fail("no"), request_type)

    assert response["PhysicalResourceId"] == ARN


def test_nothing_is_sent_while_the_event_is_pending(bench: Bench) -> None:
    pending = Pending(State(started=0.0), 15)

    outcome = CfnResource().respond(bench.event(), Context(bench.clock.now), lambda: pending)

    assert outcome is pending
    assert bench.urls.responses == []


def test_each_line_of_the_log_names_the_event_that_is_handled(bench: Bench) -> None:
    helper = CfnResource()
    events = [bench.event(), bench.event()]
    events[1]["LogicalResourceId"] = "OtherImageF00D"

    def failing() -> Done:
        raise VmImportError("no")

    for event in events:
        helper.respond(event, Context(bench.clock.now), failing)

    lines = [line for line in bench.log.getvalue().splitlines() if '"ERROR"' in line]
    assert len(lines) == 2
    for event, line in zip(events, lines, strict=True):
        assert f'"Stack": "images", "Resource": "{event["LogicalResourceId"]}"' in line
        assert event["RequestId"] in line
