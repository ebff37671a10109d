"""From a disk to a recipe in one deployment, with the real CDK CLI and disks made by qemu-img."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from tests.deploy.deployed import HOUR, Account, StackView, eventually, numbers, played
from tests.disks.real_disks import FORMATS, real_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_aws import LocalAws

BUCKET = "real-disks"


class Stack(StackView):
    """A stack that imports disks, from its creation to its deletion."""

    def __init__(
        self, account: Account, folder: Path, app: str = "tests/deploy/disk_app.py", name: str = ""
    ) -> None:
        super().__init__(account, name or f"FromDisk{next(numbers)}")
        self._cdk = CdkCli(account.local, folder, app=f"{sys.executable} {CHECKOUT / app}")
        self._context: dict[str, str] = {}

    def put(self, key: str, disk: bytes) -> str:
        """Upload a disk; return its key, which no other test has."""
        key = f"{self.name}/{key}"
        self.account.s3.put_object(Bucket=BUCKET, Key=key, Body=disk)
        return key

    def deploy(self, *disks: str | tuple[str, str], **context: str) -> dict[str, str]:
        keys = dict(disk if isinstance(disk, tuple) else (disk, None) for disk in disks)
        own = {"stack": self.name, "bucket": BUCKET, "disks": json.dumps(keys)}
        return self.deploy_example(**own, **context)

    def deploy_example(self, **context: str) -> dict[str, str]:
        """Deploy it, and let the time pass quickly that it waits."""
        self._context = context
        with ThreadPoolExecutor(max_workers=1) as executor:
            deployment = executor.submit(self._cdk.deploy, **context)
            # Time passes only when an import has begun.
            assert eventually(lambda: deployment.done() or self.has_active_task(), 120)
            assert played(self.local, deployment.done)
        return deployment.result()

    def destroy(self) -> None:
        self._cdk.destroy(**self._context)

    def parent_image(self) -> str:
        """The parent image of its recipe."""
        (recipe,) = self.resources("AWS::ImageBuilder::ImageRecipe").values()
        described = self.account.images.get_image_recipe(imageRecipeArn=recipe)
        return str(described["imageRecipe"]["parentImage"])

    def tasks(self) -> list[dict[str, Any]]:
        tasks = self.account.ec2.describe_import_image_tasks()["ImportImageTasks"]
        return [task for task in tasks if f":stack/{self.name}/" in str(task["Tags"])]

    def has_active_task(self) -> bool:
        return any(task["Status"] == "active" for task in self.tasks())

    def amis(self) -> list[dict[str, Any]]:
        ids = [task["ImportTaskId"] for task in self.tasks()]
        found = self.account.ec2.describe_images(Owners=["self"])["Images"]
        return [ami for ami in found if ami["Name"] in ids]

    def left(self) -> list[str]:
        """Active tasks, images, AMIs and snapshots of the stack."""
        tasks = self.tasks()
        ids = [task["ImportTaskId"] for task in tasks]
        snapshots = self.account.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
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
def short_imports(local: LocalAws, account: Account) -> None:
    local.knobs(import_seconds=120, image_watch_seconds=1, cancel_seconds=1)
    account.s3.create_bucket(Bucket=BUCKET)


@pytest.fixture
def stack(account: Account, tmp_path: Path) -> Stack:
    return Stack(account, tmp_path)


@pytest.fixture
def late(local: LocalAws) -> Iterator[None]:
    """Have AWS see each change late, and CloudFormation clean up late and in another order."""
    before = local.knobs()
    local.knobs(
        iam_lag_seconds=60, read_lag_seconds=6, clean_up_seconds=300, resource_order="reverse"
    )
    yield
    local.knobs(**before)


@pytest.fixture
def long_imports(local: LocalAws) -> Iterator[None]:
    """Imports take three hours."""
    local.knobs(import_seconds=3 * HOUR)
    yield
    local.knobs(import_seconds=120)


@pytest.mark.slow
def test_disks_of_all_formats_become_images_and_are_deleted_with_the_stack(stack: Stack) -> None:
    keys = [stack.put(f"disk.{name.lower()}", real_disk(name)) for name in FORMATS]

    arns = stack.deploy(*keys).values()

    images = [stack.account.image(arn) or {} for arn in arns]
    assert [image["state"]["status"] for image in images] == ["AVAILABLE"] * len(FORMATS)
    assert [task["Status"] for task in stack.tasks()] == ["completed"] * len(FORMATS)
    assert [tags(ami)["team"] for ami in stack.amis()] == ["images"] * len(FORMATS)
    stack.destroy()
    assert stack.left() == []
    objects = stack.account.s3.list_objects_v2(Bucket=BUCKET, Prefix=stack.name)["Contents"]
    assert len(objects) == len(FORMATS)


@pytest.mark.usefixtures("late")
def test_a_changed_disk_replaces_the_image_and_leaves_nothing_of_the_old_one(stack: Stack) -> None:
    (old,) = stack.deploy(stack.put("first.raw", real_disk("RAW"))).values()

    (new,) = stack.deploy(stack.put("second.vmdk", real_disk("VMDK")), recipe="1").values()

    assert stack.account.image(old) is None
    assert (stack.account.image(new) or {})["state"]["status"] == "AVAILABLE"
    assert len(stack.amis()) == 1


@pytest.mark.usefixtures("long_imports")
@pytest.mark.slow
def test_a_changed_disk_is_waited_for_in_later_hours_too(stack: Stack) -> None:
    (old,) = stack.deploy(stack.put("first.raw", real_disk("RAW")), hours="12").values()
    old_parent = stack.parent_image()
    disk = stack.put("second.vmdk", real_disk("VMDK"))

    (new,) = stack.deploy(disk, hours="12", recipe="1").values()

    (ami,) = stack.amis()
    assert stack.account.ami_of(new) == ami["ImageId"]
    assert (old_parent, stack.parent_image()) == (old, new)
    assert stack.account.image(old) is None
    assert [task["Status"] for task in stack.tasks()] == ["completed", "completed"]
    stack.destroy()
    assert stack.left() == []


@pytest.mark.usefixtures("long_imports")
@pytest.mark.slow
def test_the_old_ami_is_deleted_though_the_deployment_does_not_wait_for_the_new_one(
    stack: Stack,
) -> None:
    stack.deploy(stack.put("first.raw", real_disk("RAW")), hours="0")
    stack.local.advance(4 * HOUR)
    assert len(stack.amis()) == 1
    stack.local.knobs(import_seconds=1000 * HOUR)

    (new,) = stack.deploy(stack.put("second.raw", real_disk("RAW")), hours="0", recipe="1").values()

    assert (stack.account.image(new) or {})["state"]["status"] == "PENDING"
    assert stack.amis() == []
    stack.destroy()
    assert stack.left() == []


@pytest.mark.slow
def test_rollback_of_a_failed_update_keeps_the_original_image_and_its_ami(stack: Stack) -> None:
    disk = stack.put("first.raw", real_disk("RAW"))
    (arn,) = stack.deploy(disk).values()
    (ami,) = stack.amis()

    with pytest.raises(CdkError):
        stack.deploy(stack.put("second.raw", real_disk("RAW")), recipe="1", fail="1")

    assert (stack.account.image(arn) or {})["state"]["status"] == "AVAILABLE"
    assert [found["ImageId"] for found in stack.amis()] == [ami["ImageId"]]
    assert [task["Status"] for task in stack.tasks()].count("active") == 0
    stack.deploy(disk)
    stack.destroy()
    assert stack.left() == []


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
    assert stack.left() == []


@pytest.mark.slow
def test_a_missing_object_fails_the_deployment_with_ec2s_message(stack: Stack) -> None:
    with pytest.raises(CdkError):
        stack.deploy(f"{stack.name}/absent.raw")

    assert FORBIDDEN in stack.failures()
    assert stack.left() == []


@pytest.mark.slow
def test_a_bucket_without_permission_fails_the_deployment_with_ec2s_message(stack: Stack) -> None:
    with pytest.raises(CdkError):
        stack.deploy(stack.put("disk.raw", real_disk("RAW")), other_role="1")

    assert FORBIDDEN in stack.failures()
    assert stack.left() == []


@pytest.mark.slow
def test_an_unsupported_system_fails_the_deployment_with_ec2s_message(stack: Stack) -> None:
    message = "ClientError: Unknown OS / Missing OS files."
    stack.local.fail_import(message)

    with pytest.raises(CdkError):
        stack.deploy(stack.put("disk.raw", real_disk("RAW")))

    assert message in stack.failures()
    assert stack.left() == []


@pytest.mark.slow
def test_the_example_with_a_disk_in_a_bucket_deploys(account: Account, tmp_path: Path) -> None:
    stack = Stack(account, tmp_path, "examples/recipe_and_pipeline.py", "RecipeAndPipeline")
    key = stack.put("rhel9.vmdk", real_disk("VMDK"))

    (arn,) = stack.deploy_example(bucket=BUCKET, key=key).values()

    assert (account.image(arn) or {})["state"]["status"] == "AVAILABLE"
    stack.destroy()
    assert stack.left() == []


def test_the_example_with_a_local_file_deploys_encrypted(account: Account, tmp_path: Path) -> None:
    stack = Stack(account, tmp_path, "examples/local_file_encrypted.py", "LocalFileEncrypted")
    disk = tmp_path / "rhel9.vmdk"
    disk.write_bytes(real_disk("VMDK"))

    outputs = stack.deploy_example(disk=str(disk))

    (ami,) = stack.amis()
    (task,) = stack.tasks()
    assert ami["ImageId"] == outputs["AmiId"]
    assert task["Encrypted"]
    assert ":key/" in task["KmsKeyId"]
    stack.destroy()
    # By default the image, its AMI and the uploaded disk are retained.
    assert stack.amis() == [ami]
