"""The handler works with each value of each knob, so with each possible behaviour of AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract import ImageProperty
from local_aws.server.knobs import Knobs
from tests.support.aws import STACK_CHANGED, STACK_STATUS
from tests.support.local_services import UNLICENSED_ROLE

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

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
    "read_lag_seconds": (0, 3),
    "stack_lag_seconds": (0, 3),
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
EACH = [(knob, value) for knob, values in BOTH.items() for value in values]
# The knobs that affect a lost image.
OF_TOKENS = [(knob, value) for knob, value in EACH if knob.startswith("idempotency")]
IDS = [f"{knob}={value}" for knob, value in EACH]


def test_each_knob_is_tested() -> None:
    assert list(BOTH) == list(Knobs().as_dict())


@pytest.mark.parametrize(("knob", "value"), EACH, ids=IDS)
def test_a_resource_leaves_nothing_behind_with_any_knob(
    account: Account,
    image: CustomResource,
    knob: str,
    value: object,
) -> None:
    account.knobs(**{"import_seconds": 120, knob: value})
    properties = account.properties(Tags={"a": "1"})

    created = image.create(properties)
    again = image.create({**properties, ImageProperty.TAGS: {"a": "2"}})
    assert [response["Status"] for response in (created, again)] == ["SUCCESS"] * 2, again["Reason"]
    assert created["PhysicalResourceId"] == again["PhysicalResourceId"]
    assert account.images_of(image) == [created["PhysicalResourceId"]]

    newer = image.update({**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"})
    assert newer["Status"] == "SUCCESS", newer["Reason"]
    assert image.delete(created["PhysicalResourceId"], properties)["Status"] == "SUCCESS"
    assert account.images_of(image) == [newer["PhysicalResourceId"]]

    assert image.delete()["Status"] == "SUCCESS"
    assert account.images_of(image) == []


@pytest.mark.parametrize(("knob", "value"), OF_TOKENS)
def test_a_lost_image_is_created_again_with_any_knob(
    account: Account,
    image: CustomResource,
    knob: str,
    value: object,
) -> None:
    properties = account.properties()
    account.advance(3600)
    account.knobs(**{"image_watch_seconds": 0, knob: value})
    lost = image.create(properties)["PhysicalResourceId"]
    account.advance(3600)
    account.delete(lost)

    response = image.create(properties)

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]
    assert response["PhysicalResourceId"] != lost


@pytest.mark.parametrize("value", BOTH["unknown_task"])
def test_unknown_task_is_reported_with_either_value(
    account: Account,
    image: CustomResource,
    value: str,
) -> None:
    account.knobs(unknown_task=value)
    response = image.create(account.properties(VmImportTaskId="import-ami-0123456789abcdef0"))
    assert response["Status"] == "FAILED"
    assert "EC2 does not know the import task import-ami-0123456789abcdef0" in response["Reason"]
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
@pytest.mark.parametrize("is_known", [True, False])
def test_failed_task_is_reported_with_the_message_of_ec2(
    account: Account,
    image: CustomResource,
    value: str,
    *,
    is_known: bool,
) -> None:
    account.knobs(failed_task=value, import_seconds=120)
    properties = account.waiting()
    message = "ClientError: Unknown OS / Missing OS files."
    account.fail_import(message, task_id=properties[ImageProperty.VM_IMPORT_TASK_ID])
    if is_known:
        account.advance(3600)
    response = image.create(properties)
    assert response["Status"] == "FAILED"
    assert message.rstrip(".") in response["Reason"]
    assert image.delete()["Status"] == "SUCCESS"
    assert account.images_of(image) == []


@pytest.mark.parametrize("value", BOTH["cancel_ended_task"])
def test_cancel_ended_task_is_no_failure_of_a_deletion(
    account: Account,
    task: CustomResource,
    value: str,
) -> None:
    account.knobs(cancel_ended_task=value, import_seconds=120)
    assert task.create(account.task_properties())["Status"] == "SUCCESS"
    account.advance(3600)
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
def test_cancel_terminal_error_of_an_ended_import_is_no_failure(
    account: Account,
    image: CustomResource,
    code: str,
) -> None:
    account.knobs(import_seconds=120)
    assert image.create(account.properties())["Status"] == "SUCCESS"
    message = "The image is AVAILABLE and cannot be cancelled."
    ended = {"code": code, "message": message, "status": 400}
    account.fault("imagebuilder", "CancelImageCreation", error=ended)
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
