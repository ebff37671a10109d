"""The handler works with each value of each knob, so with each possible behaviour of AWS."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageAttribute, ImageProperty, ResourceType, TaskProperty, WaitProperty
from local_aws.server.knobs import Knobs
from tests.support.account import IMPORT
from tests.support.aws import ROLLS_BACK, STACK_CHANGED, STACK_STATUS
from tests.support.cloudformation import CustomResource
from tests.support.local_services import UNLICENSED_ROLE
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.account import Account
    from tests.support.aws import Aws

BOTH: dict[str, tuple[object, ...]] = {
    "import_seconds": (0, 600),
    "deleting_seconds": (0, 600),
    "image_watch_seconds": (0, 120),
    "cancel_seconds": (0, 120),
    "idempotency_seconds": (0, 86400),
    "idempotency_of_unusable_image": ("replay", "import"),
    "idempotency_mismatch": ("refuse", "replay"),
    "build_numbers": ("increase", "reuse"),
    "invalid_value_error": ("declared", "InvalidParameterValueException"),
    "unknown_task": ("refuse", "fail"),
    "failed_task": ("fail", "fail_without_reason", "refuse"),
    "cancel_import": ("cancel", "refuse"),
    "cancel_terminal_error": (
        "InvalidRequestException",
        "ResourceInUseException",
        "InvalidParameterValueException",
    ),
    "dependants_block_delete": (True, False),
    "unknown_image_version": ("empty", "not_found", "invalid"),
    "missing_reference": ("invalid", "not_found", "accept"),
    "checked_first": ("permissions", "existence"),
    "tag_imported_ami": (True, False),
    "imported_ami_name": ("task_id", "other"),
    "image_shows_ami": (True, False),
    "ami_listing_seconds": (0, 60),
    "read_lag_seconds": (0, 6),
    "stack_lag_seconds": (0, 6),
    "iam_lag_seconds": (0, 60),
    "state_machine_key_checks_caller": (True, False),
    "clean_up_seconds": (0, 600),
    "resource_order": ("by_name", "reverse"),
    "cancelled_task_message": ("Cancelled by user", ""),
    "cancel_ended_task": ("refuse", "ignore"),
    "snapshots_of_failed_import": ("keep", "delete"),
    "import_idempotency_seconds": (0, 86400),
    "import_checks_caller": (True, False),
    "licenses_denied": ("refuse", "fail"),
    "failed_creation_deleted": ("before", "after"),
    "response_url_age_seconds": (0, 60),
}
# CloudFormation, IAM and Step Functions ask for these, and recipes, so the handler is tested with
# them in deployments.
OF_DEPLOYMENTS = {
    "checked_first",
    "clean_up_seconds",
    "failed_creation_deleted",
    "iam_lag_seconds",
    "missing_reference",
    "resource_order",
    "state_machine_key_checks_caller",
}
# Image Builder and EC2 ask for these in the life of each image. The others have tests of their own.
OF_A_LIFE = [
    (knob, value)
    for knob in (
        "import_seconds",
        "deleting_seconds",
        "image_watch_seconds",
        "cancel_seconds",
        "idempotency_seconds",
        "build_numbers",
        "cancel_import",
        "unknown_image_version",
        "tag_imported_ami",
        "imported_ami_name",
        "image_shows_ami",
        "ami_listing_seconds",
        "read_lag_seconds",
        "snapshots_of_failed_import",
        "import_idempotency_seconds",
        "import_checks_caller",
        "response_url_age_seconds",
    )
    for value in BOTH[knob]
]
IDS = [f"{knob}={value}" for knob, value in OF_A_LIFE]
DAY = 86400


@pytest.fixture(autouse=True)
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which nothing asks for its knob: its values would make no difference."""
    asked = set()
    read = Knobs.__getattribute__

    def reading(knobs: Knobs, name: str) -> Any:
        if sys._getframe(1).f_globals["__name__"] != "dataclasses":
            asked.add(name)
        return read(knobs, name)

    monkeypatch.setattr(Knobs, "__getattribute__", reading)
    yield
    tested = [knob for knob in BOTH if knob in request.node.name and knob not in OF_DEPLOYMENTS]
    assert asked.issuperset(tested), f"nothing asks for {tested}"


def test_each_knob_has_a_test(request: pytest.FixtureRequest) -> None:
    assert list(BOTH) == list(Knobs().as_dict())
    names = " ".join(item.name for item in request.session.items)
    assert [knob for knob in BOTH if knob not in names and knob not in OF_DEPLOYMENTS] == []


