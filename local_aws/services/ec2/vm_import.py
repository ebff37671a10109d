"""EC2's VM Import: ImportImage, DescribeImportImageTasks, CancelImportTask.

The behaviour follows public logs of import tasks, and
https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-image-import.html
"""

from __future__ import annotations

import math
import random
import re
import string
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.ec2.disk_images import FORMATS, Disk, DiskError, read_disks
from local_aws.services.ec2.permissions import pass_role_check, read_disk_checks
from local_aws.services.ec2.tags import check_tags
from local_aws.services.iam.authorization import role_may, service_may_assume
from local_aws.services.iam.role_policies import role_seen_by_services
from local_aws.services.paging import ec2_page
from local_aws.services.service_model import ServiceError, refuse_dry_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.faults import ImportFailure
    from local_aws.server.world import World
    from local_aws.services.iam.authorization import Check
    from local_aws.services.service_model import Operation

# Share of the duration, Progress, StatusMessage. Order and numbers are observed, the shares are
# not.
_STEPS: Final = (
    (0.00, 2, "pending"),
    (0.05, 2, "validating"),
    (0.10, 2, "validated"),
    (0.15, 28, "converting"),
    (0.55, 34, "updating"),
    (0.65, 34, "updated"),
    (0.70, 58, "preparing to boot"),
    (0.75, 58, "booting"),
    (0.85, 58, "booted"),
    (0.90, 84, "preparing ami"),
)
_PROGRESS_OF_PLATFORM: Final = 58
_SECONDS_REMEMBERED: Final = 7 * 86400
# https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
_ROLE_NEEDS: Final = ("CopySnapshot", "DescribeImages", "ModifySnapshotAttribute", "RegisterImage")
_ROLE_NEEDS_OF_KEY: Final = (
    "CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom",
)  # fmt: skip
_ROLE_NEEDS_OF_LICENSES: Final = (
    "GetLicenseConfiguration", "ListLicenseSpecificationsForResource",
    "UpdateLicenseSpecificationsForResource",
)  # fmt: skip
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/billing-info-fields.html
_WINDOWS: Final = "RunInstances:0002"
_PLATFORM_DETAILS: Final = {
    "RunInstances": "Linux/UNIX",
    "RunInstances:0004": "Linux with SQL Server Standard",
    "RunInstances:0100": "Linux with SQL Server Enterprise",
    "RunInstances:0200": "Linux with SQL Server Web",
    "RunInstances:0010": "Red Hat Enterprise Linux",
    "RunInstances:00g0": "Red Hat BYOL Linux",
    "RunInstances:0014": "Red Hat Enterprise Linux with SQL Server Standard",
    "RunInstances:0110": "Red Hat Enterprise Linux with SQL Server Enterprise",
    "RunInstances:0210": "Red Hat Enterprise Linux with SQL Server Web",
    "RunInstances:1010": "Red Hat Enterprise Linux with HA",
    "RunInstances:1014": "Red Hat Enterprise Linux with HA and SQL Server Standard",
    "RunInstances:1110": "Red Hat Enterprise Linux with HA and SQL Server Enterprise",
    "RunInstances:000g": "SUSE Linux",
    "RunInstances:0g00": "Ubuntu Pro",
    _WINDOWS: "Windows",
    "RunInstances:0006": "Windows with SQL Server Standard",
    "RunInstances:0102": "Windows with SQL Server Enterprise",
    "RunInstances:0202": "Windows with SQL Server Web",
    "RunInstances:0800": "Windows BYOL",
}
_FORBIDDEN: Final = (
    "ClientError: Disk validation failed "
    "[We do not have access to the given resource. Reason 403 Forbidden]"
)

# The text is not known.
_LICENSES_DENIED: Final = "ClientError: The service role may not use the license configurations"
# https://docs.aws.amazon.com/vm-import/latest/userguide/limitations-image-importing.html
_MOST_DISKS: Final = 21
# The text is not known.
_TOO_MANY_DISKS: Final = f"ClientError: More than {_MOST_DISKS} volumes are not supported"
# There are more names than disks. That the others follow the root volume in order is inferred.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html
_ROOT_DEVICE: Final = "/dev/sda1"
_OTHER_DEVICES: Final = tuple(f"/dev/sd{letter}" for letter in string.ascii_lowercase[1:])


