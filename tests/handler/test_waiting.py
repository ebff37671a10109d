"""The wait of an image for its import, and the follow-up of imports that nobody waits for."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from contract import MAX_TIMEOUT, METRIC_NAMESPACE, ImageAttribute, ImageProperty, OwnTag
from tests.support.account import IMPORT, tags_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

CLIENT_ERROR = "ClientError: Unknown OS / Missing OS files."


def polls(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of JSON that the polls wrote."""
    lines = capfd.readouterr().out.splitlines()
    return [json.loads(line) for line in lines if '"outcome"' in line]


# --- the response waits for the image ---


def test_the_response_comes_when_the_image_is_available_and_names_the_ami(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    response = image.create(account.waiting())

    assert response["Status"] == "SUCCESS", response["Reason"]
    found = account.image(response["PhysicalResourceId"])
    assert found["state"]["status"] == "AVAILABLE"
    assert response["Data"][ImageAttribute.IMAGE_ID] == found["outputResources"]["amis"][0]["image"]
    assert response["Data"][ImageAttribute.IMAGE_ARN] == response["PhysicalResourceId"]
    assert len(image.responses()) == 1
    (execution,) = aws.step_functions.executions
    assert execution.status == "SUCCEEDED"
    assert execution.steps > 10


def test_nothing_is_sent_before_the_image_is_available(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))

    aws.step(execution)

    assert execution.seconds > 0
    assert image.responses() == []


