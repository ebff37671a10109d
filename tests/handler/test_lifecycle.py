"""Create, update and delete, through the handler's entry, against the AWS on this machine."""

from __future__ import annotations

import io
import logging
import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

from tests.handler.cloudformation import SIGNATURE, CustomResource
from tests.handler.delivery import deliver

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.handler.conftest import Aws

NINE_FIELDS = [
    ("Name", "RHEL 9_golden", "name", "RHEL 9_golden"),
    ("SemanticVersion", "1.2.3", "semanticVersion", "1.2.3"),
    ("Description", "Golden image", "description", "Golden image"),
    ("Platform", "Linux", "platform", "Linux"),
    ("OsVersion", "RHEL 9", "osVersion", "RHEL 9"),
    ("VmImportTaskId", None, "vmImportTaskId", None),
    (
        "LoggingConfiguration",
        {"LogGroupName": "/aws/imagebuilder/rhel9"},
        "loggingConfiguration",
        {"logGroupName": "/aws/imagebuilder/rhel9"},
    ),
    ("Tags", {"team": "images"}, "tags", {"team": "images"}),
    ("ClientToken", "my-token", "clientToken", "my-token"),
]


@pytest.mark.parametrize(("prop", "value", "member", "sent"), NINE_FIELDS)
def test_each_field_of_the_request_arrives(
    aws: Aws, resource: CustomResource, prop: str, value: Any, member: str, sent: Any
) -> None:
    properties = aws.properties()
    if value is not None:
        properties[prop] = value

    answer = resource.create(properties)

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    (request,) = aws.imports(resource)
    if member == "tags":
        assert sent.items() <= request[member].items()
    else:
        assert request[member] == (sent or properties[prop])


def test_the_answer_has_all_attributes(aws: Aws, resource: CustomResource) -> None:
    properties = aws.properties(Name="RHEL 9_golden")

    answer = resource.create(properties)

    arn = answer["PhysicalResourceId"]
    image = aws.image(arn)
    assert answer["Data"] == {
        "ImageArn": arn,
        "ImageVersionArn": arn.rpartition("/")[0],
        "LatestImageArn": f"{arn.rsplit('/', 2)[0]}/x.x.x",
        "ImageName": "RHEL 9_golden",
        "ImageVersion": properties["SemanticVersion"],
        "ClientToken": image["tags"]["cdk-vm-import:token"],
        "VmImportTaskId": properties["VmImportTaskId"],
        "RequestId": answer["Data"]["RequestId"],
    }
    assert len(answer["Data"]["RequestId"]) == 36


def test_the_image_carries_the_users_tags_and_ours(aws: Aws, resource: CustomResource) -> None:
    answer = resource.create(aws.properties(Tags={"team": "images"}))

    assert aws.image(answer["PhysicalResourceId"])["tags"] == {
        "team": "images",
        "cdk-vm-import:token": answer["Data"]["ClientToken"],
        "cdk-vm-import:stack": resource.stack_id,
        "cdk-vm-import:resource": resource.logical_id,
    }


def test_a_create_that_is_delivered_three_times_makes_one_image(
    aws: Aws, resource: CustomResource
) -> None:
    resource.properties = aws.properties()
    event = resource.event("Create")

    arns = {resource.send(dict(event))["PhysicalResourceId"] for _ in range(3)}

    assert len(arns) == 1
    assert aws.all_images(resource) == list(arns)