@dataclass
class ImportTask:
    """An ImportImage task.

    Attributes:
        task_id: import-ami- and 17 hexadecimal digits.
        request: Its ImportImage request.
        details: Its SnapshotDetails, which grow during the import.
        status: active, completed, deleting or deleted.
        progress: 0 to 100, while active.
        message: StatusMessage, unless it is completed.
        image_id: The AMI, when it is completed.
        ami_name: The name of the AMI.
        ended: When it ended, in AWS time.
        watchers: What runs when it ends.
    """

    task_id: str
    request: dict[str, Any]
    details: list[dict[str, Any]]
    status: str = "active"
    progress: int = 2
    message: str = "pending"
    image_id: str = ""
    ami_name: str = ""
    ended: float | None = None
    watchers: list[Callable[[], None]] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Return whether it failed or was cancelled."""
        return self.status in ("deleting", "deleted")

    def when_ended(self, action: Callable[[], None]) -> None:
        """Run `action` when the task completes or fails, or at once if it has."""
        if self.status == "active":
            self.watchers.append(action)
        else:
            action()

    def created_snapshots(self) -> set[str]:
        """Return the snapshots that the import created, without those that are its disks."""
        created = {detail["SnapshotId"] for detail in self.details if "SnapshotId" in detail}
        return created - {disk.get("SnapshotId") for disk in self.request["DiskContainers"]}

    def view(self) -> dict[str, Any]:
        """Return the task as DescribeImportImageTasks shows it."""
        echoed = (
            "Architecture", "BootMode", "Description", "Encrypted", "Hypervisor", "KmsKeyId",
            "LicenseSpecifications", "LicenseType", "Platform", "UsageOperation",
        )  # fmt: skip
        shown = {name: self.request[name] for name in echoed if name in self.request}
        if self.progress >= _PROGRESS_OF_PLATFORM or self.status == "completed":
            shown = {"Architecture": "x86_64", "Platform": "Linux"} | shown
        shown |= {
            "ImportTaskId": self.task_id,
            "SnapshotDetails": self.details,
            "Status": self.status,
            "Tags": seams.EC2_TAGS.get(self.task_id, []),
        }
        if self.status == "active":
            shown["Progress"] = str(self.progress)
        if self.status == "completed":
            shown["ImageId"] = self.image_id
        elif self.message:
            shown["StatusMessage"] = self.message
        return shown


class VmImport:
    """VM Import in all accounts and Regions of a server."""

    def __init__(self, world: World) -> None:
        """Start without tasks."""
        self._world = world
        self._tasks: dict[str, ImportTask] = seams.AccountRegionScopedDict()
        self._tokens: dict[str, tuple[dict[str, Any], str, float]] = seams.AccountRegionScopedDict()
        self.operations: dict[str, Operation] = {
            "ImportImage": self.import_image,
            "DescribeImportImageTasks": self.describe_import_image_tasks,
            "CancelImportTask": self.cancel_import_task,
        }

    @property
    def resources(self) -> list[Any]:
        """Everything that the operations of VM Import, and of its AMIs, create and change."""
        return [self._tasks, seams.AMIS, seams.SNAPSHOTS, seams.EC2_TAGS]

    def reset(self) -> None:
        """Delete all tasks."""
        self._tasks.clear()
        self._tokens.clear()

    def task(self, task_id: str) -> ImportTask | None:
        """Return a task until 7 days after its end, as EC2 does."""
        task = self._tasks.get(task_id)
        if task and task.ended is not None:
            age = self._world.clock.now() - task.ended
            if age > _SECONDS_REMEMBERED:
                return None
        return task

    def import_image(self, request: dict[str, Any]) -> dict[str, Any]:
        """ImportImage."""
        token = request.pop("ClientToken", None)
        if token and (task := self._replayed(token, request)):
            return _without_boot_mode(task.view())
        _check(request)
        role = request.get("RoleName", "vmimport")
        # EC2 has one message for a role that does not exist, that does not trust VM Import, or that
        # the caller may not pass. Inferred: also for a caller that may not read the disks.
        if (
            not _role_is_sufficient(role, request)
            or (self._world.knobs.licenses_denied == "refuse" and not _may_use_licenses(request))
            or _pass_role(role).refusal
            or (self._world.knobs.import_checks_caller and not _caller_may_read(request))
        ):
            raise ServiceError(
                "InvalidParameter",
                f"The service role {role} does not exist or does not have sufficient permissions "
                "for the service to continue",
            )
        refuse_dry_run(request)
        task = ImportTask(
            task_id=f"import-ami-{random.getrandbits(68):017x}",
            request=request,
            details=[_detail(container) for container in request["DiskContainers"]],
        )
        seams.EC2_TAGS[task.task_id] = _given_tags(request)
        self._tasks[task.task_id] = task
        if token:
            expiry = self._world.clock.now() + self._world.knobs.import_idempotency_seconds
            self._tokens[token] = (request, task.task_id, expiry)
        self._plan(task, 1)
        return _without_boot_mode(task.view())

    def describe_import_image_tasks(self, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeImportImageTasks."""
        refuse_dry_run(request)
        if ids := request.get("ImportTaskIds"):
            tasks = [self._known(task_id) for task_id in ids]
        else:
            tasks = [task for task_id in self._tasks if (task := self.task(task_id))]
        for wanted in request.get("Filters", []):
            if wanted.get("Name") != "task-state":
                raise ServiceError(
                    "InvalidParameterValue", f"The filter '{wanted.get('Name')}' is invalid"
                )
            tasks = [task for task in tasks if task.status in wanted.get("Values", [])]
        return ec2_page("ImportImageTasks", [task.view() for task in tasks], request)

    def cancel_import_task(self, request: dict[str, Any]) -> dict[str, Any]:
        """CancelImportTask."""
        if "ImportTaskId" not in request:
            raise ServiceError(
                "MissingParameter", "The request must contain the parameter ImportTaskId"
            )
        task = self._known(request["ImportTaskId"])
        refuse_dry_run(request)
        before = task.status
        if before == "active":
            message = request.get("CancelReason") or self._world.knobs.cancelled_task_message
            self.fail(task, message)
        elif self._world.knobs.cancel_ended_task == "refuse":
            raise ServiceError(
                "IncorrectState", f"The import task {task.task_id} is {before}, not active"
            )
        return {"ImportTaskId": task.task_id, "PreviousState": before, "State": task.status}

    def fail(self, task: ImportTask, message: str) -> None:
        """Fail a task: as in EC2, it is deleting, then deleted, and never has the status failed."""
        task.status, task.message = "deleting", message
        self._end(task)

        def delete() -> None:
            task.status = "deleted"
            if self._world.knobs.snapshots_of_failed_import == "delete":
                for snapshot_id in task.created_snapshots():
                    seams.SNAPSHOTS.pop(snapshot_id, None)
                    seams.EC2_TAGS.pop(snapshot_id, None)

        self._world.call_in(self._world.knobs.deleting_seconds, delete)
        self._notify(task)

    def _replayed(self, token: str, request: dict[str, Any]) -> ImportTask | None:
        first, task_id, expiry = self._tokens.get(token, ({}, "", 0.0))
        task = self.task(task_id)
        if task is None or expiry <= self._world.clock.now():
            return None
        if first != request:
            raise ServiceError(
                "IdempotentParameterMismatch",
                "The client token has been used before with other parameters",
            )
        return task

    def _known(self, task_id: str) -> ImportTask:
        if task := self.task(task_id):
            return task
        raise ServiceError(
            "InvalidConversionTaskId.Malformed", f"The import task id '{task_id}' is malformed"
        )

    def _plan(self, task: ImportTask, step: int) -> None:
        duration = self._world.knobs.import_seconds
        begun = _STEPS[step - 1][0]
        if step == len(_STEPS):
            self._world.call_in(duration * (1 - begun), lambda: self._complete(task))
        else:
            share, *_ = _STEPS[step]
            self._world.call_in(duration * (share - begun), lambda: self._step(task, step))

    def _step(self, task: ImportTask, step: int) -> None:
        if task.status != "active":
            return
        _, task.progress, task.message = _STEPS[step]
        if failure := self._taken_failure(task):
            if failure.message is not None:
                self.fail(task, failure.message)
            return
        try:
            self._perform(task)
        except DiskError as error:
            self.fail(task, str(error))
            return
        self._plan(task, step + 1)

    def _perform(self, task: ImportTask) -> None:
        """Do what the current step of a task does.

        Raises:
            DiskError: The import fails.
        """
        match task.message:
            case "validating":
                if not _may_use_licenses(task.request):
                    raise DiskError(_LICENSES_DENIED)
                task.details = _validated(task)
            case "updating":  # The disks are converted.
                for detail in task.details:
                    detail["Status"] = "completed"
            case "preparing to boot":
                _name_devices(task.details)
            case "preparing ami":
                self._make_snapshots(task)

    def _taken_failure(self, task: ImportTask) -> ImportFailure | None:
        for failure in self._world.import_failures:
            aimed = failure.task_id in (None, task.task_id)
            if aimed and task.progress >= failure.fail_at_progress:
                self._world.import_failures.remove(failure)
                return failure
        return None

    def _make_snapshots(self, task: ImportTask) -> None:
        for detail in task.details:
            if "SnapshotId" in detail:  # the snapshot is the disk
                continue
            snapshot_id = detail["SnapshotId"] = f"snap-{random.getrandbits(68):017x}"
            seams.SNAPSHOTS[snapshot_id] = {
                "SnapshotId": snapshot_id,
                "VolumeId": "vol-ffffffff",
                "VolumeSize": max(1, math.ceil(detail["DiskImageSize"] / 2**30)),
                "Description": f"Created by AWS-VMImport service for {task.task_id}",
                "State": "completed",
                "StartTime": self._world.clock.timestamp(),
                "Progress": "100%",
                "OwnerId": seams.get_account_id(),
                "Encrypted": task.request.get("Encrypted", False),
                "StorageTier": "standard",
            }

    def _complete(self, task: ImportTask) -> None:
        if task.status != "active":
            return
        task.image_id = f"ami-{random.getrandbits(68):017x}"
        is_named_after_task = self._world.knobs.imported_ami_name == "task_id"
        task.ami_name = task.task_id if is_named_after_task else f"import-{task.image_id}"
        ami = {
            "ImageId": task.image_id,
            "Name": task.ami_name,
            "Description": task.request.get("Description", ""),
            "Architecture": task.request.get("Architecture", "x86_64"),
            "ImageLocation": "",
            "RootDeviceType": "ebs",
            "RootDeviceName": task.details[0]["DeviceName"],
            "BlockDeviceMappings": [
                {
                    "DeviceName": detail["DeviceName"],
                    "Ebs": {
                        "SnapshotId": detail["SnapshotId"],
                        "VolumeSize": str(max(1, math.ceil(detail["DiskImageSize"] / 2**30))),
                        "VolumeType": "gp2",
                        "DeleteOnTermination": "true",
                    },
                }
                for detail in task.details
            ],
            "VirtualizationType": "hvm",
            "OwnerId": seams.get_account_id(),
            "Encrypted": task.request.get("Encrypted", False),
            "KmsKeyId": task.request.get("KmsKeyId", ""),
        }
        ami["Details"] = self._details_of_ami(task, str(ami["Name"]))
        seams.EC2_TAGS.setdefault(task.image_id, [])  # tags can be created from now on
        listed = partial(seams.AMIS.__setitem__, task.image_id, ami)
        if delay := self._world.knobs.ami_listing_seconds:
            self._world.call_in(delay, listed)
        else:
            listed()
        task.status = "completed"
        self._end(task)
        self._notify(task)

    def _end(self, task: ImportTask) -> None:
        task.ended = self._world.clock.now()
        # Inferred: a task that is no longer shown cannot be tagged either.
        self._world.call_in(_SECONDS_REMEMBERED, lambda: seams.EC2_TAGS.pop(task.task_id, None))

    def _details_of_ami(self, task: ImportTask, name: str) -> dict[str, Any]:
        """Return what DescribeImages shows of an imported AMI, and MiniStack does not know."""
        request = task.request
        is_windows = request.get("Platform") == "Windows"
        license_ = "RunInstances:0800" if request.get("LicenseType") == "BYOL" else _WINDOWS
        usage = request.get("UsageOperation") or (license_ if is_windows else "RunInstances")
        details = {
            "CreationDate": self._world.clock.timestamp(),
            "ImageLocation": f"{seams.get_account_id()}/{name}",
            "UsageOperation": usage,
            "PlatformDetails": _PLATFORM_DETAILS[usage],
        }
        if is_windows:
            details["Platform"] = "windows"
        if "BootMode" in request:
            details["BootMode"] = request["BootMode"]
        return details

    def _notify(self, task: ImportTask) -> None:
        watchers, task.watchers = task.watchers, []
        for watcher in watchers:
            watcher()


