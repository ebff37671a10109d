"""Custom::VmImportTask: what CloudFormation asks of it, done and answered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from deadline import Deadline
from errors import PropertyError
from image_builder import ImageBuilder
from image_properties import Owner
from import_task_lifecycle import ImportTaskLifecycle
from import_task_properties import ImportTaskProperties
from import_tasks import ImportTasks
from imported_amis import ImportedAmis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfn_resource import CfnResource
    from deadline import LambdaContext

logger = logging.getLogger(__name__)


class VmImportTask:
    """An event of the resource. It waits for nothing: that is the image's."""

    def __init__(
        self, event: Mapping[str, Any], context: LambdaContext, answer: CfnResource
    ) -> None:
        """Take an event.

        Args:
            event: CloudFormation's.
            context: Of the invocation.
            answer: Takes physical id and attributes, and the reason of a success with a remark.
        """
        self._event = event
        owner = Owner(event["StackId"], event["LogicalResourceId"])
        self._answer = answer
        deadline = Deadline(context)
        import_tasks = ImportTasks(deadline)
        image_builder = ImageBuilder(context.invoked_function_arn, deadline)
        self._lifecycle = ImportTaskLifecycle(
            owner,
            import_tasks,
            ImportedAmis(owner, import_tasks, image_builder),
            deadline,
            answer.keep_physical_id,
        )

    def create(self) -> str:
        """Start the task, or find the one that an earlier delivery of this event started."""
        wanted = ImportTaskProperties.parse(self._event["ResourceProperties"])
        return self._answer_with(self._lifecycle.create(wanted))

    def update(self) -> str:
        """Change tags in place, or start another task."""
        wanted = ImportTaskProperties.parse(self._event["ResourceProperties"])
        old = _parse_known(self._event["OldResourceProperties"])
        physical_id = self._event["PhysicalResourceId"]
        return self._answer_with(self._lifecycle.update(physical_id, wanted, old))

    def delete(self) -> str:
        """Cancel the task, and remove what it made, if that is to go with it."""
        physical_id: str = self._event["PhysicalResourceId"]
        properties = _parse_known(self._event["ResourceProperties"])
        self._answer.Reason = "; ".join(self._lifecycle.delete(physical_id, properties))
        return physical_id

    def _answer_with(self, task_id: str) -> str:
        self._answer.Data["ImportTaskId"] = task_id
        return task_id


def _parse_known(properties: Mapping[str, Any]) -> ImportTaskProperties | None:
    try:
        return ImportTaskProperties.parse(properties)
    except PropertyError as error:
        # Nothing was ever imported with them.
        logger.info({"not properties of an import task": str(error)})
        return None
