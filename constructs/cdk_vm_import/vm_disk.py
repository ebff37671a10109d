"""A disk of a virtual machine, and where it is stored."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from cdk_vm_import import _validation
from cdk_vm_import._cdk_types import AnyKey
from cdk_vm_import._disk_access import StoredDisk
from cdk_vm_import.disk_format import (
    DiskFormat,
    format_of_name,
    problem_of_file,
    problem_of_name,
)

_FORMATS = [disk_format.value for disk_format in DiskFormat]


class VmDisk:
    """A disk of a virtual machine: an object in a bucket, a local file, or an EBS snapshot.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html for the disks
    and the operating systems that VM Import supports.
    """

    def __init__(  # noqa: PLR0913 - the arguments of all three kinds of disk
        self,
        *,
        source: tuple[s3.IBucket, str] | Path | str,
        disk_format: DiskFormat | None,
        device_name: str | None,
        description: str | None,
        encryption_key: AnyKey | None,
        problems: list[str],
    ) -> None:
        """Use from_bucket, from_asset or from_snapshot instead.

        Args:
            source: Bucket and key, file, or id of a snapshot.
            disk_format: Format of the disk; None for a snapshot.
            device_name: Name of the device, up to 255 characters.
            description: Description of the disk, up to 255 characters.
            encryption_key: KMS key that the source is encrypted with.
            problems: What is not valid, each without the name of the disk.
        """
        self._source = source
        self._format = disk_format
        self._device_name = device_name
        self._description = description
        self._encryption_key = encryption_key
        match source:
            case (_, name) | str(name):
                pass
            case Path():
                name = str(source)
        self._problems = [
            f"disk {_validation.shown(name)} {problem}"
            for problem in (
                *problems,
                *_validation.text("device_name", device_name, 255),
                *_validation.text("description", description, 255),
            )
        ]

    @classmethod
    def from_bucket(  # noqa: PLR0913 - flat arguments, as CDK's own
        cls,
        bucket: s3.IBucket,
        key: str,
        *,
        format: DiskFormat | None = None,  # noqa: A002 - the name in the API
        device_name: str | None = None,
        description: str | None = None,
        encryption_key: AnyKey | None = None,
    ) -> "VmDisk":
        """Use a disk that is stored in a bucket in the Region of the stack.

        If the content of the object changes, the stack does not notice. Use a new key for a new
        version of a disk.

        Args:
            bucket: The bucket.
            key: Key of the object. It may be an unresolved token if `format` is given.
            format: Format of the disk. Default: derived from the ending of the key: `.ova`,
                `.vmdk`, `.vhd`, `.vhdx` or `.raw`.
            device_name: Name of the device for the disk, such as `/dev/sda1`, 1 to 255 characters.
                Default: EC2 chooses it.
            description: Description of the disk, 1 to 255 characters. Default: none.
            encryption_key: KMS key that the object is encrypted with. Required if the key belongs
                to another account. Default: the bucket's key, if it has one and this app knows it.
                Otherwise VM Import may use any key of this account and Region, but only through S3.

        Returns:
            The disk. The import task that uses it reports what is not valid.
        """
        problems = [
            *_validation.optional("bucket", bucket, "bucket_arn", "an s3.Bucket"),
            *_key(key),
            *_encryption_key(encryption_key),
        ]
        if bucket is None:
            problems.append("has no bucket: use an s3.Bucket.")
        if problems:
            return cls._invalid(key, problems)
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
        format: DiskFormat | None = None,  # noqa: A002 - the name in the API
        device_name: str | None = None,
        description: str | None = None,
        encryption_key: AnyKey | None = None,
    ) -> "VmDisk":
        """Use a disk that is a file on this machine. The deployment uploads it as an asset.

        If the content of the file changes, the next deployment imports it again. Uploaded files
        remain in the bucket of the CDK bootstrap stack.

        Args:
            path: The file, absolute or relative to the current folder. Its content must match the
                format.
            format: Format of the disk. Default: derived from the ending of the file name: `.ova`,
                `.vmdk`, `.vhd`, `.vhdx` or `.raw`.
            device_name: Name of the device for the disk, such as `/dev/sda1`, 1 to 255 characters.
                Default: EC2 chooses it.
            description: Description of the disk, 1 to 255 characters. Default: none.
            encryption_key: KMS key of the bootstrap stack's bucket, if the environment was
                bootstrapped with a customer-managed key. Default: VM Import may use any key of this
                account and Region, but only through S3.

        Returns:
            The disk. The import task that uses it reports what is not valid.
        """
        if problems := [*_path(path), *_encryption_key(encryption_key)]:
            return cls._invalid(path, problems)
        file = Path(path)
        disk_format = format or format_of_name(file.name)
        problems = [*_format(file.name, format)]
        if not file.is_file():
            place = _validation.shown(str(file.resolve()))
            problems = [f"is not a file: there is none at {place}."]
        elif not problems and disk_format and (problem := problem_of_file(file, disk_format)):
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
        encryption_key: AnyKey | None = None,
    ) -> "VmDisk":
        """Use a disk that is an EBS snapshot in the Region of the stack.

        Args:
            snapshot_id: Id of the snapshot, `snap-...`. It may be an unresolved token.
            device_name: Name of the device for the disk, such as `/dev/sda1`, 1 to 255 characters.
                Default: EC2 chooses it.
            description: Description of the disk, 1 to 255 characters. Default: none.
            encryption_key: KMS key that the snapshot is encrypted with. Default: the snapshot is
                not encrypted, or is encrypted with the account's key for EBS.

        Returns:
            The disk. The import task that uses it reports what is not valid.
        """
        problems = [*_validation.snapshot_id(snapshot_id), *_encryption_key(encryption_key)]
        if problems:
            return cls._invalid(snapshot_id, problems)
        return cls(
            source=snapshot_id,
            disk_format=None,
            device_name=device_name,
            description=description,
            encryption_key=encryption_key,
            problems=[],
        )

    @classmethod
    def _invalid(cls, source: object, problems: list[str]) -> "VmDisk":
        """Return a disk whose source is not valid; the import task reports that."""
        return cls(
            source=source if isinstance(source, str) else _validation.shown(source),
            disk_format=None,
            device_name=None,
            description=None,
            encryption_key=None,
            problems=problems,
        )

    @property
    def format(self) -> DiskFormat | None:
        """Format of the disk. None for a snapshot."""
        return self._format

    @property
    def is_snapshot(self) -> bool:
        """Whether the disk is an EBS snapshot."""
        return isinstance(self._source, str)

    @property
    def _size(self) -> int:
        """Size of a local file in bytes; 0 for other disks."""
        return self._source.stat().st_size if isinstance(self._source, Path) else 0

    @property
    def _bucket(self) -> s3.IBucket | None:
        """The bucket that was given."""
        return self._source[0] if isinstance(self._source, tuple) else None

    def _bind(self, scope: Construct) -> StoredDisk:
        """Return where the disk is stored. A file becomes an asset of the scope's stack."""
        shared = {
            "Format": self._format and self._format.value,
            "DeviceName": self._device_name,
            "Description": self._description,
        }
        match self._source:
            case str():
                return StoredDisk(
                    container={"SnapshotId": self._source, **shared},
                    encryption_key=self._encryption_key,
                )
            case Path():
                asset = _asset(cdk.Stack.of(scope), self._source)
                # All assets of a stack are in one bucket, but each has a construct for it.
                bucket, key, bucket_id = asset.bucket, asset.s3_object_key, "assets"
            case (bucket, key):
                bucket_id = bucket.node.path
        return StoredDisk(
            container={"UserBucket": {"S3Bucket": bucket.bucket_name, "S3Key": key}, **shared},
            bucket_id=bucket_id,
            bucket_arn=bucket.bucket_arn,
            object_arn=bucket.arn_for_objects(key),
            encryption_key=self._encryption_key,
        )


