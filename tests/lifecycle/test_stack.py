"""A stack of an import task, its image and the links that wait for it: nothing is orphaned.

CloudFormation creates and updates the resources in the order of their dependencies and deletes them
in the reverse order, see cloudformation_driver.py. `make soak` plays many more sequences.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from contract import (
    ImageAttribute,
    ImageProperty,
    OwnTag,
    ResourceType,
    TaskAttribute,
    TaskProperty,
    WaitProperty,
)
from tests.support.aws import FAULTS, ROLLS_BACK, SERVICE_TIMEOUT
from tests.support.cloudformation import new_stack_id, response_url
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.aws import Aws

_numbers = itertools.count()
DAY = 86400
MAX_LINKS = 2
# More than one execution is retried.
LETHAL = 300

Properties = dict[str, Any]
Response = dict[str, Any]


@dataclass
class Resource:
    """What CloudFormation knows of a resource; `physical_id` is empty while it does not exist."""

    logical_id: str
    resource_type: str
    physical_id: str = ""
    properties: Properties = field(default_factory=dict)
    attributes: Properties = field(default_factory=dict)


@dataclass
class Template:
    """What the user deploys.

    Attributes:
        disk: The key of the disk.
        version: The semantic version of the image.
        hours: How long the deployment waits: not at all, or for 1 to 3 hours.
    """

    disk: str
    version: str
    hours: int


class FailedError(Exception):
    """A resource failed, so the stack operation is rolled back."""


@dataclass
class Stack:
    """A stack, and the way in which CloudFormation creates, updates and deletes its resources.

    Attributes:
        retains: Whether CloudFormation retains images that were replaced or removed.
        delete_ami: Whether AMI and snapshots are deleted with their task.
        clean_up_after: How many seconds after an update CloudFormation may delete what it replaced.
        retained: The images that CloudFormation retained, each with its task.
    """

    aws: Aws
    chance: random.Random
    retains: bool = False
    delete_ami: bool = True
    clean_up_after: float = 0
    retained: dict[str, str] = field(default_factory=dict)
    stack_id: str = field(default_factory=new_stack_id)
    template: Template | None = None

    def __post_init__(self) -> None:
        self.task = Resource("Import", ResourceType.IMPORT_TASK)
        self.image = Resource("Image", ResourceType.IMAGE)
        self.links = [
            Resource(f"Wait{hour}", ResourceType.WAIT) for hour in range(2, MAX_LINKS + 2)
        ]

    @property
    def resources(self) -> list[Resource]:
        """All resources, in the order of their dependencies."""
        return [self.task, self.image, *self.links]

    def deploy(self, template: Template, fails: str = "") -> bool:
        """Create or update the stack; return whether the change stays.

        Args:
            template: The new template.
            fails: What fails besides AWS: a resource before the image, or one after all others.
        """
        before = [(r.physical_id, r.properties) for r in self.resources]
        self.created: list[tuple[Resource, str, Properties]] = []
        try:
            self._put(self.task, template)
            if fails == "before the image":
                raise FailedError  # noqa: TRY301 - as that resource would
            for resource in (self.image, *self.links[: max(0, template.hours - 1)]):
                self._put(resource, template)
            imports = self.aws.local.knobs.import_seconds
            self.aws.let_pass(self.chance.choice([0, 0.95 * imports, imports]) if fails else 0)
            if fails:
                raise FailedError  # noqa: TRY301
        except FailedError:
            self._roll_back(before)
            return False
        self.template = template
        self.aws.let_pass(self.clean_up_after)
        for resource, (old_id, old) in reversed([*zip(self.resources, before, strict=True)]):
            if old_id and self._is_in(resource, template):
                if old_id != resource.physical_id:
                    self._remove(resource, old_id, old)
            elif old_id:
                self._remove(resource, old_id, old)
                resource.physical_id = ""
        return True

    def destroy(self) -> None:
        """Delete the stack."""
        for resource in reversed(self.resources):
            if resource.physical_id:
                self._remove(resource, resource.physical_id, resource.properties)
                resource.physical_id = ""
        self.template = None

    def _is_in(self, resource: Resource, template: Template) -> bool:
        return resource not in self.links[max(0, template.hours - 1) :]

    def _resolve(self, resource: Resource, template: Template) -> Properties:
        """The properties of a resource, with the attributes of those that it depends on."""
        if resource is self.task:
            return {
                TaskProperty.DISK_CONTAINERS: [
                    {"UserBucket": {"S3Bucket": "disks", "S3Key": template.disk}}
                ],
                TaskProperty.ROLE_NAME: "vmimport",
                TaskProperty.STATE_MACHINE_ARN: STATE_MACHINE,
                TaskProperty.DELETE_AMI: str(self.delete_ami).lower(),
            }
        is_last = resource is ([self.image, *self.links])[max(0, template.hours - 1)]
        # A link has the same names for these.
        waiting: Properties = {} if is_last else {ImageProperty.CONTINUE_AFTER_TIMEOUT: "true"}
        if template.hours:
            waiting[ImageProperty.TIMEOUT_SECONDS] = "3600"
        if resource is self.image:
            return {
                ImageProperty.NAME: "rhel9",
                ImageProperty.SEMANTIC_VERSION: template.version,
                ImageProperty.PLATFORM: "Linux",
                ImageProperty.VM_IMPORT_TASK_ID: self.task.attributes[TaskAttribute.IMPORT_TASK_ID],
                ImageProperty.RETAIN: str(self.retains).lower(),
                ImageProperty.STATE_MACHINE_ARN: STATE_MACHINE,
                **waiting,
            }
        previous = self.resources[self.resources.index(resource) - 1]
        return {
            WaitProperty.IMAGE_ARN: previous.attributes[ImageAttribute.IMAGE_ARN],
            WaitProperty.VM_IMPORT_TASK_ID: self.image.attributes[ImageAttribute.VM_IMPORT_TASK_ID],
            WaitProperty.IMPORT_FAILED: self.image.attributes[ImageAttribute.IMPORT_FAILED],
            WaitProperty.STATE_MACHINE_ARN: STATE_MACHINE,
            **waiting,
        }

    def _remove(self, resource: Resource, physical_id: str, properties: Properties) -> None:
        """Delete or retain what was replaced or removed."""
        if self.retains and resource is self.image:
            self.retained[physical_id] = properties[ImageProperty.VM_IMPORT_TASK_ID]
        else:
            self._delete(resource, physical_id, properties)

    def _put(
        self, resource: Resource, template: Template, marks: Mapping[str, str] | None = None
    ) -> None:
        properties, old_id = self._resolve(resource, template), resource.physical_id
        if old_id and resource.properties == properties:
            return  # CloudFormation sends nothing
        more: dict[str, Any] = {}
        if old_id:
            old = {"PhysicalResourceId": old_id, "OldResourceProperties": resource.properties}
            more = {**old, **(marks or {})}
        resource.properties = properties
        response = self._send(resource, "Update" if old_id else "Create", properties, more)
        if response["PhysicalResourceId"] != old_id:
            self.created.append((resource, response["PhysicalResourceId"], properties))
        if response["Status"] != "SUCCESS":
            raise FailedError(response["Reason"])
        resource.physical_id = response["PhysicalResourceId"]
        resource.attributes = response["Data"]

    def _roll_back(self, before: list[tuple[str, Properties]]) -> None:
        self.aws.expect()  # or the rollback would have to be continued
        for resource, (physical_id, properties) in zip(self.resources, before, strict=True):
            if not physical_id:
                resource.physical_id = ""
            elif self.template and resource.properties != properties:
                self._put(resource, self.template, ROLLS_BACK)
                assert resource.physical_id == physical_id
        existing = {resource.physical_id for resource in self.resources}
        for resource, physical_id, properties in reversed(self.created):
            if physical_id not in existing:
                self._delete(resource, physical_id, properties)

    def _delete(self, resource: Resource, physical_id: str, properties: Properties) -> None:
        more = {"PhysicalResourceId": physical_id}
        for _ in range(3):
            if self._send(resource, "Delete", properties, more)["Status"] == "SUCCESS":
                return
            self.aws.expect()  # what kills each step does not last for hours
        raise AssertionError("a deletion failed three times")

    def _send(
        self, resource: Resource, request_type: str, properties: Properties, more: Properties
    ) -> Response:
        self.aws.sleep(1)
        event = {
            "RequestType": request_type,
            "RequestId": f"request-{next(_numbers)}",
            "StackId": self.stack_id,
            "ResponseURL": response_url(self.aws.now()),
            "ResourceType": str(resource.resource_type),
            "LogicalResourceId": resource.logical_id,
            "ResourceProperties": properties,
            **more,
        }
        sent = self.aws.now()
        self.aws.deliver(event)
        if self.chance.random() < 0.2:  # Lambda delivers it twice
            self.aws.deliver(event)
        if responses := self.aws.responses.get(event["ResponseURL"]):
            return dict(responses[0])
        # CloudFormation stops waiting.
        self.aws.sleep(max(0.0, sent + SERVICE_TIMEOUT - self.aws.now()))
        invented = f"s-{event['LogicalResourceId']}-{next(_numbers)}"
        physical_id = more.get("PhysicalResourceId", invented)
        return {"Status": "FAILED", "Reason": "timeout", "PhysicalResourceId": physical_id}


def draw_faults(chance: random.Random, *, lethal: bool) -> dict[int, str]:
    """Draw what happens to which call: a few faults, or a fault that ends each step of an event."""
    if lethal and chance.random() < 0.2:
        first, fault = chance.randrange(20), chance.choice(["killed before", "killed after"])
        return dict.fromkeys(range(first, first + LETHAL), fault)
    return {chance.randrange(40): chance.choice(FAULTS) for _ in range(chance.randrange(3))}


def play(aws: Aws, seed: int) -> None:
    """Deploy six times and destroy, with faults, and check each time what exists.

    Raises:
        AssertionError: Something exists that should not exist, or the other way round.
    """
    chance = random.Random(seed)  # noqa: S311
    random.seed(seed)  # the handler's jitter
    # The last two take longer than the first hour, and than the second.
    import_seconds = chance.choice([60.0, 1200.0, 1200.0, 5000.0, 9000.0])
    aws.reset(
        import_seconds=import_seconds,
        snapshots_of_failed_import=chance.choice(["keep", "delete"]),
        ami_listing_seconds=chance.choice([0, 0, 3]),
    )
    lag = chance.choice([0, 0, 1, 3, 6])
    aws.local.change_knobs(read_lag_seconds=lag, stack_lag_seconds=lag)
    stack = Stack(
        aws,
        chance,
        retains=chance.random() < 0.5,
        delete_ami=chance.random() < 0.7,
        clean_up_after=chance.choice([0, 30, 600]),
    )
    waits = chance.random() < 0.6
    for _ in range(6):
        # A rollback after an event that got no response needs the AMI's tags if EC2 no longer
        # knows the task.
        lethal = not untagged(stack, {stack.image.physical_id} - {""})
        aws.expect(draw_faults(chance, lethal=lethal))
        stack.deploy(
            Template(
                disk=chance.choice(["first.raw", "second.raw"]),
                version=chance.choice(["1.0.0", "2.0.0"]),
                hours=chance.choice([1, 2, 3]) if waits else 0,
            ),
            fails=chance.choice(["", "", "before the image", "after all"]),
        )
        aws.expect()
        aws.let_pass(import_seconds + 3600)  # imports that nobody waited for end
        check(stack)
        aws.let_pass(chance.choice([0, DAY, 9 * DAY]))
    stack.destroy()
    aws.let_pass(3600)
    check(stack)
    assert not stack.image.physical_id


def check(stack: Stack) -> None:
    """Check that nothing is lost and nothing is orphaned."""
    local = stack.aws.local
    images, current = set(local.images), {stack.image.physical_id} - {""}
    active = {task_id for task_id, task in local.tasks.items() if task.status == "active"}
    amis = {ami["Name"] for ami in local.amis.values()}
    snapshots = {snapshot["Description"].split()[-1] for snapshot in local.snapshots.values()}
    assert current <= images <= current | stack.retained.keys()
    assert active == set()
    assert not stack.aws.step_functions.running()
    assert amis == snapshots
    assert untagged(stack, current) <= abandoned(stack)
    # An AMI exists as long as an image uses it.
    task = {stack.task.physical_id} - {""}
    assert task | {stack.retained[arn] for arn in images - current} <= amis
    if stack.delete_ami:
        assert amis <= task | {*stack.retained.values()}
    if stack.template and stack.template.hours:
        last = stack.resources[stack.template.hours]
        assert last.attributes[ImageAttribute.IMAGE_ARN] == stack.image.physical_id
        (ami,) = local.images[stack.image.physical_id].amis
        assert last.attributes[ImageAttribute.IMAGE_ID] == ami["image"]


def untagged(stack: Stack, images: set[str]) -> set[str]:
    """The images whose AMI or snapshots do not have the tags of the stack."""
    found = set()
    local = stack.aws.local
    for arn in images:
        (created,) = local.images[arn].amis
        disks = local.amis[created["image"]]["BlockDeviceMappings"]
        for resource_id in [created["image"], *(disk["Ebs"]["SnapshotId"] for disk in disks)]:
            if local.ec2_tags(resource_id).get(OwnTag.STACK) != stack.stack_id:
                found.add(arn)
    return found


def abandoned(stack: Stack) -> set[str]:
    """The images whose last execution failed because Lambda had failed for over an hour."""
    last = {e.image: e.status for e in stack.aws.step_functions.executions if e.image}
    return {arn for arn, status in last.items() if status == "FAILED"}


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_orphaned_whatever_fails(aws: Aws, seed: int) -> None:
    play(aws, seed)
