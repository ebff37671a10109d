"""The AWS calls about import tasks, and about the AMIs and snapshots that they leave behind."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aws_calls import AwsCalls, aws_client
from errors import TASK_NOT_FOUND, AwsError
from image_properties import STACK_TAG, TOKEN_TAG
from import_task_properties import tag_list

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

_AMI_GONE: Final = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"})
_OPTION: Final = "DeleteAssociatedSnapshots"
# ReturnCodes after which there is nothing to try again.
_FINAL: Final = frozenset({"success", "skipped"})
_SNAPSHOT_GONE: Final = frozenset({"InvalidSnapshot.NotFound"})


@dataclass(frozen=True)
class Task:
    """An ImportImage task, as EC2 describes it."""

    task_id: str
    status: str
    message: str
    tags: Mapping[str, str]
    snapshots: Sequence[str] = ()
    """Those that its disks became, or that it was given as disks."""
    given: Sequence[str] = ()

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Task:
        """Read an answer of ImportImage or a member of DescribeImportImageTasks."""
        details = [d for d in described.get("SnapshotDetails", []) if d.get("SnapshotId")]
        return cls(
            task_id=described["ImportTaskId"],
            status=described.get("Status", ""),
            message=described.get("StatusMessage", ""),
            tags=_tags(described),
            snapshots=[detail["SnapshotId"] for detail in details],
            given=[d["SnapshotId"] for d in details if not (d.get("UserBucket") or d.get("Url"))],
        )

    @property
    def is_active(self) -> bool:
        """Whether the import still goes on. Guides name states of it that EC2 never shows."""
        return not self.is_dead and self.status != "completed"

    @property
    def is_dead(self) -> bool:
        """Whether it failed or was cancelled. EC2 has no state for failure."""
        return self.status in {"deleting", "deleted"}

    @property
    def is_deleting(self) -> bool:
        """Whether EC2 still deletes it, and maybe what it made."""
        return self.status == "deleting"

    @property
    def token(self) -> str:
        """The token that it was made with."""
        return self.tags.get(TOKEN_TAG, "")


@dataclass(frozen=True)
class Ami:
    """An AMI of this account."""

    ami_id: str
    name: str
    snapshots: Sequence[str]
    tags: Mapping[str, str]


class ImportTasks(AwsCalls):
    """EC2's import tasks and AMIs in the account and Region of the function."""

    def all(self) -> list[Task]:
        """All tasks that EC2 knows: those that run, and those that ended within 7 days."""
        request: dict[str, Any] = {"MaxResults": 1000}
        tasks: list[Task] = []
        while True:
            page = self._call("ec2", "describe_import_image_tasks", **request)
            tasks += [Task.read(task) for task in page.get("ImportImageTasks", [])]
            if not page.get("NextToken"):
                return tasks
            request["NextToken"] = page["NextToken"]

    def get(self, task_id: str) -> Task | None:
        """The task, or None if EC2 does not know it (any more)."""
        try:
            found = self._call("ec2", "describe_import_image_tasks", ImportTaskIds=[task_id])
        except AwsError as error:
            if error.code in TASK_NOT_FOUND:
                return None
            raise
        return next((Task.read(task) for task in found.get("ImportImageTasks", [])), None)

    def import_image(self, request: Mapping[str, Any]) -> Task:
        """Start a task, or find the one that this request started before."""
        task = Task.read(self._call("ec2", "import_image", **request))
        logger.info({"action": "ImportImage", "task": task.task_id, "disks": _disks(request)})
        return task

    def cancel(self, task_id: str) -> None:
        """Cancel a task. One that ended meanwhile is left be."""
        logger.info({"action": "CancelImportTask", "task": task_id})
        try:
            self._call(
                "ec2",
                "cancel_import_task",
                ImportTaskId=task_id,
                CancelReason="CloudFormation removed the resource",
            )
        except AwsError as error:
            task = self.get(task_id)
            if task and task.is_active:
                raise
            logger.info({"action": "CancelImportTask", "task": task_id, "not": str(error)})

    def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Add tags, or change their values, of tasks, AMIs and snapshots."""
        logger.info({"action": "CreateTags", "of": ids, "keys": sorted(tags)})
        self._call("ec2", "create_tags", Resources=list(ids), Tags=tag_list(tags))

    def untag(self, ids: Sequence[str], keys: Iterable[str]) -> None:
        """Remove tags."""
        names = sorted(keys)
        logger.info({"action": "DeleteTags", "of": ids, "keys": names})
        self._call("ec2", "delete_tags", Resources=list(ids), Tags=[{"Key": key} for key in names])

    def amis_of(self, task_id: str) -> list[Ami]:
        """The AMI that a task made, if it is there: EC2 calls it by the task."""
        return self._amis("name", [task_id])

    def amis_tagged(self, stack_id: str, tokens: Sequence[str]) -> list[Ami]:
        """The AMIs of a stack that were tagged with one of the tokens of their task."""
        tagged = self._amis(f"tag:{TOKEN_TAG}", tokens)
        return [ami for ami in tagged if ami.tags.get(STACK_TAG) == stack_id]

    def is_shared(self, ami: Ami) -> bool:
        """Whether the AMI has launch permissions, for another account or for all."""
        answer = self._call(
            "ec2", "describe_image_attribute", ImageId=ami.ami_id, Attribute="launchPermission"
        )
        return bool(answer.get("LaunchPermissions"))

    def deregister(self, ami: Ami, spared: Collection[str]) -> dict[str, str]:
        """Delete the AMI and its snapshots; return why a snapshot was not, for those that were not.

        A snapshot that another AMI uses is not: EC2 skips it. Nor are those that are spared.
        """
        logger.info({"action": "DeregisterImage", "ami": ami.ami_id, "snapshots": ami.snapshots})
        model = aws_client("ec2").meta.service_model.operation_model("DeregisterImage")
        # Lambda's boto3 may be older than the option.
        whole = _OPTION in model.input_shape.members and not {*spared} & {*ami.snapshots}
        option = {_OPTION: True} if whole else {}
        codes: dict[str, str] = {}
        try:
            answer = self._call("ec2", "deregister_image", ImageId=ami.ami_id, **option)
        except AwsError as error:
            # An answer that was lost left the snapshots in doubt.
            if error.code not in _AMI_GONE:
                raise
        else:
            results = answer.get("DeleteSnapshotResults", [])
            codes = {result["SnapshotId"]: result.get("ReturnCode", "") for result in results}
        again = {s for s in ami.snapshots if codes.get(s) not in _FINAL} - {*spared}
        skipped = {snapshot: code for snapshot, code in codes.items() if code == "skipped"}
        return skipped | self.delete_snapshots(sorted(again))

    def snapshots_tagged(self, stack_id: str, token: str) -> list[str]:
        """The snapshots of a stack that were tagged so."""
        return list(self._snapshots({f"tag:{STACK_TAG}": [stack_id], f"tag:{TOKEN_TAG}": [token]}))

    def stacks_of(self, snapshots: Sequence[str]) -> dict[str, str]:
        """Of these snapshots those that are there, each with the stack that it is tagged with."""
        found = self._snapshots({"snapshot-id": snapshots}) if snapshots else {}
        return {snapshot_id: tags.get(STACK_TAG, "") for snapshot_id, tags in found.items()}

    def delete_snapshots(self, ids: Iterable[str]) -> dict[str, str]:
        """Delete snapshots; return why one was not, for those that were not."""
        refused = {}
        for snapshot_id in ids:
            try:
                self._call("ec2", "delete_snapshot", SnapshotId=snapshot_id)
            except AwsError as error:
                if error.code not in _SNAPSHOT_GONE:
                    refused[snapshot_id] = error.code
        return refused

    def _snapshots(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
        """Snapshots, each with its tags."""
        filters = [{"Name": name, "Values": list(values)} for name, values in wanted.items()]
        found = self._call("ec2", "describe_snapshots", OwnerIds=["self"], Filters=filters)
        return {s["SnapshotId"]: _tags(s) for s in found.get("Snapshots", [])}

    def _amis(self, name: str, values: Sequence[str]) -> list[Ami]:
        found = self._call(
            "ec2",
            "describe_images",
            Owners=["self"],
            Filters=[{"Name": name, "Values": list(values)}],
        )
        return [
            Ami(
                ami_id=ami["ImageId"],
                name=ami.get("Name", ""),
                snapshots=[
                    mapping["Ebs"]["SnapshotId"]
                    for mapping in ami.get("BlockDeviceMappings", [])
                    if mapping.get("Ebs", {}).get("SnapshotId")
                ],
                tags=_tags(ami),
            )
            for ami in found.get("Images", [])
        ]


def _tags(described: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in described.get("Tags", [])}


def _disks(request: Mapping[str, Any]) -> list[str]:
    return [
        disk.get("SnapshotId") or "s3://{S3Bucket}/{S3Key}".format_map(disk["UserBucket"])
        for disk in request["DiskContainers"]
    ]
