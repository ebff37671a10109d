"""Create, update and delete an import task: the decisions, in terms of the AWS calls."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from errors import (
    TOKEN_USED_OTHERWISE,
    AwsError,
    ClientTokenError,
    VmImportError,
)
from image_properties import STACK_TAG, TOKEN_TAG
from import_task_properties import is_task_id, tokens_of_placeholder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from deadline import Deadline
    from image_properties import Owner
    from import_task_properties import ImportTaskProperties
    from import_tasks import ImportTasks, Task
    from imported_amis import ImportedAmis

logger = logging.getLogger(__name__)

# How long EC2 may take, in seconds: to see a new role or a permission of the function's own, or
# to delete a task.
PATIENCE: Final = 120
# How often a task is looked for that another event may be making right now: about 5 s.
_LOOKS: Final = 4


class ImportTaskLifecycle:
    """The life of the import tasks of one CloudFormation resource."""

    def __init__(
        self,
        owner: Owner,
        import_tasks: ImportTasks,
        amis: ImportedAmis,
        deadline: Deadline,
        answer_with: Callable[[str], None],
    ) -> None:
        """Work for one resource, during one invocation.

        Args:
            owner: The resource.
            import_tasks: The AWS calls.
            amis: What the tasks leave behind.
            deadline: Ends all waiting.
            answer_with: Told the physical id to answer with if what follows fails, so that
                CloudFormation's clean-up finds just what this invocation made.
        """
        self._owner = owner
        self._aws = import_tasks
        self._amis = amis
        self._deadline = deadline
        self._answer_with = answer_with

    def create(self, properties: ImportTaskProperties) -> str:
        """Return the id of the task that the properties describe; start it if there is none."""
        # A duplicate of this event may have started it: whatever fails, it can be found.
        self._answer_with(properties.placeholder(self._owner))
        return self._ensure(properties)

    def update(
        self,
        physical_id: str,
        properties: ImportTaskProperties,
        old: ImportTaskProperties | None,
    ) -> str:
        """Change tags in place; for another identity, return the id of another task.

        The task in use is never cancelled here: CloudFormation does that in its clean-up.
        """
        tags_before = old.tags if old else {}
        if old and old.identity == properties.identity:
            if is_task_id(physical_id):
                task = self._aws.get(physical_id)
                # One that EC2 forgot was completed, or nothing would have been made of it.
                if task is None or not task.is_dead:
                    if task:
                        self._change_tags(task, properties, tags_before)
                    return physical_id
            return self._ensure(properties, tags_before)
        if old:
            self._remember(physical_id, old)
        task_id = self._ensure(properties, tags_before, properties.placeholder(self._owner))
        if old:
            self._end_untaken(old, {physical_id, task_id})
        return task_id

    def delete(self, physical_id: str, properties: ImportTaskProperties | None) -> list[str]:
        """End the task; none is success.

        Args:
            physical_id: A task's id; or a placeholder; or, when CloudFormation gave up a Create
                in flight, an id that CloudFormation invented. Then the properties tell.
            properties: None if they are of no known form, so that no import was made with them.

        Returns:
            What stays of what it made, and why.
        """
        if is_task_id(physical_id):
            doomed = [physical_id]
        elif tokens := tokens_of_placeholder(physical_id):
            doomed = [task.task_id for task in self._own(tokens)]
        elif properties:
            doomed = [task.task_id for task in self._look_for(properties.tokens(self._owner))]
        else:
            doomed = []
        return self._end(doomed, properties)

    def _ensure(
        self,
        properties: ImportTaskProperties,
        tags_before: Iterable[str] = (),
        failed_id: str | None = None,
    ) -> str:
        tokens = properties.tokens(self._owner)
        own = self._own(tokens)
        if task := next((task for task in own if self._is_of_use(task)), None):
            self._change_tags(task, properties, tags_before)
            return task.task_id
        # EC2 forgets tasks, but not what they made.
        for ami in self._aws.amis_tagged(self._owner.stack_id, tokens):
            if is_task_id(ami.name):
                return ami.name
        if failed_id:
            self._answer_with(failed_id)
        burnt = {task.token for task in own}
        return self._start(properties, tokens, burnt).task_id

    def _start(
        self, properties: ImportTaskProperties, tokens: Sequence[str], burnt: set[str]
    ) -> Task:
        """Start a task under the first token that is not burnt."""
        client_token = properties.identity.get("ClientToken")
        for token in tokens[: 1 if client_token else None]:
            if token in burnt:
                continue
            task = self._import(properties, token)
            if task and self._is_of_use(task) and not self._is_of_another(task):
                return task
        if client_token:
            raise ClientTokenError(
                f"the task that was started with client token {client_token!r} is gone, or is of "
                "another resource, and EC2 starts no other under it; leave client_token out, or "
                "change it"
            )
        raise ClientTokenError(
            f"{len(tokens)} tasks were started for these disks and are gone, and EC2 still "
            "remembers their client tokens; change the description of the task"
        )

    def _import(self, properties: ImportTaskProperties, token: str) -> Task | None:
        """Start a task under a token; None if the token is burnt."""
        request = properties.request(self._owner, token)
        patience = time.monotonic() + PATIENCE
        for _ in self._deadline.pauses("EC2 to see the role of the import", longest=10):
            try:
                return self._aws.import_image(request)
            except AwsError as error:
                if error.code in TOKEN_USED_OTHERWISE:
                    # Only tags and role can differ. If the task lives, it is listed.
                    own = self._look_for([token])
                    return next((task for task in own if self._is_of_use(task)), None)
                if not _is_of_role(error) or time.monotonic() > patience:
                    raise
                logger.info({"action": "ImportImage", "again, since": str(error)})
        raise AssertionError  # pauses() never ends by itself

    def _is_of_use(self, task: Task) -> bool:
        """Whether an image can come of it: it runs, or its AMI is still there."""
        return task.is_active or (not task.is_dead and bool(self._aws.amis_of(task.task_id)))

    def _own(self, tokens: Sequence[str]) -> list[Task]:
        """The tasks that this resource started under these tokens; no other is ever touched."""
        return [task for task in self._aws.all() if task.token in tokens and self._is_own(task)]

    def _is_own(self, task: Task) -> bool:
        return self._owner.tags.items() <= task.tags.items()

    def _is_of_another(self, task: Task) -> bool:
        return any(task.tags.get(key, value) != value for key, value in self._owner.tags.items())

    def _look_for(self, tokens: Sequence[str]) -> list[Task]:
        """Look a few times: what another event starts right now is listed a moment later."""
        for attempt, _ in enumerate(self._deadline.pauses("EC2 to list the task"), 1):
            if (own := self._own(tokens)) or attempt == _LOOKS:
                return own
        raise AssertionError  # pauses() never ends by itself

    def _change_tags(
        self, task: Task, properties: ImportTaskProperties, before: Iterable[str]
    ) -> None:
        """Give the task its tags. Tags that the template never named are left alone."""
        changed = {k: v for k, v in properties.tags.items() if task.tags.get(k) != v}
        if changed:
            self._aws.tag([task.task_id], changed)
        dropped = (set(before) - set(properties.tags)) & set(task.tags)
        if dropped:
            self._aws.untag([task.task_id], dropped)

    def _remember(self, task_id: str, properties: ImportTaskProperties) -> None:
        """Have the AMI tell its task, for a rollback that comes when EC2 forgot the task.

        It does so already, unless its image was not waited for. In a rollback of an update that
        never answered the task is not of the old properties: as long as EC2 knows it, it tells.
        """
        try:
            for ami in self._aws.amis_of(task_id):
                stack_id = ami.tags.get(STACK_TAG, self._owner.stack_id)
                if stack_id == self._owner.stack_id and TOKEN_TAG not in ami.tags:
                    task = self._aws.get(task_id)
                    token = task.token if task else properties.tokens(self._owner)[0]
                    tags = {TOKEN_TAG: token, STACK_TAG: self._owner.stack_id}
                    self._aws.tag([ami.ami_id], tags)
        except VmImportError as error:
            logger.warning("a rollback may import again: %s", error)

    def _end(self, task_ids: Sequence[str], properties: ImportTaskProperties | None) -> list[str]:
        """Cancel what runs, remove what may go, and say what stays."""
        tasks = [task for task_id in task_ids if (task := self._aws.get(task_id))]
        for task in tasks:
            if task.is_active and self._is_own(task):
                self._aws.cancel(task.task_id)
        for task in tasks:
            if task.is_active or task.is_deleting:
                self._wait_until_settled(task.task_id)
        told = []
        disks = properties.snapshots if properties else []
        for task_id in task_ids:
            if properties and properties.delete_ami:
                told += self._amis.remove(task_id, disks)
            else:
                told += self._amis.remove_remains(task_id, disks)
                told += self._amis.left_by(task_id)
        return told

    def _wait_until_settled(self, task_id: str) -> None:
        """Wait, though not for ever, while EC2 still deletes what the task made."""
        patience = time.monotonic() + PATIENCE
        for _ in self._deadline.pauses("EC2 to end the task"):
            task = self._aws.get(task_id)
            if task is None or not task.is_deleting or time.monotonic() > patience:
                return

    def _end_untaken(self, old: ImportTaskProperties, known: set[str]) -> None:
        """End the tasks of the old properties, if CloudFormation never took to one of them.

        That is so in a rollback of an update that failed or never answered, and maybe still runs.
        """
        try:
            tasks = self._look_for(old.tokens(self._owner))
            if not any(task.task_id in known for task in tasks):
                self._end([task.task_id for task in tasks], old)
        except VmImportError as error:
            logger.warning("not known what the update left behind: %s", error)


def _is_of_role(error: AwsError) -> bool:
    """Whether this is EC2's way to say that IAM has not told it of a role or permission yet.

    https://docs.aws.amazon.com/vm-import/latest/userguide/troubleshooting.html
    """
    return error.code == "UnauthorizedOperation" or (
        error.code == "InvalidParameter" and "service role" in str(error)
    )
