"""What AWS does not show yet, or shows differently than expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract import ImageAttribute, ImageProperty, OwnTag, Step
from tests.support.account import tags_of

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

ALWAYS = 10**6
NOT_FOUND = {"code": "ResourceNotFoundException", "message": "not found", "status": 404}


# --- images that GetImage does not find ---


@pytest.mark.parametrize("read", [0, 1])
def test_the_image_of_a_failed_import_is_deleted_although_one_read_misses_it(
    aws: Aws, account: Account, image: CustomResource, read: int
) -> None:
    # Image Builder notices the failure later than the function, and cancels no import.
    account.knobs(image_watch_seconds=120, cancel_import="refuse")
    properties = account.waiting()
    account.fail_import("ClientError", task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    execution = image.start(image.create_event(properties))
    while not execution.data[Step.STATE]["failure"]:
        aws.step(execution)
    account.fault("imagebuilder", "GetImage", skip=read, error=NOT_FOUND)

    aws.work(lambda: not execution.is_running)

    assert image.responses()[-1]["Status"] == "FAILED"
    assert account.images_of(image) == []


def test_an_image_that_was_deleted_a_moment_ago_is_not_used_again(
    account: Account, image: CustomResource
) -> None:
    account.knobs(read_lag_seconds=6)
    properties = account.waiting()
    deleted = image.create(properties)["PhysicalResourceId"]
    image.delete()

    response = image.create(properties)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] != deleted
    assert account.images_of(image) == [response["PhysicalResourceId"]]


@pytest.mark.parametrize("lag", [10, 60])
def test_an_image_that_image_builder_lists_late_is_imported_once(
    account: Account, image: CustomResource, lag: int
) -> None:
    properties = account.properties()
    account.advance(60)  # EC2 lists its task by now
    account.knobs(read_lag_seconds=lag)

    response = image.create(properties)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]
    assert len({str(one) for one in account.requests_of(image, "ImportVmImage")}) == 1


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("timeout", [3600, None], ids=["waiting", "in the background"])
def test_a_few_polls_that_do_not_find_the_image_do_not_end_the_wait(
    aws: Aws, account: Account, image: CustomResource, times: int, timeout: int | None
) -> None:
    properties = account.waiting(timeout) if timeout else account.properties()
    execution = image.start(image.create_event(properties))
    aws.let_pass(300)
    account.fault("imagebuilder", "GetImage", times=times, error=NOT_FOUND)

    aws.let_pass(3600)

    (response,) = image.responses()
    assert response["Status"] == "SUCCESS", response["Reason"]
    arn = response["PhysicalResourceId"]
    assert account.images_of(image) == [arn]
    assert tags_of(account.ami_of(arn))[OwnTag.STACK] == image.stack_id
    assert not execution.is_running


def test_an_image_that_several_polls_do_not_find_is_gone(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    execution = image.start(image.create_event(account.waiting()))
    aws.let_pass(300)
    start = aws.now()
    account.fault("imagebuilder", "GetImage", times=ALWAYS, error=NOT_FOUND)

    aws.work(lambda: not execution.is_running)

    (response,) = image.responses()
    assert response["Status"] == "FAILED"
    assert "is gone: it was deleted outside the stack" in response["Reason"]
    assert 40 < aws.now() - start < 300


@pytest.mark.parametrize("read", range(1, 5))
def test_a_delete_that_misses_the_running_import_once_still_waits_for_its_end(
    aws: Aws, account: Account, image: CustomResource, read: int
) -> None:
    account.knobs(cancel_seconds=120)
    image.create(account.properties())
    # One of the reads after the cancellation does not find the image.
    account.fault("imagebuilder", "GetImage", skip=read, error=NOT_FOUND)
    execution = image.start(image.delete_event())

    aws.work(lambda: not execution.is_running)

    assert image.responses()[-1]["Status"] == "SUCCESS"
    assert account.images_of(image) == []


# --- the AMI of an import ---


@pytest.mark.parametrize("is_named", [True, False], ids=["GetImage", "the task"])
def test_the_ami_does_not_need_the_name_of_the_task(
    account: Account, image: CustomResource, *, is_named: bool
) -> None:
    account.knobs(imported_ami_name="other", image_shows_ami=is_named)
    properties = account.waiting(DeleteAmi="true", Tags={"team": "images"})

    response = image.create(properties)

    (ami,) = account.aws.local.amis.values()
    assert response["Data"][ImageAttribute.IMAGE_ID] == ami["ImageId"]
    assert account.aws.local.ec2_tags(ami["ImageId"])["team"] == "images"
    assert image.delete()["Reason"] == ""
    assert account.aws.local.amis == {}
    assert account.aws.local.snapshots == {}


def test_the_ami_of_a_task_that_ec2_forgot_is_found_by_its_name(
    account: Account, image: CustomResource
) -> None:
    account.knobs(image_shows_ami=False)
    properties = account.waiting(DeleteAmi="true")
    image.create(properties)
    account.advance(10 * 86400)

    assert image.delete()["Reason"] == ""

    assert account.aws.local.amis == {}


@pytest.mark.parametrize("is_named", [True, False], ids=["GetImage", "the task"])
def test_an_ami_that_is_not_listed_yet_is_tagged_later(
    account: Account, image: CustomResource, *, is_named: bool
) -> None:
    account.knobs(ami_listing_seconds=60, image_shows_ami=is_named)

    response = image.create(account.waiting(Tags={"team": "images"}))

    assert response["Status"] == "SUCCESS", response["Reason"]
    (ami,) = account.aws.local.amis.values()
    assert response["Data"][ImageAttribute.IMAGE_ID] == ami["ImageId"]
    assert account.aws.local.ec2_tags(ami["ImageId"])["team"] == "images"


def test_an_ami_that_somebody_deleted_delays_an_update_by_two_minutes_at_most(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    arn = image.create(properties)["PhysicalResourceId"]
    account.ec2.deregister_image(ImageId=account.ami_of(arn)["ImageId"])
    start = aws.now()

    response = image.update({**properties, ImageProperty.TAGS: {"team": "images"}})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert aws.now() - start < 130


def test_only_the_ami_of_the_stacks_region_is_used(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    arn = image.create(account.waiting())["PhysicalResourceId"]
    own = account.ami_of(arn)["ImageId"]
    other = {"region": "eu-west-1", "image": "ami-0123456789abcdef0"}
    aws.images[arn].amis.insert(0, other)

    response = image.update({**image.properties, ImageProperty.TAGS: {"team": "images"}})

    assert response["Data"][ImageAttribute.IMAGE_ID] == own


# --- tags ---


@pytest.mark.parametrize(("before", "after"), [(24, 24), (47, 46), (47, 47)])
def test_many_tags_are_replaced_by_many_others(
    account: Account, image: CustomResource, before: int, after: int
) -> None:
    old = {f"old{number}": "1" for number in range(before)}
    new = {f"new{number}": "1" for number in range(after)}
    properties = account.waiting(Tags=old)
    image.create(properties)

    response = image.update({**properties, ImageProperty.TAGS: new})

    assert response["Status"] == "SUCCESS", response["Reason"]
    arn = response["PhysicalResourceId"]
    (snapshot,) = account.snapshots(account.ami_of(arn))
    own = {OwnTag.STACK.value, OwnTag.RESOURCE.value}
    assert account.image(arn)["tags"].keys() == new.keys() | own | {OwnTag.TOKEN}
    assert tags_of(account.ami_of(arn)).keys() == new.keys() | own
    assert tags_of(snapshot).keys() == new.keys() | own


@pytest.mark.parametrize(("before", "after"), [(24, 24), (47, 46), (47, 47)])
def test_many_tags_of_a_task_are_replaced_by_many_others(
    account: Account, task: CustomResource, before: int, after: int
) -> None:
    old = {f"old{number}": "1" for number in range(before)}
    new = {f"new{number}": "1" for number in range(after)}
    properties = account.task_properties(Tags=old)
    task.create(properties)

    response = task.update({**properties, "Tags": new})

    assert response["Status"] == "SUCCESS", response["Reason"]
    tags = tags_of(account.task(response["PhysicalResourceId"]))
    assert tags.keys() == new.keys() | {*OwnTag}


# --- imports that cannot be cancelled ---


def test_deleting_an_import_that_cannot_be_cancelled_cancels_the_stacks_own_task(
    aws: Aws, account: Account, image: CustomResource, task: CustomResource
) -> None:
    account.knobs(cancel_import="refuse", import_seconds=6 * 3600)
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    image.create(account.properties(VmImportTaskId=task_id))
    start = aws.now()

    assert image.delete()["Status"] == "SUCCESS"

    assert aws.now() - start < 300
    assert account.images_of(image) == []
    assert task.delete()["Status"] == "SUCCESS"


def test_the_task_of_another_image_that_is_being_imported_is_not_cancelled(
    aws: Aws, account: Account, image: CustomResource, task: CustomResource
) -> None:
    account.knobs(cancel_import="refuse", import_seconds=1200)
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    properties = account.properties(VmImportTaskId=task_id)
    first = image.create(properties)["PhysicalResourceId"]
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    second = image.update(newer)["PhysicalResourceId"]

    assert image.delete(first, properties)["Status"] == "SUCCESS"

    aws.let_pass(3600)
    assert account.images_of(image) == [second]
    assert account.image(second)["state"]["status"] == "AVAILABLE"


def test_a_task_of_another_stack_is_not_cancelled(account: Account, image: CustomResource) -> None:
    account.knobs(cancel_import="refuse", import_seconds=1200)
    task_id = account.import_task()
    image.create(account.properties(VmImportTaskId=task_id))

    assert image.delete()["Status"] == "SUCCESS"

    assert not account.calls("CancelImportTask")
    assert account.ami(task_id)


@pytest.mark.parametrize("lag", [12, 30, 60])
def test_an_image_is_imported_once_though_iam_and_the_lists_need_time_one_after_the_other(
    aws: Aws, account: Account, image: CustomResource, lag: int
) -> None:
    properties = account.properties()
    account.advance(120)
    account.knobs(read_lag_seconds=lag)
    aws.deny_for(80, "ImportVmImage")

    created = image.create(properties)

    aws.let_pass(600)
    assert account.images_of(image) == [created["PhysicalResourceId"]]


def test_an_image_is_imported_once_though_it_is_listed_late_after_an_outage(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    account.advance(120)
    account.knobs(read_lag_seconds=20)
    down = {"code": "ServiceUnavailableException", "message": "no", "status": 503}
    account.fault("imagebuilder", "ImportVmImage", times=10**6, error=down)
    execution = image.start(image.create_event(properties))
    aws.let_pass(700)
    aws.operation_faults.clear()

    aws.work(lambda: not execution.is_running)

    assert account.images_of(image) == [image.responses()[-1]["PhysicalResourceId"]]