def test_a_create_that_is_delivered_three_times_at_once_makes_one_image(
    aws: Aws, resource: CustomResource
) -> None:
    resource.properties = aws.properties()
    event = resource.event("Create")
    # as in Lambda: each delivery in a process of its own
    processes = multiprocessing.get_context("spawn")

    workers = [processes.Process(target=deliver, args=(event,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    arns = {answer["PhysicalResourceId"] for answer in resource.urls.answers}
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(resource.urls.answers) == 3
    assert aws.all_images(resource) == list(arns)


def test_a_rollback_arrives_at_the_first_image_without_a_second_import(
    aws: Aws, resource: CustomResource
) -> None:
    first = aws.properties()
    arn = resource.create(first)["PhysicalResourceId"]
    second = {**first, "SemanticVersion": "2.0.0"}
    newcomer = resource.update(second)["PhysicalResourceId"]

    rolled_back = resource.update(first)
    resource.delete(newcomer, second)

    assert newcomer != arn
    assert rolled_back["PhysicalResourceId"] == arn
    assert len(aws.imports(resource)) == 2
    assert aws.all_images(resource) == [arn]


def test_a_rollback_is_the_same_whatever_the_age_of_the_first_token(
    aws: Aws, resource: CustomResource
) -> None:
    first = aws.properties()
    arn = resource.create(first)["PhysicalResourceId"]
    aws.local.advance(3 * 86400)
    resource.update({**first, "Description": "other"})

    assert resource.update(first)["PhysicalResourceId"] == arn
    assert len(aws.imports(resource)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"Name": "other"},
        {"SemanticVersion": "1.0.1"},
        {"Platform": "Windows"},
        {"VmImportTaskId": None},
        {"Description": "other"},
        {"OsVersion": "other"},
        {"LoggingConfiguration": {"LogGroupName": "/aws/imagebuilder/other"}},
        {"ClientToken": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_the_identity_imports_another_image_and_keeps_the_old(
    aws: Aws, resource: CustomResource, change: dict[str, Any]
) -> None:
    properties = aws.properties()
    old = resource.create(properties)["PhysicalResourceId"]
    if "VmImportTaskId" in change:
        change = {"VmImportTaskId": aws.import_task()}

    new = resource.update({**properties, **change})["PhysicalResourceId"]

    assert new != old
    assert sorted(aws.all_images(resource)) == sorted([old, new])


def test_a_change_of_tags_is_made_in_place(aws: Aws, resource: CustomResource) -> None:
    properties = aws.properties(Tags={"team": "images", "stage": "test", "drop": "me"})
    arn = resource.create(properties)["PhysicalResourceId"]
    aws.tag(arn, {"by-hand": "yes"})

    answer = resource.update({**properties, "Tags": {"team": "images", "stage": "live"}})

    tags = aws.image(arn)["tags"]
    assert answer["PhysicalResourceId"] == arn
    assert len(aws.imports(resource)) == 1
    assert {key: value for key, value in tags.items() if not key.startswith("cdk-vm-import:")} == {
        "team": "images",
        "stage": "live",
        "by-hand": "yes",
    }


def test_an_update_that_changes_nothing_about_the_image_writes_nothing(
    aws: Aws, resource: CustomResource
) -> None:
    properties = aws.properties(Tags={"team": "images"})
    arn = resource.create(properties)["PhysicalResourceId"]
    before = aws.local.calls()

    answer = resource.update({**properties, "FromTheFuture": "x"})

    assert answer["PhysicalResourceId"] == arn
    assert [call["operation"] for call in aws.local.calls()[len(before) :]] == ["GetImage"]


def test_a_running_image_is_cancelled_and_then_deleted(aws: Aws, resource: CustomResource) -> None:
    arn = resource.create(aws.properties())["PhysicalResourceId"]
    assert aws.image(arn)["state"]["status"] == "PENDING"

    answer = resource.delete()

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert answer["PhysicalResourceId"] == arn
    assert aws.all_images(resource) == []
    assert [o for o in aws.operations(arn) if o in {"CancelImageCreation", "DeleteImage"}] == [
        "CancelImageCreation",
        "DeleteImage",
    ]


def test_an_available_image_is_deleted_at_once(aws: Aws, resource: CustomResource) -> None:
    arn = resource.create(aws.properties())["PhysicalResourceId"]
    aws.local.advance(3600)

    assert resource.delete()["Status"] == "SUCCESS"

    assert aws.all_images(resource) == []
    assert "CancelImageCreation" not in aws.operations(arn)


def test_deleting_an_image_that_is_gone_succeeds(aws: Aws, resource: CustomResource) -> None:
    resource.create(aws.properties())
    resource.delete()

    assert resource.delete()["Status"] == "SUCCESS"


def test_an_id_that_cloudformation_invented_is_resolved_by_the_token(
    aws: Aws, resource: CustomResource
) -> None:
    resource.create(aws.properties())

    answer = resource.delete("images-GoldenImage-1ABCDEFGHIJKL")

    assert answer["Status"] == "SUCCESS"
    assert answer["PhysicalResourceId"] == "images-GoldenImage-1ABCDEFGHIJKL"
    assert aws.all_images(resource) == []


def test_the_image_of_another_resource_is_never_touched(
    aws: Aws, resource: CustomResource, another: CustomResource
) -> None:
    properties = aws.properties()
    resource.create(properties)
    others = another.create(properties)["PhysicalResourceId"]

    resource.delete("images-GoldenImage-1ABCDEFGHIJKL")

    assert aws.all_images(resource) == []
    assert aws.all_images(another) == [others]


def test_a_delete_with_properties_that_no_release_ever_sent_succeeds(
    resource: CustomResource,
) -> None:
    answer = resource.delete("images-GoldenImage-1ABCDEFGHIJKL", {"Name": "rhel9"})

    assert answer["Status"] == "SUCCESS"


def test_a_missing_property_fails_with_its_name(aws: Aws, resource: CustomResource) -> None:
    properties = aws.properties()
    del properties["Platform"]

    answer = resource.create(properties)

    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "missing resource property: Platform"


@pytest.mark.parametrize(
    ("code", "status", "tries"),
    [
        ("ServiceException", 500, 4),
        ("ServiceUnavailableException", 503, 4),
        ("ClientException", 400, 1),
    ],
)
def test_an_error_of_the_api_ends_in_its_own_words_after_retries(
    aws: Aws, resource: CustomResource, code: str, status: int, tries: int
) -> None:
    words = "The moon is in the wrong phase."
    aws.local.fault(
        "imagebuilder",
        "ImportVmImage",
        times=4,
        error={"code": code, "message": words, "status": status},
    )

    before = len(aws.local.calls("ImportVmImage"))

    answer = resource.create(aws.properties())

    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith(f"ImportVmImage failed: {code}: {words} (request id ")
    assert "Hint: " in answer["Reason"]
    assert len(aws.local.calls("ImportVmImage")) - before == tries


def test_an_import_whose_answer_is_lost_for_good_is_found(
    aws: Aws, resource: CustomResource
) -> None:
    aws.local.fault("imagebuilder", "ImportVmImage", times=4, lose_answer=True)

    answer = resource.create(aws.properties())

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert aws.all_images(resource) == [answer["PhysicalResourceId"]]


def test_an_update_that_fails_before_it_imports_keeps_the_old_id(
    aws: Aws, resource: CustomResource
) -> None:
    properties = aws.properties()
    arn = resource.create(properties)["PhysicalResourceId"]
    denied = {"code": "AccessDeniedException", "message": "no", "status": 403}
    aws.local.fault("imagebuilder", "ListImageBuildVersions", error=denied)

    answer = resource.update({**properties, "SemanticVersion": "2.0.0"})

    assert answer["Status"] == "FAILED"
    assert "ListImageBuildVersions failed: AccessDeniedException: no" in answer["Reason"]
    assert answer["PhysicalResourceId"] == arn


@pytest.mark.parametrize(
    ("code", "times"), [("TooManyRequestsException", 5), ("CallRateLimitExceededException", 3)]
)
def test_throttling_is_waited_out(
    aws: Aws, resource: CustomResource, code: str, times: int
) -> None:
    error = {"code": code, "message": "slow down", "status": 429}
    aws.local.fault("imagebuilder", "GetImage", times=times, error=error)

    assert resource.create(aws.properties())["Status"] == "SUCCESS"


def test_a_task_that_failed_fails_the_create_at_once_with_ec2s_reason(
    aws: Aws, resource: CustomResource
) -> None:
    task = aws.import_task(key="absent.raw")
    aws.local.advance(3600)

    answer = resource.create(aws.properties(VmImportTaskId=task))

    assert answer["Status"] == "FAILED"
    assert f"the import task {task} is deleted: ClientError: " in answer["Reason"]
    assert aws.imports(resource) == []


def test_a_task_that_ec2_forgot_fails_the_create_and_says_so(
    aws: Aws, resource: CustomResource
) -> None:
    answer = resource.create(aws.properties(VmImportTaskId="import-ami-0123456789abcdef0"))

    assert answer["Status"] == "FAILED"
    assert "EC2 does not know the import task import-ami-0123456789abcdef0" in answer["Reason"]
    assert aws.imports(resource) == []


@pytest.mark.parametrize("knob", ["replay", "import"])
def test_a_token_whose_image_is_gone_gives_way_to_the_next(
    aws: Aws, resource: CustomResource, knobs: Callable[..., None], knob: str
) -> None:
    knobs(idempotency_of_dead_image=knob)
    properties = aws.properties()
    gone = resource.create(properties)["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.delete(gone)

    arn = resource.create(properties)["PhysicalResourceId"]

    assert arn != gone
    assert aws.all_images(resource) == [arn]
    assert aws.image(arn)["state"]["status"] in {"PENDING", "AVAILABLE"}


def test_a_failed_image_gives_way_to_the_next_and_goes_with_it(
    aws: Aws, resource: CustomResource
) -> None:
    properties = aws.properties()
    failed = resource.create(properties)["PhysicalResourceId"]
    aws.cancel(failed)
    assert aws.image(failed)["state"]["status"] == "CANCELLED"

    arn = resource.update({**properties, "Tags": {"a": "b"}})["PhysicalResourceId"]

    assert arn != failed
    resource.delete(arn)
    assert aws.all_images(resource) == []


def test_cleaning_up_a_replaced_generation_leaves_the_one_in_its_place(
    aws: Aws, resource: CustomResource
) -> None:
    properties = aws.properties()
    first = resource.create(properties)["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.delete(first)
    second = resource.update({**properties, "Tags": {"a": "b"}})["PhysicalResourceId"]

    resource.delete(first, properties)

    assert aws.all_images(resource) == [second]


def test_a_used_up_token_of_the_users_is_a_clear_error(aws: Aws, resource: CustomResource) -> None:
    properties = aws.properties(ClientToken="mine")
    gone = resource.create(properties)["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.delete(gone)

    answer = resource.create(properties)

    assert answer["Status"] == "FAILED"
    assert "the image that was imported with client token 'mine' is gone" in answer["Reason"]


def test_a_client_token_that_another_resource_used_is_a_clear_error(
    aws: Aws, resource: CustomResource, another: CustomResource, knobs: Callable[..., None]
) -> None:
    knobs(idempotency_mismatch="replay")
    properties = aws.properties(ClientToken="shared")
    theirs = another.create(properties)["PhysicalResourceId"]

    answer = resource.create(properties)

    assert answer["Status"] == "FAILED"
    assert f"with {theirs}, which belongs to another resource" in answer["Reason"]
    resource.delete(answer["PhysicalResourceId"])
    assert aws.all_images(another) == [theirs]


def test_tags_that_changed_since_the_first_import_do_not_stop_a_second(
    aws: Aws, resource: CustomResource
) -> None:
    properties = aws.properties(Tags={"a": "1"})
    gone = resource.create(properties)["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.delete(gone)

    # the same token with other tags: AWS refuses it
    answer = resource.update({**properties, "Tags": {"a": "2"}})

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert aws.all_images(resource) == [answer["PhysicalResourceId"]]


def test_an_image_that_a_recipe_uses_is_not_deleted_and_the_reason_says_why(
    aws: Aws, resource: CustomResource
) -> None:
    arn = resource.create(aws.properties())["PhysicalResourceId"]
    aws.local.advance(3600)
    aws.recipe(arn)

    answer = resource.delete()

    assert answer["Status"] == "FAILED"
    assert "ResourceDependencyException" in answer["Reason"]
    assert "Hint: another resource, such as an image recipe" in answer["Reason"]
    assert aws.all_images(resource) == [arn]


def test_the_response_url_is_in_no_log(aws: Aws, resource: CustomResource) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.root.addHandler(handler)
    try:
        resource.urls.replies += [500]
        resource.create(aws.properties())
        resource.create(aws.properties(VmImportTaskId="import-ami-00000000000000000"))
        resource.delete()
    finally:
        logging.root.removeHandler(handler)

    assert "ImportVmImage" in log.getvalue()
    assert SIGNATURE not in log.getvalue()
