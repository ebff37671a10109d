"""A disk of a virtual machine, and where it is."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from cdk_vm_import import _task_validation, _validation
from cdk_vm_import.disk_format import DiskFormat, format_of_name, problem_of_file

_FORMATS = [disk_format.value for disk_format in DiskFormat]


@dataclass(frozen=True, kw_only=True)
class DiskLocation:
    """Where a disk is, for ImportImage, and the ARNs of what its import reads."""

    container: dict[str, Any]
    object: str | None = None
    bucket: str | None = None
    key: str | None = None


class VmDisk:
    """A disk of a virtual machine: an object in a bucket, a local file, or an EBS snapshot.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html for the disks
    and the operating systems that VM Import takes.
    """

    def __init__(  # noqa: PLR0913 - what the three kinds of disks have between them
        self,
        *,
        source: tuple[s3.IBucket, str] | Path | str,
        disk_format: DiskFormat | None,
        device_name: str | None,
        description: str | None,
        encryption_key: kms.IKey | None,
        problems: list[str],
    ) -> None:
        """Take the one that from_bucket, from_asset or from_snapshot made."""
        self._source = source
        self._format = disk_format
        self._device_name = device_name
        self._description = description
        self._encryption_key = encryption_key
        self._problems = [
            *problems,
            *_validation.text("device_name", device_name, 255),
            *_validation.text("description", description, 255),
        ]

    @classmethod
    def from_bucket(  # noqa: PLR0913 - flat arguments, as CDK's own
        cls,
        bucket: s3.IBucket,
        key: str,
        *,
        format: DiskFormat | None = None,  # noqa: A002 - what the API calls it
        device_name: str | None = None,
        description: str | None = None,
        encryption_key: kms.IKey | None = None,
    ) -> "VmDisk":
        """Take a disk that is in a bucket, in the Region of the stack.

        A changed object under the same key is the same disk: give a new version of it a new key.

        Args:
            bucket: The bucket.
            key: Key of the object; may be an unresolved token, if the format is given.
            format: Format of the disk. Default: what the ending of the key says: `.ova`, `.vmdk`,
                `.vhd`, `.vhdx` or `.raw`.
            device_name: Name of the device that it becomes, such as `/dev/sda1`. Default: EC2
                chooses.
            description: Description of the disk, up to 255 characters. Default: it has none.
            encryption_key: Key that the object is encrypted with. Default: that of the bucket, if
                it has one and this app knows it.

        Returns:
            The disk. What is wrong with it, the task says that it is given to.
        """
        return cls(
            source=(bucket, key),
            disk_format=format or (None if cdk.Token.is_unresolved(key) else format_of_name(key)),
            device_name=device_name,
            description=description,
            encryption_key=encryption_key or bucket.encryption_key,
            problems=[*_format(key, format)],
        )

    @classmethod
    def from_asset(
        cls,
        path: str,
        *,
        format: DiskFormat | None = None,  # noqa: A002 - what the API calls it
        device_name: str | None = None,
        description: str | None = None,
        encryption_key: kms.IKey | None = None,
    ) -> "VmDisk":
        """Take a disk that is a file on this machine: the deployment uploads it.

        Another content is another disk, and so another import. What was uploaded stays in the
        bucket of the CDK bootstrap stack.

        Args:
            path: The file, absolute or from the current folder. Its first bytes must agree with
                the format.
            format: Format of the disk. Default: what the ending of the file's name says.
            device_name: Name of the device that it becomes, such as `/dev/sda1`. Default: EC2
                chooses.
            description: Description of the disk, up to 255 characters. Default: it has none.
            encryption_key: Key of the bucket of the bootstrap stack, if it was bootstrapped with
                one. Default: it has none of its own.

        Returns:
            The disk. What is wrong with it, the task says that it is given to.
        """
        file = Path(path)
        disk_format = format or format_of_name(file.name)
        problems = [*_format(file.name, format)]
        if not file.is_file():
            problems = [f"is no file: the path leads to {file.resolve()}"]
        elif disk_format and (problem := problem_of_file(file, disk_format)):
            problems.append(problem)
        return cls(
            source=file,
            disk_format=disk_format,
            device_name=device_name,
            description=description,
            encryption_key=encryption_key,
            problems=problems,
        )

    @classmethod
    def from_snapshot(
        cls,
        snapshot_id: str,
        *,
        device_name: str | None = None,
        description: str | None = None,
        encryption_key: kms.IKey | None = None,
    ) -> "VmDisk":
        """Take a disk that is an EBS snapshot.

        Args:
            snapshot_id: Id of the snapshot, `snap-...`; may be an unresolved token.
            device_name: Name of the device that it becomes, such as `/dev/sda1`. Default: EC2
                chooses.
            description: Description of the disk, up to 255 characters. Default: it has none.
            encryption_key: Key that the snapshot is encrypted with. Default: it is not encrypted,
                or with the key of EBS.

        Returns:
            The disk. What is wrong with it, the task says that it is given to.
        """
        return cls(
            source=snapshot_id,
            disk_format=None,
            device_name=device_name,
            description=description,
            encryption_key=encryption_key,
            problems=[*_task_validation.snapshot_id(snapshot_id)],
        )

    @property
    def format(self) -> DiskFormat | None:
        """Format of the disk; a snapshot has none."""
        return self._format

    @property
    def is_snapshot(self) -> bool:
        """Whether the disk is an EBS snapshot."""
        return isinstance(self._source, str)

    @property
    def problems(self) -> list[str]:
        """What is wrong with it, each with the disk's name."""
        match self._source:
            case (_, key):
                name = key
            case Path():
                name = str(self._source)
            case _:
                name = self._source
        return [f"disk {name!r} {problem}" for problem in self._problems]

    def locate(self, scope: Construct) -> DiskLocation:
        """Say where the disk is for the stack of a scope; a file becomes an asset of it."""
        shared = {
            "Format": self._format and self._format.value,
            "DeviceName": self._device_name,
            "Description": self._description,
        }
        encryption_key = self._encryption_key.key_arn if self._encryption_key else None
        match self._source:
            case str():
                container = {"SnapshotId": self._source, **shared}
                return DiskLocation(container=container, key=encryption_key)
            case Path():
                asset = _asset(cdk.Stack.of(scope), self._source)
                bucket, key = asset.bucket, asset.s3_object_key
            case (bucket, key):
                pass
        return DiskLocation(
            container={"UserBucket": {"S3Bucket": bucket.bucket_name, "S3Key": key}, **shared},
            object=bucket.arn_for_objects(key),
            bucket=bucket.bucket_arn,
            key=encryption_key,
        )


def _asset(stack: cdk.Stack, file: Path) -> s3_assets.Asset:
    # The role and the task of a disk share one, wherever they are in the stack.
    path = str(file.resolve())
    name = f"VmDisk{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    child = stack.node.try_find_child(name)
    return child if isinstance(child, s3_assets.Asset) else s3_assets.Asset(stack, name, path=path)


def _format(name: str, given: DiskFormat | None) -> list[str]:
    endings = ", ".join(f".{known.lower()}" for known in _FORMATS)
    if given is None:
        if cdk.Token.is_unresolved(name):
            return ["has a name that only the deployment knows: give its format"]
        if format_of_name(name) is None:
            return [f"has a name that ends in none of {endings}: give its format"]
    elif not isinstance(given, DiskFormat):
        return [f"has a format {given!r} that is no DiskFormat: give {', '.join(_FORMATS)}"]
    return []
