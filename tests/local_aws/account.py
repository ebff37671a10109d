"""An account of the shared server, with the resources and calls that most tests need."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    import boto3

    from local_aws import LocalAws

RAW = bytes(510) + b"\x55\xaa" + bytes(1024)
TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "vmie.amazonaws.com"},
    "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {"sts:Externalid": "vmimport"}},
}
READ = {
    "Effect": "Allow",
    "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
    "Resource": "arn:aws:s3:::*",
}
# https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
REGISTER = {
    "Effect": "Allow",
    "Action": [
        "ec2:CopySnapshot",
        "ec2:DescribeImages",
        "ec2:ModifySnapshotAttribute",
        "ec2:RegisterImage",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "kms:ReEncryptFrom",
        "license-manager:GetLicenseConfiguration",
        "license-manager:ListLicenseSpecificationsForResource",
        "license-manager:UpdateLicenseSpecificationsForResource",
    ],
    "Resource": "*",
}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def refused(call: Callable[[], object]) -> tuple[str, int, str]:
    """Return code, HTTP status and message of the error of a call."""
    try:
        response = call()
    except ClientError as error:
        metadata = error.response["ResponseMetadata"]
        return (
            error.response["Error"]["Code"],
            metadata["HTTPStatusCode"],
            error.response["Error"]["Message"],
        )
    raise AssertionError(f"the call succeeded: {response}")


class Account:
    def __init__(self, server: LocalAws, session: boto3.Session, account_id: str) -> None:
        self.server = server
        self.account_id = account_id
        once = Config(retries={"total_max_attempts": 1})
        self.ec2 = session.client("ec2", aws_access_key_id=account_id, config=once)
        self.images = session.client("imagebuilder", aws_access_key_id=account_id, config=once)
        self.s3: Any = session.client("s3", aws_access_key_id=account_id)
        self.iam: Any = session.client("iam", aws_access_key_id=account_id)
        self.kms: Any = session.client("kms", aws_access_key_id=account_id)
        self.bucket = f"disks-{account_id}"
        self.s3.create_bucket(Bucket=self.bucket)

    def make_role(self, name: str = "vmimport", trust: object = TRUST, *may: object) -> None:
        self.iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        )
        document = {"Version": "2012-10-17", "Statement": list(may or (READ, REGISTER))}
        self.iam.put_role_policy(
            RoleName=name, PolicyName="disks", PolicyDocument=json.dumps(document)
        )

    def put_disk(self, data: bytes = RAW, key: str = "disk.raw", **encryption: str) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data, **encryption)

    def start(self, data: bytes = RAW, disk_format: str = "RAW", **more: Any) -> str:
        """Upload a disk, start its import with the role vmimport, and return the task id."""
        with suppress(ClientError):  # the role exists
            self.make_role()
        self.put_disk(data)
        place = {"S3Bucket": self.bucket, "S3Key": "disk.raw"}
        disks: Any = [{"Format": disk_format, "UserBucket": place}]
        return self.ec2.import_image(**{"DiskContainers": disks, **more})["ImportTaskId"]

    def finish(self) -> None:
        """Move the clock forward until all imports have ended."""
        self.server.advance(3600)

    def task(self, task_id: str) -> dict[str, Any]:
        found = self.ec2.describe_import_image_tasks(ImportTaskIds=[task_id])
        return dict(found["ImportImageTasks"][0])

    def import_image(self, task_id: str | None = None, **more: Any) -> str:
        """Import a task, by default a new one, as an image, and return the image's ARN."""
        wanted: Any = {"name": "golden", "semanticVersion": "1.0.0", "platform": "Linux", **more}
        wanted["vmImportTaskId"] = task_id or self.start()
        return self.images.import_vm_image(**wanted)["imageArn"]

    def cancel(self, arn: str) -> None:
        self.images.cancel_image_creation(imageBuildVersionArn=arn, clientToken="c")

    def image(self, arn: str) -> dict[str, Any]:
        return dict(self.images.get_image(imageBuildVersionArn=arn)["image"])

    def status(self, arn: str) -> str:
        return str(self.image(arn)["state"]["status"])
