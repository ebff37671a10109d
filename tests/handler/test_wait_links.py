"""Custom::VmImageWait: one more hour of waiting for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract import (
    ImageAttribute,
    ImageProperty,
    OwnTag,
    ResourceType,
    WaitAttribute,
    WaitProperty,
)
from tests.support.account import IMPORT, tags_of
from tests.support.aws import ROLLS_BACK
from tests.support.cloudformation import CustomResource
from tests.support.lambda_function import LOG_GROUP
from tests.support.properties import checked
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from tests.handler.conftest import Log
    from tests.support.account import Account
    from tests.support.aws import Aws

CLIENT_ERROR = "ClientError: Unknown OS / Missing OS files."
HOURS = 3600.0
# An image and a link have the same name for it.
CONTINUE: dict[str, Any] = {ImageProperty.CONTINUE_AFTER_TIMEOUT: "true"}


@pytest.fixture
def link(aws: Aws, image: CustomResource) -> CustomResource:
    """A link in the stack of the image."""
    return CustomResource(
        aws, ResourceType.WAIT.value, logical_id="Wait2F00D", stack_id=image.stack_id
    )


def of(image: CustomResource, timeout: int = 3600, **changes: Any) -> dict[str, Any]:
    """Properties of a link that waits for an image, as CloudFormation resolves them."""
    (response,) = image.responses()[-1:]
    data = response["Data"]
    return {
        WaitProperty.IMAGE_ARN: data[ImageAttribute.IMAGE_ARN],
        WaitProperty.VM_IMPORT_TASK_ID: data[ImageAttribute.VM_IMPORT_TASK_ID],
        WaitProperty.IMPORT_FAILED: data[ImageAttribute.IMPORT_FAILED],
        WaitProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        WaitProperty.TIMEOUT_SECONDS: str(timeout),
        **checked(WaitProperty, changes),
    }


def waited_an_hour(account: Account, image: CustomResource, **changes: Any) -> str:
    """Create an image whose import takes longer than its first hour; return its ARN."""
    response = image.create(account.waiting(**changes) | CONTINUE)
    assert response["Status"] == "SUCCESS", response["Reason"]
    return str(response["PhysicalResourceId"])


def test_a_link_responds_when_the_image_is_available(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=1.5 * HOURS)
    start = aws.now()
    arn = waited_an_hour(account, image)

    response = link.create(of(image))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] == link.logical_id
    assert response["Data"] == {
        WaitAttribute.IMAGE_ARN: arn,
        WaitAttribute.IMAGE_ID: account.image(arn)["outputResources"]["amis"][0]["image"],
    }
    assert 1.5 * HOURS < aws.now() - start < 1.5 * HOURS + 120


def test_a_link_responds_at_once_if_the_image_is_available(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    image.create(account.waiting() | CONTINUE)

    execution = link.start(link.create_event(of(image)))
    aws.step(execution)

    assert execution.status == "SUCCEEDED"
    assert (
        link.responses()[-1]["Data"][WaitAttribute.IMAGE_ID]
        == image.responses()[0]["Data"][ImageAttribute.IMAGE_ID]
    )


def test_a_link_tags_the_ami_with_the_tags_of_the_image(
    account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=1.5 * HOURS)
    arn = waited_an_hour(account, image, Tags={"stage": "test"})

    link.create(of(image))

    assert tags_of(account.ami_of(arn)) == {
        "stage": "test",
        OwnTag.STACK.value: image.stack_id,
        OwnTag.RESOURCE.value: image.logical_id,
    }


def test_a_link_fails_at_once_if_the_import_fails(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=3 * HOURS)
    properties = account.waiting() | CONTINUE
    account.fail_import(
        CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID], at_progress=34
    )
    start = aws.now()
    image.create(properties)

    response = link.create(of(image))

    assert response["Status"] == "FAILED"
    assert CLIENT_ERROR.rstrip(".") in response["Reason"]
    assert response["PhysicalResourceId"] == link.logical_id
    assert aws.now() - start < 2 * HOURS


def test_a_link_hands_on_when_its_time_is_over(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=100 * HOURS)
    arn = waited_an_hour(account, image)
    start = aws.now()

    response = link.create(of(image, **CONTINUE))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["Data"][WaitAttribute.IMAGE_ARN] == arn
    assert not response["Data"].get(WaitAttribute.IMAGE_ID)
    assert 3400 < aws.now() - start < 3600


def test_the_last_link_fails_with_the_progress_when_its_time_is_over(
    account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=100 * HOURS)
    arn = waited_an_hour(account, image)

    response = link.create(of(image, timeout=600))

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith("the image is not AVAILABLE after")
    assert f"(image {arn}, import task " in response["Reason"]
    assert "minutes: EC2's import is at 2 %, pending; the image is PENDING. " in response["Reason"]
    assert account.images_of(image) == [arn]  # its own Delete comes later


def test_a_link_succeeds_at_once_if_a_rollback_returned_to_a_failed_image(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    image.create(account.properties())
    link.properties = of(image)
    back = link.update_event(of(image, ImportFailed="true"), link.logical_id) | ROLLS_BACK
    execution = link.start(back)

    aws.step(execution)

    assert execution.status == "SUCCEEDED"
    assert link.responses()[-1]["Status"] == "SUCCESS"


@pytest.mark.parametrize(
    "operation", ["DescribeStacks", "DescribeImages", "DescribeImportImageTasks"]
)
def test_a_link_of_a_failed_image_succeeds_in_a_rollback_although_a_call_is_denied(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource, operation: str
) -> None:
    image.create(account.properties())
    link.properties = of(image)
    aws.expect(denied={operation})

    back = link.update_event(of(image, ImportFailed="true"), link.logical_id) | ROLLS_BACK

    assert link.send(back)["Status"] == "SUCCESS"


@pytest.mark.parametrize("request_type", ["Create", "Update"])
def test_a_link_of_a_failed_image_fails_in_the_next_deployment(
    account: Account, image: CustomResource, link: CustomResource, request_type: str
) -> None:
    image.create(account.properties())
    failed = of(image, ImportFailed="true")
    link.properties = of(image)

    response = link.create(failed) if request_type == "Create" else link.update(failed)

    assert response["Status"] == "FAILED"
    assert "had failed before" in response["Reason"]


@pytest.mark.parametrize("ami_exists", [True, False])
def test_a_shorter_timeout_after_the_image_was_deleted_by_hand_needs_its_ami(
    account: Account, image: CustomResource, link: CustomResource, *, ami_exists: bool
) -> None:
    account.knobs(import_seconds=1.5 * HOURS)
    arn = waited_an_hour(account, image)
    assert link.create(of(image) | CONTINUE)["Status"] == "SUCCESS"
    ami = account.ami_of(arn)["ImageId"]
    account.delete(arn)
    if not ami_exists:
        account.ec2.deregister_image(ImageId=ami)

    response = link.update(of(image))

    if ami_exists:
        assert (response["Status"], response["Data"][WaitAttribute.IMAGE_ID]) == ("SUCCESS", ami)
    else:
        assert response["Status"] == "FAILED"


@pytest.mark.parametrize("import_hours", [4, 40], ids=["failed", "endless"])
def test_a_shorter_timeout_after_a_failed_link_does_not_report_the_image_as_available(
    account: Account, image: CustomResource, link: CustomResource, import_hours: int
) -> None:
    # `cdk deploy --no-rollback` with 3 hours fails in the last link; the retry has 2 hours.
    account.knobs(import_seconds=import_hours * HOURS)
    properties = account.waiting() | CONTINUE
    task_id = properties[ImageProperty.VM_IMPORT_TASK_ID]
    message = CLIENT_ERROR if import_hours == 4 else None
    account.fail_import(message, task_id=task_id, at_progress=60)
    image.create(properties)
    link.create(of(image, **CONTINUE))
    last = CustomResource(
        account.aws, ResourceType.WAIT.value, logical_id="Wait3F00D", stack_id=image.stack_id
    )
    last.create(of(image))

    assert link.update(of(image))["Status"] == "FAILED"


def test_a_rollback_to_a_failed_image_that_is_waited_for_has_an_empty_image_id(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    account.fail_import(CLIENT_ERROR, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    image.create(properties)
    account.advance(HOURS)

    waiting = {**properties, ImageProperty.TIMEOUT_SECONDS: "3600"}
    back = image.send(image.update_event(waiting) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]
    assert back["Data"][ImageAttribute.IMAGE_ID] == ""


@pytest.mark.parametrize("after_completion", [1, 5, 9, 13])
def test_a_wait_that_begins_after_the_task_is_completed_is_not_late(
    aws: Aws, account: Account, image: CustomResource, after_completion: float
) -> None:
    account.knobs(import_seconds=170)
    properties = account.properties()
    start = aws.now()
    image.create(properties)
    account.advance(start + 170 + after_completion - aws.now())
    waiting = {**properties, ImageProperty.TIMEOUT_SECONDS: "3600"}
    execution = image.start(image.update_event(waiting))

    aws.work(lambda: not execution.is_running)

    assert aws.now() - (start + 185) < 185 / 20 + 5 + 1


def test_a_wait_that_hands_on_has_no_metrics(
    account: Account, image: CustomResource, log: Log
) -> None:
    account.knobs(import_seconds=2 * HOURS)
    waited_an_hour(account, image)

    assert [line for line in log() if "_aws" in line] == []


def test_the_metrics_of_a_long_import_are_those_of_the_image_and_not_of_its_link(
    account: Account, image: CustomResource, link: CustomResource, log: Log
) -> None:
    account.knobs(import_seconds=1.5 * HOURS)
    waited_an_hour(account, image)

    link.create(of(image))

    (line,) = [line for line in log() if "_aws" in line]
    assert line["Resource"] == image.logical_id != link.logical_id
    assert (line["outcome"], line["Failed"]) == ("available", 0)
    assert 1.5 * HOURS < line["Duration"] < 1.6 * HOURS


def test_a_link_after_the_import_adds_nothing_to_the_metrics(
    account: Account, image: CustomResource, link: CustomResource, log: Log
) -> None:
    image.create(account.waiting() | CONTINUE)

    link.create(of(image))

    assert len([line for line in log() if "_aws" in line]) == 1


def test_a_link_that_is_deleted_deletes_nothing(
    account: Account, image: CustomResource, link: CustomResource
) -> None:
    image.create(account.waiting() | CONTINUE)
    link.create(of(image))

    response = link.delete()

    assert response["Status"] == "SUCCESS"
    assert response["PhysicalResourceId"] == link.logical_id
    assert account.images_of(image) == [image.physical_id]


def test_deleting_a_link_ends_its_wait(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=100 * HOURS)
    waited_an_hour(account, image)
    execution = link.start(link.create_event(of(image)))
    aws.step(execution)
    aws.sleep(10)

    assert link.delete("images-Wait2F00D-1ABCDEF")["Status"] == "SUCCESS"

    assert execution.status == "ABORTED"


def test_a_link_of_another_image_waits_for_that_one_and_keeps_its_physical_id(
    account: Account, image: CustomResource, link: CustomResource
) -> None:
    image.create(account.waiting() | CONTINUE)
    link.create(of(image))
    image.update(account.waiting() | CONTINUE)

    response = link.update(of(image))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] == link.logical_id
    assert response["Data"][WaitAttribute.IMAGE_ARN] == image.physical_id
    assert response["Data"][WaitAttribute.IMAGE_ID]


def test_a_failed_update_of_a_link_keeps_its_physical_id(
    account: Account, image: CustomResource, link: CustomResource
) -> None:
    image.create(account.waiting() | CONTINUE)
    link.create(of(image))
    image.update(account.properties())
    account.cancel(str(image.physical_id))

    response = link.update(of(image))

    assert response["Status"] == "FAILED"
    assert response["PhysicalResourceId"] == link.logical_id


def test_a_chain_of_12_hours_polls_at_most_520_times(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=11.5 * HOURS)
    waited_an_hour(account, image)
    assert aws.step_functions.executions[0].steps <= 80
    for hour in range(2, 13):
        link = CustomResource(
            aws, ResourceType.WAIT.value, f"Wait{hour}F00D", stack_id=image.stack_id
        )
        response = link.create(of(image, **CONTINUE))

    assert response["Data"][WaitAttribute.IMAGE_ID]
    assert sum(execution.steps for execution in aws.step_functions.executions) <= 520


def test_the_polling_interval_of_a_link_follows_the_age_of_the_import(
    aws: Aws, account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=100 * HOURS)
    waited_an_hour(account, image)
    execution = link.start(link.create_event(of(image)))

    aws.step(execution)

    assert execution.seconds >= 60


@pytest.mark.parametrize("name", [WaitProperty.IMAGE_ARN, WaitProperty.VM_IMPORT_TASK_ID])
def test_a_missing_property_of_a_link_fails_with_its_name(
    account: Account, image: CustomResource, link: CustomResource, name: str
) -> None:
    image.create(account.properties())
    properties = of(image)
    del properties[name]

    response = link.create(properties)

    assert response["Status"] == "FAILED"
    assert response["Reason"] == f"missing resource property: {name} (log group {LOG_GROUP})"
    assert link.delete()["Status"] == "SUCCESS"


def test_an_image_in_use_stays_if_only_its_link_fails(
    account: Account, image: CustomResource, link: CustomResource
) -> None:
    account.knobs(import_seconds=100 * HOURS)
    arn = waited_an_hour(account, image)
    link.create(of(image, timeout=60))

    link.delete()
    account.advance(IMPORT)

    assert account.images_of(image) == [arn]
