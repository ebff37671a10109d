"""A stack of an import task and its image: whatever goes wrong, nothing is orphaned in EC2 either.

The order of events is the documented one, see cloudformation_driver.py: the image depends on the
task, so the task comes first and goes last.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ministack.core.responses import request_scope
from ministack.services import ec2

from local_aws import vm_import
from tests.handler.cloudformation import ACCOUNT, REGION
from tests.lifecycle.aws_in_process import FAULTS

if TYPE_CHECKING:
    from tests.lifecycle.aws_in_process import Aws

_numbers = itertools.count()
TASK, IMAGE = "Custom::VmImportTask", "Custom::ImportedVmImage"
DAY = 86400
BOOT_RECORD = b"\0" * 510 + b"\x55\xaa"

Properties = dict[str, Any]
Answer = dict[str, Any]


@dataclass
class Resource:
    """What CloudFormation knows of a resource."""

    resource_type: str
    physical_id: str = ""
    properties: Properties = field(default_factory=dict)


class FailedError(Exception):
    """A resource failed; what of it has to be deleted is in the stack's clean-up."""


@dataclass
class Stack:
    """A stack with a task and an image, and the way that CloudFormation goes through it."""

    aws: Aws
    chance: random.Random
    stack_id: str = field(
        default_factory=lambda: (
            f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/s/{next(_numbers)}"
        )
    )
    task: Resource = field(default_factory=lambda: Resource(TASK))
    image: Resource = field(default_factory=lambda: Resource(IMAGE))

    def deploy(self, disk: str, version: str, fails: str = "") -> bool:
        """Create or update; whether it stays. `fails` is what fails beside AWS: image or other."""
        before = [(r.physical_id, r.properties) for r in (self.task, self.image)]
        self.newcomers: list[tuple[Resource, str, Properties]] = []
        try:
            self._put(self.task, imported(disk))
            if fails == "image":
                raise FailedError  # noqa: TRY301 - as a resource between them would
            self._put(self.image, image_of(self.task.physical_id, version))
            # it waits for the image, unless another resource fails meanwhile
            if not fails or self.chance.random() < 0.5:
                self.aws.clock.advance(3600)
            if fails:
                raise FailedError  # noqa: TRY301
        except FailedError:
            self._roll_back(before)
            kept = {self.task.physical_id, self.image.physical_id}
            for resource, physical_id, properties in reversed(self.newcomers):
                if physical_id not in kept:
                    self._delete(resource, physical_id, properties)
            return False
        after = (self.task, self.image)
        for resource, (old_id, old) in reversed([*zip(after, before, strict=True)]):
            if old_id not in {"", resource.physical_id}:
                self._delete(resource, old_id, old)
        return True

    def destroy(self) -> None:
        for resource in (self.image, self.task):
            if resource.physical_id:
                self._delete(resource, resource.physical_id, resource.properties)
                resource.physical_id = ""

    def _put(self, resource: Resource, properties: Properties) -> None:
        old_id = resource.physical_id
        more = {"PhysicalResourceId": old_id, "OldResourceProperties": resource.properties}
        kind = "Update" if old_id else "Create"
        answer = self._send(resource, kind, properties, more if old_id else {})
        if answer["PhysicalResourceId"] != old_id:
            self.newcomers.append((resource, answer["PhysicalResourceId"], properties))
        if answer["Status"] != "SUCCESS":
            raise FailedError(answer["Reason"])
        resource.physical_id, resource.properties = answer["PhysicalResourceId"], properties

    def _roll_back(self, before: list[tuple[str, Properties]]) -> None:
        # somebody mends what is wrong, and goes on
        self.aws.expect()
        for resource, (physical_id, properties) in zip(
            (self.task, self.image), before, strict=True
        ):
            if not physical_id:
                resource.physical_id = ""
            elif resource.properties != properties:
                self._put(resource, properties)
                assert resource.physical_id == physical_id

    def _delete(self, resource: Resource, physical_id: str, properties: Properties) -> None:
        more = {"PhysicalResourceId": physical_id}
        for _ in range(3):
            if self._send(resource, "Delete", properties, more)["Status"] == "SUCCESS":
                return
        raise AssertionError("a deletion failed three times")

    def _send(
        self, resource: Resource, kind: str, properties: Properties, more: Properties
    ) -> Answer:
        event = {
            "RequestType": kind,
            "RequestId": f"request-{next(_numbers)}",
            "StackId": self.stack_id,
            "ResponseURL": f"https://cloudformation.invalid/{next(_numbers)}",
            "ResourceType": resource.resource_type,
            "LogicalResourceId": resource.resource_type.removeprefix("Custom::"),
            "ResourceProperties": properties,
            **more,
        }
        self.aws.deliver(event)
        if self.chance.random() < 0.2:  # Lambda delivers twice
            self.aws.deliver(event)
        return dict(self.aws.answers[event["ResponseURL"]][0])


def imported(disk: str) -> Properties:
    """Properties of the task."""
    return {
        "DiskContainers": [{"UserBucket": {"S3Bucket": "disks", "S3Key": disk}}],
        "RoleName": "vmimport",
        "DeleteAmi": "true",
    }


def image_of(task_id: str, version: str) -> Properties:
    """Properties of the image."""
    return {
        "Name": "rhel9",
        "SemanticVersion": version,
        "Platform": "Linux",
        "VmImportTaskId": task_id,
    }


@pytest.fixture
def account(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Role and disks are as they should be."""
    monkeypatch.setattr(vm_import, "_role_is_sufficient", lambda *_: True)
    monkeypatch.setattr(vm_import, "_pass_role", lambda _: SimpleNamespace(refusal=None))
    monkeypatch.setattr(vm_import, "_disk_data", lambda *_: BOOT_RECORD)
    return aws


def left(stack: Stack) -> tuple[set[str], set[str], set[str], set[str]]:
    """Images, active tasks, tasks that left an AMI, and tasks that left snapshots."""
    images = set(stack.aws.images)
    with request_scope(ACCOUNT, REGION):
        tasks = dict(stack.aws._vm_import._tasks.items())
        active = {task_id for task_id, task in tasks.items() if task.status == "active"}
        amis = {ami["Name"] for ami in ec2._images.values()}
        described = [str(snapshot["Description"]) for snapshot in ec2._snapshots.values()]
    snapshots = {text.split()[-1] for text in described}
    return images, active, amis & tasks.keys(), snapshots & tasks.keys()


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_orphaned_whatever_goes_wrong(account: Aws, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    stack = Stack(account, chance)
    for _ in range(6):
        faults = {chance.randrange(40): chance.choice(FAULTS) for _ in range(chance.randrange(4))}
        account.expect(faults)
        stack.deploy(
            disk=chance.choice(["first.raw", "second.raw"]),
            version=chance.choice(["1.0.0", "2.0.0"]),
            fails=chance.choice(["", "", "image", "other"]),
        )
        # an import that nobody waited for ends, or is cancelled
        account.clock.advance(3600)
        images, active, amis, snapshots = left(stack)
        assert images == {stack.image.physical_id} - {""}
        assert active == set()
        assert amis == snapshots == {stack.task.physical_id} - {""}
        account.clock.advance(chance.choice([0, DAY, 9 * DAY]))
    account.expect()
    stack.destroy()
    account.clock.advance(3600)
    assert left(stack) == (set(), set(), set(), set())