@pytest.mark.parametrize(("knob", "value"), OF_A_LIFE, ids=IDS)
def test_a_stack_leaves_nothing_behind_with_any_knob(
    account: Account,
    task: CustomResource,
    image: CustomResource,
    knob: str,
    value: object,
) -> None:
    account.knobs(**{"import_seconds": 120, knob: value})
    disks = account.task_properties(DeleteAmi="true")
    if value != 0:
        account.fault("ec2", "ImportImage", lose_answer=True)  # only its token finds the task
    first = task.create(disks)
    properties = account.waiting(
        VmImportTaskId=first["PhysicalResourceId"], Tags={"a": "1"}, DeleteAmi="true"
    )
    created = image.create(properties)
    again = image.create({**properties, ImageProperty.TAGS: {"a": "2"}})
    for response in (first, created, again):
        assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [created["PhysicalResourceId"]]
    assert again["PhysicalResourceId"] == created["PhysicalResourceId"]

    # an update whose import fails at its end, and its rollback
    properties = {**image.properties}
    second = task.update({**disks, TaskProperty.DESCRIPTION: "second"})["PhysicalResourceId"]
    account.fail_import("ClientError: no", task_id=second, at_progress=84)
    new = {**properties, ImageProperty.VM_IMPORT_TASK_ID: second}
    failed = image.update(new)
    assert failed["Status"] == ("SUCCESS" if value == 0 and knob == "import_seconds" else "FAILED")
    image.update(properties)
    task.update(disks, first["PhysicalResourceId"])
    image.delete(failed["PhysicalResourceId"], new)
    task.delete(second)
    assert account.images_of(image) == [created["PhysicalResourceId"]]

    # an update that is cancelled during its import, and its rollback
    newer = {**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    execution = image.start(image.update_event(newer))
    account.aws.step(execution)
    back = image.update(properties)
    assert (back["Status"], back["PhysicalResourceId"]) == (
        "SUCCESS",
        created["PhysicalResourceId"],
    )
    assert account.images_of(image) == [created["PhysicalResourceId"]]

    for resource in (image, task):
        response = resource.delete()
        assert response["Status"] == "SUCCESS", response["Reason"]
    account.advance(IMPORT)
    assert account.images_of(image) == []
    assert account.active_tasks_of(image) == []
    assert account.ec2.describe_images(Owners=["self"])["Images"] == []
    assert account.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


@pytest.mark.parametrize("value", BOTH["idempotency_of_unusable_image"])
def test_idempotency_of_unusable_image_is_no_obstacle_to_another_import(
    account: Account, image: CustomResource, value: str
) -> None:
    account.knobs(idempotency_of_unusable_image=value)
    lost, properties = lost_image(account, image)
    created_again(account, image, lost, properties)


@pytest.mark.parametrize("value", BOTH["idempotency_mismatch"])
def test_idempotency_mismatch_is_no_obstacle_to_another_import_with_other_tags(
    account: Account, image: CustomResource, value: str
) -> None:
    account.knobs(idempotency_mismatch=value)
    lost, properties = lost_image(account, image)
    created_again(account, image, lost, {**properties, ImageProperty.TAGS: {"a": "2"}})


def lost_image(account: Account, image: CustomResource) -> tuple[str, dict[str, Any]]:
    """Create an image, and delete it by hand; return its ARN and properties."""
    properties = account.properties(Tags={"a": "1"})
    account.advance(IMPORT)
    lost = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)
    account.delete(lost)
    return lost, properties


def created_again(
    account: Account, image: CustomResource, lost: str, properties: dict[str, Any]
) -> None:
    response = image.create(properties)
    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]
    assert response["PhysicalResourceId"] != lost


@pytest.mark.parametrize("value", BOTH["unknown_task"])
def test_unknown_task_is_reported_if_ec2_forgets_the_task_before_image_builder_reads_it(
    account: Account, image: CustomResource, value: str
) -> None:
    properties = account.waiting()
    account.knobs(unknown_task=value)
    account.advance(20 * 60 + 7 * DAY - 60)
    account.fault("imagebuilder", "ImportVmImage", delay=120)
    response = image.create(properties)
    assert response["Status"] == "FAILED"
    assert "import task" in response["Reason"]
    assert account.images_of(image) == []


