"""The disks that a role may read, as the resources of its policy."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aws_cdk import aws_kms as kms

# A policy that names each object would outgrow IAM's limit with the number of disks.
MAX_OBJECTS: Final = 20


@dataclass(frozen=True, kw_only=True)
class StoredDisk:
    """Where a disk is stored, and what encrypts it there.

    Attributes:
        container: The disk, in the words of ImportImage.
        bucket_id: Identifies the bucket; None for a snapshot. ARNs do not: two tokens of equal
            value differ.
        bucket_arn: ARN of the bucket; None for a snapshot.
        object_arn: ARN of the object in the bucket; None for a snapshot.
        encryption_key: The KMS key, if it is known.
    """

    container: dict[str, Any]
    bucket_id: str | None = None
    bucket_arn: str | None = None
    object_arn: str | None = None
    encryption_key: kms.IKey | None = None


@dataclass
class DiskAccess:
    """The disks that a role may read, of one task or of many."""

    _buckets: dict[str, str] = field(default_factory=dict)
    _objects: dict[str, None] = field(default_factory=dict)
    _keys: dict[str, None] = field(default_factory=dict)
    may_have_unknown_keys: bool = False
    """Whether S3 may have encrypted a disk with a key that this app does not know."""

    def add(self, disks: Iterable[StoredDisk]) -> None:
        """Add disks. Each counts once."""
        for disk in disks:
            if disk.bucket_id and disk.bucket_arn and disk.object_arn:
                self._buckets.setdefault(disk.bucket_id, disk.bucket_arn)
                self._objects[disk.object_arn] = None
                self.may_have_unknown_keys |= disk.encryption_key is None
            if disk.encryption_key:
                self._keys[disk.encryption_key.key_arn] = None

    @property
    def buckets(self) -> list[str]:
        """ARNs of the buckets that contain disks."""
        return list(self._buckets.values())

    @property
    def objects(self) -> list[str]:
        """ARNs of the objects. If there are more than MAX_OBJECTS, all objects of the buckets."""
        if len(self._objects) <= MAX_OBJECTS:
            return list(self._objects)
        return [f"{bucket}/*" for bucket in self.buckets]

    @property
    def keys(self) -> list[str]:
        """ARNs of the known keys that encrypt objects and snapshots."""
        return list(self._keys)
