"""Custom::VmImportTask: EC2's ImportImage task, from disks to an AMI.

It never waits for the import. The image resource does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from amis import Amis
from aws import Aws
from aws.ec2 import ImportTask
from aws.session import READS_WHILE_OTHERS_WORK, read_until_found
from cloudformation.event import Event
from cloudformation.step import Done, Response, State
from contract import IMPORT_TASK_ID, OwnTag, TaskAttribute
from errors import NotListedError, Reason, tolerated
from identity import Lookup, Record
from import_task.properties import ImportTaskProperties
from reconciler import Reconciler, ResourceType


def step(event: Event, state: State, aws: Aws) -> Done:
    """Take the one step of an event of the resource.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        aws: The AWS APIs.
    """
    reconciler = Reconciler(ImportTasks(event, state, aws))
    if event.request_type == "Delete":
        known = ImportTaskProperties.read_known(event.properties)
        stays = reconciler.delete(known)
        return Done(Response(event.physical_id, reason=Reason("; ".join(stays))))
    properties = ImportTaskProperties.read(event.properties)
    if event.request_type == "Create":
        task = reconciler.create(properties)
    else:
        old = ImportTaskProperties.read_known(event.old_properties)
        if old and old.identity != properties.identity:
            # A rollback needs the token if EC2 no longer knows the task by then.
            token = old.lookup(event.owner).tokens[0]
            with tolerated("a rollback may import again"):
                Amis(event.owner, aws).record_task(event.physical_id, token)
        task = reconciler.update(properties, old)
    return Done(Response(task.id, {TaskAttribute.IMPORT_TASK_ID: task.id}))


class ImportTasks(ResourceType[ImportTaskProperties, ImportTask]):
    """The import tasks of one CloudFormation resource."""

    noun = "import task"
    id_format = IMPORT_TASK_ID
    next_token_hint = "the description of the task"  # noqa: S105 - an argument

    def get(self, physical_id: str) -> ImportTask | None:
        """Return a task by its id. One that EC2 forgot was completed, and belonged to us."""
        return self.aws.ec2.known_task(physical_id) or self._forgotten(physical_id)

    def find(self, lookup: Lookup) -> Sequence[ImportTask]:
        """Return the tasks that this resource started under these tokens."""
        tasks = [task for task in self.aws.ec2.tasks() if task.token in lookup.tokens]
        own = [self._with_ami(task) for task in tasks if self.owner.owns(task.tags)]
        if any(task.is_usable for task in own):
            return own
        # EC2 forgets tasks, but not their AMIs.
        amis = self.aws.ec2.amis(f"tag:{OwnTag.TOKEN}", lookup.tokens)
        return own + [
            self._forgotten(ami.name)
            for ami in amis
            if ami.tags.get(OwnTag.STACK) == self.owner.stack_id
            and IMPORT_TASK_ID.fullmatch(ami.name)
        ]

    def create(self, properties: ImportTaskProperties, token: str) -> ImportTask | None:
        """Start the task, or find the one that the token started."""
        task = self.aws.ec2.import_image(properties.request(self.owner, token))
        tags = {**properties.tags, **self.owner.tags, **Record(token).tag}
        return replace(task, tags=task.tags or tags)

    def tag(self, existing: ImportTask, tags: Mapping[str, str]) -> None:
        """Add tags of the task, or change their values, as long as EC2 knows it."""
        if existing.status:
            self.aws.ec2.tag([existing.id], tags)

    def untag(self, existing: ImportTask, keys: Sequence[str]) -> None:
        """Remove tags of the task, as long as EC2 knows it."""
        if existing.status:
            self.aws.ec2.untag([existing.id], keys)

    def delete(
        self, existing: ImportTask, properties: ImportTaskProperties | None
    ) -> Sequence[str]:
        """Cancel the task, and delete what it created if that is asked for."""
        ec2, task_id = self.aws.ec2, existing.id
        if existing.is_active:
            ec2.cancel(task_id)
        if existing.is_active or not existing.is_usable:
            read_until_found(
                lambda: (task := ec2.task(task_id)) is None or task.has_ended,
                READS_WHILE_OTHERS_WORK,
            )
        return Amis(self.owner, self.aws).delete(
            task_id,
            properties.snapshots if properties else (),
            repeats=self.repeats,
            delete_ami=properties is not None and properties.delete_ami,
        )

    def _with_ami(self, task: ImportTask) -> ImportTask:
        """Return a task; a completed one whose AMI is gone counts as deleted."""
        if not task.is_completed or Amis(self.owner, self.aws).find(task.id, task.ami):
            return task
        not_listed = NotListedError(f"EC2 does not list the AMI of {task.id}")
        if self.state.may_pass(not_listed):
            raise not_listed
        return replace(task, status="deleted")

    def _forgotten(self, task_id: str) -> ImportTask:
        return ImportTask(task_id, status="", tags=self.owner.tags)