@pytest.mark.parametrize("value", BOTH["build_numbers"])
def test_build_numbers_of_an_image_that_is_deleted_outside_the_stack_may_be_used_again(
    account: Account,
    image: CustomResource,
    value: str,
) -> None:
    account.knobs(build_numbers=value)
    properties = account.properties()
    lost = image.create(properties)["PhysicalResourceId"]
    account.advance(3600)
    account.delete(lost)

    created = image.create(properties)

    assert created["Status"] == "SUCCESS", created["Reason"]
    assert (created["PhysicalResourceId"] == lost) is (value == "reuse")
    assert account.images_of(image) == [created["PhysicalResourceId"]]
    newer = account.properties(Name=properties[ImageProperty.NAME])
    updated = image.update(newer)
    assert updated["Status"] == "SUCCESS", updated["Reason"]
    assert image.delete(created["PhysicalResourceId"], properties)["Status"] == "SUCCESS"
    assert account.images_of(image) == [updated["PhysicalResourceId"]]
    assert image.delete()["Status"] == "SUCCESS"
    assert account.images_of(image) == []


def test_build_numbers_that_are_used_again_do_not_keep_an_import_from_being_cancelled(
    account: Account, image: CustomResource
) -> None:
    account.knobs(build_numbers="reuse", import_seconds=10**6)
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    assert image.delete()["Status"] == "SUCCESS"
    again = account.properties(Name=properties[ImageProperty.NAME])
    assert image.create(again)["PhysicalResourceId"] == first

    assert image.delete()["Status"] == "SUCCESS"

    assert account.images_of(image) == []


@pytest.mark.parametrize("value", BOTH["invalid_value_error"])
def test_invalid_value_error_is_reported_with_its_message(
    account: Account,
    image: CustomResource,
    value: str,
) -> None:
    account.knobs(invalid_value_error=value)
    properties = account.properties()
    response = image.create({**properties, ImageProperty.SEMANTIC_VERSION: "1.0.1073741824"})
    assert response["Status"] == "FAILED"
    code = "ClientException" if value == "declared" else value
    assert f"{code}: The value supplied for parameter 'semanticVersion'" in response["Reason"]
    assert account.images_of(image) == []


