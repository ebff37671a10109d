"""From a disk to a recipe in one deployment, by the real CDK CLI, with disks that qemu-img made."""

from __future__ import annotations

import io
import itertools
import json
import sys
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from tests.deploy.conftest import Account
from tests.disks.real_disks import FORMATS, real_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "real-disks"
_numbers = itertools.count()


@dataclass
class Stack:
    """A stack, through its life, and what it leaves behind."""

    local: LocalAws
    account: Account
    folder: Path
    app: str = "tests/deploy/disk_app.py"
    name: str = field(default_factory=lambda: f"FromDisk{next(_numbers)}")
    context: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        client: Any = self.local.session().client
        self.ec2, self.s3 = client("ec2"), client("s3")
        self.cdk = CdkCli(self.local, self.folder, app=f"{sys.executable} {CHECKOUT / self.app}")

    def put(self, key: str, disk: bytes) -> str:
        """Upload a disk; return its key, which no other test has."""
        key = f"{self.name}/{key}"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=disk)
        return key

    def deploy(self, *disks: str | tuple[str, str], **context: str) -> dict[str, str]:
        keys = dict(disk if isinstance(disk, tuple) else (disk, None) for disk in disks)
        own = {"stack": self.name, "bucket": BUCKET, "disks": json.dumps(keys)}
        return self.deploy_example(**own, **context)

    def deploy_example(self, **context: str) -> dict[str, str]:
        self.context = context
        return self.cdk.deploy(**context)

    def destroy(self) -> None:
        self.cdk.destroy(**self.context)

    @property
    def stack_id(self) -> str:
        # the name is of this stack alone, and the id is found after its end too
        found = self.account.cloudformation.describe_stack_events(StackName=self.name)
        return str(found["StackEvents"][0]["StackId"])

    def failures(self) -> str:
        events = self.account.cloudformation.describe_stack_events(StackName=self.name)
        return "\n".join(event.get("ResourceStatusReason", "") for event in events["StackEvents"])

    def resources(self, resource_type: str) -> dict[str, str]:
        """Logical and physical ids of its resources of a type."""
        described = self.account.cloudformation.describe_stack_resources(StackName=self.name)
        return {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in described["StackResources"]
            if resource["ResourceType"] == resource_type
        }

    def parent_image(self) -> str:
        """What its recipe builds on."""
        (recipe,) = self.resources("AWS::ImageBuilder::ImageRecipe").values()
        described = self.account.images.get_image_recipe(imageRecipeArn=recipe)
        return str(described["imageRecipe"]["parentImage"])

    def tasks(self) -> list[dict[str, Any]]:
        tasks = self.ec2.describe_import_image_tasks()["ImportImageTasks"]
        return [task for task in tasks if f":stack/{self.name}/" in str(task["Tags"])]

    def amis(self) -> list[dict[str, Any]]:
        ids = [task["ImportTaskId"] for task in self.tasks()]
        found = self.ec2.describe_images(Owners=["self"])["Images"]
        return [ami for ami in found if ami["Name"] in ids]

    def left_behind(self) -> list[str]:
        """Active tasks, images, AMIs and snapshots of the stack."""
        tasks = self.tasks()
        ids = [task["ImportTaskId"] for task in tasks]
        snapshots = self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        images = self.account.images.list_images(owner="Self")["imageVersionList"]
        return [
            *(task["ImportTaskId"] for task in tasks if task["Status"] == "active"),
            *(ami["ImageId"] for ami in self.amis()),
            *(s["SnapshotId"] for s in snapshots if s["Description"].split()[-1] in ids),
            *(image["arn"] for image in images if image["name"].startswith(f"{self.name}-")),
        ]


def tags(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described["Tags"]}


@pytest.fixture(scope="module", autouse=True)
def quick_imports(local: LocalAws) -> Iterator[None]:
    before = local.knobs()
    # seconds of AWS time, of which 60 are one here
    local.knobs(import_seconds=120, image_watch_seconds=1, cancel_seconds=1)
    client: Any = local.session().client
    client("s3").create_bucket(Bucket=BUCKET)
    yield
    local.knobs(**before)


