"""Create events of Custom::ImportedVmImage."""

from __future__ import annotations

import io
import logging
import random
import re
from typing import TYPE_CHECKING, Any

import pytest

from contract import LOG_GROUP_NAME, ImageAttribute, ImageProperty, OwnTag
from tests.support.account import IMPORT
from tests.support.cloudformation import SIGNATURE
from tests.support.lambda_function import LOG_GROUP
from tests.support.local_services import ABSENT_DISK

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

ALWAYS = 10**6
DENIED = {"code": "AccessDeniedException", "message": "no", "status": 403}
NINE_FIELDS = [
    (ImageProperty.NAME, "RHEL 9_golden", "name", "RHEL 9_golden"),
    (ImageProperty.SEMANTIC_VERSION, "1.2.3", "semanticVersion", "1.2.3"),
    (ImageProperty.DESCRIPTION, "Golden image", "description", "Golden image"),
    (ImageProperty.PLATFORM, "Linux", "platform", "Linux"),
    (ImageProperty.OS_VERSION, "RHEL 9", "osVersion", "RHEL 9"),
    (ImageProperty.VM_IMPORT_TASK_ID, None, "vmImportTaskId", None),
    (
        ImageProperty.LOGGING_CONFIGURATION,
        {LOG_GROUP_NAME: "/aws/imagebuilder/rhel9"},
        "loggingConfiguration",
        {"logGroupName": "/aws/imagebuilder/rhel9"},
    ),
    (ImageProperty.TAGS, {"team": "images"}, "tags", {"team": "images"}),
    (ImageProperty.CLIENT_TOKEN, "my-token", "clientToken", "my-token"),
]


@pytest.mark.parametrize(("prop", "value", "member", "sent"), NINE_FIELDS)
def test_each_property_becomes_a_member_of_the_request(
    account: Account, image: CustomResource, prop: str, value: Any, member: str, sent: Any
) -> None:
    properties = account.properties()
    if value is not None:
        properties[prop] = value

    response = image.create(properties)

    assert response["Status"] == "SUCCESS", response["Reason"]
    (request,) = account.requests_of(image, "ImportVmImage")
    if member == "tags":
        assert sent.items() <= request[member].items()
    else:
        assert request[member] == (sent or properties[prop])


def test_the_response_has_all_attributes(account: Account, image: CustomResource) -> None:
    properties = account.properties(Name="RHEL 9_golden")

    response = image.create(properties)

    arn = response["PhysicalResourceId"]
    request_id = response["Data"].pop(ImageAttribute.REQUEST_ID)
    assert len(request_id) == 36
    assert response["Data"] == {
        ImageAttribute.IMAGE_ARN: arn,
        ImageAttribute.IMAGE_VERSION_ARN: arn.rpartition("/")[0],
        ImageAttribute.LATEST_IMAGE_ARN: f"{arn.rsplit('/', 2)[0]}/x.x.x",
        ImageAttribute.IMAGE_NAME: "RHEL 9_golden",
        ImageAttribute.IMAGE_VERSION: properties[ImageProperty.SEMANTIC_VERSION],
        ImageAttribute.CLIENT_TOKEN: account.image(arn)["tags"][OwnTag.TOKEN].split("/")[0],
        ImageAttribute.VM_IMPORT_TASK_ID: properties[ImageProperty.VM_IMPORT_TASK_ID],
        ImageAttribute.IMPORT_FAILED: "false",
    }


def test_the_image_has_the_tags_of_the_template_and_of_the_resource(
    account: Account, image: CustomResource
) -> None:
    event = image.create_event(account.properties(Tags={"team": "images"}))
    response = image.send(event)

    data = response["Data"]
    date = event["ResponseURL"].split("X-Amz-Date=")[1][:16]
    created_by = f"{date}-{event['RequestId']}"
    assert account.image(response["PhysicalResourceId"])["tags"] == {
        "team": "images",
        OwnTag.TOKEN.value: "/".join(
            [data[ImageAttribute.CLIENT_TOKEN], data[ImageAttribute.REQUEST_ID], created_by]
        ),
        OwnTag.STACK.value: image.stack_id,
        OwnTag.RESOURCE.value: image.logical_id,
    }