def _check(request: dict[str, Any]) -> None:  # noqa: C901 - one line for each rule
    def refuse(name: str, value: object, why: str) -> None:
        raise ServiceError(
            "InvalidParameter", f'The parameter {name}="{value}" has an invalid format: {why}'
        )

    containers = request.get("DiskContainers")
    if not containers:
        raise ServiceError(
            "MissingParameter", "The request must contain the parameter DiskContainers"
        )
    for container in containers:
        if sum(name in container for name in ("Url", "UserBucket", "SnapshotId")) != 1:
            refuse("DiskContainers", container, "use one of Url, UserBucket and SnapshotId")
        if container.get("Format", "RAW").upper() not in FORMATS:
            refuse("format", container["Format"], f"use one of {', '.join(FORMATS)}")
        if "Url" in container and not _place(container):
            refuse("url", container["Url"], "use the address of an object in S3")
        bucket = container.get("UserBucket")
        if bucket is not None and not (bucket.get("S3Bucket") and bucket.get("S3Key")):
            refuse("UserBucket", bucket, "S3Bucket and S3Key are required")
    for name, allowed in (
        ("Architecture", ("i386", "x86_64")),
        ("BootMode", ("legacy-bios", "uefi")),
        ("Hypervisor", ("xen",)),
        ("Platform", ("Windows", "Linux")),
        ("UsageOperation", _PLATFORM_DETAILS),
        ("LicenseType", ("BYOL",) if request.get("Platform") == "Linux" else ("AWS", "BYOL")),
    ):
        if name in request and request[name] not in allowed:
            refuse(name.lower(), request[name], f"use one of {', '.join(allowed)}")
    if "KmsKeyId" in request and not request.get("Encrypted"):
        refuse("KmsKeyId", request["KmsKeyId"], "set Encrypted too")
    for specification in request.get("TagSpecifications", []):
        if specification.get("ResourceType") != "import-image-task":
            refuse("ResourceType", specification.get("ResourceType"), "use import-image-task")

    check_tags(_given_tags(request))


