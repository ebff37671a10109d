"""The AMI and the snapshots that an import creates: tag them, delete them, or refuse to."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

from ami_settings import record
from aws import Aws
from aws.ec2 import Ami, ImportTask
from aws.image_builder import Image
from aws.session import READS, read_until_found
from contract import ImageProperty, OwnTag
from errors import NotListedError, VmImportError, tolerated
from identity import Owner, tokens_of
from tags import change_tags

logger = logging.getLogger(__name__)


class Amis:
    """The AMIs of import tasks, as far as one CloudFormation resource may change them."""

    def __init__(self, owner: Owner, aws: Aws) -> None:
        """Work for one resource.

        Args:
            owner: The CloudFormation resource.
            aws: The AWS APIs.
        """
        self._owner = owner
        self._ec2 = aws.ec2
        self._image_builder = aws.image_builder

    def find(self, task_id: str, ami_id: str = "") -> list[Ami]:
        """Return the AMI that a task created, if EC2 lists it.

        Args:
            task_id: The task.
            ami_id: The AMI that Image Builder names. Default: the one that the task names, or else
                the one whose name is the id of the task.
        """
        if not ami_id and (task := self._ec2.task(task_id)):
            ami_id = task.ami
        if ami_id:
            return self._ec2.amis("image-id", [ami_id])
        return self._ec2.amis("name", [task_id])

    def tag(
        self, task_id: str, ami_id: str, expected: Mapping[str, str], previous: Iterable[str]
    ) -> bool:
        """Copy the tags of the image to what a task created: EC2 tags only the task.

        Args:
            task_id: The task.
            ami_id: The AMI that it created.
            expected: The tags that the template names now.
            previous: The keys that it named before.

        Returns:
            Whether the AMI had no tag of the stack before.

        Raises:
            NotListedError: EC2 does not list the AMI.
        """
        found = self.find(task_id, ami_id)
        if not found:
            raise NotListedError(f"EC2 does not list the AMI {ami_id}")
        is_new = not any(OwnTag.STACK in ami.tags for ami in found)
        for ami in found:
            if self._owner.is_another(ami.tags):
                logger.info("%s is not tagged: it belongs to another resource", ami.id)
                continue
            changed = {**expected, **self._owner.tags}
            task = self._ec2.task(task_id)
            # By its token a VmImportTask finds the AMI when EC2 no longer knows the task.
            if OwnTag.STACK not in ami.tags and task and task.token:
                changed[OwnTag.TOKEN] = task.token
            # A disk that is a snapshot belongs to somebody else.
            disks = task.source_snapshots if task else self._not_tagged(ami.snapshots)
            ids = [ami.id, *(snapshot for snapshot in ami.snapshots if snapshot not in disks)]
            if changed.items() <= ami.tags.items():
                changed = {}
            removed = (set(previous) - set(expected)) & set(ami.tags)
            add, remove = partial(self._ec2.tag, ids), partial(self._ec2.untag, ids)
            change_tags(ami.tags, changed, removed, add, remove)
        return is_new

    def record_task(self, task_id: str, token: str) -> None:
        """Tag the AMI of a task with the task's token, if it has no token yet.

        A rollback needs the token if EC2 forgets the task before.

        Args:
            task_id: The task.
            token: The token, if EC2 no longer knows the task.
        """
        for ami in self.find(task_id):
            stack_id = ami.tags.get(OwnTag.STACK, self._owner.stack_id)
            if stack_id == self._owner.stack_id and OwnTag.TOKEN not in ami.tags:
                task = self._ec2.task(task_id)
                self._ec2.tag([ami.id], self._marks(task.token if task else token))

    def delete(
        self,
        task_id: str,
        disks: Collection[str] | None = None,
        *,
        repeats: Callable[[VmImportError], bool],
        ami_id: str = "",
        delete_ami: bool = True,
    ) -> list[str]:
        """Delete what a task created, unless someone still uses it.

        Args:
            task_id: The task. If it created nothing, or that is gone, nothing is deleted.
            disks: Snapshots that the task was given as disks, which must stay. Default: those that
                EC2 names; or if it no longer knows the task, those without the tags of `tag`.
            repeats: Which errors are raised: those that may pass when the step is repeated.
            ami_id: The AMI, as in `find`.
            delete_ami: Whether the AMI is deleted. An import may end just before it would have
                been cancelled, so that an AMI exists although nobody asked to delete it.

        Returns:
            What stays, each with the reason.
        """
        task = self._ec2.task(task_id)
        if disks is None and task:
            disks = task.source_snapshots
        stays: dict[str, str] = {}
        amis: list[Ami] = []
        # Without delete_ami they are only reported, and a deletion does not fail for that.
        with nullcontext() if delete_ami else tolerated("it is not known whether an AMI stays"):
            # EC2 lists an AMI a while after its import.
            reads = READS if ami_id or (task and task.ami) else 1
            amis = read_until_found(lambda: self.find(task_id, ami_id), reads)
        for ami in amis:
            reason = self._lasting_reason(ami, task_id) if delete_ami else "delete_ami is not set"
            if reason:
                stays[ami.id] = reason
                continue
            # The function may delete only what carries its stack's tag. And if it is killed before
            # it deleted all snapshots, its next attempt finds them by their tags.
            unknown = self._not_tagged(ami.snapshots) if disks is None else []
            stays |= dict.fromkeys(unknown, "it may be a disk that was imported")
            retained = unknown if disks is None else disks
            created = [snapshot for snapshot in ami.snapshots if snapshot not in retained]
            self._ec2.tag([ami.id, *created], self._marks(task_id))
            stays |= self._ec2.deregister(ami, retained, repeats)
        if delete_ami and not stays:
            tags = {f"tag:{key}": [value] for key, value in self._marks(task_id).items()}
            # Where no AMI was found, a deletion does not fail because this is denied.
            is_tolerated = tolerated("it is not known whether snapshots stay", unless=repeats)
            with nullcontext() if amis else is_tolerated:
                stays = self._ec2.delete_snapshots(self._ec2.snapshots(tags), repeats)
        stays |= self._delete_snapshots_of_failed(task, disks or (), repeats)
        return [f"{what} is retained: {why}" for what, why in stays.items()]

    def images_imported_from(self, task: ImportTask) -> list[Image]:
        """Return the images that are, or may be, being imported from a task of the stack now."""
        tasks = [known.id for known in self._ec2.tasks()]
        return [
            image
            for image in self._image_builder.imports()
            if image.is_running
            and image.tags.get(OwnTag.STACK) == self._owner.stack_id
            and _task_of(image, tasks) in {task.id, None}
        ]

    def _delete_snapshots_of_failed(
        self,
        task: ImportTask | None,
        disks: Collection[str],
        repeats: Callable[[VmImportError], bool],
    ) -> dict[str, str]:
        """Delete the snapshots of an import that failed after it had created them.

        No AMI uses them. Whether EC2 deletes them itself is not documented.
        """
        own = {"", self._owner.stack_id}
        if task is None or task.is_usable or task.tags.get(OwnTag.STACK, "") not in own:
            return {}
        created = [snapshot for snapshot in task.snapshots if snapshot not in disks]
        found = self._ec2.snapshots({"snapshot-id": created}) if created else {}
        left = [s for s, tags in found.items() if tags.get(OwnTag.STACK, "") in own]
        if left:
            self._ec2.tag(left, self._marks(task.id))
        return self._ec2.delete_snapshots(left, repeats)

    def _not_tagged(self, snapshots: Sequence[str]) -> list[str]:
        """Return the snapshots that do not carry the tag of the stack."""
        found = self._ec2.snapshots({"snapshot-id": snapshots}) if snapshots else {}
        return [s for s, tags in found.items() if tags.get(OwnTag.STACK) != self._owner.stack_id]

    def _marks(self, token: str) -> dict[str, str]:
        return {OwnTag.STACK: self._owner.stack_id, OwnTag.TOKEN: token}

    def _lasting_reason(self, ami: Ami, task_id: str) -> str:
        """Return why an AMI stays: one read may be older than the deletion of its image."""
        reason = ""

        def is_free() -> bool:
            nonlocal reason
            reason = self._reason_to_retain(ami, task_id)
            return not reason

        read_until_found(is_free, READS)
        return reason

    def _reason_to_retain(self, ami: Ami, task_id: str) -> str:
        stack_id = ami.tags.get(OwnTag.STACK, self._owner.stack_id)
        if stack_id != self._owner.stack_id:
            return f"it belongs to the stack {stack_id}"
        permissions = self._ec2.launch_permissions(ami.id)
        if permissions and not record.explains(ami.tags, permissions):
            return "it has launch permissions for others"
        running: list[Image] = []
        for image in self._image_builder.imports():
            if image.ami == ami.id and image.is_usable:
                return f"{image.id} uses it"
            if image.is_running:
                running.append(image)
        # Image Builder names the AMI of an import only when the import has ended. Until then the
        # image may be imported from the same task.
        tasks = [task.id for task in self._ec2.tasks()] if running else []
        for image in running:
            imported_from = _task_of(image, tasks)
            if imported_from == task_id:
                return f"{image.id} is being imported from {task_id} too"
            if imported_from is None:
                return (
                    f"{image.id} is being imported, and Image Builder does not say from which "
                    f"task: it may be {task_id}"
                )
        return ""


def _task_of(image: Image, tasks: Iterable[str]) -> str | None:
    """Return the task that a running image is imported from, if its token was derived from it.

    None if the image has no token of ours, or if its identity includes what Image Builder does not
    show: a description, or a client token.
    """
    owner = Owner(image.tags.get(OwnTag.STACK, ""), image.tags.get(OwnTag.RESOURCE, ""))
    for task_id in tasks:
        if image.token in tokens_of(
            owner, {**image.identity, ImageProperty.VM_IMPORT_TASK_ID: task_id}
        ):
            return task_id
    return None
