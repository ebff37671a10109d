"""boto3's paginators and waiters."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import WaiterError
from botocore.waiter import WaiterModel, create_waiter_with_client

from tests.local_aws.account import Account, refused
from tests.local_aws.test_fuzz import EC2, IMAGE_BUILDER

if TYPE_CHECKING:
    import boto3

    from local_aws import LocalAws

LISTS: dict[str, dict[str, str]] = {
    "imagebuilder": {
        "ListComponentBuildVersions": "componentSummaryList",
        "ListComponents": "componentVersionList",
        "ListDistributionConfigurations": "distributionConfigurationSummaryList",
        "ListImageBuildVersions": "imageSummaryList",
        "ListImagePipelines": "imagePipelineList",
        "ListImageRecipes": "imageRecipeSummaryList",
        "ListImages": "imageVersionList",
        "ListInfrastructureConfigurations": "infrastructureConfigurationSummaryList",
    },
    "ec2": {
        "DescribeImages": "Images",
        "DescribeImportImageTasks": "ImportImageTasks",
        "DescribeSnapshots": "Snapshots",
    },
}
OPERATIONS = [(service, name) for service, names in LISTS.items() for name in names]
ITEMS = 5
# Only the resources of this account: MiniStack has AMIs of Amazon.
OWN: dict[str, Any] = {
    "DescribeImages": {"Owners": ["self"]},
    "DescribeSnapshots": {"OwnerIds": ["self"]},
}


@pytest.fixture(scope="module")
def full(server: LocalAws, session: boto3.Session) -> Account:
    """Return an account with five resources of each type."""
    aws = Account(server, session, "550000000000")
    aws.iam.create_instance_profile(InstanceProfileName="builder")
    images: Any = aws.images
    for number in range(ITEMS):
        name, version = f"name-{number}", {"semanticVersion": f"1.0.{number}"}
        image = aws.import_image(name="golden", **version)
        images.create_component(name=name, platform="Linux", data="phases: []", **version)
        recipe = images.create_image_recipe(name=name, parentImage=image, **version)
        infrastructure = images.create_infrastructure_configuration(
            name=name, instanceProfileName="builder"
        )
        images.create_distribution_configuration(name=name, distributions=[{"region": "us-east-1"}])
        images.create_image_pipeline(
            name=name,
            imageRecipeArn=recipe["imageRecipeArn"],
            infrastructureConfigurationArn=infrastructure["infrastructureConfigurationArn"],
        )
    aws.finish()
    return aws


def paginator(aws: Account, service: str, operation: str, **limits: Any) -> Any:
    """Return boto3's pages of an operation, with a PaginationConfig."""
    client: Any = aws.ec2 if service == "ec2" else aws.images
    found = client.get_paginator(xform_name(operation))
    return found.paginate(**OWN.get(operation, {}), PaginationConfig=limits)


def identity(item: dict[str, Any]) -> str:
    names = ("arn", "ImageId", "ImportTaskId", "SnapshotId")
    if "ImportTaskId" in item:
        return str(item["ImportTaskId"])
    return str(next(item[name] for name in names if name in item))


