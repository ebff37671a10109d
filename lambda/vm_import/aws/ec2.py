"""The calls to EC2: import tasks, and the AMIs and snapshots that they create."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from aws.session import READS, AwsApi, aws_client, read_until_found
from errors import AwsError, without_end
from identity import Existing

logger = logging.getLogger(__name__)

# For an id that EC2 does not know, or knows no more: InvalidConversionTaskId.Malformed and others.
_TASK_UNKNOWN: Final = "InvalidConversionTaskId"
# EC2 has no other states for a task that failed or was cancelled.
_FAILED: Final = frozenset({"deleting", "deleted"})
_AMI_GONE: Final = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"})
_SNAPSHOT_GONE: Final = "InvalidSnapshot.NotFound"
_WITH_SNAPSHOTS: Final = "DeleteAssociatedSnapshots"
# ReturnCodes of DeregisterImage after which another attempt changes nothing.
_FINAL: Final = frozenset({"success", "skipped"})


@dataclass(frozen=True)
class ImportTask(Existing):
    """An ImportImage task, as EC2 describes it. Without a status EC2 no longer knows it."""

    message: str = ""
    progress: str = ""
    ami: str = ""
    snapshots: Sequence[str] = ()
    """Those that its disks became, and those that it was given as disks."""
    source_snapshots: Sequence[str] = ()
    """Those that it was given as disks."""

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Self:
        """Read a response of ImportImage or a member of DescribeImportImageTasks."""
        details = [d for d in described.get("SnapshotDetails", []) if d.get("SnapshotId")]
        return cls(
            id=described["ImportTaskId"],
            status=described.get("Status", ""),
            message=without_end(described.get("StatusMessage", "")),
            progress=described.get("Progress", ""),
            ami=described.get("ImageId", ""),
            tags=read_tags(described),
            snapshots=[detail["SnapshotId"] for detail in details],
            source_snapshots=[
                d["SnapshotId"] for d in details if not (d.get("UserBucket") or d.get("Url"))
            ],
        )

    @property
    def is_active(self) -> bool:
        """Whether the import has not ended. EC2's guide names states that EC2 never returns."""
        return self.status not in {"", "completed", *_FAILED}

    @property
    def has_ended(self) -> bool:
        """Whether EC2 changes nothing of it any more."""
        return not self.is_active and self.status != "deleting"

    @property
    def is_completed(self) -> bool:
        """Whether the import succeeded."""
        return self.status == "completed"

    @property
    def is_usable(self) -> bool:
        """Whether an image can be imported from it."""
        return self.status not in _FAILED


@dataclass(frozen=True)
class Ami:
    """An AMI of this account."""

    id: str
    name: str
    snapshots: Sequence[str]
    tags: Mapping[str, str]
    imds_support: str = ""
    """`v2.0`, or empty."""
    deprecate_at: str = ""
    """When it is or was deprecated, as `2027-11-24T12:00:00.000Z`, or empty."""


# The member of EC2's LaunchPermission, such as `UserId`, and its value.
Permission = tuple[str, str]


