"""What AWS denies, for a moment or for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract import ImageProperty
from tests.support.account import tags_of
from tests.support.aws import ROLLS_BACK

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

EC2_DENIED = {"code": "UnauthorizedOperation", "message": "no", "status": 403}
IMAGE_CALLS = [
    "ListImageBuildVersions",
    "DescribeImportImageTasks",
    "ImportVmImage",
    "TagResource",
    "ListExecutions",
    "StartExecution",
]
TASK_CALLS = [
    "DescribeImportImageTasks",
    "DescribeImages",
    "ImportImage",
    "CreateTags",
    "ListExecutions",
    "StartExecution",
]
ACTIONS = {"TagResource": "ImportVmImage", "CreateTags": "ImportImage"}


@pytest.mark.parametrize("operation", IMAGE_CALLS)
def test_a_denied_create_names_the_call_and_its_delete_succeeds(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    properties = account.waiting()
    aws.expect(denied={operation})

    created = image.create(properties)

    assert created["Status"] == "FAILED"
    assert f"{ACTIONS.get(operation, operation)} failed: AccessDenied" in created["Reason"]
    assert image.delete()["Status"] == "SUCCESS"
    aws.let_pass(3600)
    assert account.images_of(image) == []
    assert not aws.step_functions.running()


@pytest.mark.parametrize("operation", TASK_CALLS)
def test_a_denied_create_of_a_task_names_the_call_and_its_delete_succeeds(
    aws: Aws, account: Account, task: CustomResource, operation: str
) -> None:
    aws.expect(denied={operation})

    created = task.create(account.task_properties())

    assert created["Status"] == "FAILED"
    assert f"{ACTIONS.get(operation, operation)} failed: AccessDenied" in created["Reason"]
    assert task.delete()["Status"] == "SUCCESS"
    assert account.active_tasks_of(task) == []


def test_a_delete_that_may_not_look_says_so(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.expect(denied={"ListImageBuildVersions"})
    image.create(account.waiting())

    response = image.delete()

    assert "nothing was found to delete: ListImageBuildVersions failed" in response["Reason"]


@pytest.mark.parametrize("denied", ["GetImage", "CancelImageCreation"])
def test_an_import_is_deleted_although_one_call_is_denied(
    aws: Aws, account: Account, image: CustomResource, denied: str
) -> None:
    image.create(account.properties())
    aws.expect(denied={denied})

    assert image.delete()["Status"] == "SUCCESS"

    assert account.images_of(image) == []


@pytest.mark.parametrize(
    "operation",
    [
        "ListImageBuildVersions",
        "DescribeImportImageTasks",
        "ImportVmImage",
        "GetImage",
        "TagResource",
        "ListExecutions",
        "StartExecution",
        "CreateTags",
        "DescribeImages",
    ],
)
def test_a_create_succeeds_if_iam_needs_80_seconds(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    properties = account.waiting(Tags={"team": "images"})
    aws.deny_for(80, operation)

    response = image.create(properties)

    assert response["Status"] == "SUCCESS", response["Reason"]
    arn = response["PhysicalResourceId"]
    assert account.image(arn)["tags"]["team"] == "images"
    assert tags_of(account.ami_of(arn))["team"] == "images"


@pytest.mark.parametrize("operation", ["CreateTags", "DescribeImages"])
def test_iam_may_need_80_seconds_after_hours_of_waiting(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    account.knobs(import_seconds=1200)
    image.start(image.create_event(account.waiting(Tags={"team": "images"})))
    aws.let_pass(1150)
    aws.deny_for(150, operation)

    aws.let_pass(2000)

    (response,) = image.responses()
    assert response["Status"] == "SUCCESS", response["Reason"]
    assert tags_of(account.ami_of(response["PhysicalResourceId"]))["team"] == "images"


def test_the_background_tags_the_ami_although_iam_needs_30_seconds(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(import_seconds=1200)
    arn = image.create(account.properties(Tags={"team": "images"}))["PhysicalResourceId"]
    account.fault("ec2", "CreateTags", times=3, error=EC2_DENIED)

    aws.let_pass(3600)

    assert tags_of(account.ami_of(arn))["team"] == "images"


@pytest.mark.parametrize("operation", ["TagResource", "UntagResource", "GetImage"])
def test_an_update_succeeds_if_iam_needs_80_seconds(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    properties = account.properties(Tags={"old": "1"})
    image.create(properties)
    aws.deny_for(80, operation)

    response = image.update({**properties, ImageProperty.TAGS: {"new": "1"}})

    assert response["Status"] == "SUCCESS", response["Reason"]
    tags = account.image(response["PhysicalResourceId"])["tags"]
    assert {"new": "1"}.items() <= tags.items()
    assert "old" not in tags


@pytest.mark.parametrize("operation", ["GetImage", "DeleteImage", "CancelImageCreation"])
def test_a_delete_succeeds_if_iam_needs_80_seconds(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    image.create(account.properties())
    aws.deny_for(80, operation)

    assert image.delete()["Status"] == "SUCCESS"

    assert account.images_of(image) == []


@pytest.mark.parametrize("operation", ["DeleteImage", "ListImageBuildVersions"])
def test_a_rollback_deletes_the_new_image_if_iam_needs_80_seconds(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    update = image.update_event(newer)
    aws.expect(response_faults=dict.fromkeys(range(1000), "500"))
    aws.deliver(update)
    aws.expect()
    aws.deny_for(80, operation)

    image.update(properties, first)

    assert account.images_of(image) == [first]


def test_a_call_that_stays_denied_is_repeated_for_about_90_seconds(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.expect(denied={"ImportVmImage"})
    start = aws.now()

    image.create(account.properties())

    assert 80 < aws.now() - start < 120


def test_a_delete_after_a_failed_import_succeeds_though_listing_snapshots_is_denied(
    aws: Aws, account: Account, image: CustomResource, task: CustomResource
) -> None:
    aws.expect(denied={"DescribeSnapshots"})
    task_id = task.create(account.task_properties(DeleteAmi="true"))["PhysicalResourceId"]
    account.fail_import("ClientError: no", task_id=task_id, at_progress=28)
    assert image.create(account.waiting(VmImportTaskId=task_id))["Status"] == "FAILED"

    deleted = [one.send(one.delete_event() | ROLLS_BACK) for one in (image, task)]

    assert [response["Status"] for response in deleted] == ["SUCCESS", "SUCCESS"]
