"""What an update removes is cleaned up, although the update removes the need for permissions too.

CloudFormation updates the role of the function before it deletes what the update removes, and a
rollback restores the role before it deletes what the update created.
"""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final

import pytest

from contract import OwnTag
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from local_aws.client.prerequisites import BUCKET, DISK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local_aws import LocalAws

APP: Final = CHECKOUT / "tests/deploy/permissions_app.py"
# The deployment does not wait for these imports, which outlast each test.
RUNNING: Final = {"wait_for_available": False, "disk": DISK}


class Stack:
    """A stack whose images and tasks change."""

    def __init__(self, local: LocalAws, folder: Path, import_image: Callable[[], str]) -> None:
        self.name = f"Permissions{uuid.uuid4().hex[:8]}"
        # Starts an import task outside the stack.
        self.import_image = import_image
        self._cdk = CdkCli(local, folder, app=f"{sys.executable} {APP}")
        client: Any = local.session().client
        self._ec2, self._cloudformation = client("ec2"), client("cloudformation")
        # An image that needs no task of the stack, and that stays.
        self.plain = {"vm_import_task_id": self.import_image(), "wait_for_available": False}

    def deploy(self, images: dict[str, dict[str, Any]], **context: str) -> None:
        all_images = json.dumps({"Plain": self.plain, **images})
        self._cdk.deploy(stack=self.name, bucket=BUCKET, images=all_images, **context)

    def destroy(self) -> None:
        self._cdk.destroy(stack=self.name, bucket=BUCKET, images=json.dumps({}))

    def active_tasks(self) -> dict[str, str]:
        """Ids of the tasks of the stack that still import, by logical id of the resource."""
        tasks = self._ec2.describe_import_image_tasks()["ImportImageTasks"]
        tags = {task["ImportTaskId"]: tags_of(task) for task in tasks if task["Status"] == "active"}
        return {
            found[OwnTag.RESOURCE][:5]: task_id
            for task_id, found in tags.items()
            if f":stack/{self.name}/" in found.get(OwnTag.STACK, "")
        }

    def amis(self) -> list[str]:
        """Ids of the AMIs and snapshots that have the tag of the stack."""
        amis = self._ec2.describe_images(Owners=["self"])["Images"]
        snapshots = self._ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [
            found.get("ImageId") or found["SnapshotId"]
            for found in [*amis, *snapshots]
            if f":stack/{self.name}/" in tags_of(found).get(OwnTag.STACK, "")
        ]

    def failed_events(self) -> list[str]:
        """The stack events of failures, with the reasons."""
        events = self._cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in events
            if event["ResourceStatus"].endswith("_FAILED")
        ]


def tags_of(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


@pytest.fixture
def stack(local: LocalAws, account: Any, tmp_path: Path) -> Iterator[Stack]:
    before = local.knobs()
    local.knobs(import_seconds=10**6, cancel_seconds=1, deleting_seconds=1, image_watch_seconds=1)
    stack = Stack(local, tmp_path, account.import_image)
    yield stack
    stack.destroy()
    local.knobs(**before)


def test_a_task_that_is_removed_is_cancelled_although_it_is_the_last_one(stack: Stack) -> None:
    stack.deploy({"First": RUNNING})
    assert stack.active_tasks().keys() == {"First"}

    stack.deploy({})

    assert stack.active_tasks() == {}
    assert stack.failed_events() == []


@pytest.mark.slow
def test_a_task_that_is_removed_is_cancelled_and_the_other_one_continues(stack: Stack) -> None:
    stack.deploy({"First": RUNNING, "Other": RUNNING})
    before = stack.active_tasks()
    assert before.keys() == {"First", "Other"}

    stack.deploy({"Other": RUNNING})

    assert stack.active_tasks() == {"Other": before["Other"]}
    assert stack.failed_events() == []


@pytest.mark.slow
def test_the_first_task_is_cancelled_when_the_update_that_added_it_rolls_back(stack: Stack) -> None:
    stack.deploy({})

    with pytest.raises(CdkError):
        stack.deploy({"First": RUNNING}, fail_after="First")

    assert stack.active_tasks() == {}
    (failure,) = stack.failed_events()
    assert failure.startswith("Broken: ")


@pytest.mark.slow
@pytest.mark.parametrize("from_disk", [True, False])
def test_the_ami_of_the_last_image_with_delete_ami_is_deleted_with_the_image(
    local: LocalAws, stack: Stack, *, from_disk: bool
) -> None:
    local.knobs(import_seconds=60)
    source = {"disk": DISK} if from_disk else {"vm_import_task_id": stack.import_image()}
    stack.deploy({"First": {**source, "delete_ami": True}})
    local.knobs(import_seconds=10**6)
    assert len(stack.amis()) >= 2

    stack.deploy({})

    assert set(stack.amis()) <= amis_of_plain(local, stack)
    assert stack.failed_events() == []


@pytest.mark.slow
def test_the_ami_of_a_replaced_image_is_deleted_although_the_update_switches_delete_ami_off(
    local: LocalAws, stack: Stack
) -> None:
    local.knobs(import_seconds=60)
    old, new = ({"vm_import_task_id": stack.import_image()} for _ in range(2))
    stack.deploy({"First": {**old, "delete_ami": True}})
    before = set(stack.amis()) - amis_of_plain(local, stack)
    assert len(before) == 2

    stack.deploy({"First": {**new, "semantic_version": "2.0.0"}})

    assert not before & set(stack.amis())
    assert stack.failed_events() == []


def amis_of_plain(local: LocalAws, stack: Stack) -> set[str]:
    """The AMI and the snapshots of the image that stays, if its import has ended."""
    ec2: Any = local.session().client("ec2")
    names = [{"Name": "name", "Values": [str(stack.plain["vm_import_task_id"])]}]
    return {
        found
        for ami in ec2.describe_images(Owners=["self"], Filters=names)["Images"]
        for found in [
            ami["ImageId"],
            *(mapping["Ebs"]["SnapshotId"] for mapping in ami["BlockDeviceMappings"]),
        ]
    }
