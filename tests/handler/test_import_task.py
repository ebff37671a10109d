"""Import tasks, and what they leave behind, through the handler's entry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

import import_task_lifecycle
from aws_calls import aws_client
from index import handler
from local_aws.client.prerequisites import BUCKET, DISK
from tests.handler.cloudformation import CustomResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.handler.cloudformation import ResponseUrls
    from tests.handler.conftest import Aws

ROLE_ERROR = {
    "code": "InvalidParameter",
    "message": "The service role vmimport does not exist or does not have sufficient permissions "
    "for the service to continue",
    "status": 400,
}
DAY = 86400
AN_HOUR = 3600


@dataclass
class ImportTask(CustomResource):
    """A Custom::VmImportTask."""

    logical_id: str = "ImportF00D"

    def event(self, request_type: str, **more: Any) -> dict[str, Any]:
        return {**super().event(request_type, **more), "ResourceType": "Custom::VmImportTask"}


@dataclass(frozen=True)
class Ec2:
    """What a person sees of tasks and AMIs."""

    aws: Aws
    client: Any

    def task(self, task_id: str) -> dict[str, Any]:
        tasks = self.client.describe_import_image_tasks(ImportTaskIds=[task_id])
        return dict(tasks["ImportImageTasks"][0])

    def tasks(self, resource: CustomResource) -> list[dict[str, Any]]:
        tasks = self.client.describe_import_image_tasks()["ImportImageTasks"]
        return [
            task for task in tasks if tags(task).get("cdk-vm-import:stack") == resource.stack_id
        ]

    def active(self, resource: CustomResource) -> list[str]:
        return [t["ImportTaskId"] for t in self.tasks(resource) if t["Status"] == "active"]

    def ami(self, task_id: str) -> dict[str, Any] | None:
        found = self.client.describe_images(Filters=[{"Name": "name", "Values": [task_id]}])
        return next(iter(found["Images"]), None)

    def snapshots(self, ami: dict[str, Any]) -> list[dict[str, Any]]:
        ids = [mapping["Ebs"]["SnapshotId"] for mapping in ami["BlockDeviceMappings"]]
        found = self.client.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [snapshot for snapshot in found if snapshot["SnapshotId"] in ids]

    def complete(self, task_id: str) -> dict[str, Any]:
        """Let the time pass that the import takes; return its AMI."""
        self.aws.local.advance(AN_HOUR)
        ami = self.ami(task_id)
        assert ami
        return ami

    def requests(self, resource: CustomResource) -> list[dict[str, Any]]:
        calls = self.aws.local.calls("ImportImage")
        return [c["request"] for c in calls if resource.stack_id in str(c["request"])]


def tags(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def disk(key: str = DISK) -> dict[str, Any]:
    return {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": key}}


def snapshot_of(ec2: Ec2) -> str:
    """A snapshot of a volume."""
    volume = ec2.client.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    return str(ec2.client.create_snapshot(VolumeId=volume)["SnapshotId"])


def properties(**changes: Any) -> dict[str, Any]:
    return {"DiskContainers": [disk()], "Platform": "Linux", "RoleName": "vmimport", **changes}


@pytest.fixture
def ec2(aws: Aws) -> Iterator[Ec2]:
    yield Ec2(aws, aws.local.session().client("ec2"))
    aws.local.clear_faults()


@pytest.fixture
def task(urls: ResponseUrls) -> ImportTask:
    return ImportTask(urls, handler)


@pytest.fixture
def image(urls: ResponseUrls, task: ImportTask) -> CustomResource:
    """An image in the stack of the task."""
    return CustomResource(urls, handler, stack_id=task.stack_id)


def test_a_create_answers_at_once_with_the_id_of_the_task(ec2: Ec2, task: ImportTask) -> None:
    answer = task.create(properties())

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert answer["Data"] == {"ImportTaskId": answer["PhysicalResourceId"]}
    assert ec2.task(answer["PhysicalResourceId"])["Status"] == "active"


def test_each_property_becomes_a_member_of_the_request(ec2: Ec2, task: ImportTask) -> None:
    given = {
        "DiskContainers": [{**disk(), "DeviceName": "/dev/sda1", "Description": "The system"}],
        "Platform": "Windows",
        "Architecture": "x86_64",
        "BootMode": "legacy-bios",
        "UsageOperation": "RunInstances:0002",
        "LicenseSpecifications": [{"LicenseConfigurationArn": "arn:aws:license-manager:x"}],
        "Encrypted": "true",
        "Description": "The golden machine",
        "RoleName": "vmimport",
    }

    answer = task.create({**given, "Tags": {"team": "images"}})

    (request,) = ec2.requests(task)
    token = request.pop("ClientToken", None)
    (specification,) = request.pop("TagSpecifications")
    assert request == {**given, "Encrypted": True}
    assert specification["ResourceType"] == "import-image-task"
    assert tags(specification) == tags(ec2.task(answer["PhysicalResourceId"]))
    assert tags(specification) == {
        "team": "images",
        "cdk-vm-import:token": tags(specification)["cdk-vm-import:token"],
        "cdk-vm-import:stack": task.stack_id,
        "cdk-vm-import:resource": task.logical_id,
    }
    assert token in {None, tags(specification)["cdk-vm-import:token"]}


def test_a_create_that_is_delivered_three_times_starts_one_task(ec2: Ec2, task: ImportTask) -> None:
    task.properties = properties()
    event = task.event("Create")

    ids = {task.send(dict(event))["PhysicalResourceId"] for _ in range(3)}

    assert len(ids) == 1
    assert ec2.active(task) == list(ids)


def test_a_lost_answer_of_ec2_starts_no_second_task(ec2: Ec2, task: ImportTask) -> None:
    ec2.aws.local.fault("ec2", "ImportImage", lose_answer=True)

    answer = task.create(properties())

    assert ec2.active(task) == [answer["PhysicalResourceId"]]


def test_a_role_that_has_not_reached_ec2_yet_is_waited_for(ec2: Ec2, task: ImportTask) -> None:
    ec2.aws.local.fault("ec2", "ImportImage", times=2, error=ROLE_ERROR)

    answer = task.create(properties())

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert ec2.active(task) == [answer["PhysicalResourceId"]]


@pytest.mark.usefixtures("aws")
def test_a_role_that_never_reaches_ec2_fails_the_create_with_its_words(
    task: ImportTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_task_lifecycle, "PATIENCE", 1)

    answer = task.create(properties(RoleName="no-such-role"))

    assert answer["Status"] == "FAILED"
    assert "InvalidParameter: The service role no-such-role does not exist" in answer["Reason"]
    assert task.delete()["Status"] == "SUCCESS"


def test_another_error_fails_the_create_at_once_and_leaves_nothing(
    ec2: Ec2, task: ImportTask
) -> None:
    answer = task.create(properties(Architecture="arm64"))

    assert answer["Status"] == "FAILED"
    assert 'architecture="arm64" has an invalid format' in answer["Reason"]
    assert task.delete()["Status"] == "SUCCESS"
    assert ec2.tasks(task) == []


def test_a_changed_disk_is_another_task_and_the_old_one_is_cancelled_by_its_delete(
    ec2: Ec2, task: ImportTask
) -> None:
    first = properties()
    old = task.create(first)["PhysicalResourceId"]

    new = task.update(properties(DiskContainers=[disk("other.raw")]))["PhysicalResourceId"]
    before_clean_up = sorted(ec2.active(task))
    task.delete(old, first)

    assert before_clean_up == sorted([old, new])
    assert ec2.active(task) == [new]


def test_a_rollback_returns_to_the_first_task_without_a_second_import(
    ec2: Ec2, task: ImportTask
) -> None:
    first, second = properties(), properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    newcomer = task.update(second)["PhysicalResourceId"]

    rolled_back = task.update(first)["PhysicalResourceId"]
    task.delete(newcomer, second)

    assert rolled_back == task_id
    assert ec2.active(task) == [task_id]


def test_a_rollback_finds_the_first_task_when_ec2_has_forgotten_it(
    ec2: Ec2, task: ImportTask
) -> None:
    first, second = properties(), properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    ec2.complete(task_id)
    ec2.aws.local.advance(8 * DAY)
    task.update(second)

    rolled_back = task.update(first)["PhysicalResourceId"]

    assert rolled_back == task_id
    assert len(ec2.requests(task)) == 2


def test_a_rollback_of_an_update_that_never_answered_cancels_what_it_started(
    ec2: Ec2, task: ImportTask
) -> None:
    first, second = properties(), properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    task.update(second)

    # CloudFormation never heard of the second task
    rolled_back = task.update(first, physical_id=task_id)["PhysicalResourceId"]

    assert rolled_back == task_id
    assert ec2.active(task) == [task_id]


def test_a_rollback_of_an_update_that_never_answered_removes_what_that_made(
    ec2: Ec2, task: ImportTask
) -> None:
    first, second = properties(), properties(Description="Another", DeleteAmi="true")
    task_id = task.create(first)["PhysicalResourceId"]
    newcomer = task.update(second)["PhysicalResourceId"]
    ami = ec2.complete(newcomer)

    task.update(first, physical_id=task_id)

    assert ec2.ami(task_id)
    assert ec2.ami(newcomer) is None
    assert ec2.snapshots(ami) == []


def test_a_rollback_of_an_update_that_never_ran_finds_a_task_that_ec2_has_forgotten(
    ec2: Ec2, task: ImportTask, image: CustomResource
) -> None:
    first, second = properties(), properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    ec2.complete(task_id)
    # what was waited for is tagged like this
    image.create(ec2.aws.properties(VmImportTaskId=task_id))
    ec2.aws.local.advance(8 * DAY)
    task.properties = second  # Lambda was killed each time

    rolled_back = task.update(first)

    assert rolled_back["PhysicalResourceId"] == task_id
    assert len(ec2.requests(task)) == 1


def test_a_change_that_was_rolled_back_before_it_ran_is_imported_the_next_time(
    ec2: Ec2, task: ImportTask
) -> None:
    first, second = properties(), properties(Description="Another")
    task_id = task.create(first)["PhysicalResourceId"]
    ec2.complete(task_id)
    task.properties = second  # Lambda was killed each time
    assert task.update(first)["PhysicalResourceId"] == task_id
    ec2.aws.local.advance(8 * DAY)

    assert task.update(second)["PhysicalResourceId"] != task_id

    assert task.update(first)["PhysicalResourceId"] == task_id
    assert len(ec2.requests(task)) == 2


def test_tags_change_in_place(ec2: Ec2, task: ImportTask) -> None:
    task_id = task.create(properties(Tags={"stage": "test", "team": "images"}))[
        "PhysicalResourceId"
    ]

    updated = task.update(properties(Tags={"stage": "live"}))["PhysicalResourceId"]

    assert updated == task_id
    assert tags(ec2.task(task_id))["stage"] == "live"
    assert "team" not in tags(ec2.task(task_id))


def test_another_role_imports_nothing_again(ec2: Ec2, task: ImportTask) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]

    assert task.update(properties(RoleName="other"))["PhysicalResourceId"] == task_id
    assert len(ec2.requests(task)) == 1


def test_an_update_of_a_task_that_ec2_forgot_imports_nothing_again(
    ec2: Ec2, task: ImportTask
) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]
    ec2.complete(task_id)
    ec2.aws.local.advance(8 * DAY)

    updated = task.update(properties(Tags={"stage": "live"}))

    assert updated["Status"] == "SUCCESS", updated["Reason"]
    assert updated["PhysicalResourceId"] == task_id
    assert len(ec2.requests(task)) == 1


def test_a_task_that_failed_is_started_again_by_the_next_deployment(
    ec2: Ec2, task: ImportTask
) -> None:
    failed = task.create(properties(DiskContainers=[disk("absent.raw")]))["PhysicalResourceId"]
    ec2.aws.local.advance(AN_HOUR)

    again = task.update(properties(DiskContainers=[disk("absent.raw")], Tags={"try": "2"}))

    assert ec2.task(failed)["Status"] == "deleted"
    assert again["PhysicalResourceId"] != failed


def test_a_task_whose_ami_is_gone_is_started_again(ec2: Ec2, task: ImportTask) -> None:
    first = properties()
    gone = task.create(first)["PhysicalResourceId"]
    ec2.client.deregister_image(ImageId=ec2.complete(gone)["ImageId"])
    task.update(properties(Description="Another"))

    again = task.update(first)["PhysicalResourceId"]

    assert again != gone
    assert again in ec2.active(task)


def test_a_client_token_that_is_used_up_is_told(ec2: Ec2, task: ImportTask) -> None:
    given = properties(ClientToken="a-token-of-my-own")
    task.create(given)
    task.delete()
    ec2.aws.local.advance(60)

    answer = task.create(given)

    assert answer["Status"] == "FAILED"
    assert "client token 'a-token-of-my-own' is gone" in answer["Reason"]


def test_a_delete_cancels_an_active_task(ec2: Ec2, task: ImportTask) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]

    assert task.delete()["Status"] == "SUCCESS"

    assert ec2.task(task_id)["Status"] in {"deleting", "deleted"}


def test_a_delete_with_an_invented_id_cancels_the_task(ec2: Ec2, task: ImportTask) -> None:
    task.create(properties())

    assert task.delete("images-ImportF00D-1ABCDEF")["Status"] == "SUCCESS"

    assert ec2.active(task) == []


def test_a_delete_after_a_lost_create_cancels_the_task(ec2: Ec2, task: ImportTask) -> None:
    ec2.aws.local.fault("ec2", "ImportImage", error={**ROLE_ERROR, "message": "no"})
    placeholder = task.create(properties())["PhysicalResourceId"]
    # a delivery that CloudFormation did not wait for
    task.create(properties())

    assert task.delete(placeholder)["Status"] == "SUCCESS"

    assert ec2.active(task) == []


def test_a_delete_leaves_a_completed_task_and_its_ami(ec2: Ec2, task: ImportTask) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]
    ec2.complete(task_id)

    assert task.delete()["Status"] == "SUCCESS"

    assert ec2.task(task_id)["Status"] == "completed"
    assert ec2.ami(task_id)


def test_a_delete_names_what_a_lost_create_made_and_may_not_be_deleted(
    ec2: Ec2, task: ImportTask
) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]
    ami = ec2.complete(task_id)
    (snapshot,) = ec2.snapshots(ami)

    answer = task.delete("images-ImportF00D-1ABCDEF")

    assert answer["Status"] == "SUCCESS"
    assert answer["Reason"] == (
        f"{ami['ImageId']}, which {task_id} made, stays with {snapshot['SnapshotId']}: "
        "there is no delete_ami"
    )
    assert ec2.ami(task_id)


def test_a_delete_names_what_an_import_made_that_was_over_before_it_was_cancelled(
    ec2: Ec2, task: ImportTask, knobs: Callable[..., None]
) -> None:
    knobs(import_seconds=60)  # a second here
    task_id = task.create(properties())["PhysicalResourceId"]
    ec2.aws.local.fault("ec2", "CancelImportTask", delay=2)

    answer = task.delete()

    ami = ec2.ami(task_id)
    assert ami
    assert answer["Status"] == "SUCCESS"
    assert answer["Reason"].startswith(f"{ami['ImageId']}, which {task_id} made, stays with snap-")


def test_a_delete_of_what_made_nothing_names_nothing(ec2: Ec2, task: ImportTask) -> None:
    task.create(properties())
    ec2.aws.local.advance(60)

    assert task.delete()["Reason"] == ""


def test_a_delete_succeeds_when_it_cannot_be_seen_what_stays(ec2: Ec2, task: ImportTask) -> None:
    ec2.complete(task.create(properties())["PhysicalResourceId"])

    def deny(**_: object) -> None:
        denied = {"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}
        raise ClientError(denied, "DescribeImages")  # type: ignore[arg-type]

    calls = aws_client("ec2").meta.events
    calls.register("before-call.ec2.DescribeImages", deny)
    try:
        answer = task.delete()
    finally:
        calls.unregister("before-call.ec2.DescribeImages", deny)

    assert (answer["Status"], answer["Reason"]) == ("SUCCESS", "")


def almost_done(ec2: Ec2, task_id: str) -> list[str]:
    """Let time pass until an import has made its snapshots, and not yet its AMI; return them."""
    ec2.aws.local.advance(1100)
    described = ec2.task(task_id)
    assert (described["Status"], described["StatusMessage"]) == ("active", "preparing ami")
    return [detail["SnapshotId"] for detail in described["SnapshotDetails"]]


def there(ec2: Ec2, snapshots: list[str]) -> list[str]:
    wanted = [{"Name": "snapshot-id", "Values": snapshots}]
    found = ec2.client.describe_snapshots(Filters=wanted)["Snapshots"]
    return [snapshot["SnapshotId"] for snapshot in found]


@pytest.mark.parametrize("by_ec2", ["keep", "delete"])
@pytest.mark.parametrize("delete_ami", ["true", "false"])
def test_the_snapshots_of_an_import_that_was_cancelled_at_its_end_go(
    ec2: Ec2, task: ImportTask, knobs: Callable[..., None], by_ec2: str, delete_ami: str
) -> None:
    knobs(snapshots_of_dead_import=by_ec2)
    task_id = task.create(properties(DeleteAmi=delete_ami))["PhysicalResourceId"]
    snapshots = almost_done(ec2, task_id)

    answer = task.delete()

    assert (answer["Status"], answer["Reason"]) == ("SUCCESS", "")
    assert ec2.task(task_id)["Status"] == "deleted"
    assert there(ec2, snapshots) == []


def test_a_disk_that_is_a_snapshot_outlives_an_import_that_was_cancelled_at_its_end(
    ec2: Ec2, task: ImportTask
) -> None:
    disk_id = snapshot_of(ec2)
    given = properties(DiskContainers=[disk(), {"SnapshotId": disk_id}])
    task_id = task.create(given)["PhysicalResourceId"]
    made, _ = snapshots = almost_done(ec2, task_id)

    assert task.delete()["Reason"] == ""

    assert made != disk_id
    assert there(ec2, snapshots) == [disk_id]


def test_a_snapshot_of_a_cancelled_import_that_an_ami_uses_is_kept(
    ec2: Ec2, task: ImportTask
) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]
    (snapshot,) = almost_done(ec2, task_id)
    ec2.client.register_image(
        Name=f"of {snapshot}",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
    )

    answer = task.delete()

    assert answer["Status"] == "SUCCESS"
    assert answer["Reason"] == f"{snapshot} is kept: InvalidSnapshot.InUse"
    assert there(ec2, [snapshot]) == [snapshot]


def test_a_snapshot_of_a_cancelled_import_that_another_stack_took_is_left(
    ec2: Ec2, task: ImportTask
) -> None:
    task_id = task.create(properties())["PhysicalResourceId"]
    (snapshot,) = almost_done(ec2, task_id)
    taken = [{"Key": "cdk-vm-import:stack", "Value": "another"}]
    ec2.client.create_tags(Resources=[snapshot], Tags=taken)

    assert task.delete()["Status"] == "SUCCESS"

    assert there(ec2, [snapshot]) == [snapshot]


def test_with_delete_ami_the_snapshots_of_a_failed_import_go_with_the_image(
    ec2: Ec2, image: CustomResource
) -> None:
    task_id = ec2.aws.import_task()
    image.create(ec2.aws.properties(VmImportTaskId=task_id, DeleteAmi="true"))
    snapshots = almost_done(ec2, task_id)
    ec2.client.cancel_import_task(ImportTaskId=task_id)

    assert image.delete()["Reason"] == ""

    assert there(ec2, snapshots) == []


def test_a_delete_of_a_task_that_ec2_forgot_succeeds(ec2: Ec2, task: ImportTask) -> None:
    task.create(properties())
    ec2.complete(str(task.physical_id))
    ec2.aws.local.advance(8 * DAY)

    assert task.delete()["Status"] == "SUCCESS"


def test_a_delete_never_cancels_the_task_of_another(
    ec2: Ec2, task: ImportTask, urls: ResponseUrls
) -> None:
    other = ImportTask(urls, handler)
    others = other.create(properties())["PhysicalResourceId"]
    task.properties = properties()

    assert task.delete(others)["Status"] == "SUCCESS"

    assert ec2.active(other) == [others]


def test_properties_of_a_wrong_type_are_told(task: ImportTask) -> None:
    answer = task.create(properties(DiskContainers="disk.raw", Tags=["a"]))

    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "resource property of a wrong type: DiskContainers, Tags"


# What the import leaves behind


def imported(ec2: Ec2, image: CustomResource, **more: Any) -> tuple[str, dict[str, Any]]:
    """An image of a completed task: the task's id, and the AMI."""
    task_id = ec2.aws.import_task()
    ami = ec2.complete(task_id)
    answer = image.create(ec2.aws.properties(VmImportTaskId=task_id, **more))
    assert answer["Status"] == "SUCCESS", answer["Reason"]
    ec2.aws.local.advance(60)
    return task_id, ami