@pytest.mark.parametrize("value", BOTH["failed_task"])
@pytest.mark.parametrize("waits", [True, False])
def test_failed_task_is_reported_if_it_fails_before_image_builder_reads_it(
    account: Account, image: CustomResource, value: str, *, waits: bool
) -> None:
    account.knobs(failed_task=value, import_seconds=120)
    properties = account.waiting() if waits else account.properties()
    message = "ClientError: Unknown OS / Missing OS files."
    account.fail_import(message, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    account.fault("imagebuilder", "ImportVmImage", delay=200)
    response = image.create(properties)
    if waits or value == "refuse":
        assert response["Status"] == "FAILED"
        assert message.rstrip(".") in response["Reason"]
        assert account.images_of(image) == []
    assert image.delete()["Status"] == "SUCCESS"
    assert account.images_of(image) == []


@pytest.mark.parametrize("value", BOTH["stack_lag_seconds"])
def test_stack_lag_seconds_do_not_fail_a_rollback(
    aws: Aws, account: Account, image: CustomResource, value: float
) -> None:
    account.knobs(stack_lag_seconds=value)
    data = image.create(account.properties())["Data"]
    account.advance(IMPORT)
    properties: dict[str, Any] = {
        WaitProperty.IMAGE_ARN: data[ImageAttribute.IMAGE_ARN],
        WaitProperty.VM_IMPORT_TASK_ID: data[ImageAttribute.VM_IMPORT_TASK_ID],
        WaitProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        WaitProperty.TIMEOUT_SECONDS: "3600",
    }
    link = CustomResource(
        aws, ResourceType.WAIT.value, logical_id="Wait2F00D", stack_id=image.stack_id
    )
    assert link.create(properties)["Status"] == "SUCCESS"
    failed = {**properties, WaitProperty.IMPORT_FAILED: "true"}

    back = link.send(link.update_event(failed) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]


@pytest.mark.parametrize("value", BOTH["cancel_ended_task"])
def test_cancel_ended_task_is_no_failure_of_a_deletion(
    account: Account, task: CustomResource, value: str
) -> None:
    account.knobs(cancel_ended_task=value, import_seconds=120)
    assert task.create(account.task_properties())["Status"] == "SUCCESS"
    account.fault("ec2", "CancelImportTask", delay=200)
    response = task.delete()
    assert response["Status"] == "SUCCESS", response["Reason"]


@pytest.mark.parametrize("value", BOTH["licenses_denied"])
def test_licenses_denied_is_reported_at_once_or_when_the_task_has_failed(
    account: Account,
    image: CustomResource,
    task: CustomResource,
    value: str,
) -> None:
    account.knobs(licenses_denied=value, import_seconds=120)
    arn = "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-0"
    licenses = [{"LicenseConfigurationArn": arn}]
    properties = account.task_properties(RoleName=UNLICENSED_ROLE, LicenseSpecifications=licenses)
    created = task.create(properties)
    if value == "refuse":
        assert created["Status"] == "FAILED"
        assert f"The service role {UNLICENSED_ROLE} does not exist" in created["Reason"]
    else:
        assert created["Status"] == "SUCCESS", created["Reason"]
        response = image.create(account.waiting(VmImportTaskId=created["PhysicalResourceId"]))
        assert response["Status"] == "FAILED"
        assert "may not use the license configurations" in response["Reason"]
    assert task.delete()["Status"] == "SUCCESS"


@pytest.mark.parametrize("value", BOTH["checked_first"])
def test_checked_first_makes_no_difference_to_an_image_that_is_deleted_outside_the_stack(
    account: Account,
    image: CustomResource,
    value: str,
) -> None:
    account.knobs(checked_first=value)
    created = image.create(account.properties())["PhysicalResourceId"]
    account.advance(3600)
    account.delete(created)
    if value == "permissions":
        denied = {"code": "AccessDeniedException", "message": "no tags", "status": 403}
        for operation in ("GetImage", "DeleteImage", "CancelImageCreation"):
            account.fault("imagebuilder", operation, times=100, error=denied)
    response = image.delete()
    assert response["Status"] == "SUCCESS", response["Reason"]


@pytest.mark.parametrize("when", BOTH["failed_creation_deleted"])
def test_failed_creation_deleted_before_or_after_the_next_one_leaves_that_one(
    aws: Aws,
    account: Account,
    image: CustomResource,
    when: str,
) -> None:
    properties = account.waiting()
    failed = account.failed_attempt(image, properties)
    aws.let_pass(600)
    deletion = image.delete_event(failed) | {STACK_CHANGED: aws.now()}
    if when == "before":
        assert image.send(deletion)["Status"] == "SUCCESS"
    created = image.create(properties)
    if when == "after":
        late = image.delete_event(failed) | {
            STACK_STATUS: "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
            STACK_CHANGED: deletion[STACK_CHANGED],
        }
        assert image.send(late)["Status"] == "SUCCESS"
    assert created["Status"] == "SUCCESS", created["Reason"]
    assert account.images_of(image) == [created["PhysicalResourceId"]]


@pytest.mark.parametrize("code", BOTH["cancel_terminal_error"])
def test_cancel_terminal_error_of_an_import_that_just_ended_is_no_failure(
    account: Account, image: CustomResource, code: str
) -> None:
    account.knobs(import_seconds=120, cancel_terminal_error=code)
    assert image.create(account.properties())["Status"] == "SUCCESS"
    account.fault("imagebuilder", "CancelImageCreation", delay=200)
    assert image.delete()["Status"] == "SUCCESS"
    assert account.images_of(image) == []


@pytest.mark.parametrize("blocks", BOTH["dependants_block_delete"])
def test_dependants_block_delete_is_reported_or_has_no_effect(
    account: Account,
    image: CustomResource,
    *,
    blocks: bool,
) -> None:
    account.knobs(dependants_block_delete=blocks)
    arn = image.create(account.properties())["PhysicalResourceId"]
    account.advance(3600)
    account.add_recipe(arn)
    response = image.delete()
    if blocks:
        assert response["Status"] == "FAILED"
        assert "has other resources depended on it" in response["Reason"]
    else:
        assert response["Status"] == "SUCCESS"


@pytest.mark.parametrize("message", BOTH["cancelled_task_message"])
def test_cancelled_task_message_is_reported(
    account: Account,
    image: CustomResource,
    message: str,
) -> None:
    account.knobs(cancelled_task_message=message)
    properties = account.properties()
    account.ec2.cancel_import_task(ImportTaskId=properties[ImageProperty.VM_IMPORT_TASK_ID])
    response = image.create(properties)
    assert response["Status"] == "FAILED"
    assert (message or "EC2 gives no reason") in response["Reason"]
