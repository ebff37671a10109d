"""The AMI and the snapshots of an import, from the view of the image."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from contract import LOG_GROUP_NAME, MAX_TAGS, ImageProperty, OwnTag
from tests.support.account import IMPORT, tags_of
from tests.support.account import disk as disk_of_a_bucket
from tests.support.aws import STACK_STATUS

if TYPE_CHECKING:
    from tests.support.account import Account
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

ALWAYS = 10**6
DAY = 86400
INVENTED = "images-ImportF00D-1ABCDEF"


def imported(account: Account, image: CustomResource, **more: Any) -> tuple[str, dict[str, Any]]:
    """Create an image of a completed task; return the task's id and the AMI."""
    task_id = account.import_task()
    ami = account.complete(task_id)
    response = image.create(account.waiting(VmImportTaskId=task_id, **more))
    assert response["Status"] == "SUCCESS", response["Reason"]
    return task_id, ami


def test_with_delete_ami_the_snapshots_of_a_failed_import_are_deleted_with_the_image(
    account: Account, image: CustomResource
) -> None:
    task_id = account.import_task()
    image.create(account.properties(VmImportTaskId=task_id, DeleteAmi="true"))
    snapshots = account.snapshots_of_almost_completed(task_id)
    account.ec2.cancel_import_task(ImportTaskId=task_id)

    assert image.delete()["Reason"] == ""

    assert account.existing(snapshots) == []


def test_ami_and_snapshots_get_the_tags_of_the_image(
    account: Account, image: CustomResource
) -> None:
    task_id, ami = imported(account, image, Tags={"team": "images"})

    wanted = {
        "team": "images",
        OwnTag.STACK.value: image.stack_id,
        OwnTag.RESOURCE.value: image.logical_id,
    }
    found = account.ami(task_id)
    assert found
    assert tags_of(found) == wanted
    assert [tags_of(snapshot) for snapshot in account.snapshots(ami)] == [wanted]


def test_ami_and_snapshots_follow_a_change_of_tags(account: Account, image: CustomResource) -> None:
    task_id, ami = imported(account, image, Tags={"team": "images", "stage": "test"})

    image.update({**image.properties, "Tags": {"stage": "live"}})

    found = account.ami(task_id)
    assert found
    for described in (found, *account.snapshots(ami)):
        assert tags_of(described)["stage"] == "live"
        assert "team" not in tags_of(described)


def test_an_ami_retains_the_tags_of_its_first_image(
    account: Account, image: CustomResource
) -> None:
    task_id, _ = imported(account, image, Tags={"team": "images"})

    second = dataclasses.replace(image, logical_id="SecondF00D")
    response = second.create(account.properties(VmImportTaskId=task_id, Tags={"team": "others"}))

    assert response["Status"] == "SUCCESS", response["Reason"]
    found = account.ami(task_id)
    assert found
    assert tags_of(found)["team"] == "images"


def test_a_delete_retains_ami_and_snapshots(account: Account, image: CustomResource) -> None:
    task_id, ami = imported(account, image)

    assert image.delete()["Status"] == "SUCCESS"

    assert account.ami(task_id)
    assert len(account.snapshots(ami)) == 1


def test_with_delete_ami_ami_and_snapshots_are_deleted_with_the_image(
    account: Account, image: CustomResource
) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")

    response = image.delete()

    assert (response["Status"], response["Reason"]) == ("SUCCESS", "")
    assert account.ami(task_id) is None
    assert account.snapshots(ami) == []


def test_an_ami_that_another_image_uses_is_retained(
    account: Account, image: CustomResource
) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    second = dataclasses.replace(image, logical_id="SecondF00D")
    arn = second.create(account.properties(VmImportTaskId=task_id))["PhysicalResourceId"]
    account.advance(60)

    response = image.delete()

    assert response["Status"] == "SUCCESS"
    assert response["Reason"] == f"{ami['ImageId']} is retained: {arn} uses it"
    assert account.ami(task_id)
    assert len(account.snapshots(ami)) == 1


def test_an_ami_is_deleted_while_images_of_other_tasks_are_imported(
    account: Account, image: CustomResource
) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    second = dataclasses.replace(image, logical_id="SecondF00D")
    logs = {LOG_GROUP_NAME: "/aws/imagebuilder/golden"}
    second.create(account.properties(OsVersion="RHEL 9", LoggingConfiguration=logs))

    response = image.delete()
    second.delete()

    assert response["Reason"] == ""
    assert account.ami(task_id) is None
    assert account.snapshots(ami) == []


