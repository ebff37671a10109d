"""A run: its id, what its checks share, and what is kept of it in a file."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import time
import uuid
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from integ.check import CheckError, Record
from integ.definition import Disk
from local_aws.client.environment import CHECKOUT
from local_aws.client.prerequisites import raw_disk

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from integ.account import Account
    from integ.disk import GivenDisk

PREFIX: Final = "cdk-vm-import-integ"
# What the names of log groups begin with. The last one is what MiniStack's CloudFormation chooses.
LOG_GROUPS: Final = ("", "/aws/imagebuilder/", "/aws/lambda/", "/aws/cloudformation/")
REPORTS: Final = CHECKOUT / "integ-reports"
# The signals that interrupt a run.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# EC2 sees a new role after a while.
_ROLE_MINUTES: Final = 3
_IMPORT_MINUTES: Final = 90
_AVAILABLE_MINUTES: Final = 30
# What the errors contain for resources that do not exist, or do not exist any more.
_MISSING: Final = ("NotFound", "DoesNotExist", "does not exist", "InvalidAMIID.Unavailable")
# What VM Import refuses: it is no disk at all.
_BROKEN_KEY: Final = "not-a-disk.raw"


def new_run_id() -> str:
    """Return an id for a run, which begins with the date."""
    return f"{datetime.now(UTC):%m%d}-{secrets.token_hex(3)}"


def run_id(text: str) -> str:
    """Return the id of a run. Part of one would name the resources of other runs too.

    Raises:
        ArgumentTypeError: It is not the whole id of a run.
    """
    if not re.fullmatch(r"\d{4}-[0-9a-f]{6}", text):
        raise ArgumentTypeError(
            f"{text!r} is not the id of a run: use the whole id, such as 1128-4f2a9c"
        )
    return text


class Run:
    """What the checks of a run share.

    Args:
        account: The account.
        run_id: The id of the run.
        disk: The disk that is imported. None: no disk is imported any more.
        reports: The folder in which each run has its own.
    """

    def __init__(
        self,
        account: Account,
        run_id: str,
        disk: GivenDisk | None = None,
        reports: Path = REPORTS,
    ) -> None:
        """Read what is kept of an earlier part of the run."""
        self.account = account
        self.id = run_id
        self.prefix = f"{PREFIX}-{run_id}"
        self.tags = {PREFIX: run_id}
        self.recipe_name = f"{self.prefix}-recipe"
        # The CDK CLI runs in a folder of its own.
        self.folder = (reports / run_id).resolve()
        self._given = disk
        self.processes: list[subprocess.Popen[str]] = []
        self._file = self.folder / "state.json"
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.about: dict[str, Any] = kept.get("about", {})
        # Import tasks of the run, which EC2 forgets after 7 days, with the AMIs that they created.
        self.tasks: dict[str, str] = kept.get("tasks", {})
        self.shared: dict[str, Any] = kept.get("shared", {})
        self.records = {name: Record.from_json(v) for name, v in kept.get("records", {}).items()}

    def save(self) -> None:
        """Write what a later part of the run needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {
            "about": self.about,
            "tasks": self.tasks,
            "shared": self.shared,
            "records": {name: record.as_json() for name, record in self.records.items()},
        }
        # A run that is killed meanwhile leaves the file as it was.
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(kept, indent=2, default=str))
        new.replace(self._file)

    # --- what the checks share ---

    def disk(self) -> Disk:
        """Return the disk in a bucket; upload it first if necessary."""
        if self._given is None:
            raise CheckError("the run has no disk")
        if self._given.stored:
            return self._given.stored
        if "disk" not in self.shared:
            key = f"disk{self._given.ending}"
            s3, bucket = self.account.client("s3"), self.bucket()
            if self.account.is_simulated:
                s3.put_object(Bucket=bucket, Key=key, Body=raw_disk())
            else:
                s3.upload_file(self._given.place, bucket, key)
            self.shared["disk"] = key
        return Disk(self.bucket(), self.shared["disk"])

    def broken_disk(self) -> Disk:
        """Return a file in a bucket that VM Import refuses."""
        if "broken" not in self.shared:
            self.account.client("s3").put_object(
                Bucket=self.bucket(), Key=_BROKEN_KEY, Body=bytes(2**20)
            )
            self.shared["broken"] = _BROKEN_KEY
        return Disk(self.bucket(), _BROKEN_KEY)

    def bucket(self) -> str:
        """Return the bucket of the run; create it first if necessary."""
        name = f"{self.prefix}-disks"
        if "bucket" not in self.shared:
            place = {"LocationConstraint": self.account.region}
            # us-east-1 is the one Region that may not be named.
            options = {} if self.account.region == "us-east-1" else place
            self.account.client("s3").create_bucket(
                Bucket=name, **({"CreateBucketConfiguration": options} if options else {})
            )
            self.shared["bucket"] = name
            self.save()
        return name

    def role(self) -> str:
        """Return VM Import's service role of the run; create it first if necessary."""
        name = f"{self.prefix}-vmimport"
        if "role" in self.shared:
            return name
        disk = self.disk()
        buckets = {disk.bucket, self.bucket()}
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "vmie.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:Externalid": "vmimport"}},
        }
        partition = self.about.get("partition", "aws")
        arns = [f"arn:{partition}:s3:::{bucket}" for bucket in sorted(buckets)]
        # https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
        may_read = {
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
            "Resource": [*arns, *(f"{arn}/*" for arn in arns)],
        }
        may_register = {
            "Effect": "Allow",
            "Action": [
                "ec2:CopySnapshot", "ec2:Describe*", "ec2:ModifySnapshotAttribute",
                "ec2:RegisterImage",
            ],
            "Resource": "*",
        }  # fmt: skip
        iam = self.account.client("iam")
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=_policy(trust),
            Tags=[{"Key": key, "Value": value} for key, value in self.tags.items()],
        )
        iam.put_role_policy(
            RoleName=name, PolicyName="vmimport", PolicyDocument=_policy(may_read, may_register)
        )
        self.shared["role"] = name
        self.save()
        return name

    # --- import tasks ---

    def import_disk(self, disk: Disk | None = None, token: str | None = None) -> str:
        """Start to import a disk, and return the id of the task.

        Args:
            disk: The disk. Default: that of the run.
            token: The client token. Default: a new one.

        Raises:
            CheckError: EC2 starts no import.
        """
        disk = disk or self.disk()
        role, ec2 = self.role(), self.account.client("ec2")
        tags = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        refusal = ""

        def start() -> str:
            nonlocal refusal
            try:
                task = ec2.import_image(
                    ClientToken=token or str(uuid.uuid4()),
                    Platform="Linux",
                    LicenseType="BYOL",
                    RoleName=role,
                    DiskContainers=[{"UserBucket": {"S3Bucket": disk.bucket, "S3Key": disk.key}}],
                    TagSpecifications=[{"ResourceType": "import-image-task", "Tags": tags}],
                )
            except ClientError as error:
                refusal = str(error)
                if "service role" not in refusal:
                    raise
                return ""  # EC2 does not see the new role yet
            return str(task["ImportTaskId"])

        task_id = str(self.account.wait(start, _ROLE_MINUTES))
        if not task_id:
            raise CheckError(f"EC2 starts no import: {refusal}")
        self.tasks[task_id] = ""
        self.save()
        return task_id

    def completed_task(self) -> str:
        """Return the id of a completed task, which all checks share."""
        if "completed_task" not in self.shared:
            self.shared["completed_task"] = self.import_disk()
        task = self.await_task(self.shared["completed_task"])
        if task["Status"] != "completed":
            raise CheckError(f"EC2 did not import the disk: {task.get('StatusMessage')}")
        return str(self.shared["completed_task"])

    def failed_task(self) -> str:
        """Return the id of a failed task, which all checks share."""
        if "failed_task" not in self.shared:
            self.shared["failed_task"] = self.import_disk(self.broken_disk())
        task = self.await_task(self.shared["failed_task"])
        if task["Status"] != "deleted":
            raise CheckError(f"EC2 imports a file that is no disk: the task is {task['Status']}")
        return str(self.shared["failed_task"])

    def task(self, task_id: str) -> dict[str, Any]:
        """Return a task as EC2 describes it."""
        found = self.account.client("ec2").describe_import_image_tasks(ImportTaskIds=[task_id])
        return dict(found["ImportImageTasks"][0])

    def await_task(self, task_id: str) -> dict[str, Any]:
        """Wait until a task has ended, and return it.

        Raises:
            CheckError: It does not end.
        """
        ended = ("completed", "deleted")
        self.account.wait(lambda: self.task(task_id)["Status"] in ended, _IMPORT_MINUTES, every=15)
        task = self.task(task_id)
        if task["Status"] not in ended:
            raise CheckError(f"{task_id} is still {task['Status']} after {_IMPORT_MINUTES} minutes")
        if ami := task.get("ImageId"):
            self.tasks[task_id] = ami
            self.save()
        return task

    # --- images ---

    def image(self, arn: str) -> dict[str, Any] | None:
        """Return an image as Image Builder describes it; None if there is none."""
        client = self.account.client("imagebuilder")
        try:
            return dict(client.get_image(imageBuildVersionArn=arn)["image"])
        except ClientError as error:
            raise_unless_missing(error)
            return None

    def status(self, arn: str) -> str:
        """Return the status of an image, or `gone`."""
        image = self.image(arn)
        return str(image["state"]["status"]) if image else "gone"

    def import_image(
        self,
        task_id: str,
        name: str,
        *,
        token: str | None = None,
        description: str | None = None,
    ) -> str:
        """Call ImportVmImage and return the ARN.

        Args:
            task_id: The import task.
            name: What the name of the image ends with.
            token: The client token. Default: a new one.
            description: The description. Default: none.
        """
        response = self.account.client("imagebuilder").import_vm_image(
            name=f"{self.prefix}-{name}",
            semanticVersion="1.0.0",
            platform="Linux",
            vmImportTaskId=task_id,
            clientToken=token or str(uuid.uuid4()),
            tags=self.tags,
            **({"description": description} if description else {}),
        )
        return str(response["imageArn"])

    def await_image(self, arn: str, *states: str, minutes: float = _AVAILABLE_MINUTES) -> str:
        """Wait until an image has one of the states, and return its state.

        Raises:
            CheckError: It does not get there.
        """
        self.account.wait(lambda: self.status(arn) in states, minutes, every=5)
        if (status := self.status(arn)) not in states:
            raise CheckError(
                f"{arn} is {status} after {minutes} minutes, not {' or '.join(states)}"
            )
        return status

    def end_processes(self) -> None:
        """Kill the CDK CLIs that still run, with their child processes."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()


def attempt(call: Any, *arguments: object, **request: object) -> tuple[Any, str]:  # noqa: ANN401
    """Call an operation that AWS may refuse.

    Args:
        call: An operation of boto3, or a method that calls one.
        arguments: Its arguments.
        request: Its keyword arguments.

    Returns:
        Its response and no error, or no response and the error as `Code STATUS: message`.
    """
    try:
        return call(*arguments, **request), ""
    except ClientError as error:
        found = error.response["Error"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return None, f"{found['Code']} {status}: {found.get('Message', '')}"


def failure(call: Any, **request: object) -> str:  # noqa: ANN401 - an operation of boto3
    """Return the error of a call as `Code STATUS: message`, or nothing if it succeeds."""
    return attempt(call, **request)[1]


def raise_unless_missing(error: ClientError) -> None:
    """Raise an error, unless it says that something does not exist.

    Raises:
        ClientError: It is another error, such as a missing permission.
    """
    found = error.response["Error"]
    text = f"{found['Code']} {found.get('Message', '')}"
    if not any(word in text for word in _MISSING):
        raise error


def timestamp(seconds: float) -> str:
    """Return a time as text."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def elapsed_text(seconds: float) -> str:
    """Return a duration as text."""
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"  # noqa: PLR2004


def pause_until(account: Account, due: float) -> None:
    """Let time pass until a date: at once in the simulated AWS, and not at all in a real one."""
    if account.is_simulated and due > account.now():
        account.skip(due - account.now())
        time.sleep(1)  # what is due meanwhile happens


def _policy(*statements: Mapping[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