def _given_tags(request: dict[str, Any]) -> list[dict[str, str]]:
    specifications = request.get("TagSpecifications", [])
    return [tag for specification in specifications for tag in specification.get("Tags", [])]


def _place(container: dict[str, Any]) -> tuple[str, str] | None:
    """Return bucket and key of a disk container, if it names an object."""
    if bucket := container.get("UserBucket"):
        return bucket["S3Bucket"], bucket["S3Key"]
    match = re.fullmatch(
        r"s3://([^/]+)/(.+)|https://([^./]+)\.s3[^/]*/(.+)|https://s3[^/]*/([^/]+)/(.+)",
        container.get("Url", ""),
    )
    if not match:
        return None
    bucket_name, key = (group for group in match.groups() if group)
    return bucket_name, key


def _detail(container: dict[str, Any]) -> dict[str, Any]:
    detail: dict[str, Any] = {
        name: container[name]
        for name in ("Description", "DeviceName", "SnapshotId", "Url", "UserBucket")
        if name in container
    }
    if "Format" in container:
        detail["Format"] = container["Format"].upper()
    return detail | {"DiskImageSize": 0.0}


def _validated(task: ImportTask) -> list[dict[str, Any]]:
    """Return the details after reading the disks: with sizes, and each disk of an OVA."""
    details = []
    for detail in task.details:
        if snapshot := seams.SNAPSHOTS.get(detail.get("SnapshotId")):
            disks = [Disk("RAW", snapshot["VolumeSize"] * 2**30)]
        else:
            disks = read_disks(detail.get("Format"), _disk_data(task, detail))
        # An OVA names one device, that of its first disk.
        without_device = {name: value for name, value in detail.items() if name != "DeviceName"}
        details += [
            {
                **(without_device if index else detail),
                "Format": disk.format,
                "DiskImageSize": float(disk.size),
                "Status": "active",
            }
            for index, disk in enumerate(disks)
        ]
    if len(details) > _MOST_DISKS:
        raise DiskError(_TOO_MANY_DISKS)
    return details