def test_tasks_are_listed_once_however_many_images_are_imported(
    account: Account, image: CustomResource
) -> None:
    imported(account, image, DeleteAmi="true")
    others = [dataclasses.replace(image, logical_id=f"Other{number}") for number in range(3)]
    for other in others:
        other.create(account.properties())
    before = len(account.calls("DescribeImportImageTasks"))

    image.delete()

    calls = account.calls("DescribeImportImageTasks")[before:]
    for other in others:
        other.delete()
    assert len([call for call in calls if "ImportTaskIds" not in call["request"]]) == 1


@pytest.mark.parametrize(
    "unseen",
    [{ImageProperty.DESCRIPTION: "Golden"}, {ImageProperty.CLIENT_TOKEN: "mine"}],
    ids=lambda unseen: next(iter(unseen)),
)
def test_an_ami_is_retained_while_an_image_of_an_unknown_task_is_imported(
    account: Account, image: CustomResource, unseen: dict[str, str]
) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    second = dataclasses.replace(image, logical_id="SecondF00D")
    running = second.create(account.properties(**unseen))["PhysicalResourceId"]

    response = image.delete()
    second.delete()

    assert response["Reason"] == (
        f"{ami['ImageId']} is retained: {running} is being imported, and Image Builder does "
        f"not say from which task: it may be {task_id}"
    )
    assert account.ami(task_id)


def test_an_ami_is_retained_while_another_image_of_its_task_is_imported(
    account: Account, image: CustomResource
) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    account.knobs(image_watch_seconds=IMPORT)
    second = dataclasses.replace(image, logical_id="SecondF00D")
    running = second.create(account.properties(VmImportTaskId=task_id))["PhysicalResourceId"]

    response = image.delete()
    second.delete()

    assert response["Reason"] == (
        f"{ami['ImageId']} is retained: {running} is being imported from {task_id} too"
    )
    assert account.ami(task_id)


def test_a_shared_ami_is_retained(account: Account, image: CustomResource) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    account.ec2.modify_image_attribute(
        ImageId=ami["ImageId"], LaunchPermission={"Add": [{"UserId": "210987654321"}]}
    )

    response = image.delete()

    assert response["Status"] == "SUCCESS"
    assert (
        response["Reason"] == f"{ami['ImageId']} is retained: it has launch permissions for others"
    )
    assert account.ami(task_id)


def test_an_ami_of_another_stack_is_retained(account: Account, image: CustomResource) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    account.ec2.create_tags(
        Resources=[ami["ImageId"]], Tags=[{"Key": OwnTag.STACK.value, "Value": "another"}]
    )

    assert "it belongs to the stack another" in image.delete()["Reason"]

    assert account.ami(task_id)


def test_a_snapshot_that_another_ami_uses_is_retained(
    account: Account, image: CustomResource
) -> None:
    task_id, ami = imported(account, image, DeleteAmi="true")
    (snapshot,) = account.snapshots(ami)
    account.ec2.register_image(
        Name=f"copy-of-{task_id}",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot["SnapshotId"]}}
        ],
    )

    response = image.delete()

    assert response["Reason"] == f"{snapshot['SnapshotId']} is retained: skipped"
    assert account.ami(task_id) is None
    assert len(account.snapshots(ami)) == 1


def test_a_lost_answer_to_deregister_image_leaves_no_snapshot(
    account: Account, image: CustomResource
) -> None:
    _, ami = imported(account, image, DeleteAmi="true")
    account.fault("ec2", "DeregisterImage", lose_answer=True)

    assert image.delete()["Reason"] == ""

    assert account.snapshots(ami) == []