def test_each_paginator_of_an_operation_that_is_served_is_tested() -> None:
    for service, served in (("imagebuilder", IMAGE_BUILDER), ("ec2", EC2)):
        loader = botocore.session.get_session().get_component("data_loader")
        model = loader.load_service_model(service, "paginators-1")["pagination"]
        results = {name: model[name]["result_key"] for name in model if name in served}
        assert results == LISTS[service]


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_a_paginator_returns_each_item_once_in_pages_of_the_given_size(
    full: Account, service: str, operation: str
) -> None:
    result = LISTS[service][operation]
    (whole,) = [page[result] for page in paginator(full, service, operation)]
    pages = [page[result] for page in paginator(full, service, operation, PageSize=2)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert list(itertools.chain(*pages)) == whole
    assert len({identity(item) for item in whole}) == ITEMS


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_a_paginator_continues_at_its_resume_token(
    full: Account, service: str, operation: str
) -> None:
    result = LISTS[service][operation]
    first = paginator(full, service, operation, PageSize=2, MaxItems=3).build_full_result()
    rest = paginator(full, service, operation, StartingToken=first["NextToken"]).build_full_result()
    found = [identity(item) for item in first[result] + rest[result]]
    assert len(first[result]) == 3
    assert len(found) == len(set(found)) == ITEMS


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_a_paginator_accepts_the_token_of_a_response(
    full: Account, service: str, operation: str
) -> None:
    result = LISTS[service][operation]
    first, *_ = paginator(full, service, operation, PageSize=3)
    token = first.get("nextToken") or first["NextToken"]
    (rest,) = paginator(full, service, operation, StartingToken=token)
    assert len(first[result] + rest[result]) == ITEMS


def test_pages_lose_and_repeat_nothing_if_items_are_created_and_deleted(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    arns = [aws.import_image(task_id) for _ in range(5)]
    aws.server.advance(16)
    seen = []
    for page in paginator(aws, "imagebuilder", "ListImageBuildVersions", PageSize=2):
        for build in page["imageSummaryList"]:
            seen.append(build["arn"])
            aws.images.delete_image(imageBuildVersionArn=build["arn"])
        aws.import_image(task_id)
    assert seen == arns[::-1]


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_an_invalid_token_of_a_list_is_refused(full: Account, service: str, operation: str) -> None:
    code = "InvalidNextToken" if service == "ec2" else "InvalidPaginationTokenException"
    for token in ("?", base64.b64encode(b"-5 left").decode()):
        pages = paginator(full, service, operation, StartingToken=token)
        assert refused(pages.build_full_result)[:2] == (code, 400)


@pytest.mark.parametrize("operation", LISTS["ec2"])
@pytest.mark.parametrize("size", [0, -1])
def test_a_page_of_ec2_has_at_least_one_item(full: Account, operation: str, size: int) -> None:
    call = getattr(full.ec2, xform_name(operation))
    assert refused(lambda: call(MaxResults=size))[:2] == ("InvalidParameterValue", 400)


@pytest.mark.parametrize(
    ("operation", "filters", "found"),
    [
        ("ListComponents", {"name": ["name-1"], "platform": ["Linux"]}, 1),
        ("ListComponents", {"status": ["DEPRECATED"]}, 0),
        ("ListComponents", {"supportedOsVersion": ["Amazon Linux 2"]}, 0),
        ("ListImagePipelines", {"status": ["ENABLED"]}, ITEMS),
        ("ListImageRecipes", {"name": ["name-1", "name-2"]}, 2),
        ("ListDistributionConfigurations", {"name": ["absent"]}, 0),
        ("ListInfrastructureConfigurations", {"name": ["name-3"]}, 1),
    ],
    ids=str,
)
def test_lists_of_pipelines_and_their_parts_have_the_documented_filters(
    full: Account, operation: str, filters: dict[str, list[str]], found: int
) -> None:
    call = getattr(full.images, xform_name(operation))
    wanted = [{"name": name, "values": values} for name, values in filters.items()]
    assert len(call(filters=wanted)[LISTS["imagebuilder"][operation]]) == found
    refusal = refused(lambda: call(filters=[{"name": "colour", "values": ["red"]}]))
    assert refusal[:2] == ("InvalidRequestException", 400)


def test_lists_of_pipelines_and_their_parts_show_summaries(full: Account) -> None:
    images: Any = full.images
    (version,) = images.list_components(filters=[{"name": "name", "values": ["name-1"]}])[
        "componentVersionList"
    ]
    (build,) = images.list_component_build_versions(componentVersionArn=version["arn"])[
        "componentSummaryList"
    ]
    assert build["arn"] == f"{version['arn']}/1"
    assert (version["status"], build["state"]) == ("ACTIVE", {"status": "ACTIVE"})
    assert "data" not in build
    assert images.list_components(owner="Amazon")["componentVersionList"] == []
    distribution = images.list_distribution_configurations()
    shown = distribution["distributionConfigurationSummaryList"][0]
    assert (shown["regions"], shown["tags"]) == (["us-east-1"], {})
    pipeline = images.list_image_pipelines()["imagePipelineList"][0]
    shown = images.get_image_pipeline(imagePipelineArn=pipeline["arn"])["imagePipeline"]
    assert pipeline == shown


# --- waiters ---


def pass_time_at_each_poll(aws: Account, client: Any, seconds: float) -> None:
    """Move AWS time forward before each call of a client, so that its waiters need no sleep."""
    client.meta.events.register("before-call", lambda **_: aws.server.advance(seconds))


def completed_task(aws: Account) -> dict[str, Any]:
    task_id = aws.start()
    aws.finish()
    return aws.task(task_id)


def test_the_waiter_image_exists_waits_until_the_ami_is_listed(aws: Account) -> None:
    aws.server.knobs(ami_listing_seconds=6000)
    ami = completed_task(aws)["ImageId"]
    assert refused(lambda: aws.ec2.describe_images(ImageIds=[ami]))[0] == "InvalidAMIID.NotFound"
    pass_time_at_each_poll(aws, aws.ec2, 600)
    waiter: Any = aws.ec2.get_waiter("image_exists")
    waiter.wait(ImageIds=[ami], WaiterConfig={"Delay": 0})
    (found,) = aws.ec2.describe_images(ImageIds=[ami])["Images"]
    assert found["State"] == "available"


def test_the_waiter_image_exists_ends_after_its_attempts(aws: Account) -> None:
    before = len(aws.server.calls("DescribeImages"))
    waiter: Any = aws.ec2.get_waiter("image_exists")
    attempts = {"Delay": 0, "MaxAttempts": 3}
    with pytest.raises(WaiterError, match="Max attempts exceeded"):
        waiter.wait(ImageIds=["ami-00000000000000000"], WaiterConfig=attempts)
    calls = aws.server.calls("DescribeImages")[before:]
    assert [call["error"] for call in calls] == ["InvalidAMIID.NotFound"] * 3


def test_the_waiter_image_available_succeeds_for_an_imported_ami(aws: Account) -> None:
    ami = completed_task(aws)["ImageId"]
    aws.ec2.get_waiter("image_available").wait(ImageIds=[ami])


def test_the_waiter_image_available_fails_for_an_unknown_ami(aws: Account) -> None:
    with pytest.raises(WaiterError, match=r"InvalidAMIID\.NotFound"):
        aws.ec2.get_waiter("image_available").wait(ImageIds=["ami-00000000000000000"])


def test_the_waiter_snapshot_completed_succeeds_for_the_snapshot_of_an_import(
    aws: Account,
) -> None:
    (detail,) = completed_task(aws)["SnapshotDetails"]
    aws.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[detail["SnapshotId"]])


def test_the_waiter_snapshot_completed_fails_for_an_unknown_snapshot(aws: Account) -> None:
    with pytest.raises(WaiterError, match=r"InvalidSnapshot\.NotFound"):
        aws.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=["snap-00000000000000000"])


