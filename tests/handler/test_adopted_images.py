"""Which event an image belongs to: a late or repeated Delete takes no image of a later event."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageProperty, OwnTag
from tests.support.account import tags_of
from tests.support.aws import ROLLS_BACK, STACK_CHANGED, STACK_STATUS

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

REFUSED = {"code": "SomethingUnexpected", "message": "no", "status": 400}
INVENTED = "images-GoldenImageF00D-1ABCDEFGHIJKL"
DAY = 86400


def delete_in_clean_up(image: CustomResource, physical_id: str, began: float) -> dict[str, Any]:
    """Delete in the stack operation that began at a time, as CloudFormation cleans up."""
    status = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
    marks = {STACK_STATUS: status, STACK_CHANGED: began}
    return image.send(image.delete_event(physical_id) | marks)


@pytest.mark.parametrize("by", ["its id", "an invented id"])
def test_the_delete_of_a_failed_attempt_keeps_the_image_that_the_retry_adopted(
    aws: Aws, account: Account, image: CustomResource, by: str
) -> None:
    properties = account.waiting()
    failed_id = account.failed_attempt(image, properties)
    aws.let_pass(600)
    began = aws.now()
    retried = image.create(properties)
    assert retried["Status"] == "SUCCESS", retried["Reason"]

    deleted = delete_in_clean_up(image, failed_id if by == "its id" else INVENTED, began)

    assert deleted["Status"] == "SUCCESS"
    assert account.images_of(image) == [retried["PhysicalResourceId"]]
    assert f"{retried['PhysicalResourceId']} is retained" in deleted["Reason"]


@pytest.mark.parametrize("by", ["its id", "an invented id"])
def test_the_delete_of_a_failed_attempt_before_the_retry_deletes_its_image(
    aws: Aws, account: Account, image: CustomResource, by: str
) -> None:
    properties = account.waiting()
    failed_id = account.failed_attempt(image, properties)
    aws.let_pass(600)

    deleted = delete_in_clean_up(image, failed_id if by == "its id" else INVENTED, aws.now())
    assert deleted["Status"] == "SUCCESS"
    assert account.images_of(image) == []

    retried = image.create(properties)
    assert retried["Status"] == "SUCCESS", retried["Reason"]
    assert account.images_of(image) == [retried["PhysicalResourceId"]]


def test_the_delete_of_an_attempt_that_imported_nothing_keeps_the_image_of_the_retry(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    aws.expect(denied={"ImportVmImage"})
    failed_id = image.create(properties)["PhysicalResourceId"]
    aws.expect()
    began = aws.now()
    retried = image.create(properties)["PhysicalResourceId"]

    for physical_id in (failed_id, INVENTED):
        assert delete_in_clean_up(image, physical_id, began)["Status"] == "SUCCESS"

    assert account.images_of(image) == [retried]


def test_a_failed_retry_of_an_update_is_deleted_without_the_image_of_the_next_one(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.waiting()
    first = image.create(properties)["PhysicalResourceId"]
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    update = image.update_event(newer)
    execution = image.start(update)
    aws.step(execution)
    account.fault("imagebuilder", "GetImage", times=20, error=REFUSED)
    aws.work(lambda: not execution.is_running)
    aws.operation_faults.clear()
    failed_id = image.responses()[-1]["PhysicalResourceId"]
    assert failed_id != first
    aws.let_pass(600)
    image.properties = properties
    began = aws.now()
    second = image.update(newer, first)["PhysicalResourceId"]

    assert delete_in_clean_up(image, failed_id, began)["Status"] == "SUCCESS"

    assert account.images_of(image) == [first, second]


@pytest.mark.parametrize("status", ["ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS"])
def test_a_stack_that_is_deleted_deletes_adopted_images_too(
    aws: Aws, account: Account, image: CustomResource, status: str
) -> None:
    properties = account.waiting()
    account.failed_attempt(image, properties)
    aws.let_pass(600)
    began = aws.now()
    image.create(properties)

    marks = {STACK_STATUS: status, STACK_CHANGED: began}
    assert image.send(image.delete_event(INVENTED) | marks)["Status"] == "SUCCESS"

    assert account.images_of(image) == []


def test_the_delete_of_a_failed_attempt_keeps_the_task_that_the_retry_adopted(
    aws: Aws, account: Account, task: CustomResource
) -> None:
    account.knobs(import_seconds=6 * 3600)
    properties = account.task_properties()
    aws.expect(response_faults=dict.fromkeys(range(1000), "500"))
    aws.deliver(task.create_event(properties))
    aws.expect()
    (first,) = account.active_tasks_of(task)
    token, _, event = tags_of(account.task(first))[OwnTag.TOKEN].split("/")
    began = aws.now()
    assert task.create(properties)["PhysicalResourceId"] == first

    for physical_id in (f"import-task/{token}/{event}", INVENTED):
        assert delete_in_clean_up(task, physical_id, began)["Status"] == "SUCCESS"

    assert account.active_tasks_of(task) == [first]


# --- images that a stack operation adopted ---


@pytest.mark.parametrize("age", [60, 3 * DAY])
def test_a_new_policy_and_a_new_version_delete_the_old_image(
    aws: Aws, account: Account, image: CustomResource, age: int
) -> None:
    # CloudFormation sends the old properties, which retain the image.
    properties = account.properties(Retain="true")
    first = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(age)
    newer = {
        **properties,
        ImageProperty.SEMANTIC_VERSION: "2.0.0",
        ImageProperty.RETAIN: "false",
    }
    began = aws.now()
    second = image.update(newer)["PhysicalResourceId"]

    marks = {STACK_STATUS: "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", STACK_CHANGED: began}
    deleted = image.send(image.delete_event(first, properties) | marks)

    assert deleted["Status"] == "SUCCESS"
    assert deleted["Reason"] == ""
    assert account.images_of(image) == [second]


@pytest.mark.parametrize("age", [60, 3 * DAY])
def test_a_rollback_names_the_retained_image_that_it_keeps(
    aws: Aws,
    account: Account,
    image: CustomResource,
    age: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    properties = account.properties(Retain="true")
    first = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(age)  # removed from the template, and retained
    assert image.create(properties)["PhysicalResourceId"] == first
    caplog.set_level(logging.INFO)

    deleted = image.send(image.delete_event(first) | ROLLS_BACK)

    assert deleted["Status"] == "SUCCESS"
    assert account.images_of(image) == [first]
    reason = f"{first} is retained: it existed before the stack operation"
    assert deleted["Reason"] == reason
    assert reason in caplog.text


def test_an_image_without_the_tags_of_the_resource_is_named(
    account: Account, image: CustomResource, other_image: CustomResource
) -> None:
    image.create(account.properties())
    theirs = other_image.create(account.properties())["PhysicalResourceId"]

    response = image.delete(theirs)

    assert response["Status"] == "SUCCESS"
    assert response["Reason"] == (
        f"{theirs} is retained: it does not have the tags of this resource"
    )
    assert account.images_of(other_image) == [theirs]


def test_the_successor_of_an_image_deleted_by_hand_is_deleted_by_the_rollback(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    account.advance(3600)
    account.delete(first)
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    # Cancelled in flight: CloudFormation does not know the response.
    aws.deliver(image.update_event(newer))
    assert len(account.images_of(image)) == 1

    back = image.send(image.update_event(properties, first) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]
    assert account.images_of(image) == [back["PhysicalResourceId"]]


def test_an_update_after_an_image_was_deleted_by_hand_deletes_no_other_image(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties(Retain="true")
    first = image.create(properties)["PhysicalResourceId"]
    account.advance(3600)
    account.delete(first)

    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    second = image.update(newer)["PhysicalResourceId"]

    assert account.images_of(image) == [second]


def test_the_request_id_stays_that_of_the_import(account: Account, image: CustomResource) -> None:
    properties = account.properties()
    created = image.create(properties)
    imports = [call for call in account.calls("ImportVmImage") if not call["error"]]
    assert len(imports) == 1

    updated = image.update({**properties, ImageProperty.TAGS: {"team": "images"}})
    found = image.create({**properties, ImageProperty.TAGS: {"team": "others"}})

    assert updated["Data"] == created["Data"]
    assert found["Data"] == created["Data"]


@pytest.mark.parametrize("cause", ["StartExecution", "ListImageBuildVersions"])
def test_a_rollback_retains_an_image_that_an_earlier_deployment_of_today_retained(
    aws: Aws, account: Account, image: CustomResource, cause: str
) -> None:
    one = account.waiting(Retain="true")
    two = {**one, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    first = image.create(one)["PhysicalResourceId"]
    aws.let_pass(600)
    second = image.update(two)["PhysicalResourceId"]
    aws.let_pass(2 * 3600)
    began = aws.now()
    # Back to the first version, but the update fails before it touches an image.
    if cause == "StartExecution":
        account.fault("stepfunctions", cause, times=200, error=REFUSED | {"status": 503})
    else:
        aws.expect(denied={cause})
    assert image.send(image.update_event(one, second))["Status"] == "FAILED"
    aws.operation_faults.clear()
    aws.expect()

    back = image.send(image.update_event(two, second) | ROLLS_BACK | {STACK_CHANGED: began})

    assert back["PhysicalResourceId"] == second
    assert account.images_of(image) == [first, second]


@pytest.mark.parametrize("seconds", [1, 120])
def test_the_delete_of_a_cancelled_create_retains_an_image_that_was_retained_today(
    aws: Aws, account: Account, image: CustomResource, seconds: int
) -> None:
    properties = account.waiting(Retain="true")
    arn = image.create(properties)["PhysicalResourceId"]
    aws.let_pass(2 * 3600)  # the image was removed from the template, and is added again
    began = aws.now()
    lists_fail = REFUSED | {"status": 503}
    account.fault("imagebuilder", "ListImageBuildVersions", times=10**6, error=lists_fail)
    image.start(image.create_event(properties))
    aws.let_pass(seconds)
    aws.operation_faults.clear()

    marks = {STACK_STATUS: "UPDATE_ROLLBACK_IN_PROGRESS", STACK_CHANGED: began}
    deleted = image.send(image.delete_event(INVENTED, properties) | marks)

    assert deleted["Reason"] == f"{arn} is retained: it existed before the stack operation"
    assert account.images_of(image) == [arn]


@pytest.mark.parametrize(("fraction", "age"), [(0.0, 0), (0.4, 0), (0.9, 0), (0.0, 60)])
def test_what_a_retry_created_in_the_second_in_which_it_began_is_not_deleted(
    aws: Aws,
    account: Account,
    image: CustomResource,
    task: CustomResource,
    fraction: float,
    age: int,
) -> None:
    """Events have whole seconds, and stacks have fractions."""
    account.knobs(response_url_age_seconds=age)
    properties = account.waiting()
    aws.let_pass(1 - aws.now() % 1 + fraction)
    began = aws.now()
    marks = {STACK_STATUS: "UPDATE_IN_PROGRESS", STACK_CHANGED: began}
    arn = image.send(image.create_event(properties) | marks)["PhysicalResourceId"]
    account.knobs(import_seconds=6 * 3600)
    created = task.send(task.create_event(account.task_properties()) | marks)

    deleted = [delete_in_clean_up(one, INVENTED, began) for one in (image, task)]

    assert [response["Status"] for response in deleted] == ["SUCCESS", "SUCCESS"]
    assert account.images_of(image) == [arn]
    assert account.active_tasks_of(task) == [created["PhysicalResourceId"]]


def test_a_delete_is_repeated_though_the_image_is_to_be_retained_after_a_deployment(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    """The first Delete is no sign that the image existed before."""
    account.knobs(import_seconds=12 * 3600, cancel_import="refuse")
    aws.step(image.start(image.create_event(account.waiting(Retain="true"))))
    aws.let_pass(30)
    deleted = image.send(image.delete_event(INVENTED) | ROLLS_BACK)
    assert "is still being cancelled" in deleted["Reason"]

    again = image.send(image.delete_event(INVENTED) | {STACK_STATUS: "DELETE_IN_PROGRESS"})

    assert "is still being cancelled" in again["Reason"]