def test_an_older_boto3_deletes_the_snapshots_one_by_one(
    aws: Aws, account: Account, image: CustomResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = aws.processes[0].modules["aws.session"].aws_client("ec2")
    request = ec2.meta.service_model.operation_model("DeregisterImage").input_shape
    monkeypatch.delitem(request.members, "DeleteAssociatedSnapshots")
    task_id, ami = imported(account, image, DeleteAmi="true")

    assert image.delete()["Reason"] == ""

    assert account.ami(task_id) is None
    assert account.snapshots(ami) == []
    assert account.calls("DeleteSnapshot")


def test_deleting_an_image_that_was_never_created_retains_the_ami(
    account: Account, image: CustomResource
) -> None:
    task_id = account.import_task()
    account.complete(task_id)
    error = {"code": "ClientException", "message": "no", "status": 400}
    account.fault("imagebuilder", "ImportVmImage", error=error)
    image.create(account.properties(VmImportTaskId=task_id, DeleteAmi="true"))

    assert image.delete()["Status"] == "SUCCESS"

    assert account.ami(task_id)


def test_a_snapshot_that_is_a_disk_of_a_task_started_by_hand_is_retained(
    account: Account, image: CustomResource
) -> None:
    disk_id = account.new_snapshot()
    started = account.ec2.import_image(DiskContainers=[{"SnapshotId": disk_id}])
    task_id = started["ImportTaskId"]
    account.complete(task_id)
    image.create(account.properties(VmImportTaskId=task_id, DeleteAmi="true"))
    account.advance(60)

    assert image.delete()["Reason"] == ""

    assert account.ami(task_id) is None
    assert account.existing([disk_id]) == [disk_id]


def test_a_disk_that_is_a_snapshot_is_retained_when_ec2_has_forgotten_its_task(
    aws: Aws, account: Account, image: CustomResource
) -> None:
    disk = account.new_snapshot()
    containers: list[Any] = [{"SnapshotId": disk}]
    imported = account.ec2.import_image(Platform="Linux", DiskContainers=containers)
    task_id = imported["ImportTaskId"]
    properties = account.waiting(VmImportTaskId=task_id, DeleteAmi="true")
    image.create(properties)
    aws.let_pass(10 * 86400)
    image.update(properties | {ImageProperty.TAGS: {"stage": "live"}})

    deleted = image.delete()

    assert deleted["Reason"] == f"{disk} is retained: it may be a disk that was imported"
    assert account.existing([disk]) == [disk]


@pytest.mark.parametrize("by", ["placeholder", "invented"])
def test_the_response_names_the_ami_of_an_image_whose_deployment_failed(
    aws: Aws, account: Account, image: CustomResource, by: str
) -> None:
    properties = account.waiting(DeleteAmi="true")
    failed_id = account.failed_attempt(image, properties)
    aws.let_pass(7200)
    (ami,) = aws.local.amis

    physical_id = failed_id if by == "placeholder" else "images-GoldenImageF00D-1ABCDEFGHIJKL"
    event = image.delete_event(physical_id, properties)
    deleted = image.send(event | {STACK_STATUS: "ROLLBACK_IN_PROGRESS"})

    assert deleted["Reason"] == f"{ami} is retained: the deployment of its image failed"
    assert account.images_of(image) == []


@pytest.mark.parametrize("cause", ["denied", "throttled"])
def test_deleting_a_snapshot_is_repeated(
    aws: Aws, account: Account, image: CustomResource, task: CustomResource, cause: str
) -> None:
    # With a snapshot among the disks, EC2 does not delete the snapshots with the AMI.
    disk = account.new_snapshot()
    containers = [{"SnapshotId": disk}, disk_of_a_bucket()]
    properties = account.task_properties(DiskContainers=containers, DeleteAmi="true")
    task_id = task.create(properties)["PhysicalResourceId"]
    image.create(account.waiting(VmImportTaskId=task_id, DeleteAmi="true"))
    if cause == "denied":
        aws.deny_for(80, "DeleteSnapshot")
    else:
        throttled = {"code": "RequestLimitExceeded", "message": "slow", "status": 503}
        account.fault("ec2", "DeleteSnapshot", times=8, error=throttled)

    deleted = image.delete()

    assert (deleted["Status"], deleted["Reason"]) == ("SUCCESS", "")
    assert list(aws.local.snapshots) == [disk]


@pytest.mark.parametrize("created_by", [False, True])
def test_the_ami_gets_as_many_tags_as_an_image_may_have(
    account: Account, image: CustomResource, task: CustomResource, *, created_by: bool
) -> None:
    account.knobs(tag_imported_ami=created_by)
    task_id = task.create(account.task_properties())["PhysicalResourceId"]
    tags = {f"key{number}": "value" for number in range(MAX_TAGS)}

    arn = image.create(account.waiting(Tags=tags, VmImportTaskId=task_id))["PhysicalResourceId"]

    assert tags.items() <= tags_of(account.ami_of(arn)).items()
