"""From an event to its execution: once, in the order in which CloudFormation sent the events."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageProperty, Step
from tests.support.account import tags_of
from tests.support.aws import ROLLS_BACK, STACK_STATUS
from tests.support.cloudformation import CustomResource

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws

ALWAYS = 10**6
INVENTED = "images-GoldenImageF00D-1ABCDEFGHIJKL"
DENIED = {"code": "AccessDeniedException", "message": "no", "status": 400}
THROTTLED = {"code": "ThrottlingException", "message": "Rate exceeded", "status": 400}
UNAVAILABLE = {"code": "ServiceUnavailable", "message": "Oh", "status": 503}


def test_an_event_starts_one_execution_and_does_nothing_else(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    event = image.create_event(account.waiting())
    before = len(account.calls())

    outcome, returned = aws.processes[0].invoke(event)

    (execution,) = aws.step_functions.executions
    assert (outcome, returned) == ("returned", None)
    assert [call["operation"] for call in account.calls()[before:]] == ["StartExecution"]
    data = json.loads(execution.input)
    assert data[Step.EVENT] == event
    assert data[Step.SECONDS] == 0
    assert image.responses() == []


def test_an_execution_is_named_after_the_resource_the_date_the_request_and_its_type(
    account: Account, image: CustomResource, other_image: CustomResource
) -> None:
    events = [r.create_event(account.waiting()) for r in (image, image, other_image)]

    names = [image.start(event).name.split("-", 2) for event in events]

    resources, dates, requests = zip(*names, strict=True)
    assert resources[0] == resources[1] != resources[2]
    assert set(dates) == {"20231114T221320Z"}
    assert list(requests) == [f"{event['RequestId']}-C" for event in events]


def test_a_duplicate_event_finds_its_execution(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    event = image.create_event(account.waiting())
    execution = image.start(event)
    aws.call(event, aws.processes[1])
    aws.work(lambda: not execution.is_running)

    aws.deliver_again(event)

    assert aws.step_functions.executions == [execution]
    assert len(account.requests_of(image, "ImportVmImage")) == 1
    assert len(image.responses()) == 1


def test_a_late_duplicate_of_a_create_does_not_create_a_deleted_image_again(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    event = image.create_event(account.waiting())
    arn = image.send(event)["PhysicalResourceId"]
    image.send(image.delete_event(arn))

    aws.deliver_again(event)

    assert account.images_of(image) == []


@pytest.mark.parametrize("error", [THROTTLED, UNAVAILABLE], ids=["throttled", "503"])
def test_starting_the_execution_is_retried(
    account: Account, image: CustomResource, error: dict[str, Any]
) -> None:
    account.fault("stepfunctions", "StartExecution", times=10, error=error)

    response = image.create(account.properties())

    assert response["Status"] == "SUCCESS", response["Reason"]


# --- Step Functions cannot be reached ---


def test_a_create_that_cannot_start_its_execution_fails_and_imports_nothing(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.step_functions.state_machines.clear()

    response = image.create(account.waiting())

    assert response["Status"] == "FAILED"
    assert "StartExecution failed: StateMachineDoesNotExist" in response["Reason"]
    assert account.requests_of(image, "ImportVmImage") == []


def test_an_update_that_cannot_start_its_execution_fails_and_keeps_the_physical_id(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    arn = image.create(properties)["PhysicalResourceId"]
    account.fault("stepfunctions", "StartExecution", times=ALWAYS, error=DENIED)

    response = image.update({**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"})

    assert response["Status"] == "FAILED"
    assert "StartExecution failed: AccessDeniedException" in response["Reason"]
    assert response["PhysicalResourceId"] == arn


@pytest.mark.parametrize("cause", ["deleted", "denied", "throttled"])
def test_a_delete_that_cannot_start_its_execution_is_done_by_the_function_itself(
    aws: Aws, account: Account, image: CustomResource, cause: str
) -> None:
    image.create(account.waiting())
    if cause == "deleted":
        aws.step_functions.state_machines.clear()
    else:
        error = DENIED if cause == "denied" else THROTTLED
        account.fault("stepfunctions", "StartExecution", times=ALWAYS, error=error)

    response = image.delete()

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == []
    assert len(image.responses()) == 2


def test_a_delete_without_step_functions_waits_for_the_cancellation(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(cancel_seconds=300.0)
    image.create(account.properties())
    account.fault("stepfunctions", "StartExecution", times=ALWAYS, error=DENIED)
    start = aws.now()

    response = image.delete()

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == []
    assert 300 < aws.now() - start < 900


# --- the order of events ---


def test_an_event_that_comes_after_a_later_one_is_refused(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    late = image.create_event(account.properties())  # Lambda does not deliver it yet
    aws.sleep(60)
    image.send(image.delete_event(INVENTED))

    response = image.send(late)

    assert response["Status"] == "FAILED"
    assert "has sent a later event" in response["Reason"]
    assert image.logical_id in response["Reason"]
    assert account.images_of(image) == []


def test_the_order_is_that_of_the_events_and_not_that_of_the_ends_of_executions(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    # ListExecutions shows executions by their end: an earlier event may end last.
    first = image.start(image.create_event(account.waiting()))
    aws.step(first)
    aws.sleep(20)
    second = image.start(image.delete_event(INVENTED))
    aws.step(second)
    assert first.status == "ABORTED"
    aws.work(lambda: False)

    later = image.create(account.properties())

    assert later["Status"] == "SUCCESS", later["Reason"]


def test_a_later_event_is_found_behind_many_pages_of_other_executions(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.step_functions.page_size = 2
    late = image.create_event(account.properties())
    aws.sleep(60)
    image.send(image.delete_event(INVENTED))
    for _ in range(7):
        other = CustomResource(aws)
        other.send(other.delete_event(INVENTED))

    response = image.send(late)

    assert response["Status"] == "FAILED"
    assert account.images_of(image) == []


def test_an_earlier_execution_is_stopped_behind_many_pages_of_other_executions(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.step_functions.page_size = 2
    first = image.start(image.create_event(account.waiting()))
    aws.step(first)
    for _ in range(7):
        other = CustomResource(aws)
        other.start(other.create_event(account.waiting()))
    aws.sleep(20)

    image.physical_id = first.image
    image.delete()

    assert first.status == "ABORTED"
    assert account.images_of(image) == []


def test_events_of_the_same_second_are_taken_in_the_order_of_their_delivery(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    create = image.create_event(account.waiting())
    delete = image.delete_event(INVENTED)
    first = image.start(create)
    aws.sleep(1)

    response = image.send(delete)
    aws.work(lambda: False)

    assert response["Status"] == "SUCCESS"
    assert first.status == "ABORTED" or "has sent a later event" in image.responses()[0]["Reason"]
    assert account.images_of(image) == []


def test_events_whose_response_urls_have_no_date_are_taken_in_the_order_of_their_delivery(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    create = image.create_event(account.waiting())
    delete = image.delete_event(INVENTED)
    for number, event in enumerate((create, delete)):
        event["ResponseURL"] = f"https://cloudformation.invalid/no-date-{number}"
    first = image.start(create)
    aws.sleep(10)

    response = image.send(delete)
    aws.work(lambda: False)

    assert response["Status"] == "SUCCESS"
    assert not first.is_running
    assert account.images_of(image) == []


@pytest.mark.parametrize("error", [THROTTLED, UNAVAILABLE], ids=["throttled", "503"])
def test_an_event_waits_while_executions_cannot_be_listed(
    aws: Aws, account: Account, image: CustomResource, error: dict[str, Any]
) -> None:
    late = image.create_event(account.properties())
    aws.sleep(60)
    image.send(image.delete_event(INVENTED))
    account.fault("stepfunctions", "ListExecutions", times=60, error=error)

    response = image.send(late)

    assert response["Status"] == "FAILED"
    assert "has sent a later event" in response["Reason"]
    assert account.images_of(image) == []


def test_an_event_is_carried_out_when_executions_can_be_listed_again(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.fault("stepfunctions", "ListExecutions", times=30, error=THROTTLED)
    start = aws.now()

    response = image.create(account.properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert aws.now() - start > 60


@pytest.mark.parametrize("error", [THROTTLED, DENIED], ids=["throttled", "denied"])
def test_a_create_never_imports_while_its_order_is_not_known(
    aws: Aws, account: Account, image: CustomResource, error: dict[str, Any]
) -> None:
    account.fault("stepfunctions", "ListExecutions", times=ALWAYS, error=error)
    start = aws.now()

    response = image.create(account.properties())

    assert response["Status"] == "FAILED"
    assert "ListExecutions" in response["Reason"]
    assert account.requests_of(image, "ImportVmImage") == []
    assert aws.now() - start < 3600


@pytest.mark.parametrize("retain", ["false", "true"])
@pytest.mark.parametrize("physical_id", [None, "images-GoldenImageF00D-1ABCDEFGHIJKL"])
def test_a_stack_can_be_deleted_though_listing_executions_is_denied(
    account: Account, image: CustomResource, retain: str, physical_id: str | None
) -> None:
    image.create(account.properties(Retain=retain))
    account.fault("stepfunctions", "ListExecutions", times=ALWAYS, error=DENIED)

    response = image.send(image.delete_event(physical_id) | ROLLS_BACK)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == []


# --- unknown resource types ---


@pytest.mark.parametrize("request_type", ["Create", "Update", "Delete"])
def test_an_unknown_resource_type_is_an_error_that_names_it(
    aws: Aws, account: Account, request_type: str
) -> None:
    resource = CustomResource(aws, "Custom::Unknown", physical_id=INVENTED)
    resource.properties = account.properties()
    more = {} if request_type == "Create" else {"PhysicalResourceId": INVENTED}
    event = resource.event(request_type, OldResourceProperties={}, **more)

    response = resource.send(event)

    assert response["Status"] == "FAILED"
    reason = "resource type 'Custom::Unknown' is not supported: use one of "
    assert reason in response["Reason"]
    assert aws.images == {}


# --- responses that do not arrive ---


def test_a_response_that_arrives_at_the_third_attempt_is_sent_once(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.expect(response_faults={0: "500", 1: "not connected"})

    assert image.create(account.properties())["Status"] == "SUCCESS"

    assert len(image.responses()) == 1


def test_a_response_that_cannot_be_delivered_is_sent_by_a_later_attempt_of_the_step(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    # One invocation sends a response about 30 times in its 15 minutes.
    aws.expect(response_faults=dict.fromkeys(range(40), "500"))

    response = image.create(account.properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]
    (execution, *_) = aws.step_functions.executions
    assert execution.status == "SUCCEEDED"


def test_a_function_that_is_killed_after_its_response_sends_the_same_once_more(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.expect(response_faults={0: "killed after"})
    event = image.create_event(account.properties())

    aws.deliver(event)
    aws.work(lambda: False)

    first, second = aws.responses[event["ResponseURL"]]
    assert first["PhysicalResourceId"] == second["PhysicalResourceId"]
    assert account.images_of(image) == [first["PhysicalResourceId"]]
    assert len(aws.step_functions.follow_ups()) == 1


@pytest.mark.parametrize("gap", [1, 3, 5])
def test_an_event_that_lambda_delivers_late_is_refused_though_it_is_little_older(
    aws: Aws, account: Account, image: CustomResource, gap: int
) -> None:
    create = image.create_event(account.properties())
    aws.let_pass(gap)
    delete = image.delete_event("images-GoldenImageF00D-1ABCDEFGHIJKL")
    assert image.send(delete | {STACK_STATUS: "ROLLBACK_IN_PROGRESS"})["Status"] == "SUCCESS"
    aws.let_pass(120 - gap)

    aws.deliver(create)

    (response,) = aws.responses[create["ResponseURL"]]
    assert "CloudFormation has sent a later event" in response["Reason"]
    assert account.images_of(image) == []


@pytest.mark.parametrize("late", [2.0, 4.0])
def test_an_update_that_is_delivered_after_its_rollback_does_not_stop_it(
    aws: Aws, account: Account, image: CustomResource, late: float
) -> None:
    properties = account.properties(Tags={"a": "old"})
    arn = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(100)
    update = image.update_event({**properties, ImageProperty.TAGS: {"a": "new"}})
    aws.sleep(late - 1)
    back = image.update_event(properties) | ROLLS_BACK
    image.start(back)
    aws.sleep(1)
    image.start(update)

    aws.work(lambda: False)

    assert back["ResponseURL"] in aws.responses
    assert account.image(arn)["tags"]["a"] == "old"


@pytest.mark.parametrize("gap", [1, 3, 5])
def test_an_update_ends_whose_rollback_began_before_its_execution_was_listed(
    aws: Aws, account: Account, image: CustomResource, gap: int
) -> None:
    account.knobs(import_seconds=3000)
    properties = account.properties(Tags={"a": "old"})
    arn = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(100)
    account.knobs(read_lag_seconds=3)
    newer = properties | {ImageProperty.TAGS: {"a": "new", "b": "new"}}
    newer[ImageProperty.TIMEOUT_SECONDS] = "3600"
    aws.step(image.start(image.update_event(newer)))
    aws.let_pass(gap)
    aws.step(image.start(image.update_event(properties) | ROLLS_BACK))

    aws.let_pass(8000)

    tags = tags_of(account.ami_of(arn))
    assert (tags["a"], tags.get("b")) == ("old", None)


@pytest.mark.parametrize("sees", ["no execution", "no record"])
@pytest.mark.parametrize("head_start", range(8, 14))
def test_an_update_that_still_runs_retains_the_image_of_its_rollback(
    aws: Aws, account: Account, image: CustomResource, sees: str, head_start: int
) -> None:
    properties = account.properties()
    account.cancel(image.create(properties)["PhysicalResourceId"])
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    update = image.update_event(newer) | ROLLS_BACK
    aws.sleep(2)
    back = image.update_event(properties) | ROLLS_BACK
    if sees == "no execution":
        aws.step_functions.more_lag_seconds = 60
    else:
        account.fault("imagebuilder", "TagResource", skip=1, error=DENIED)

    chance = random.Random(head_start)  # noqa: S311
    aws.deliver_at_once(update, back, chance=chance, head_start=head_start)

    (response,) = aws.responses[back["ResponseURL"]]
    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] in account.images_of(image)


def test_a_rollback_leaves_the_image_of_the_update_to_cloudformation(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    image.create(properties)
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    updated = image.update(newer)["PhysicalResourceId"]

    back = image.send(image.update_event(properties) | ROLLS_BACK)

    assert {updated, back["PhysicalResourceId"]} == {*account.images_of(image)}
