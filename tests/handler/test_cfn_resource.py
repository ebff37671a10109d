"""The traps of crhelper: each scenario harms plain crhelper, and does not harm ours."""

from __future__ import annotations

import io
import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import crhelper
import crhelper.resource_helper
import crhelper.utils
import pytest

from cfn_resource import CfnResource, UndeliveredAnswerError
from errors import VmImportError
from tests.handler.cloudformation import SIGNATURE, Context, CustomResource, ResponseUrls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# crhelper ships types for its public names alone
PLAIN: Any = crhelper.resource_helper
ARN = "arn:aws:imagebuilder:us-east-1:000000000000:image/rhel9/1.0.0/1"


class StillSendingError(BaseException):
    """Stands for the end of the Lambda process."""


@pytest.fixture(autouse=True)
def _plain_crhelper_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLAIN, "boto3", Mock())


@pytest.fixture(autouse=True)
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
def send(
    urls: ResponseUrls,
) -> Callable[..., list[dict[str, Any]]]:
    """Send one event to a helper, and return the answers to it."""

    def send(
        helper: crhelper.CfnResource, request_type: str = "Create", **context: Any
    ) -> list[dict[str, Any]]:
        resource = CustomResource(urls, helper)
        more = {} if request_type == "Create" else {"PhysicalResourceId": ARN}
        helper(resource.event(request_type, **more), Context(**context))
        return urls.answers

    return send


Helper = type[crhelper.CfnResource]
Send = "Callable[..., list[dict[str, Any]]]"


def raises(text: str) -> Callable[..., str]:
    def function(*_: object) -> str:
        raise VmImportError(text)

    return function


def a_failed_create_gets_another_id_each_time(make: Helper, urls: ResponseUrls, **_: Any) -> bool:
    helper = make()
    helper.create(raises("no"))
    event = CustomResource(urls, helper).event("Create")
    for _delivery in range(2):
        helper(dict(event), Context())
    first, second = (answer["PhysicalResourceId"] for answer in urls.answers)
    return bool(first != second)


def an_id_that_is_set_before_a_return_without_one_is_lost(
    make: Helper, send: Any, **_: Any
) -> bool:
    helper = make()

    @helper.create
    def create(*_: object) -> None:
        helper.PhysicalResourceId = ARN

    (answer,) = send(helper)
    return bool(answer["PhysicalResourceId"] != ARN)


def true_is_taken_for_an_id(make: Helper, send: Any, **_: Any) -> bool:
    helper = make()

    @helper.update
    def update(*_: object) -> bool:
        return True

    (answer,) = send(helper, "Update")
    return bool(answer["PhysicalResourceId"] != ARN)


def the_beginning_of_the_reason_is_lost(make: Helper, send: Any, **_: Any) -> bool:
    helper = make()
    helper.create(raises("what failed, and then " + "more " * 100))
    (answer,) = send(helper)
    return not answer["Reason"].startswith("what failed")


def the_answer_is_longer_than_cloudformation_takes(
    make: Helper, send: Any, urls: ResponseUrls, **_: Any
) -> bool:
    helper = make()

    @helper.create
    def create(*_: object) -> str:
        helper.Data["Attribute"] = "é" * 1000
        return ARN

    send(helper)
    return len(urls.bodies[0]) > 4096


def a_refused_answer_counts_as_delivered(
    make: Helper, send: Any, urls: ResponseUrls, **_: Any
) -> bool:
    urls.replies += [403, 503]
    helper = make()
    helper.create(lambda *_: ARN)
    return bool(send(helper) == [])


def an_answer_is_sent_again_for_ever(
    make: Helper, send: Any, urls: ResponseUrls, monkeypatch: pytest.MonkeyPatch
) -> bool:
    urls.replies += [None] * 50
    tries = 0

    def sleep(_: float) -> None:
        nonlocal tries
        tries += 1
        if tries > 12:
            raise StillSendingError

    monkeypatch.setattr(crhelper.utils, "time", SimpleNamespace(sleep=sleep))
    helper = make()
    helper.create(lambda *_: ARN)
    try:
        send(helper, seconds=5)
    except StillSendingError:
        return True
    except UndeliveredAnswerError:
        return False
    return True


def a_timer_answers_without_an_id_while_the_code_goes_on(make: Helper, send: Any, **_: Any) -> bool:
    helper = make()

    @helper.create
    def create(*_: object) -> str:
        time.sleep(1)
        return ARN

    return [answer["PhysicalResourceId"] for answer in send(helper, seconds=0.7)] != [ARN]


def a_delete_sleeps_before_it_answers(
    make: Helper, send: Any, monkeypatch: pytest.MonkeyPatch, **_: Any
) -> bool:
    sleep = Mock()
    monkeypatch.setattr(PLAIN.CfnResource._wait_for_cwlogs, "__defaults__", (sleep,))
    helper = make()
    helper.delete(lambda *_: ARN)
    send(helper, "Delete")
    return bool(sleep.called)