def test_ami_and_snapshots_get_the_tags_of_the_image(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, Tags={"team": "images"})

    wanted = {
        "team": "images",
        "cdk-vm-import:stack": image.stack_id,
        "cdk-vm-import:resource": image.logical_id,
    }
    found = ec2.ami(task_id)
    assert found
    assert tags(found) == wanted
    assert [tags(snapshot) for snapshot in ec2.snapshots(ami)] == [wanted]


def test_ami_and_snapshots_follow_a_change_of_tags(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, Tags={"team": "images", "stage": "test"})

    image.update({**image.properties, "Tags": {"stage": "live"}})

    found = ec2.ami(task_id)
    assert found
    for described in (found, *ec2.snapshots(ami)):
        assert tags(described)["stage"] == "live"
        assert "team" not in tags(described)


def test_an_ami_keeps_the_tags_of_the_first_image_of_it(ec2: Ec2, image: CustomResource) -> None:
    task_id, _ = imported(ec2, image, Tags={"team": "images"})

    second = dataclasses.replace(image, logical_id="SecondF00D")
    answer = second.create(ec2.aws.properties(VmImportTaskId=task_id, Tags={"team": "others"}))

    assert answer["Status"] == "SUCCESS", answer["Reason"]
    found = ec2.ami(task_id)
    assert found
    assert tags(found)["team"] == "images"


