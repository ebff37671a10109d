"""The AWS account of a test: what a person prepares there, sees there and breaks there."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any, Final

from contract import ImageProperty, OwnTag, TaskProperty
from tests.support.local_services import BUCKET, DISK
from tests.support.properties import checked
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from tests.support.aws import Aws
    from tests.support.cloudformation import CustomResource

_names = itertools.count()
IMPORT: Final = 3600
"""Longer than an import takes, in seconds."""


def tags_of(described: dict[str, Any]) -> dict[str, str]:
    """The tags of an AMI, a snapshot or a task as EC2 describes it."""
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def disk(key: str = DISK) -> dict[str, Any]:
    """A disk container of ImportImage."""
    return {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": key}}


class Account:
    """The account, seen with a person's own permissions; nothing that a person does fails."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.images = aws.client("imagebuilder")
        self.ec2 = aws.client("ec2")

    # --- properties of resources ---

    def properties(self, **changes: Any) -> dict[str, Any]:
        """Properties of an image whose deployment does not wait for the import."""
        properties: dict[str, Any] = {
            ImageProperty.NAME: f"rhel9-{next(_names)}",
            ImageProperty.SEMANTIC_VERSION: "1.0.0",
            ImageProperty.PLATFORM: "Linux",
            ImageProperty.VM_IMPORT_TASK_ID: changes.get(ImageProperty.VM_IMPORT_TASK_ID)
            or self.import_task(),
            ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        }
        return {**properties, **checked(ImageProperty, changes)}

    def waiting(self, timeout: int = 3600, **changes: Any) -> dict[str, Any]:
        """Properties of an image whose deployment waits until it is AVAILABLE."""
        return self.properties(**changes) | {ImageProperty.TIMEOUT_SECONDS: str(timeout)}

    def task_properties(self, **changes: Any) -> dict[str, Any]:
        """Properties of an import task."""
        properties: dict[str, Any] = {
            TaskProperty.DISK_CONTAINERS: [disk()],
            TaskProperty.PLATFORM: "Linux",
            TaskProperty.ROLE_NAME: "vmimport",
            TaskProperty.STATE_MACHINE_ARN: STATE_MACHINE,
        }
        return {**properties, **checked(TaskProperty, changes)}

    # --- Image Builder ---

    def import_task(self, key: str = DISK) -> str:
        """Start an ImportImage task and return its id."""
        task = self.ec2.import_image(Platform="Linux", DiskContainers=[disk(key)])
        return str(task["ImportTaskId"])

    def image(self, arn: str) -> dict[str, Any]:
        """An image as GetImage shows it."""
        return dict(self.images.get_image(imageBuildVersionArn=arn)["image"])

    def ami_of(self, arn: str) -> dict[str, Any]:
        """The AMI of an image, as EC2 describes it."""
        ami = self.image(arn)["outputResources"]["amis"][0]["image"]
        (found,) = self.ec2.describe_images(ImageIds=[ami])["Images"]
        return dict(found)

    def images_of(self, resource: CustomResource) -> list[str]:
        """The ARNs of the images that carry the tags of a resource."""
        wanted = {
            OwnTag.STACK.value: resource.stack_id,
            OwnTag.RESOURCE.value: resource.logical_id,
        }
        return [arn for arn, i in self.aws.images.items() if wanted.items() <= i.tags.items()]

    def tag(self, arn: str, tags: dict[str, str]) -> None:
        self.images.tag_resource(resourceArn=arn, tags=tags)

    def cancel(self, arn: str) -> None:
        """Cancel an import and wait for its end."""
        self.images.cancel_image_creation(imageBuildVersionArn=arn, clientToken="by-hand")
        self.aws.sleep(60)

    def delete(self, arn: str) -> None:
        self.images.delete_image(imageBuildVersionArn=arn)

    def add_recipe(self, parent: str) -> None:
        """Create an image recipe whose parent is an image."""
        self.images.create_image_recipe(
            name=f"recipe-{next(_names)}",
            semanticVersion="1.0.0",
            parentImage=parent,
            clientToken=str(uuid.uuid4()),
        )

    # --- EC2 ---

    def task(self, task_id: str) -> dict[str, Any]:
        """A task as DescribeImportImageTasks shows it."""
        found = self.ec2.describe_import_image_tasks(ImportTaskIds=[task_id])
        return dict(found["ImportImageTasks"][0])

    def tasks_of(self, resource: CustomResource) -> list[dict[str, Any]]:
        """The tasks that carry the tag of a resource's stack."""
        found = self.ec2.describe_import_image_tasks()["ImportImageTasks"]
        return [t for t in found if tags_of(t).get(OwnTag.STACK.value) == resource.stack_id]

    def active_tasks_of(self, resource: CustomResource) -> list[str]:
        tasks = self.tasks_of(resource)
        return [task["ImportTaskId"] for task in tasks if task["Status"] == "active"]

    def ami(self, task_id: str) -> dict[str, Any] | None:
        """The AMI that a task imported, or None."""
        found = self.ec2.describe_images(Filters=[{"Name": "name", "Values": [task_id]}])
        return next(iter(found["Images"]), None)

    def snapshots(self, ami: dict[str, Any]) -> list[dict[str, Any]]:
        """The snapshots of an AMI that exist."""
        ids = [mapping["Ebs"]["SnapshotId"] for mapping in ami["BlockDeviceMappings"]]
        found = self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [snapshot for snapshot in found if snapshot["SnapshotId"] in ids]

    def existing(self, snapshot_ids: list[str]) -> list[str]:
        """Those of the snapshots that exist."""
        return [snapshot for snapshot in snapshot_ids if snapshot in self.aws.local.snapshots]

    def new_snapshot(self) -> str:
        """Create a snapshot of a volume, and return its id."""
        volume = self.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
        return str(self.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])

    def complete(self, task_id: str) -> dict[str, Any]:
        """Let the time of an import pass, and return its AMI."""
        self.advance(IMPORT)
        ami = self.ami(task_id)
        assert ami
        return ami

    def snapshots_of_almost_completed(self, task_id: str) -> list[str]:
        """Let time pass until an import has created its snapshots but not its AMI; return them."""
        self.advance(1100)
        described = self.task(task_id)
        assert (described["Status"], described["StatusMessage"]) == ("active", "preparing ami")
        return [detail["SnapshotId"] for detail in described["SnapshotDetails"]]

    # --- the handler's calls ---

    def calls(self, operation: str | None = None) -> list[dict[str, Any]]:
        """All calls so far, or those of one operation."""
        return [c for c in self.aws.local.calls if operation in {None, c["operation"]}]

    def requests_of(self, resource: CustomResource, operation: str) -> list[dict[str, Any]]:
        """The requests of an operation that name the stack of a resource."""
        calls = self.calls(operation)
        return [c["request"] for c in calls if resource.stack_id in str(c["request"])]

    def operations_on(self, arn: str) -> list[str]:
        """The operations whose request names an image, in order."""
        return [call["operation"] for call in self.calls() if arn in str(call["request"])]

    # --- time, settings and faults ---

    def advance(self, seconds: float) -> None:
        """Let time pass; executions that are running continue."""
        self.aws.let_pass(seconds)

    def knobs(self, **changes: object) -> None:
        """Change the undocumented behaviour of the simulated AWS."""
        self.aws.local.change_knobs(**changes)

    def fault(self, service: str, operation: str, **what: Any) -> None:
        """Have the handler's next calls of an operation fail."""
        self.aws.fault(service, operation, **what)

    def failed_attempt(self, image: CustomResource, properties: Any) -> str:
        """Create an image, but fail after the import was started; return the physical id.

        So ends `cdk deploy --no-rollback`: CloudFormation deletes nothing.
        """
        execution = image.start(image.create_event(properties))
        self.aws.step(execution)
        error = {"code": "SomethingUnexpected", "message": "no", "status": 400}
        self.fault("imagebuilder", "GetImage", times=20, error=error)
        self.aws.work(lambda: not execution.is_running)
        self.aws.operation_faults.clear()
        response = image.responses()[-1]
        assert response["Status"] == "FAILED"
        assert len(self.images_of(image)) == 1
        return str(response["PhysicalResourceId"])

    def fail_import(self, message: str | None, *, task_id: str, at_progress: int = 28) -> None:
        """Have a disk import fail with EC2's message, or never end if that is None."""
        self.aws.local.fail_import(message, task_id=task_id, fail_at_progress=at_progress)
