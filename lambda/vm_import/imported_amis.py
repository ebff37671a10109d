"""What an import leaves behind in EC2: the AMI and its snapshots."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from errors import VmImportError
from image_properties import RESOURCE_TAG, STACK_TAG, TOKEN_TAG, Owner, tokens_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from image_builder import Image, ImageBuilder
    from import_tasks import Ami, ImportTasks, Task

logger = logging.getLogger(__name__)


class ImportedAmis:
    """The AMIs of import tasks, as far as one CloudFormation resource may touch them."""

    def __init__(
        self, owner: Owner, import_tasks: ImportTasks, image_builder: ImageBuilder
    ) -> None:
        """Work for one resource.

        Args:
            owner: The resource.
            import_tasks: The calls of EC2.
            image_builder: The calls of Image Builder.
        """
        self._owner = owner
        self._ec2 = import_tasks
        self._image_builder = image_builder

    def tag(self, task_id: str, tags: Mapping[str, str], before: Iterable[str]) -> None:
        """Give what a task made the tags of its image: EC2 tags only the task.

        Args:
            task_id: The task. If it made nothing yet, nothing is tagged.
            tags: The tags that the template names now.
            before: The keys that it named before.
        """
        for ami in self._ec2.amis_of(task_id):
            if any(ami.tags.get(key, own) != own for key, own in self._owner.tags.items()):
                logger.info({"ami": ami.ami_id, "keeps the tags of": ami.tags.get(RESOURCE_TAG)})
                continue
            ids = [ami.ami_id, *ami.snapshots]
            wanted = {**tags, **self._owner.tags}
            # By its token a VmImportTask finds the AMI when EC2 forgot the task.
            if STACK_TAG not in ami.tags and (task := self._ec2.get(task_id)) and task.token:
                wanted[TOKEN_TAG] = task.token
            if not wanted.items() <= ami.tags.items():
                self._ec2.tag(ids, wanted)
            if dropped := (set(before) - set(tags)) & set(ami.tags):
                self._ec2.untag(ids, dropped)

    def remove(self, task_id: str, disks: Collection[str] | None = None) -> list[str]:
        """Delete what a task made, unless someone still uses it.

        Args:
            task_id: The task. If it made nothing, or that is gone, nothing is deleted.
            disks: Snapshots that the task was given, which are not its to delete. None: those
                that EC2 names, as long as it knows the task.

        Returns:
            What is kept, and why.
        """
        task = self._ec2.get(task_id)
        if disks is None:
            disks = task.given if task else ()
        kept: dict[str, str] = {}
        for ami in self._ec2.amis_of(task_id):
            if reason := self._reason_to_keep(ami):
                kept[ami.ami_id] = reason
                continue
            # The function may delete only what is of this stack. And if it is killed half way, its
            # next try finds the snapshots by their tags.
            made = [snapshot for snapshot in ami.snapshots if snapshot not in disks]
            self._ec2.tag([ami.ami_id, *made], self._doomed(task_id))
            kept |= self._ec2.deregister(ami, disks)
        if not kept:
            left = self._ec2.snapshots_tagged(self._owner.stack_id, task_id)
            kept = self._ec2.delete_snapshots(left)
        return _told(kept | self._remove_remains(task, disks))

    def remove_remains(self, task_id: str, disks: Collection[str]) -> list[str]:
        """Delete the snapshots of an import that died when it had made them: no AMI has them.

        Whether EC2 deletes them itself is not documented.

        Args:
            task_id: The task. If it is not dead, or of another stack, or EC2 forgot it, nothing is
                deleted.
            disks: Snapshots that the task was given, which are not its to delete.

        Returns:
            What is kept, and why.
        """
        return _told(self._remove_remains(self._ec2.get(task_id), disks))

    def _remove_remains(self, task: Task | None, disks: Collection[str]) -> dict[str, str]:
        own = {"", self._owner.stack_id}
        if task is None or not task.is_dead or task.tags.get(STACK_TAG, "") not in own:
            return {}
        made = [snapshot for snapshot in task.snapshots if snapshot not in disks]
        left = [snapshot for snapshot, stack in self._ec2.stacks_of(made).items() if stack in own]
        if left:
            self._ec2.tag(left, self._doomed(task.task_id))
        return self._ec2.delete_snapshots(left)

    def left_by(self, task_id: str) -> list[str]:
        """Say what a task made that outlives it, for whoever does not want it.

        An import may be over just before it would have been cancelled, and nobody asked for
        `delete_ami`, without which the function may delete no AMI: not even one of a create that
        failed.

        Args:
            task_id: The task.

        Returns:
            What stays. Nothing if AWS does not tell: a deletion does not fail for that.
        """
        try:
            amis = self._ec2.amis_of(task_id)
        except VmImportError as error:
            logger.warning("not known whether an AMI stays: %s", error)
            return []
        left = [
            f"{ami.ami_id}, which {task_id} made, stays with {', '.join(ami.snapshots)}: "
            "there is no delete_ami"
            for ami in amis
        ]
        for text in left:
            logger.warning(text)
        return left

    def _doomed(self, task_id: str) -> dict[str, str]:
        return {STACK_TAG: self._owner.stack_id, TOKEN_TAG: task_id}

    def _reason_to_keep(self, ami: Ami) -> str:
        stack_id = ami.tags.get(STACK_TAG, self._owner.stack_id)
        if stack_id != self._owner.stack_id:
            return f"it is of the stack {stack_id}"
        if self._ec2.is_shared(ami):
            return "it has launch permissions for others"
        running: list[Image] = []
        for image in self._image_builder.imports():
            if image.ami == ami.ami_id and not image.is_dead:
                return f"{image.arn} uses it"
            if image.is_running:
                running.append(image)
        # The AMI of an import shows when it is over, and it may be this one.
        tasks = [task.task_id for task in self._ec2.all()] if running else []
        for image in running:
            task_id = _task_of(image, tasks)
            if task_id == ami.name:
                return f"{image.arn} is being imported from {task_id} too"
            if task_id is None:
                return (
                    f"{image.arn} is being imported, and may be from {ami.name} too: Image "
                    "Builder does not tell"
                )
        return ""


def _told(kept: Mapping[str, str]) -> list[str]:
    refusals = [f"{what} is kept: {why}" for what, why in kept.items()]
    for refusal in refusals:
        logger.warning(refusal)
    return refusals


def _task_of(image: Image, tasks: Iterable[str]) -> str | None:
    """Which of the tasks a running image is imported from, if its token tells: it is made of that.

    None if the image has no token of ours, or was given what Image Builder does not show: a
    description, or a client token.
    """
    owner = Owner(image.tags.get(STACK_TAG, ""), image.tags.get(RESOURCE_TAG, ""))
    for task_id in tasks:
        if image.token in tokens_of(owner, {**image.identity, "VmImportTaskId": task_id}):
            return task_id
    return None