def three_clients_are_made_that_nobody_needs(make: Helper, **_: Any) -> bool:
    make()
    return bool(PLAIN.boto3.client.called)


def the_signed_response_url_is_in_the_log(
    make: Helper, send: Any, log: io.StringIO, urls: ResponseUrls, **_: Any
) -> bool:
    urls.replies += [500, None]
    helper = make()
    helper.create(raises("no"))
    send(helper)
    return SIGNATURE in log.getvalue()


def each_waiting_resource_makes_a_rule_and_a_permission(make: Helper, send: Any, **_: Any) -> bool:
    helper = make()
    helper.create(lambda *_: ARN)
    aws = PLAIN.boto3.client.return_value
    aws.put_rule.return_value = {"RuleArn": "arn:aws:events:us-east-1:000000000000:rule/r"}
    try:
        helper.poll_create(lambda *_: None)
    except TypeError:
        return False
    send(helper)
    return bool(aws.put_rule.called and aws.add_permission.called)


TRAPS = [
    a_failed_create_gets_another_id_each_time,
    an_id_that_is_set_before_a_return_without_one_is_lost,
    true_is_taken_for_an_id,
    the_beginning_of_the_reason_is_lost,
    the_answer_is_longer_than_cloudformation_takes,
    a_refused_answer_counts_as_delivered,
    an_answer_is_sent_again_for_ever,
    a_timer_answers_without_an_id_while_the_code_goes_on,
    a_delete_sleeps_before_it_answers,
    three_clients_are_made_that_nobody_needs,
    the_signed_response_url_is_in_the_log,
    each_waiting_resource_makes_a_rule_and_a_permission,
]


@pytest.fixture(params=TRAPS, ids=lambda trap: trap.__name__)
def trap(
    request: pytest.FixtureRequest,
    send: Any,
    urls: ResponseUrls,
    log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Helper], bool]:
    names = request.param.__code__.co_varnames[: request.param.__code__.co_argcount]
    fixtures = {"send": send, "urls": urls, "log": log, "monkeypatch": monkeypatch}
    wanted = {name: fixtures[name] for name in names if name in fixtures}
    return lambda make: bool(request.param(make, **wanted))


def test_plain_crhelper_falls_into_the_trap(trap: Callable[[Helper], bool]) -> None:
    assert trap(crhelper.CfnResource)


def test_ours_closes_the_trap(trap: Callable[[Helper], bool]) -> None:
    assert not trap(CfnResource)


def test_an_answer_has_an_empty_content_type_for_which_its_url_is_signed(
    send: Any, urls: ResponseUrls
) -> None:
    helper = CfnResource()
    helper.create(lambda *_: ARN)

    send(helper)

    assert urls.content_types == [""]


def test_a_reason_of_any_length_and_alphabet_fits_the_answer(send: Any, urls: ResponseUrls) -> None:
    helper = CfnResource()
    helper.create(raises("das Abbild ist beschädigt: " + "äöü\U0001f4a5" * 5000))

    (answer,) = send(helper)

    assert len(urls.bodies[0]) <= 4096
    assert len(urls.bodies[0]) > 4000
    assert answer["Reason"].startswith("das Abbild ist beschädigt: äöü")
    assert answer["Reason"].endswith("(see log stream 2026/11/23/[$LATEST]0123456789abcdef)")


def test_attributes_that_are_too_long_fail_the_resource(send: Any) -> None:
    helper = CfnResource()

    @helper.create
    def create(*_: object) -> str:
        helper.Data["Attribute"] = "x" * 5000
        return ARN

    (answer,) = send(helper)

    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "the attributes are longer than CloudFormation takes"


def test_an_undeliverable_answer_fails_the_invocation_so_that_lambda_retries(
    send: Any, urls: ResponseUrls
) -> None:
    urls.replies += [500] * 50
    helper = CfnResource()
    helper.create(lambda *_: ARN)

    with pytest.raises(UndeliveredAnswerError, match="HTTP 500"):
        send(helper, seconds=4)

    assert urls.answers == []


def test_an_undeliverable_answer_leaves_no_trace_of_the_url_in_the_error(
    send: Any, urls: ResponseUrls
) -> None:
    urls.replies += [None] * 50
    helper = CfnResource()
    helper.create(lambda *_: ARN)

    with pytest.raises(UndeliveredAnswerError) as error:
        send(helper, seconds=3)

    assert SIGNATURE not in repr(error.getrepr(chain=True))


def test_an_unexpected_error_is_named_in_the_reason(send: Any) -> None:
    helper = CfnResource()

    @helper.create
    def create(*_: object) -> str:
        return {"a": ARN}["b"]

    (answer,) = send(helper)

    assert answer["Reason"] == "KeyError('b')"
