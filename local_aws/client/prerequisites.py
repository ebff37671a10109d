"""What a user has before the first deployment: a disk in a bucket, and the role `vmimport`."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from local_aws.client.local_aws import LocalAws

BUCKET: Final = "my-vm-disks"
DISK: Final = "disk.raw"


class Prerequisites:
    """A bucket with a disk, the service role `vmimport`, and the start of import tasks.

    https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
    """

    def __init__(self, aws: LocalAws) -> None:
        """Create the bucket, the disk and the role.

        Args:
            aws: A running simulated AWS without them.
        """
        clients: Any = aws.session().client
        endpoint = aws.environment["AWS_ENDPOINT_URL"]
        self._ec2 = clients("ec2", endpoint_url=endpoint)
        s3 = clients("s3", endpoint_url=endpoint)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key=DISK, Body=raw_disk())
        trust = _statement(
            Principal={"Service": "vmie.amazonaws.com"},
            Action="sts:AssumeRole",
            Condition={"StringEquals": {"sts:Externalid": "vmimport"}},
        )
        may_read = _statement(
            Action=["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
            Resource=[f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        )
        may_register = _statement(
            Action=[
                "ec2:CopySnapshot",
                "ec2:Describe*",
                "ec2:ModifySnapshotAttribute",
                "ec2:RegisterImage",
            ],
            Resource="*",
        )
        may_attach_licenses = _statement(
            Action=[
                "license-manager:GetLicenseConfiguration",
                "license-manager:ListLicenseSpecificationsForResource",
                "license-manager:UpdateLicenseSpecificationsForResource",
            ],
            Resource="*",
        )
        iam = clients("iam", endpoint_url=endpoint)
        iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=_policy(trust))
        iam.put_role_policy(
            RoleName="vmimport",
            PolicyName="vmimport",
            PolicyDocument=_policy(may_read, may_register, may_attach_licenses),
        )

    def import_image(self, key: str = DISK) -> str:
        """Start to import a disk.

        Args:
            key: The key of the disk in the bucket.

        Returns:
            The id of the import task.
        """
        where = {"S3Bucket": BUCKET, "S3Key": key}
        task = self._ec2.import_image(
            Platform="Linux",
            LicenseType="BYOL",
            DiskContainers=[{"Format": "RAW", "UserBucket": where}],
        )
        return str(task["ImportTaskId"])


def raw_disk(mebibytes: int = 16) -> bytes:
    """Return a raw disk with a master boot record and one Linux partition."""
    sectors = mebibytes * 2048
    partition = struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0x83, b"\0\3\0", 2048, sectors - 2048)
    record = b"\0" * 446 + partition + b"\0" * 48 + b"\x55\xaa"
    return record.ljust(sectors * 512, b"\0")


def _statement(**fields: object) -> dict[str, object]:
    return {"Effect": "Allow", **fields}


def _policy(*statements: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