def own_waiter(client: Any, operation: str, argument: str, **states: list[str]) -> Any:
    """Return a waiter of the user, because botocore has none for this operation.

    Args:
        client: The client of the service.
        operation: The operation that the waiter calls.
        argument: The JMESPath expression of the status in the response.
        states: The statuses that are a success, and those that are a failure.
    """
    acceptors = [
        {"state": state, "matcher": "path", "argument": argument, "expected": status}
        for state, statuses in states.items()
        for status in statuses
    ]
    config = {"operation": operation, "delay": 0, "maxAttempts": 40, "acceptors": acceptors}
    model = WaiterModel({"version": 2, "waiters": {"Ended": config}})
    return create_waiter_with_client("Ended", model, client)


def image_waiter(aws: Account) -> Any:
    pass_time_at_each_poll(aws, aws.images, 300)
    return own_waiter(
        aws.images,
        "GetImage",
        "image.state.status",
        success=["AVAILABLE"],
        failure=["FAILED", "CANCELLED"],
    )


def last_state(error: WaiterError) -> dict[str, str]:
    """Return the state of the image in the last response that a waiter received."""
    response: Any = error.last_response
    return dict(response["image"]["state"])


def test_a_waiter_for_an_image_succeeds_when_it_is_available(aws: Account) -> None:
    arn = aws.import_image()
    image_waiter(aws).wait(imageBuildVersionArn=arn)
    assert aws.status(arn) == "AVAILABLE"


def test_a_waiter_for_an_image_fails_when_the_import_fails(aws: Account) -> None:
    arn = aws.import_image(aws.start(b"no disk"))
    with pytest.raises(WaiterError) as error:
        image_waiter(aws).wait(imageBuildVersionArn=arn)
    assert last_state(error.value)["status"] == "FAILED"
    assert "No valid partitions" in last_state(error.value)["reason"]


def test_a_waiter_for_an_image_fails_when_it_is_cancelled(aws: Account) -> None:
    arn = aws.import_image()
    aws.cancel(arn)
    with pytest.raises(WaiterError) as error:
        image_waiter(aws).wait(imageBuildVersionArn=arn)
    assert last_state(error.value)["status"] == "CANCELLED"


@pytest.mark.parametrize(("data", "status"), [(None, "completed"), (b"no disk", "deleted")])
def test_a_waiter_for_an_import_task_ends_with_the_task(
    aws: Account, data: bytes | None, status: str
) -> None:
    task_id = aws.start(data) if data else aws.start()
    waiter = own_waiter(
        aws.ec2,
        "DescribeImportImageTasks",
        "ImportImageTasks[0].Status",
        success=["completed", "deleted"],
    )
    pass_time_at_each_poll(aws, aws.ec2, 300)
    waiter.wait(ImportTaskIds=[task_id])
    assert aws.task(task_id)["Status"] == status