class Ec2(AwsApi):
    """EC2's import tasks, AMIs and snapshots in the account and Region of the function."""

    service: ClassVar[str] = "ec2"

    def tasks(self) -> list[ImportTask]:
        """Return all tasks that EC2 knows: active ones, and those that ended within 7 days."""
        pages = self._pages("describe_import_image_tasks", MaxResults=1000)
        return [
            ImportTask.read(task) for page in pages for task in page.get("ImportImageTasks", [])
        ]

    def task(self, task_id: str) -> ImportTask | None:
        """Return the task, or None if EC2 does not know it, or knows it no more.

        Reads may lag behind its start, so for that a single one proves nothing; see `known_task`.
        """
        try:
            found = self._call("describe_import_image_tasks", ImportTaskIds=[task_id])
        except AwsError as error:
            if error.code.startswith(_TASK_UNKNOWN):
                return None
            raise
        return next((ImportTask.read(task) for task in found.get("ImportImageTasks", [])), None)

    def known_task(self, task_id: str) -> ImportTask | None:
        """Return the task, or None if EC2 does not know it in several reads."""
        return read_until_found(lambda: self.task(task_id), READS)

    def import_image(self, request: Mapping[str, Any]) -> ImportTask:
        """Start a task, or return the one that this request started before."""
        task = ImportTask.read(self._call("import_image", **request))
        logger.info("ImportImage started %s", task.id)
        return task

    def cancel(self, task_id: str) -> None:
        """Cancel a task, unless it has ended."""
        logger.info("CancelImportTask cancels %s", task_id)
        try:
            self._call(
                "cancel_import_task",
                ImportTaskId=task_id,
                CancelReason="CloudFormation deleted the resource",
            )
        except AwsError as error:

            def has_ended() -> bool:
                task = self.task(task_id)
                return task is None or not task.is_active

            if not read_until_found(has_ended, READS):
                raise
            logger.info("%s had ended: %s", task_id, error)

    def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Add tags of tasks, AMIs and snapshots, or change their values."""
        logger.info("CreateTags tags %s with %s", ", ".join(ids), ", ".join(sorted(tags)))
        self._call("create_tags", Resources=list(ids), Tags=tag_list(tags))

    def untag(self, ids: Sequence[str], keys: Iterable[str]) -> None:
        """Remove tags of tasks, AMIs and snapshots."""
        names = sorted(keys)
        logger.info("DeleteTags removes from %s %s", ", ".join(ids), ", ".join(names))
        self._call("delete_tags", Resources=list(ids), Tags=[{"Key": key} for key in names])

    def amis(self, filter_name: str, values: Sequence[str]) -> list[Ami]:
        """Return the AMIs of this account that match a filter.

        Args:
            filter_name: `image-id`; or `name`, which for an imported AMI is the id of the task; or
                `tag:<key>`.
            values: The values that match.
        """
        filters = _filters({filter_name: values})
        found = self._call("describe_images", Owners=["self"], Filters=filters)
        return [
            Ami(
                id=ami["ImageId"],
                name=ami.get("Name", ""),
                snapshots=[
                    mapping["Ebs"]["SnapshotId"]
                    for mapping in ami.get("BlockDeviceMappings", [])
                    if mapping.get("Ebs", {}).get("SnapshotId")
                ],
                tags=read_tags(ami),
                imds_support=ami.get("ImdsSupport", ""),
                deprecate_at=ami.get("DeprecationTime", ""),
            )
            for ami in found.get("Images", [])
        ]

    def launch_permissions(self, ami_id: str) -> frozenset[Permission]:
        """Return the launch permissions of an AMI: for whom it is shared."""
        response = self._call(
            "describe_image_attribute", ImageId=ami_id, Attribute="launchPermission"
        )
        permissions = response.get("LaunchPermissions", [])
        return frozenset(item for permission in permissions for item in permission.items())

    def change_launch_permissions(
        self, ami_id: str, add: Iterable[Permission], remove: Iterable[Permission]
    ) -> None:
        """Add and remove launch permissions of an AMI."""
        changes = {}
        for name, words, permissions in (
            ("Add", "shares", add),
            ("Remove", "no longer shares", remove),
        ):
            if items := sorted(permissions):
                changes[name] = [{member: value} for member, value in items]
                whom = ", ".join(value for _, value in items)
                logger.info("ModifyImageAttribute %s %s with %s", words, ami_id, whom)
        if changes:
            self._call("modify_image_attribute", ImageId=ami_id, LaunchPermission=changes)

    def set_imds_support(self, ami_id: str, value: str) -> None:
        """Have instances of the AMI require IMDSv2. EC2 cannot undo this."""
        logger.info("ModifyImageAttribute sets the IMDS support of %s to %s", ami_id, value)
        self._call("modify_image_attribute", ImageId=ami_id, ImdsSupport={"Value": value})

    def deprecate(self, ami_id: str, deprecate_at: str) -> None:
        """Deprecate the AMI from a time on; never if that is empty."""
        if deprecate_at:
            logger.info("EnableImageDeprecation deprecates %s at %s", ami_id, deprecate_at)
            self._call("enable_image_deprecation", ImageId=ami_id, DeprecateAt=deprecate_at)
        else:
            logger.info("DisableImageDeprecation ends the deprecation of %s", ami_id)
            self._call("disable_image_deprecation", ImageId=ami_id)

    def deregister(
        self, ami: Ami, retained: Collection[str], repeats: Callable[[AwsError], bool]
    ) -> dict[str, str]:
        """Delete the AMI and its snapshots.

        Args:
            ami: The AMI.
            retained: Snapshots to retain. EC2 itself retains those that another AMI uses.
            repeats: Which errors are raised: those that may pass when the step is repeated.

        Returns:
            The snapshots that still exist, each with the reason.
        """
        logger.info("DeregisterImage deletes %s with %s", ami.id, ", ".join(ami.snapshots))
        model = aws_client("ec2").meta.service_model.operation_model("DeregisterImage")
        # Lambda's boto3 may be older than the option.
        is_known = _WITH_SNAPSHOTS in model.input_shape.members
        option: dict[str, Any] = (
            {_WITH_SNAPSHOTS: True} if is_known and not {*retained} & {*ami.snapshots} else {}
        )
        codes: dict[str, str] = {}
        try:
            response = self._call("deregister_image", ImageId=ami.id, **option)
        except AwsError as error:
            # The AMI is gone if an earlier response was lost; its snapshots may still exist.
            if error.code not in _AMI_GONE:
                raise
        else:
            results = response.get("DeleteSnapshotResults", [])
            codes = {result["SnapshotId"]: result.get("ReturnCode", "") for result in results}
        again = {s for s in ami.snapshots if codes.get(s) not in _FINAL} - {*retained}
        skipped = {snapshot: code for snapshot, code in codes.items() if code == "skipped"}
        return skipped | self.delete_snapshots(sorted(again), repeats)

    def snapshots(self, filters: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
        """Return the snapshots of this account that match all filters, each with its tags."""
        found = self._call("describe_snapshots", OwnerIds=["self"], Filters=_filters(filters))
        return {s["SnapshotId"]: read_tags(s) for s in found.get("Snapshots", [])}

    def delete_snapshots(
        self, ids: Iterable[str], repeats: Callable[[AwsError], bool]
    ) -> dict[str, str]:
        """Delete snapshots.

        Args:
            ids: The snapshots.
            repeats: Which errors are raised: those that may pass when the step is repeated.

        Returns:
            The snapshots that EC2 refused to delete, each with the error code.
        """
        refused = {}
        for snapshot_id in ids:
            try:
                self._call("delete_snapshot", SnapshotId=snapshot_id)
            except AwsError as error:
                if error.code == _SNAPSHOT_GONE:
                    continue
                if repeats(error):
                    raise
                refused[snapshot_id] = error.code
        return refused


def read_tags(described: Mapping[str, Any]) -> dict[str, str]:
    """Read the tags of what EC2 describes."""
    return {tag["Key"]: tag.get("Value", "") for tag in described.get("Tags", [])}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Write tags in EC2's form."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _filters(filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": list(values)} for name, values in filters.items()]
