"""Faults at the worst moment, found by an independent review."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageProperty, TaskProperty
from tests.support.aws import ROLLS_BACK, STACK_CHANGED, STACK_STATUS

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

INVENTED = "images-GoldenImageF00D-1ABCDEFGHIJKL"
DENIED = {"code": "AccessDeniedException", "message": "no", "status": 403}
NOT_FOUND = {"code": "ResourceNotFoundException", "message": "not found", "status": 404}
THROTTLED = {"code": "CallRateLimitExceededException", "message": "slow", "status": 429}
CLEANS_UP = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
ROLLBACK = {STACK_STATUS: "ROLLBACK_IN_PROGRESS"}
DAY = 86400


def version(properties: dict[str, Any], number: int) -> dict[str, Any]:
    return {**properties, ImageProperty.SEMANTIC_VERSION: f"{number}.0.0"}


# --- a Delete of a failed attempt ---


@pytest.mark.parametrize("status", [CLEANS_UP, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"])
def test_a_delete_by_an_invented_id_keeps_the_image_one_stack_operation_later(
    aws: Aws, account: Account, image: CustomResource, status: str
) -> None:
    properties = account.waiting()
    account.failed_attempt(image, properties)
    aws.let_pass(600)
    retried = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(600)

    marks = {STACK_STATUS: status, STACK_CHANGED: aws.now()}
    image.send(image.delete_event(INVENTED) | marks)

    assert account.images_of(image) == [retried]


def test_a_delete_by_an_invented_id_deletes_the_image_if_the_stack_is_deleted(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    account.failed_attempt(image, properties)
    aws.let_pass(600)
    assert image.create(properties)["Status"] == "SUCCESS"
    aws.let_pass(600)

    marks = {STACK_STATUS: "DELETE_IN_PROGRESS", STACK_CHANGED: aws.now()}
    image.send(image.delete_event(INVENTED) | marks)

    assert account.images_of(image) == []


def test_a_delete_by_an_invented_id_keeps_the_image_if_the_stack_cannot_be_described(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    account.failed_attempt(image, properties)
    aws.let_pass(600)
    began = aws.now()
    retried = image.create(properties)["PhysicalResourceId"]
    aws.expect(denied={"DescribeStacks"})

    marks = {STACK_STATUS: CLEANS_UP, STACK_CHANGED: began}
    image.send(image.delete_event(INVENTED) | marks)

    assert account.images_of(image) == [retried]


def test_a_delete_by_a_placeholder_deletes_what_one_of_two_reads_misses(
    account: Account, image: CustomResource
) -> None:
    failed_id = account.failed_attempt(image, account.waiting())
    account.fault("imagebuilder", "ListImageBuildVersions", skip=1, error=NOT_FOUND)

    assert image.delete(failed_id)["Status"] == "SUCCESS"

    assert account.images_of(image) == []


def test_a_failed_attempt_is_deleted_days_later_although_its_policy_retains_images(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    failed_id = account.failed_attempt(image, account.waiting(Retain="true"))
    aws.let_pass(2 * DAY)

    assert image.delete(failed_id)["Reason"] == ""

    assert account.images_of(image) == []


# --- rollbacks ---


def test_a_rollback_to_an_image_of_a_forgotten_task_succeeds_although_one_read_misses_it(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(10 * DAY)
    newer = version(account.properties(Name=properties[ImageProperty.NAME]), 2)
    second = image.update(newer)["PhysicalResourceId"]
    account.fault("imagebuilder", "ListImageBuildVersions", error=NOT_FOUND)

    back = image.send(image.update_event(properties, second) | ROLLS_BACK)

    assert (back["Status"], back["PhysicalResourceId"]) == ("SUCCESS", first), back["Reason"]


def test_a_rollback_that_cannot_import_again_still_deletes_the_new_image(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(10 * DAY)
    account.delete(first)
    newer = version(account.properties(Name=properties[ImageProperty.NAME]), 2)
    aws.deliver(image.update_event(newer))  # cancelled in flight

    back = image.send(image.update_event(properties, first) | ROLLS_BACK)

    assert "EC2 does not know the import task" in back["Reason"]
    assert account.images_of(image) == []


@pytest.mark.parametrize("denied", ["TagResource", "GetImage"])
def test_a_rollback_to_an_untouched_image_needs_neither_tags_nor_get_image(
    aws: Aws, account: Account, image: CustomResource, denied: str
) -> None:
    properties = account.waiting()
    first = image.create(properties)["PhysicalResourceId"]
    aws.expect(denied={denied, "ImportVmImage"})
    failed_id = image.update(version(properties, 2))["PhysicalResourceId"]

    back = image.send(image.update_event(properties, failed_id) | ROLLS_BACK)

    assert (back["Status"], back["PhysicalResourceId"]) == ("SUCCESS", first), back["Reason"]


def test_a_new_image_has_no_tags_to_remove(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.properties(Tags={"old": "1"})
    image.create(properties)
    aws.expect(denied={"UntagResource"})

    changed = {**version(properties, 2), ImageProperty.TAGS: {"new": "1"}}
    response = image.update(changed)

    assert response["Status"] == "SUCCESS", response["Reason"]


def test_a_task_whose_ami_is_not_listed_yet_is_not_imported_again_by_a_rollback(
    aws: Aws, account: Account, task: CustomResource
) -> None:
    account.knobs(ami_listing_seconds=60, import_seconds=1200)
    properties = account.task_properties()
    first = task.create(properties)["PhysicalResourceId"]
    second = task.update({**properties, TaskProperty.DESCRIPTION: "b"})["PhysicalResourceId"]
    while account.task(first)["Status"] != "completed":
        aws.let_pass(5)

    back = task.send(task.update_event(properties, second) | ROLLS_BACK)

    assert back["PhysicalResourceId"] == first


# --- the order of events ---


@pytest.mark.parametrize("operation", ["ListExecutions", "StopExecution"])
def test_a_delete_waits_until_iam_allows_to_stop_the_create(
    aws: Aws, account: Account, image: CustomResource, operation: str
) -> None:
    account.fault("imagebuilder", "ImportVmImage", times=12, error=THROTTLED)
    image.start(image.create_event(account.waiting()))
    aws.let_pass(10)
    aws.deny_for(30, operation)

    assert image.send(image.delete_event(INVENTED) | ROLLBACK)["Status"] == "SUCCESS"

    aws.let_pass(2 * 3600)
    assert account.images_of(image) == []


def test_a_create_that_cannot_be_stopped_notices_its_delete(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.fault("imagebuilder", "ImportVmImage", times=40, error=THROTTLED)
    image.start(image.create_event(account.waiting()))
    aws.let_pass(10)
    aws.expect(denied={"StopExecution"})

    assert image.send(image.delete_event(INVENTED) | ROLLBACK)["Status"] == "SUCCESS"

    aws.let_pass(2 * 3600)
    assert account.images_of(image) == []


# --- after an outage of Lambda, when most of the time is over ---


def test_a_delete_waits_for_the_order_of_events_after_an_outage_of_lambda(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.fault("imagebuilder", "ImportVmImage", times=2, error=THROTTLED)
    create = image.start(image.create_event(account.waiting()))
    aws.step(create)
    delete = image.start(image.delete_event(INVENTED) | ROLLBACK)
    create.due += 800
    delete.due += 400
    throttled = {"code": "ThrottlingException", "message": "slow", "status": 400}
    account.fault("stepfunctions", "ListExecutions", times=6, error=throttled)

    aws.let_pass(2 * 3600)

    assert image.responses()[-1]["Status"] == "SUCCESS"
    assert account.images_of(image) == []


@pytest.mark.parametrize("error", [THROTTLED, DENIED], ids=["throttled", "denied"])
def test_a_rollback_repeats_its_clean_up_after_an_outage_of_lambda(
    aws: Aws, account: Account, image: CustomResource, error: dict[str, Any]
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    aws.deliver(image.update_event(version(properties, 2)))  # cancelled
    execution = image.start(image.update_event(properties, first) | ROLLS_BACK)
    execution.due += 700
    account.fault("imagebuilder", "DeleteImage", error=error)

    aws.work(lambda: not execution.is_running)

    assert image.responses()[-1]["Status"] == "SUCCESS"
    assert account.images_of(image) == [first]


def test_a_rollback_deletes_an_image_that_is_not_listed_yet_beside_a_failed_one(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    newer = version(properties, 2)
    aws.step(image.start(image.update_event(newer)))
    (failed,) = {*account.images_of(image)} - {first}
    account.cancel(failed)
    account.knobs(read_lag_seconds=20)
    image.properties = properties
    aws.step(image.start(image.update_event(newer)))  # never responds

    back = image.send(image.update_event(properties) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]
    assert account.images_of(image) == [first]


def test_a_denied_delete_is_repeated_after_an_outage_of_lambda(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    failed_id = account.failed_attempt(image, account.waiting())
    execution = image.start(image.delete_event(failed_id))
    execution.due += 700
    account.fault("imagebuilder", "ListImageBuildVersions", error=DENIED)

    aws.work(lambda: not execution.is_running)

    assert account.images_of(image) == []


# --- deletions ---


def test_the_ami_is_deleted_although_get_image_misses_the_image_once(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    account.knobs(imported_ami_name="other")
    image.create(account.waiting(DeleteAmi="true"))
    aws.let_pass(10 * DAY)
    account.fault("imagebuilder", "GetImage", error=NOT_FOUND)

    assert image.delete()["Status"] == "SUCCESS"

    assert account.images_of(image) == []
    assert aws.local.amis == {}


def test_an_import_that_nothing_can_cancel_is_deleted_when_it_ends(
    aws: Aws, account: Account, image: CustomResource, task: CustomResource
) -> None:
    account.knobs(cancel_import="refuse", import_seconds=1500)
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    image.create(account.properties(VmImportTaskId=task_id))
    aws.expect(denied={"CancelImportTask"})

    assert image.delete()["Status"] == "SUCCESS"

    assert account.images_of(image) == []


# --- a function that is killed after its response ---


def test_nothing_is_imported_after_a_failed_response(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    aws.expect(response_faults={0: "killed after"})
    refused = {"code": "ClientException", "message": "The service is busy.", "status": 400}
    account.fault("imagebuilder", "ImportVmImage", error=refused)

    response = image.create(account.waiting())
    account.advance(3600)

    assert response["Status"] == "FAILED"
    assert account.images_of(image) == []
