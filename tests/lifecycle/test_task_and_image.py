"""A stack of an import task and its image: whatever goes wrong, nothing is orphaned in EC2 either.

The order of events is the documented one, see cloudformation_driver.py: the image depends on the
task, so the task comes first and goes last. `make soak` plays many more of them.
"""

from __future__ import annotations

import itertools
import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from ministack.core.responses import request_scope
from ministack.services import ec2

from local_aws.services.ec2 import vm_import
from tests.handler.cloudformation import ACCOUNT, REGION
from tests.lifecycle.aws_in_process import FAULTS, SERVICE_TIMEOUT
from tests.lifecycle.cloudformation_driver import signature_date
from tests.lifecycle.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """A stack with a task and an image, and the way that CloudFormation goes through it.

    Attributes:
        waits: Whether the image's answer waits until it is AVAILABLE.
        retains: Whether CloudFormation keeps images that were replaced or removed.
        delete_ami: Whether AMI and snapshots go with their task.
        kept: The images that CloudFormation kept, each with its task.
    """

    aws: Aws
    chance: random.Random
    waits: bool = False
    retains: bool = False
    delete_ami: bool = True
    kept: dict[str, str] = field(default_factory=dict)
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
            self._put(self.task, self._task_of(disk))
            if fails == "image":
                raise FailedError  # noqa: TRY301 - as a resource between them would
            self._put(self.image, self._image_of(version))
            # it waits for the image, unless another resource fails meanwhile
            almost = 0.95 * self.aws.world.knobs.import_seconds
            self.aws.let_pass(self.chance.choice([0, almost, 3600]) if fails else 3600)
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
                self._let_go(resource, old_id, old)
        return True

    def destroy(self) -> None:
        for resource in (self.image, self.task):
            if resource.physical_id:
                self._let_go(resource, resource.physical_id, resource.properties)
                resource.physical_id = ""

    def _task_of(self, disk: str) -> Properties:
        return {
            "DiskContainers": [{"UserBucket": {"S3Bucket": "disks", "S3Key": disk}}],
            "RoleName": "vmimport",
            "Waiter": STATE_MACHINE,
            "DeleteAmi": str(self.delete_ami).lower(),
        }

    def _image_of(self, version: str) -> Properties:
        waiting = {"TimeoutSeconds": "600"} if self.waits else {}
        return {
            "Name": "rhel9",
            "SemanticVersion": version,
            "Platform": "Linux",
            "VmImportTaskId": self.task.physical_id,
            "Retain": str(self.retains).lower(),
            "Waiter": STATE_MACHINE,
            **waiting,
        }

    def _let_go(self, resource: Resource, physical_id: str, properties: Properties) -> None:
        """What was replaced or removed."""
        if self.retains and resource is self.image:
            self.kept[physical_id] = properties["VmImportTaskId"]
        else:
            self._delete(resource, physical_id, properties)

    def _put(self, resource: Resource, properties: Properties) -> None:
        old_id = resource.physical_id
        if old_id and resource.properties == properties:
            return  # CloudFormation sends nothing
        more = {"PhysicalResourceId": old_id, "OldResourceProperties": resource.properties}
        kind = "Update" if old_id else "Create"
        resource.properties = properties  # or what it goes back from
        answer = self._send(resource, kind, properties, more if old_id else {})
        if answer["PhysicalResourceId"] != old_id:
            self.newcomers.append((resource, answer["PhysicalResourceId"], properties))
        if answer["Status"] != "SUCCESS":
            raise FailedError(answer["Reason"])
        resource.physical_id = answer["PhysicalResourceId"]

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
            self.aws.expect()  # what kills each event does not last for hours
        raise AssertionError("a deletion failed three times")

    def _send(
        self, resource: Resource, kind: str, properties: Properties, more: Properties
    ) -> Answer:
        date = signature_date(self.aws.clock.now())
        event = {
            "RequestType": kind,
            "RequestId": f"request-{next(_numbers)}",
            "StackId": self.stack_id,
            "ResponseURL": f"https://cloudformation.invalid/{next(_numbers)}?X-Amz-Date={date}",
            "ResourceType": resource.resource_type,
            "LogicalResourceId": resource.resource_type.removeprefix("Custom::"),
            "ResourceProperties": properties,
            **more,
        }
        sent = self.aws.clock.now()
        self.aws.deliver(event)
        if self.chance.random() < 0.2:  # Lambda delivers twice
            self.aws.deliver(event)
        if answers := self.aws.answers.get(event["ResponseURL"]):
            return dict(answers[0])
        # Lambda gave up, and CloudFormation does an hour later
        self.aws.clock.advance(max(0.0, sent + SERVICE_TIMEOUT - self.aws.clock.now()))
        invented = f"s-{event['LogicalResourceId']}-{next(_numbers)}"
        physical_id = more.get("PhysicalResourceId", invented)
        return {"Status": "FAILED", "Reason": "timeout", "PhysicalResourceId": physical_id}