def _name_devices(details: list[dict[str, Any]]) -> None:
    """Name the devices of the disks that have no name; the first disk is the root volume."""
    taken = {detail.get("DeviceName") for detail in details}
    for index, detail in enumerate(details):
        if "DeviceName" in detail:
            continue
        names = _OTHER_DEVICES if index else (_ROOT_DEVICE, *_OTHER_DEVICES)
        detail["DeviceName"] = next(name for name in names if name not in taken)
        taken.add(detail["DeviceName"])


def _disk_data(task: ImportTask, detail: dict[str, Any]) -> bytes:
    place = _place(detail)
    data: bytes | None = None
    role = task.request.get("RoleName", "vmimport")
    if place and _may_read(role, *place):
        data = seams.get_object_data(*place)
    if data is None:
        raise DiskError(_FORBIDDEN)
    return data


def _vm_import_may_assume(role_name: str) -> bool:
    keys = {"sts:Externalid": "vmimport", "aws:SourceAccount": seams.get_account_id()}
    return service_may_assume("vmie.amazonaws.com", role_name, keys)


def _role_is_sufficient(role_name: str, request: dict[str, Any]) -> bool:
    actions = [(f"ec2:{action}", "*") for action in _ROLE_NEEDS]
    if key := request.get("KmsKeyId"):
        actions += [(f"kms:{action}", _key_arn(key)) for action in _ROLE_NEEDS_OF_KEY]
    return _vm_import_may_assume(role_name) and all(
        role_may(role_name, action, resource) for action, resource in actions
    )