def _asset(stack: cdk.Stack, file: Path) -> s3_assets.Asset:
    # The role and the task of a disk share one asset, wherever they are in the stack.
    path = str(file.resolve())
    name = f"VmDisk{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    child = stack.node.try_find_child(name)
    return child if isinstance(child, s3_assets.Asset) else s3_assets.Asset(stack, name, path=path)


def _key(key: object) -> Iterator[str]:
    if not isinstance(key, str):
        yield "is not a string: use the key of an object."
    elif not key:
        yield "has no name: use the key of an object."
    elif key.startswith(("s3://", "https://")):
        yield "is a URL: use the key alone, such as 'disks/rhel9.vmdk', and the bucket as bucket."


def _path(path: object) -> Iterator[str]:
    if not isinstance(path, (str, Path)):
        yield "is not a path: use a str."
    elif "\0" in str(path):
        yield "is not a path: it has a null character."


def _encryption_key(encryption_key: object) -> Iterator[str]:
    for problem in _validation.optional("encryption_key", encryption_key, "key_arn", "a kms.Key"):
        yield f"is not valid: {problem}"


def _format(name: str, given: DiskFormat | None) -> list[str]:
    endings = ", ".join(f".{known.lower()}" for known in _FORMATS)
    if given is not None and not isinstance(given, DiskFormat):
        return [f"has the format {given!r}, which is not one of {', '.join(_FORMATS)}."]
    # The ending may be known though the rest is a token.
    if problem := problem_of_name(name):
        return [problem]
    if cdk.Token.is_unresolved(name):
        if given is None:
            return ["has a name that is known only at deployment: use the argument format."]
    elif given is None and format_of_name(name) is None:
        return [f"has a name without one of the endings {endings}: use the argument format."]
    return []
