"""What stays true when an import fails, or when calls about it are denied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageAttribute, ImageProperty, ResourceType, WaitAttribute, WaitProperty
from tests.support.aws import ROLLS_BACK
from tests.support.cloudformation import CustomResource

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws

DENIED = {"code": "AccessDeniedException", "message": "no", "status": 403}
FAULT = {"code": "ServiceUnavailable", "message": "no", "status": 503}
MESSAGE = "ClientError: Unknown OS / Missing OS files."
ALWAYS = 100_000


def failed(account: Account, image: CustomResource) -> tuple[str, dict[str, Any]]:
    """Create an image without waiting; its import fails."""
    properties = account.properties()
    account.fail_import(MESSAGE, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    arn = image.create(properties)["PhysicalResourceId"]
    account.advance(3600)
    return arn, properties


@pytest.mark.parametrize(
    ("service", "operation"),
    [("imagebuilder", "GetImage"), ("ec2", "DescribeImportImageTasks")],
)
def test_one_denied_poll_neither_ends_the_wait_nor_deletes_the_image(
    aws: Aws, account: Account, image: CustomResource, service: str, operation: str
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    account.fault(service, operation, times=1, error=DENIED)

    aws.let_pass(3600)

    (response,) = image.responses()
    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]


def test_a_poll_that_stays_denied_fails_with_the_name_of_the_action(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.step(execution)
    account.fault("ec2", "DescribeImportImageTasks", times=ALWAYS, error=DENIED)

    aws.let_pass(600)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert "DescribeImportImageTasks failed: AccessDeniedException" in response["Reason"]


def test_ec2s_reason_survives_a_response_url_that_accepts_nothing_for_20_minutes(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    account.fail_import(MESSAGE, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    aws.expect(response_faults=dict.fromkeys(range(60), "500"))

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert MESSAGE.rstrip(".") in response["Reason"]
    assert account.images_of(image) == []


def test_a_delete_succeeds_while_step_functions_cannot_be_reached(
    account: Account, image: CustomResource
) -> None:
    image.create(account.properties())
    account.advance(3600)
    for operation in ("StartExecution", "ListExecutions", "StopExecution"):
        account.fault("stepfunctions", operation, times=ALWAYS, error=FAULT)

    response = image.delete()

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == []


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("Bad disk. ", "Bad disk"),
        ("Bad disk.\n", "Bad disk"),
        ("  Bad disk . .", "Bad disk"),
        ("", "AWS gives no reason"),
        (" . ", "AWS gives no reason"),
    ],
)
def test_the_reason_has_one_full_stop_after_ec2s_message(
    account: Account, image: CustomResource, message: str, cause: str
) -> None:
    account.knobs(image_watch_seconds=100_000.0)
    properties = account.waiting()
    account.fail_import(message, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])

    response = image.create(properties)

    assert response["Reason"].startswith(f"VM import failed: {cause}. Hint: repair")


@pytest.mark.parametrize("delay", [0, 60, 125, 200])
def test_the_response_comes_in_time_even_if_lambda_delivers_the_event_late(
    aws: Aws, account: Account, image: CustomResource, delay: int
) -> None:
    account.knobs(import_seconds=1e6)
    event = image.create_event(account.waiting())
    sent = aws.now()
    aws.sleep(delay)

    image.start(event)
    aws.let_pass(3600 - delay)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert aws.responded[event["ResponseURL"]] - sent < 3600


@pytest.mark.parametrize("seconds", [30, 400, 900])
def test_the_ami_gets_the_tags_of_the_last_update_whichever_follow_up_comes_first(
    account: Account, image: CustomResource, seconds: int
) -> None:
    properties = account.properties(Tags={"stage": "dev", "old": "x"})
    arn = image.create(properties)["PhysicalResourceId"]
    account.advance(seconds)
    image.update({**properties, ImageProperty.TAGS: {"stage": "prod"}})

    account.advance(2 * 3600)

    tags = {tag["Key"]: tag["Value"] for tag in account.ami_of(arn)["Tags"]}
    assert {key: tags.get(key) for key in ("stage", "old")} == {"stage": "prod", "old": None}


def test_a_deployment_that_returns_to_an_image_whose_import_failed_fails(
    account: Account, image: CustomResource
) -> None:
    _, bad = failed(account, image)
    assert image.update(account.properties(Name=bad[ImageProperty.NAME]))["Status"] == "SUCCESS"

    response = image.update({**bad, ImageProperty.TIMEOUT_SECONDS: "3600"})

    assert response["Status"] == "FAILED"


def test_a_rollback_to_an_image_whose_import_had_failed_succeeds(
    account: Account, image: CustomResource
) -> None:
    arn, bad = failed(account, image)
    old = {**bad, ImageProperty.TIMEOUT_SECONDS: "3600"}
    new = account.waiting(Name=bad[ImageProperty.NAME])
    image.properties, image.physical_id = old, arn
    image.update(new)

    back = image.send(image.update_event(old) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]
    assert back["PhysicalResourceId"] == arn
    assert back["Data"][ImageAttribute.IMPORT_FAILED] == "true"


def test_a_timeout_can_change_after_the_image_was_deleted_outside_the_stack(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    created = image.create(account.waiting())
    link = CustomResource(aws, ResourceType.WAIT.value, "Wait2F00D", stack_id=image.stack_id)
    properties: dict[str, Any] = {
        WaitProperty.IMAGE_ARN: created["PhysicalResourceId"],
        WaitProperty.VM_IMPORT_TASK_ID: created["Data"][ImageAttribute.VM_IMPORT_TASK_ID],
        WaitProperty.IMPORT_FAILED: "false",
        WaitProperty.STATE_MACHINE_ARN: image.properties[ImageProperty.STATE_MACHINE_ARN],
        WaitProperty.TIMEOUT_SECONDS: "3600",
    }
    ami = link.create(properties)["Data"][WaitAttribute.IMAGE_ID]
    account.delete(created["PhysicalResourceId"])

    response = link.update({**properties, WaitProperty.CONTINUE_AFTER_TIMEOUT: "true"})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"][WaitAttribute.IMAGE_ID] == ami


@pytest.mark.parametrize("request_type", ["Create", "Update", "Delete"])
def test_a_timeout_that_is_not_a_number_is_responded_to(
    account: Account, image: CustomResource, request_type: str
) -> None:
    properties = account.properties()
    bad = {**properties, ImageProperty.TIMEOUT_SECONDS: "an hour"}
    if request_type == "Create":
        response = image.create(bad)
    else:
        arn = image.create(properties)["PhysicalResourceId"]
        response = image.update(bad) if request_type == "Update" else image.delete(arn, bad)

    assert response["Status"] == ("SUCCESS" if request_type == "Delete" else "FAILED")


@pytest.mark.parametrize("timeout", [600, 1800, 3600])
@pytest.mark.parametrize("cause", ["a slow cancellation", "DeleteImage", "CancelImageCreation"])
def test_a_timeout_reports_the_progress_though_the_image_cannot_be_deleted(
    account: Account, image: CustomResource, timeout: int, cause: str
) -> None:
    account.knobs(import_seconds=6 * 3600, cancel_seconds=90)
    if cause != "a slow cancellation":
        account.knobs(cancel_seconds=0)
        down = {"code": "ServiceUnavailableException", "message": "no", "status": 503}
        account.fault("imagebuilder", cause, times=7, error=down)

    response = image.create(account.waiting(timeout))

    assert "the image is not AVAILABLE after" in response["Reason"]


def test_the_import_of_the_stacks_task_goes_on_after_a_timeout(
    account: Account, image: CustomResource, task: CustomResource
) -> None:
    account.knobs(import_seconds=2 * 3600, cancel_import="refuse")
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    assert image.create(account.waiting(600, VmImportTaskId=task_id))["Status"] == "FAILED"

    # A deployment without a rollback, and its retry.
    more = {ImageProperty.VM_IMPORT_TASK_ID: task_id, ImageProperty.CONTINUE_AFTER_TIMEOUT: "true"}
    retried = image.create(account.waiting(3600) | more)

    assert retried["Status"] == "SUCCESS"
    assert account.task(task_id)["Status"] == "active"