def test_a_delete_keeps_ami_and_snapshots(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image)

    assert image.delete()["Status"] == "SUCCESS"

    assert ec2.ami(task_id)
    assert len(ec2.snapshots(ami)) == 1


def test_with_delete_ami_they_go_with_the_image(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")

    answer = image.delete()

    assert (answer["Status"], answer["Reason"]) == ("SUCCESS", "")
    assert ec2.ami(task_id) is None
    assert ec2.snapshots(ami) == []


def test_an_ami_that_another_image_uses_is_kept(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    second = dataclasses.replace(image, logical_id="SecondF00D")
    arn = second.create(ec2.aws.properties(VmImportTaskId=task_id))["PhysicalResourceId"]
    ec2.aws.local.advance(60)

    answer = image.delete()

    assert answer["Status"] == "SUCCESS"
    assert answer["Reason"] == f"{ami['ImageId']} is kept: {arn} uses it"
    assert ec2.ami(task_id)
    assert len(ec2.snapshots(ami)) == 1


def test_an_ami_goes_while_images_of_other_tasks_are_imported(
    ec2: Ec2, image: CustomResource
) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    second = dataclasses.replace(image, logical_id="SecondF00D")
    logs = {"LogGroupName": "/aws/imagebuilder/golden"}
    second.create(ec2.aws.properties(OsVersion="RHEL 9", LoggingConfiguration=logs))

    answer = image.delete()
    second.delete()

    assert answer["Reason"] == ""
    assert ec2.ami(task_id) is None
    assert ec2.snapshots(ami) == []


def test_tasks_are_listed_once_however_many_images_are_imported(
    ec2: Ec2, image: CustomResource
) -> None:
    imported(ec2, image, DeleteAmi="true")
    others = [dataclasses.replace(image, logical_id=f"Other{number}") for number in range(3)]
    for other in others:
        other.create(ec2.aws.properties())
    before = len(ec2.aws.local.calls("DescribeImportImageTasks"))

    image.delete()

    calls = ec2.aws.local.calls("DescribeImportImageTasks")[before:]
    for other in others:
        other.delete()
    assert len([call for call in calls if "ImportTaskIds" not in call["request"]]) == 1


@pytest.mark.parametrize("unseen", [{"Description": "Golden"}, {"ClientToken": "mine"}], ids=str)
def test_an_ami_is_kept_while_an_image_is_imported_that_does_not_tell_its_task(
    ec2: Ec2, image: CustomResource, unseen: dict[str, str]
) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    second = dataclasses.replace(image, logical_id="SecondF00D")
    running = second.create(ec2.aws.properties(**unseen))["PhysicalResourceId"]

    answer = image.delete()
    second.delete()

    assert answer["Reason"] == (
        f"{ami['ImageId']} is kept: {running} is being imported, and may be from {task_id} too: "
        "Image Builder does not tell"
    )
    assert ec2.ami(task_id)


def test_an_ami_is_kept_while_an_image_of_its_task_is_imported(
    ec2: Ec2, image: CustomResource, knobs: Callable[..., None]
) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    knobs(image_watch_seconds=AN_HOUR)
    second = dataclasses.replace(image, logical_id="SecondF00D")
    running = second.create(ec2.aws.properties(VmImportTaskId=task_id))["PhysicalResourceId"]

    answer = image.delete()
    second.delete()

    assert answer["Reason"] == (
        f"{ami['ImageId']} is kept: {running} is being imported from {task_id} too"
    )
    assert ec2.ami(task_id)


def test_an_ami_that_is_shared_is_kept(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    ec2.client.modify_image_attribute(
        ImageId=ami["ImageId"], LaunchPermission={"Add": [{"UserId": "210987654321"}]}
    )

    answer = image.delete()

    assert answer["Status"] == "SUCCESS"
    assert answer["Reason"] == f"{ami['ImageId']} is kept: it has launch permissions for others"
    assert ec2.ami(task_id)


def test_an_ami_of_another_stack_is_kept(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    ec2.client.create_tags(
        Resources=[ami["ImageId"]], Tags=[{"Key": "cdk-vm-import:stack", "Value": "another"}]
    )

    assert "it is of the stack another" in image.delete()["Reason"]

    assert ec2.ami(task_id)


def test_a_snapshot_that_another_ami_uses_is_kept(ec2: Ec2, image: CustomResource) -> None:
    task_id, ami = imported(ec2, image, DeleteAmi="true")
    (snapshot,) = ec2.snapshots(ami)
    ec2.client.register_image(
        Name=f"copy-of-{task_id}",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot["SnapshotId"]}}
        ],
    )

    answer = image.delete()

    assert answer["Reason"] == f"{snapshot['SnapshotId']} is kept: skipped"
    assert ec2.ami(task_id) is None
    assert len(ec2.snapshots(ami)) == 1


def test_a_lost_answer_to_the_deletion_of_the_ami_leaves_no_snapshot(
    ec2: Ec2, image: CustomResource
) -> None:
    _, ami = imported(ec2, image, DeleteAmi="true")
    ec2.aws.local.fault("ec2", "DeregisterImage", lose_answer=True)

    assert image.delete()["Reason"] == ""

    assert ec2.snapshots(ami) == []


def test_an_older_boto3_deletes_the_snapshots_one_by_one(
    ec2: Ec2, image: CustomResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("import_tasks._OPTION", "NotInvented")
    task_id, ami = imported(ec2, image, DeleteAmi="true")

    assert image.delete()["Reason"] == ""

    assert ec2.ami(task_id) is None
    assert ec2.snapshots(ami) == []


def test_a_create_that_made_no_image_deletes_no_ami(ec2: Ec2, image: CustomResource) -> None:
    task_id = ec2.aws.import_task()
    ec2.complete(task_id)
    error = {"code": "ClientException", "message": "no", "status": 400}
    ec2.aws.local.fault("imagebuilder", "ImportVmImage", error=error)
    image.create(ec2.aws.properties(VmImportTaskId=task_id, DeleteAmi="true"))

    assert image.delete()["Status"] == "SUCCESS"

    assert ec2.ami(task_id)


def test_with_delete_ami_they_go_with_a_task_that_no_image_was_made_of(
    ec2: Ec2, task: ImportTask
) -> None:
    task_id = task.create(properties(DeleteAmi="true"))["PhysicalResourceId"]
    ami = ec2.complete(task_id)

    assert task.delete()["Status"] == "SUCCESS"

    assert ec2.ami(task_id) is None
    assert ec2.snapshots(ami) == []


def test_a_snapshot_that_was_the_disk_outlives_the_ami(ec2: Ec2, task: ImportTask) -> None:
    disk_id = snapshot_of(ec2)
    given = properties(DiskContainers=[{"SnapshotId": disk_id}], DeleteAmi="true")
    task_id = task.create(given)["PhysicalResourceId"]
    ami = ec2.complete(task_id)

    assert task.delete()["Reason"] == ""

    assert ec2.ami(task_id) is None
    assert [snapshot["SnapshotId"] for snapshot in ec2.snapshots(ami)] == [disk_id]


def test_a_snapshot_that_was_the_disk_of_a_task_by_hand_outlives_the_ami(
    ec2: Ec2, image: CustomResource
) -> None:
    disk_id = snapshot_of(ec2)
    started = ec2.client.import_image(DiskContainers=[{"SnapshotId": disk_id}])
    task_id = started["ImportTaskId"]
    ec2.complete(task_id)
    image.create(ec2.aws.properties(VmImportTaskId=task_id, DeleteAmi="true"))
    ec2.aws.local.advance(60)

    assert image.delete()["Reason"] == ""

    assert ec2.ami(task_id) is None
    assert there(ec2, [disk_id]) == [disk_id]