def test_a_create_that_lambda_delivers_three_times_creates_one_image(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    event = image.create_event(account.properties())

    arn = image.send(event)["PhysicalResourceId"]
    for _ in range(2):
        aws.deliver_again(event)

    assert account.images_of(image) == [arn]
    assert len(image.responses()) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_create_that_lambda_delivers_twice_at_once_creates_one_image(
    aws: Aws, account: Account, image: CustomResource, seed: int
) -> None:
    event = image.create_event(account.waiting())

    aws.deliver_at_once(event, event, chance=random.Random(seed))  # noqa: S311

    (response,) = image.responses()
    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]


def test_a_missing_property_fails_the_create_with_its_name(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties()
    del properties[ImageProperty.PLATFORM]

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    missing = f"missing resource property: {ImageProperty.PLATFORM}"
    assert response["Reason"] == f"{missing} (log group {LOG_GROUP})"


@pytest.mark.parametrize("name", ["no/name", "x", "é" * 10])
def test_an_image_name_that_get_image_would_not_accept_fails_the_create(
    account: Account, image: CustomResource, name: str
) -> None:
    response = image.create(account.properties(Name=name))

    assert response["Status"] == "FAILED"
    assert name in response["Reason"]
    assert account.requests_of(image, "ImportVmImage") == []
    assert image.delete()["Status"] == "SUCCESS"


# --- AWS refuses, throttles or loses the request ---


def test_a_refused_request_fails_the_create_with_the_error_of_aws_and_a_hint(
    account: Account, image: CustomResource
) -> None:
    error = {"code": "ClientException", "message": "The moon is full.", "status": 400}
    account.fault("imagebuilder", "ImportVmImage", times=ALWAYS, error=error)

    response = image.create(account.properties())

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith(
        "ImportVmImage failed: ClientException: The moon is full. Hint: vm_import_task_id must "
    )
    assert re.search(rf"\. \(request id [-0-9a-f]+, log group {LOG_GROUP}\)$", response["Reason"])
    assert ".." not in response["Reason"]
    assert len(account.calls("ImportVmImage")) == 1


@pytest.mark.parametrize(
    ("code", "status"), [("ServiceException", 500), ("ServiceUnavailableException", 503)]
)
def test_a_fault_of_aws_is_retried(
    account: Account, image: CustomResource, code: str, status: int
) -> None:
    error = {"code": code, "message": "Oh", "status": status}
    account.fault("imagebuilder", "ImportVmImage", times=9, error=error)

    response = image.create(account.properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]


def test_a_fault_of_aws_that_lasts_fails_the_create_before_cloudformation_stops_waiting(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    error = {"code": "ServiceException", "message": "Oh", "status": 500}
    account.fault("imagebuilder", "ImportVmImage", times=ALWAYS, error=error)
    start = aws.now()

    response = image.create(account.properties())

    assert response["Status"] == "FAILED"
    assert "ImportVmImage failed: ServiceException: Oh" in response["Reason"]
    assert 3300 < aws.now() - start < 3600


def test_an_import_whose_answer_is_lost_is_found_by_its_token(
    account: Account, image: CustomResource
) -> None:
    account.fault("imagebuilder", "ImportVmImage", times=4, lose_answer=True)

    response = image.create(account.properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]


@pytest.mark.parametrize(
    ("code", "times"), [("TooManyRequestsException", 20), ("CallRateLimitExceededException", 8)]
)
def test_throttling_is_retried(
    account: Account, image: CustomResource, code: str, times: int
) -> None:
    error = {"code": code, "message": "slow down", "status": 429}
    for operation in ("ListImageBuildVersions", "ImportVmImage", "GetImage"):
        account.fault("imagebuilder", operation, times=times, error=error)

    response = image.create(account.properties())

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert len(account.images_of(image)) == 1


# --- the import task ---


def test_an_import_task_that_failed_fails_the_create_with_ec2s_message(
    account: Account, image: CustomResource
) -> None:
    task = account.import_task(key=ABSENT_DISK)
    account.advance(IMPORT)

    response = image.create(account.properties(VmImportTaskId=task))

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith("VM import failed: ClientError: Disk validation failed")
    assert f"(import task {task}, log group {LOG_GROUP})" in response["Reason"]
    assert account.requests_of(image, "ImportVmImage") == []


def test_an_import_task_that_ec2_does_not_know_fails_the_create(
    account: Account, image: CustomResource
) -> None:
    task = "import-ami-0123456789abcdef0"

    response = image.create(account.properties(VmImportTaskId=task))

    assert response["Status"] == "FAILED"
    assert f"EC2 does not know the import task {task}" in response["Reason"]
    assert account.requests_of(image, "ImportVmImage") == []


# --- tokens ---


@pytest.mark.parametrize("knob", ["replay", "import"])
def test_an_image_that_was_deleted_by_hand_is_created_again_under_the_next_token(
    account: Account, image: CustomResource, knob: str
) -> None:
    account.knobs(idempotency_of_unusable_image=knob)
    properties = account.properties()
    deleted = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)
    account.delete(deleted)

    response = image.create(properties)

    arn = response["PhysicalResourceId"]
    assert arn != deleted
    assert account.images_of(image) == [arn]
    created = account.image(arn)
    assert created["state"]["status"] in {"PENDING", "AVAILABLE"}
    used = account.requests_of(image, "ImportVmImage")[-1]["clientToken"]
    assert response["Data"][ImageAttribute.CLIENT_TOKEN] == used
    assert created["tags"][OwnTag.TOKEN].split("/")[0] == used


def test_a_used_client_token_of_the_user_is_a_clear_error(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties(ClientToken="mine")
    deleted = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)
    account.delete(deleted)

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert "client token 'mine' was used for an image that is gone" in response["Reason"]


def test_a_client_token_that_another_resource_used_is_a_clear_error(
    account: Account, image: CustomResource, other_image: CustomResource
) -> None:
    account.knobs(idempotency_mismatch="replay")
    properties = account.properties(ClientToken="shared")
    theirs = other_image.create(properties)["PhysicalResourceId"]

    response = image.create(properties)

    assert response["Status"] == "FAILED"
    assert "'shared' was used for an image" in response["Reason"]
    assert "belongs to another resource" in response["Reason"]
    image.delete(response["PhysicalResourceId"])
    assert account.images_of(other_image) == [theirs]


def test_an_image_that_one_read_misses_is_not_imported_again_with_other_tags(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties(Tags={"a": "1"})
    first = image.create(properties)["PhysicalResourceId"]
    not_found = {"code": "ResourceNotFoundException", "message": "no", "status": 404}
    account.fault("imagebuilder", "ListImageBuildVersions", error=not_found)

    response = image.create({**properties, ImageProperty.TAGS: {"a": "2"}})

    assert response["PhysicalResourceId"] == first
    assert account.images_of(image) == [first]


def test_an_image_of_another_resource_without_a_token_is_not_taken_over(
    aws: Aws, account: Account, image: CustomResource, other_image: CustomResource
) -> None:
    account.knobs(idempotency_mismatch="replay")
    properties = account.properties(ClientToken="shared")
    theirs = other_image.create(properties)["PhysicalResourceId"]
    del aws.images[theirs].tags[OwnTag.TOKEN]

    assert image.create(properties)["Status"] == "FAILED"

    assert account.images_of(other_image) == [theirs]


def test_a_client_token_that_was_used_with_other_properties_is_a_clear_error(
    account: Account, image: CustomResource
) -> None:
    account.knobs(idempotency_mismatch="replay")
    properties = account.properties(ClientToken="mine")
    first = image.create(properties)["PhysicalResourceId"]

    response = image.update({**properties, ImageProperty.DESCRIPTION: "another"})

    assert response["Status"] == "FAILED"
    assert "that has other properties" in response["Reason"]
    assert account.images_of(image) == [first]


def test_a_used_token_with_other_tags_does_not_prevent_another_image(
    account: Account, image: CustomResource
) -> None:
    properties = account.properties(Tags={"a": "1"})
    deleted = image.create(properties)["PhysicalResourceId"]
    account.advance(IMPORT)
    account.delete(deleted)

    # AWS refuses the same token with other tags.
    response = image.update({**properties, ImageProperty.TAGS: {"a": "2"}})

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert account.images_of(image) == [response["PhysicalResourceId"]]


def test_the_response_url_is_in_no_log(
    aws: Aws, account: Account, image: CustomResource, capfd: pytest.CaptureFixture[str]
) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.root.addHandler(handler)
    try:
        aws.expect(response_faults={0: "500", 1: "not connected"})
        image.create(account.waiting())
        image.create(account.properties(VmImportTaskId="import-ami-00000000000000000"))
        image.delete()
    finally:
        logging.root.removeHandler(handler)

    printed = capfd.readouterr()
    assert "ImportVmImage" in log.getvalue()
    assert SIGNATURE not in log.getvalue() + printed.out + printed.err
