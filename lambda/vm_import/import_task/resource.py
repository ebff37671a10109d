"""Custom::VmImportTask: EC2's ImportImage task, from disks to an AMI.

It never waits for the import. The image resource does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from amis import Amis
from aws import Aws
from aws.deadline import LambdaContext
from aws.ec2 import ImportTask
from cloudformation.event import Event
from cloudformation.step import Done, Response, State
from contract import IMPORT_TASK_ID, TaskAttribute
from errors import AwsError, VmImportError
from identity import Lookup, Owner
from import_task.properties import ImportTaskProperties
from reconciler import Reconciler

logger = logging.getLogger(__name__)

# How long a step may take, in seconds.
_STEP: Final = 300
# How long EC2 may take, in seconds, to see a new role or permission, or to delete a task.
_EVENTUALLY: Final = 120


def step(event: Event, _state: State, context: LambdaContext) -> Done:
    """Take the one step of an event of the resource.

    Args:
        event: CloudFormation's event.
        _state: What is known from the steps before.
        context: The context of the invocation.
    """
    aws = Aws(context, _STEP)
    tasks = ImportTasks(event.owner, aws)
    reconciler = Reconciler(event.owner, tasks, aws.deadline)
    if event.request_type == "Delete":
        known = ImportTaskProperties.read_known(event.properties)
        stays = reconciler.delete(event.physical_id, known)
        return Done(Response(event.physical_id, reason="; ".join(stays)))
    properties = ImportTaskProperties.read(event.properties)
    if event.request_type == "Create":
        task = reconciler.create(properties)
    else:
        old = ImportTaskProperties.read_known(event.old_properties)
        if old and old.identity != properties.identity:
            _record_task(event, old, aws)
        task = reconciler.update(event.physical_id, properties, old)
    return Done(Response(task.id, {TaskAttribute.IMPORT_TASK_ID: task.id}))


def _record_task(event: Event, old: ImportTaskProperties, aws: Aws) -> None:
    """Let a rollback find the AMI of the task in use when EC2 no longer knows the task.

    In a rollback of an update that never responded the task does not belong to the old properties.
    As long as EC2 knows the task, the task's own token is used.
    """
    try:
        token = old.lookup(event.owner).tokens[0]
        Amis(event.owner, aws).record_task(event.physical_id, token)
    except VmImportError as error:
        logger.warning("a rollback may import again: %s", error)


class ImportTasks:
    """The import tasks of one CloudFormation resource, for the reconciler."""

    noun = "import task"
    next_token_hint = "the description of the task"  # noqa: S105 - an argument

    def __init__(self, owner: Owner, aws: Aws) -> None:
        """Work for one resource.

        Args:
            owner: The CloudFormation resource.
            aws: The AWS APIs.
        """
        self._owner = owner
        self._aws = aws
        self._amis = Amis(owner, aws)

    def is_id(self, physical_id: str) -> bool:
        """Return whether this is the id of a task."""
        return IMPORT_TASK_ID.fullmatch(physical_id) is not None

    def get(self, physical_id: str) -> ImportTask | None:
        """Return a task by its id. One that EC2 forgot was completed, and belonged to us."""
        return self._aws.ec2.task(physical_id) or self._forgotten(physical_id)

    def find(self, lookup: Lookup) -> Sequence[ImportTask]:
        """Return the tasks that this resource started under these tokens."""
        own = [
            replace(task, has_ami=bool(self._aws.ec2.amis_of(task.id)))
            if task.is_completed
            else task
            for task in self._aws.ec2.tasks()
            if task.token in lookup.tokens and self._owner.owns(task.tags)
        ]
        if any(task.is_usable for task in own):
            return own
        # EC2 forgets tasks, but not their AMIs.
        amis = self._aws.ec2.amis_tagged(self._owner.stack_id, lookup.tokens)
        return own + [self._forgotten(ami.name) for ami in amis if self.is_id(ami.name)]

    def earlier_failures(
        self, physical_id: str, properties: ImportTaskProperties
    ) -> Sequence[ImportTask]:
        """Return nothing: EC2 deletes its record of a failed task itself."""
        del physical_id, properties
        return ()

    def check(self, properties: ImportTaskProperties) -> None:
        """Accept all: only ImportImage itself checks disks and role."""

    def create(self, properties: ImportTaskProperties, token: str) -> ImportTask | None:
        """Start the task; wait while EC2 does not see a new role or permission."""
        request = properties.request(self._owner, token)
        end = time.monotonic() + _EVENTUALLY
        for _ in self._aws.deadline.attempts("EC2 to see the role of the import", longest=10):
            try:
                task = self._aws.ec2.import_image(request)
            except AwsError as error:
                if not _is_about_role(error) or time.monotonic() > end:
                    raise
                logger.info({"action": "ImportImage", "retried after": str(error)})
            else:
                tags = {tag["Key"]: tag["Value"] for tag in request["TagSpecifications"][0]["Tags"]}
                return replace(task, tags=task.tags or tags)
        raise AssertionError  # attempts() never ends by itself

    def tag(
        self,
        resource: ImportTask,
        properties: ImportTaskProperties,
        previous: Mapping[str, str],
    ) -> None:
        """Apply the template's tags to the task, as long as EC2 knows it."""
        if not resource.status:
            return
        tags = resource.tags or {}
        if changed := {k: v for k, v in properties.tags.items() if tags.get(k) != v}:
            self._aws.ec2.tag([resource.id], changed)
        if removed := (set(previous) - set(properties.tags)) & set(tags):
            self._aws.ec2.untag([resource.id], removed)

    def delete(
        self, resource: ImportTask, properties: ImportTaskProperties | None
    ) -> Sequence[str]:
        """Cancel the task, and delete what it created if that is asked for.

        Returns:
            What stays, each with the reason.
        """
        if resource.is_active and resource.status:
            self._aws.ec2.cancel(resource.id)
        if resource.status and not resource.is_completed:
            self._wait_until_deleted(resource.id)
        disks = properties.snapshots if properties else []
        if properties and properties.delete_ami:
            return self._amis.delete(resource.id, disks)
        return [
            *self._amis.delete_snapshots_of_failed(resource.id, disks),
            *self._amis.left_by(resource.id),
        ]

    def _forgotten(self, task_id: str) -> ImportTask:
        return ImportTask(task_id, status="", tags=self._owner.tags)

    def _wait_until_deleted(self, task_id: str) -> None:
        """Wait, but not without end, while EC2 deletes what the task created."""
        end = time.monotonic() + _EVENTUALLY
        for _ in self._aws.deadline.attempts("EC2 to delete the task"):
            task = self._aws.ec2.task(task_id)
            if task is None or task.status != "deleting" or time.monotonic() > end:
                return


def _is_about_role(error: AwsError) -> bool:
    """Return whether EC2 does not see the role of the import, or a permission, yet.

    https://docs.aws.amazon.com/vm-import/latest/userguide/troubleshooting.html
    """
    return error.code == "UnauthorizedOperation" or (
        error.code == "InvalidParameter" and "service role" in str(error)
    )