@contextmanager
def permitted() -> Iterator[None]:
    """Role and disks are as they should be."""
    with (
        patch.object(vm_import, "_role_is_sufficient", lambda *_: True),
        patch.object(vm_import, "_pass_role", lambda _: SimpleNamespace(refusal=None)),
        patch.object(vm_import, "_disk_data", lambda *_: BOOT_RECORD),
    ):
        yield


def left(stack: Stack) -> tuple[set[str], set[str], set[str], set[str]]:
    """Images, active tasks, tasks that left an AMI, and tasks that left snapshots."""
    images = set(stack.aws.images)
    with request_scope(ACCOUNT, REGION):
        tasks = dict(stack.aws._vm_import._tasks.items())
        active = {task_id for task_id, task in tasks.items() if task.status == "active"}
        amis = {ami["Name"] for ami in ec2._images.values()}
        snapshots = {snapshot["Description"].split()[-1] for snapshot in ec2._snapshots.values()}
    return images, active, amis, snapshots


def draw_faults(chance: random.Random, *, lethal: bool) -> dict[int, str]:
    """What befalls which call: some of all kinds, or what kills an event each time it comes."""
    if lethal and chance.random() < 0.2:
        first, fault = chance.randrange(20), chance.choice(["killed before", "killed after"])
        # more often than the state machine tries again
        return dict.fromkeys(range(first, first + 100), fault)
    return {chance.randrange(40): chance.choice(FAULTS) for _ in range(chance.randrange(3))}


def play(aws: Aws, seed: int) -> None:
    """Deploy six times and destroy, with faults; and look each time what is there.

    Raises:
        AssertionError: There is what should not be there, or not what should.
    """
    chance = random.Random(seed)  # noqa: S311
    random.seed(seed)  # the handler's pauses
    aws.reset(
        import_seconds=chance.choice([60.0, 1200.0]),
        snapshots_of_dead_import=chance.choice(["keep", "delete"]),
    )
    stack = Stack(
        aws,
        chance,
        waits=chance.random() < 0.5,
        retains=chance.random() < 0.5,
        delete_ami=chance.random() < 0.7,
    )
    for _ in range(6):
        # For the rollback of an event that died, EC2 may have forgotten the task: the AMI tells.
        lethal = not untagged(stack, {stack.image.physical_id} - {""})
        aws.expect(draw_faults(chance, lethal=lethal))
        stack.deploy(
            disk=chance.choice(["first.raw", "second.raw"]),
            version=chance.choice(["1.0.0", "2.0.0"]),
            fails=chance.choice(["", "", "image", "other"]),
        )
        aws.expect()
        # an import that nobody waited for ends, or is cancelled
        aws.let_pass(3600)
        check(stack)
        aws.let_pass(chance.choice([0, DAY, 9 * DAY]))
    stack.destroy()
    aws.let_pass(3600)
    check(stack)
    assert not stack.image.physical_id


def check(stack: Stack) -> None:
    """Nothing is lost, and nothing is orphaned."""
    images, active, amis, snapshots = left(stack)
    current = {stack.image.physical_id} - {""}
    assert current <= images <= current | stack.kept.keys()
    assert active == set()
    assert not stack.aws.step_functions.running()
    assert amis == snapshots
    assert untagged(stack, current) <= given_up(stack)
    # an AMI stays as long as an image uses it
    task = {stack.task.physical_id} - {""}
    assert task | {stack.kept[arn] for arn in images - current} <= amis
    if stack.delete_ami:
        assert amis <= task | {*stack.kept.values()}


def untagged(stack: Stack, images: set[str]) -> set[str]:
    """Those whose AMI or snapshots have no tags of the stack."""
    found = set()
    with request_scope(ACCOUNT, REGION):
        for arn in images:
            (made,) = stack.aws.images[arn].amis
            disks = ec2._images[made["image"]]["BlockDeviceMappings"]
            for resource_id in [made["image"], *(disk["Ebs"]["SnapshotId"] for disk in disks)]:
                tags = {tag["Key"]: tag["Value"] for tag in ec2._tags.get(resource_id, [])}
                if tags.get("cdk-vm-import:stack") != stack.stack_id:
                    found.add(arn)
    return found


def given_up(stack: Stack) -> set[str]:
    """The images that the state machine watched last until Lambda had failed for over an hour."""
    executions = stack.aws.step_functions.executions.values()
    last = {execution.state["Waiting"]["Image"]: execution.status for execution in executions}
    return {arn for arn, status in last.items() if status == "FAILED"}


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_orphaned_whatever_goes_wrong(aws: Aws, seed: int) -> None:
    with permitted():
        play(aws, seed)
