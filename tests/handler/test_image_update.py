"""Update events of Custom::ImportedVmImage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contract import LOG_GROUP_NAME, TAG_PREFIX, ImageProperty
from tests.support.account import IMPORT

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.cloudformation import CustomResource

ALWAYS = 10**6
OTHER_STATE_MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:other"
READS = {"GetImage", "ListImageBuildVersions", "DescribeImages", "DescribeImportImageTasks"}


def test_a_rollback_returns_to_the_first_image_without_a_second_import(
    account: Account, image: CustomResource
) -> None:
    first = account.properties()
    arn = image.create(first)["PhysicalResourceId"]
    second = {**first, ImageProperty.SEMANTIC_VERSION: "2.0.0"}
    new = image.update(second)["PhysicalResourceId"]

    rolled_back = image.update(first)
    image.delete(new, second)

    assert new != arn
    assert rolled_back["PhysicalResourceId"] == arn
    assert len(account.requests_of(image, "ImportVmImage")) == 2
    assert account.images_of(image) == [arn]


def test_a_rollback_returns_to_an_image_whose_token_aws_has_forgotten(
    account: Account, image: CustomResource
) -> None:
    first = account.properties()
    arn = image.create(first)["PhysicalResourceId"]
    account.advance(3 * 86400)
    image.update({**first, ImageProperty.DESCRIPTION: "other"})

    assert image.update(first)["PhysicalResourceId"] == arn
    assert len(account.requests_of(image, "ImportVmImage")) == 2


@pytest.mark.parametrize(
    "change",
    [
        {ImageProperty.NAME: "other"},
        {ImageProperty.SEMANTIC_VERSION: "1.0.1"},
        {ImageProperty.PLATFORM: "Windows"},
        {ImageProperty.VM_IMPORT_TASK_ID: None},
        {ImageProperty.DESCRIPTION: "other"},
        {ImageProperty.OS_VERSION: "other"},
        {ImageProperty.LOGGING_CONFIGURATION: {LOG_GROUP_NAME: "/aws/imagebuilder/other"}},
        {ImageProperty.CLIENT_TOKEN: "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_identity_creates_another_image_and_leaves_the_old_to_cloudformation(
    account: Account, image: CustomResource, change: dict[str, Any]
) -> None:
    properties = account.properties()
    old = image.create(properties)["PhysicalResourceId"]
    if ImageProperty.VM_IMPORT_TASK_ID in change:
        change = {ImageProperty.VM_IMPORT_TASK_ID: account.import_task()}

    new = image.update({**properties, **change})["PhysicalResourceId"]

    assert new != old
    assert sorted(account.images_of(image)) == sorted([old, new])


@pytest.mark.parametrize(
    "change",
    [
        {ImageProperty.TIMEOUT_SECONDS: "7200"},
        {ImageProperty.TIMEOUT_SECONDS: None},
        {ImageProperty.CONTINUE_AFTER_TIMEOUT: "true"},
        {ImageProperty.STATE_MACHINE_ARN: OTHER_STATE_MACHINE},
        {ImageProperty.DELETE_AMI: "true"},
        {ImageProperty.RETAIN: "true"},
        {"FromTheFuture": "x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_a_deployment_waits_and_cleans_up_does_not_change_the_image(
    account: Account, image: CustomResource, change: dict[str, Any]
) -> None:
    for state_machine in {*change.values()}:
        if str(state_machine).startswith("arn:"):
            account.aws.step_functions.state_machines.add(str(state_machine))
    properties = account.waiting()
    arn = image.create(properties)["PhysicalResourceId"]
    changed = {**properties, **change}

    response = image.update({name: value for name, value in changed.items() if value is not None})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] == arn
    assert len(account.requests_of(image, "ImportVmImage")) == 1


def test_a_change_of_tags_is_made_in_place(account: Account, image: CustomResource) -> None:
    properties = account.properties(Tags={"team": "images", "stage": "test", "drop": "me"})
    arn = image.create(properties)["PhysicalResourceId"]
    account.tag(arn, {"by-hand": "yes"})

    response = image.update({**properties, ImageProperty.TAGS: {"team": "images", "stage": "live"}})

    tags = account.image(arn)["tags"]
    assert response["PhysicalResourceId"] == arn
    assert len(account.requests_of(image, "ImportVmImage")) == 1
    assert {key: value for key, value in tags.items() if not key.startswith(TAG_PREFIX)} == {
        "team": "images",
        "stage": "live",
        "by-hand": "yes",
    }


def test_an_update_that_changes_nothing_about_the_image_writes_nothing(
    account: Account, image: CustomResource
) -> None:
    properties = account.waiting(Tags={"team": "images"})
    arn = image.create(properties)["PhysicalResourceId"]
    before = len(account.calls())

    response = image.update({**properties, "FromTheFuture": "x"})

    calls = [c for c in account.calls()[before:] if c["service"] != "stepfunctions"]
    assert response["PhysicalResourceId"] == arn
    assert {call["operation"] for call in calls} <= READS


def test_an_update_that_fails_before_it_imports_keeps_the_old_id(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    arn = image.create(properties)["PhysicalResourceId"]
    denied = {"code": "AccessDeniedException", "message": "no", "status": 403}
    account.fault("imagebuilder", "ListImageBuildVersions", times=ALWAYS, error=denied)

    response = image.update({**properties, ImageProperty.SEMANTIC_VERSION: "2.0.0"})

    assert response["Status"] == "FAILED"
    assert "ListImageBuildVersions failed: AccessDeniedException: no" in response["Reason"]
    assert response["PhysicalResourceId"] == arn


def test_a_cancelled_image_is_replaced_and_deleted_in_the_clean_up(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    cancelled = image.create(properties)["PhysicalResourceId"]
    account.cancel(cancelled)
    assert account.image(cancelled)["state"]["status"] == "CANCELLED"

    arn = image.update({**properties, ImageProperty.TAGS: {"a": "b"}})["PhysicalResourceId"]

    image.delete(cancelled, properties)

    assert arn != cancelled
    assert account.images_of(image) == [arn]


def test_the_clean_up_of_an_image_that_was_replaced_leaves_the_one_that_replaced_it(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    first = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)
    account.delete(first)
    second = image.update({**properties, ImageProperty.TAGS: {"a": "b"}})["PhysicalResourceId"]

    image.delete(first, properties)

    assert account.images_of(image) == [second]