def test_an_image_that_is_available_is_responded_to_in_the_first_step(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    task = account.import_task()
    image.create(account.properties(VmImportTaskId=task))
    account.advance(IMPORT)
    properties = {**image.properties, ImageProperty.TIMEOUT_SECONDS: "3600"}

    execution = image.start(image.update_event(properties))
    aws.step(execution)

    assert execution.status == "SUCCEEDED"
    assert image.responses()[-1]["Data"][ImageAttribute.IMAGE_ID] == account.ami(task)["ImageId"]  # type: ignore[index]


def test_the_response_is_late_by_a_small_share_of_the_import(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    start = aws.now()

    image.create(properties)

    import_seconds = aws.local.knobs.import_seconds + aws.local.knobs.image_watch_seconds
    delay = aws.now() - start - import_seconds
    assert delay <= import_seconds / 20 + 5


def test_a_step_that_runs_again_after_a_crash_imports_nothing_more(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    first = dict(execution.data)
    aws.step(execution)
    execution.data = first

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert account.images_of(image) == [response["PhysicalResourceId"]]
    assert len(account.requests_of(image, "ImportVmImage")) == 1


@pytest.mark.parametrize(
    ("service", "operation"),
    [("imagebuilder", "GetImage"), ("ec2", "DescribeImportImageTasks")],
)
@pytest.mark.parametrize(
    "error",
    [
        {"code": "ServiceException", "message": "Oh", "status": 500},
        {"code": "TooManyRequestsException", "message": "Rate exceeded", "status": 429},
    ],
    ids=["500", "throttled"],
)
def test_throttling_and_faults_of_aws_do_not_end_the_wait(
    aws: Aws,
    account: Account,
    image: CustomResource,
    service: str,
    operation: str,
    error: dict[str, Any],
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    account.fault(service, operation, times=40, error=error)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "SUCCESS", response["Reason"]


def test_a_poll_that_aws_throttles_is_reported_with_its_problem(
    aws: Aws, account: Account, image: CustomResource, capfd: pytest.CaptureFixture[str]
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    error = {"code": "TooManyRequestsException", "message": "Rate exceeded", "status": 429}
    account.fault("imagebuilder", "GetImage", times=40, error=error)

    aws.work(lambda: not execution.is_running)

    problems = [poll["problem"] for poll in polls(capfd)]
    assert any("TooManyRequestsException" in problem for problem in problems)


def test_an_outage_of_lambda_of_an_hour_does_not_end_the_wait(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=5000.0)
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    end = aws.now() + 3500
    while aws.now() < end:
        aws.expect({0: "killed before"})
        aws.step(execution)
    aws.expect()

    assert execution.is_running
    aws.work(lambda: not execution.is_running)
    assert len(image.responses()) == 1


# --- imports that fail ---


def test_a_failed_import_fails_the_create_with_ec2s_message_and_leaves_nothing(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=58
    )

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert CLIENT_ERROR.rstrip(".") in response["Reason"]
    assert properties[ImageProperty.VM_IMPORT_TASK_ID] in response["Reason"]
    assert ".." not in response["Reason"]
    assert account.images_of(image) == []


def test_a_failed_import_task_ends_the_wait_before_image_builder_notices_it(
    account: Account, image: CustomResource
) -> None:
    account.knobs(image_watch_seconds=100_000.0)
    properties = account.waiting()
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=34
    )

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert "is PENDING; EC2's import task" in response["Reason"]
    assert account.images_of(image) == []


def test_a_cancelled_image_ends_the_wait(aws: Aws, account: Account, image: CustomResource) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    arn = execution.image
    account.cancel(arn)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert f"{arn} is CANCELLED" in response["Reason"]


def test_an_image_that_is_deleted_by_hand_ends_the_wait(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    account.cancel(execution.image)
    account.delete(execution.image)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert "is gone" in response["Reason"]
    assert len(account.requests_of(image, "ImportVmImage")) == 1


# --- the time is over ---


def test_a_timeout_names_the_progress_and_how_to_wait_longer(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting(timeout=300)
    account.fail_import(None, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=28)

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert "was not AVAILABLE after 5 minutes: the image is PENDING" in response["Reason"]
    assert "EC2's import is at 28 %, converting" in response["Reason"]
    assert "longer timeout, up to 12 hours" in response["Reason"]
    assert account.images_of(image) == []


def test_the_create_after_a_timeout_uses_the_same_import(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting(timeout=60)
    image.create(properties)

    response = image.create({**properties, ImageProperty.TIMEOUT_SECONDS: "3600"})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert (
        response["Data"][ImageAttribute.VM_IMPORT_TASK_ID]
        == properties[ImageProperty.VM_IMPORT_TASK_ID]
    )


@pytest.mark.parametrize("timeout", [60, 900, 3480, 3600])
def test_the_wait_ends_at_its_timeout_and_before_cloudformation_stops_waiting(
    aws: Aws, account: Account, image: CustomResource, timeout: int
) -> None:
    account.knobs(import_seconds=100_000.0)
    properties = account.waiting(timeout=timeout)
    start = aws.now()

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    limit = min(timeout, 3600 - 120)
    assert limit <= aws.responded[next(iter(aws.responded))] - start <= limit + 110


def test_an_image_with_links_hands_on_when_its_hour_is_over(
    account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=10_000.0)

    response = image.create(account.waiting() | {ImageProperty.CONTINUE_AFTER_TIMEOUT: "true"})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"][ImageAttribute.IMAGE_ARN] == response["PhysicalResourceId"]
    assert not response["Data"].get(ImageAttribute.IMAGE_ID)
    assert account.images_of(image) == [response["PhysicalResourceId"]]


# --- the deployment does not wait ---


def test_without_waiting_the_response_comes_at_once_and_the_ami_is_tagged_later(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    response = image.create(account.properties(Tags={"stage": "test"}))
    arn = response["PhysicalResourceId"]
    status = account.image(arn)["state"]["status"]

    account.advance(IMPORT)

    assert response["Status"] == "SUCCESS"
    assert status == "PENDING"
    assert len(image.responses()) == 1
    assert tags_of(account.ami_of(arn)) == {
        "stage": "test",
        OwnTag.STACK.value: image.stack_id,
        OwnTag.RESOURCE.value: image.logical_id,
    }
    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.status == "SUCCEEDED"


def test_the_follow_up_is_an_execution_of_its_own_without_the_response_url(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    image.create(account.properties())

    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.name.startswith("follow-")
    assert "ResponseURL" not in follow_up.input
    assert follow_up.image == image.physical_id


def test_without_waiting_an_import_that_fails_is_only_logged(
    account: Account, image: CustomResource, capfd: pytest.CaptureFixture[str]
) -> None:
    properties = account.properties()
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=58
    )

    response = image.create(properties)
    account.advance(IMPORT)

    assert image.responses() == [response]
    assert response["Status"] == "SUCCESS"
    assert account.image(response["PhysicalResourceId"])["state"]["status"] == "FAILED"
    last = polls(capfd)[-1]
    assert (last["outcome"], last["Available"]) == ("failed", 0)


def test_without_waiting_the_follow_up_ends_after_12_hours(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=100_000.0)
    image.create(account.properties())

    account.advance(MAX_TIMEOUT + 600)

    (follow_up,) = aws.step_functions.follow_ups()
    assert follow_up.status == "SUCCEEDED"
    assert MAX_TIMEOUT <= (follow_up.stopped or 0) - follow_up.started < MAX_TIMEOUT + 60
    assert follow_up.steps <= 520


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "not waiting"])
def test_an_ami_that_cannot_be_tagged_yet_is_tagged_later(
    account: Account, image: CustomResource, *, waits: bool
) -> None:
    make = account.waiting if waits else account.properties
    unavailable = {"code": "Unavailable", "message": "Oh", "status": 503}
    account.fault("ec2", "CreateTags", error=unavailable, times=20)

    response = image.create(make(Tags={"stage": "test"}))
    account.advance(IMPORT)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert tags_of(account.ami_of(response["PhysicalResourceId"]))["stage"] == "test"


def test_an_ami_that_may_not_be_tagged_does_not_fail_the_image(
    account: Account, image: CustomResource
) -> None:
    denied = {"code": "UnauthorizedOperation", "message": "no", "status": 403}
    account.fault("ec2", "CreateTags", error=denied, times=10**6)

    response = image.create(account.waiting(Tags={"stage": "test"}))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"][ImageAttribute.IMAGE_ID]


def test_the_follow_up_ends_when_its_image_is_deleted(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    image.create(account.properties())

    assert image.delete()["Status"] == "SUCCESS"
    account.advance(600)

    assert aws.step_functions.running() == []
    assert account.images_of(image) == []


def test_deleting_the_old_image_after_an_update_does_not_stop_the_follow_up_of_the_new_one(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    first = account.properties()
    old = image.create(first)["PhysicalResourceId"]
    new = image.update(account.properties(Tags={"stage": "live"}))["PhysicalResourceId"]
    aws.sleep(30)
    image.delete(old, first)

    account.advance(IMPORT)

    assert tags_of(account.ami_of(new))["stage"] == "live"


def test_a_change_of_tags_reaches_the_ami_also_without_waiting(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties(Tags={"stage": "test"})
    arn = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)

    image.update({**properties, ImageProperty.TAGS: {"stage": "live"}})
    account.advance(60)

    assert tags_of(account.ami_of(arn))["stage"] == "live"


# --- the log ---


def test_each_poll_is_a_line_of_json_with_metrics_for_cloudwatch(
    aws: Aws, account: Account, image: CustomResource, capfd: pytest.CaptureFixture[str]
) -> None:
    properties = account.waiting()

    response = image.create(properties)

    lines = polls(capfd)
    first, last = lines[0], lines[-1]
    (execution,) = aws.step_functions.executions
    assert len(lines) == execution.steps
    assert first.pop("next_poll") in range(12, 16)
    assert first == {
        "Stack": "images",
        "Resource": image.logical_id,
        "image": response["PhysicalResourceId"],
        "task": properties[ImageProperty.VM_IMPORT_TASK_ID],
        "state": "PENDING",
        "status_message": "pending",
        "problem": "",
        "elapsed": 0,
        "outcome": "waiting",
        "Progress": 2,
        "_aws": {
            "Timestamp": 1_700_000_000_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": METRIC_NAMESPACE,
                    "Dimensions": [["Stack", "Resource"]],
                    "Metrics": [{"Name": "Progress", "Unit": "Percent"}],
                }
            ],
        },
    }
    assert [line["elapsed"] for line in lines] == sorted(line["elapsed"] for line in lines)
    assert (last["outcome"], last["Available"], last["next_poll"]) == ("available", 1, 0)
    assert last["Duration"] == last["elapsed"] > 300


def test_a_poll_of_a_follow_up_is_logged_under_its_own_resource(
    account: Account, image: CustomResource, other_image: CustomResource
) -> None:
    other_image.logical_id = "OtherF00D"
    properties = account.properties()
    account.fail_import(CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.root.addHandler(handler)
    try:
        image.create(properties)
        other_image.create(account.waiting())
    finally:
        logging.root.removeHandler(handler)

    (line,) = [line for line in log.getvalue().splitlines() if "the import failed" in line]
    assert f'"LogicalResourceId": "{image.logical_id}"' in line


@pytest.mark.parametrize(
    "end",
    [
        lambda image: image.update({**image.properties, ImageProperty.TAGS: {"a": "1"}}),
        lambda image: image.delete(),
    ],
    ids=["Update", "Delete"],
)
def test_a_later_event_stops_the_wait_of_earlier_ones_of_its_resource_only(
    aws: Aws,
    account: Account,
    image: CustomResource,
    other_image: CustomResource,
    end: Callable[[CustomResource], object],
) -> None:
    first = image.start(image.create_event(account.waiting()))
    others = other_image.start(other_image.create_event(account.waiting()))
    aws.step(first)
    aws.step(others)
    image.physical_id = first.image
    aws.sleep(10)

    end(image)

    assert first.status == "ABORTED"
    assert others.status != "ABORTED"
    assert [r["RequestId"] for r in image.responses()] != [first.event["RequestId"]]