def _may_use_licenses(request: dict[str, Any]) -> bool:
    role = request.get("RoleName", "vmimport")
    return not request.get("LicenseSpecifications") or all(
        role_may(role, f"license-manager:{action}", "*") for action in _ROLE_NEEDS_OF_LICENSES
    )


def _may_read(role_name: str, bucket: str, key: str) -> bool:
    arn = f"arn:aws:s3:::{bucket}"
    actions: list[tuple[str, str, dict[str, str]]] = [
        ("s3:GetBucketLocation", arn, {}),
        ("s3:ListBucket", arn, {}),
        ("s3:GetObject", f"{arn}/{key}", {}),
    ]
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
    object_ = seams.BUCKETS.get(bucket, {}).get("objects", {}).get(key, {})
    encrypted = object_.get("preserved_headers", {})
    if key_id := encrypted.get("x-amz-server-side-encryption-aws-kms-key-id"):
        # S3 decrypts the object with the permissions of the role.
        through_s3 = {"kms:ViaService": f"s3.{seams.get_region()}.amazonaws.com"}
        actions.append(("kms:Decrypt", _key_arn(key_id), through_s3))
    return all(role_may(role_name, *action) for action in actions)


def _caller_may_read(request: dict[str, Any]) -> bool:
    places = filter(None, map(_place, request["DiskContainers"]))
    return not any(check.refusal for place in places for check in read_disk_checks(*place))


def _key_arn(key: str) -> str:
    found = seams.find_key(key)
    return found["Arn"] if found else key


def _pass_role(role_name: str) -> Check:
    return pass_role_check((role_seen_by_services(role_name) or {})["Arn"])


def _without_boot_mode(view: dict[str, Any]) -> dict[str, Any]:
    # The response of ImportImage has no BootMode.
    return {name: value for name, value in view.items() if name != "BootMode"}