@pytest.fixture
def stack(local: LocalAws, account: Account, tmp_path: Path) -> Stack:
    return Stack(local, account, tmp_path)


@pytest.fixture
def fast_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose imports take three hours, on an AWS where half an hour is a second."""
    with LocalAws.start(speed=1800, auth=True) as local:
        CdkCli(local, tmp_path).bootstrap()
        local.knobs(import_seconds=3 * 3600)
        client: Any = local.session().client
        client("s3").create_bucket(Bucket=BUCKET)
        yield Stack(local, Account(local), tmp_path)


@pytest.mark.slow
def test_real_disks_of_all_formats_become_images_and_go_with_the_stack(stack: Stack) -> None:
    keys = [stack.put(f"disk.{name.lower()}", real_disk(name)) for name in FORMATS]

    arns = stack.deploy(*keys).values()

    images = [stack.account.image(arn) or {} for arn in arns]
    assert [image["state"]["status"] for image in images] == ["AVAILABLE"] * len(FORMATS)
    assert [task["Status"] for task in stack.tasks()] == ["completed"] * len(FORMATS)
    assert [tags(ami)["team"] for ami in stack.amis()] == ["images"] * len(FORMATS)
    stack.destroy()
    assert stack.left_behind() == []
    objects = stack.s3.list_objects_v2(Bucket=BUCKET, Prefix=stack.name)["Contents"]
    assert len(objects) == len(FORMATS)


def test_a_changed_disk_makes_a_new_image_and_leaves_nothing_of_the_old_one(stack: Stack) -> None:
    (old,) = stack.deploy(stack.put("first.raw", real_disk("RAW"))).values()

    (new,) = stack.deploy(stack.put("second.vmdk", real_disk("VMDK")), recipe="1").values()

    assert stack.account.image(old) is None
    assert (stack.account.image(new) or {})["state"]["status"] == "AVAILABLE"
    assert len(stack.amis()) == 1


@pytest.mark.slow
def test_a_changed_disk_is_waited_for_anew_by_a_wait_condition(fast_stack: Stack) -> None:
    stack = fast_stack
    (old,) = stack.deploy(stack.put("first.raw", real_disk("RAW")), hours="12").values()
    old_parent = stack.parent_image()
    (old_wait,) = stack.resources("AWS::CloudFormation::WaitCondition")
    disk = stack.put("second.vmdk", real_disk("VMDK"))

    (new,) = stack.deploy(disk, hours="12", recipe="1").values()

    image = stack.account.image(new) or {}
    (ami,) = stack.amis()
    (wait,) = stack.resources("AWS::CloudFormation::WaitCondition")
    assert image["state"]["status"] == "AVAILABLE"
    assert image["outputResources"]["amis"][0]["image"] == ami["ImageId"]
    assert (old_parent, stack.parent_image()) == (old, new)
    assert stack.account.image(old) is None
    assert [task["Status"] for task in stack.tasks()] == ["completed", "completed"]
    assert wait != old_wait
    stack.destroy()
    assert stack.left_behind() == []


@pytest.mark.slow
def test_the_old_ami_goes_though_nobody_waits_for_the_new_one(fast_stack: Stack) -> None:
    stack = fast_stack
    stack.deploy(stack.put("first.raw", real_disk("RAW")), hours="0")
    stack.local.advance(4 * 3600)
    assert len(stack.amis()) == 1
    stack.local.knobs(import_seconds=1000 * 3600)

    (new,) = stack.deploy(stack.put("second.raw", real_disk("RAW")), hours="0", recipe="1").values()

    assert (stack.account.image(new) or {})["state"]["status"] == "PENDING"
    assert stack.amis() == []
    stack.destroy()
    assert stack.left_behind() == []


@pytest.mark.slow
def test_a_failed_update_rolls_back_to_the_first_image_and_leaves_no_other(stack: Stack) -> None:
    disk = stack.put("first.raw", real_disk("RAW"))
    (arn,) = stack.deploy(disk).values()
    (ami,) = stack.amis()

    with pytest.raises(CdkError):
        stack.deploy(stack.put("second.raw", real_disk("RAW")), recipe="1", fail="1")

    assert (stack.account.image(arn) or {})["state"]["status"] == "AVAILABLE"
    assert [left["ImageId"] for left in stack.amis()] == [ami["ImageId"]]
    assert [task["Status"] for task in stack.tasks()].count("active") == 0
    stack.deploy(disk)
    stack.destroy()
    assert stack.left_behind() == []


def ova_with_a_missing_disk() -> bytes:
    archive = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(real_disk("OVA"))) as whole,
        tarfile.open(fileobj=archive, mode="w") as without,
    ):
        member = whole.getmember("machine.ovf")
        without.addfile(member, whole.extractfile(member))
    return archive.getvalue()


WRONG_DISKS = {
    "a truncated VMDK": (
        "disk.vmdk",
        real_disk("VMDK")[: 2**16],
        "ClientError: Uncompressed data has invalid length",
    ),
    "an OVA with a missing disk": (
        "disk.ova",
        ova_with_a_missing_disk(),
        "ClientError: Disk validation failed [Unsupported OVA format]",
    ),
    "a wrong extension": (
        "disk.raw",
        real_disk("VHDX"),
        "ClientError: No valid partitions. Not a valid volume.",
    ),
}
FORBIDDEN = (
    "ClientError: Disk validation failed [We do not have access to the given resource. "
    "Reason 403 Forbidden]"
)


@pytest.mark.parametrize(("key", "disk", "message"), WRONG_DISKS.values(), ids=WRONG_DISKS)
@pytest.mark.slow
def test_a_wrong_disk_fails_the_deployment_with_ec2s_message_and_nothing_is_left(
    stack: Stack, key: str, disk: bytes, message: str
) -> None:
    with pytest.raises(CdkError):
        stack.deploy(stack.put(key, disk))

    assert message in stack.failures()
    assert stack.left_behind() == []


def test_an_absent_object_fails_the_deployment_with_ec2s_message(stack: Stack) -> None:
    with pytest.raises(CdkError):
        stack.deploy(f"{stack.name}/absent.raw")

    assert FORBIDDEN in stack.failures()
    assert stack.left_behind() == []


@pytest.mark.slow
def test_a_bucket_without_permission_fails_the_deployment_with_ec2s_message(stack: Stack) -> None:
    with pytest.raises(CdkError):
        stack.deploy(stack.put("disk.raw", real_disk("RAW")), other_role="1")

    assert FORBIDDEN in stack.failures()
    assert stack.left_behind() == []


@pytest.mark.slow
def test_an_unsupported_system_fails_the_deployment_with_ec2s_message(stack: Stack) -> None:
    message = "ClientError: Unknown OS / Missing OS files."
    stack.local.fail_import(message)

    with pytest.raises(CdkError):
        stack.deploy(stack.put("disk.raw", real_disk("RAW")))

    assert message in stack.failures()
    assert stack.left_behind() == []


@pytest.mark.slow
def test_the_example_with_a_disk_in_a_bucket_deploys(
    local: LocalAws, account: Account, tmp_path: Path
) -> None:
    stack = Stack(local, account, tmp_path, "examples/disk_in_a_bucket.py", "DiskInABucket")
    key = stack.put("rhel9.vmdk", real_disk("VMDK"))

    (arn,) = stack.deploy_example(bucket=BUCKET, key=key).values()

    assert (account.image(arn) or {})["state"]["status"] == "AVAILABLE"
    stack.destroy()
    assert stack.left_behind() == []


def test_the_example_with_a_local_file_deploys_encrypted(
    local: LocalAws, account: Account, tmp_path: Path
) -> None:
    stack = Stack(
        local, account, tmp_path, "examples/local_file_encrypted.py", "LocalFileEncrypted"
    )
    disk = tmp_path / "rhel9.vmdk"
    disk.write_bytes(real_disk("VMDK"))

    outputs = stack.deploy_example(disk=str(disk))

    (ami,) = stack.amis()
    (task,) = stack.tasks()
    assert ami["ImageId"] == outputs["AmiId"]
    assert task["Encrypted"]
    assert ":key/" in task["KmsKeyId"]
    stack.destroy()
    # by default the image, its AMI and the uploaded disk outlive the stack
    assert stack.amis() == [ami]
