"""The Lambda function's entry: events of CloudFormation, and the steps of their waits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from cfn_resource import CfnResource, NotYetError
from deadline import Deadline
from errors import AwsError
from import_task_properties import RESOURCE_TYPE as IMPORT_TASK
from imported_vm_image import ImportedVmImage
from state_machine import hand_over, take_turn
from vm_import_task import VmImportTask
from waiting import KEY, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadline import LambdaContext

logger = logging.getLogger(__name__)
cfn_resource = CfnResource()

# How long, in seconds, a call waits for the state machine to take the event.
_FOR_THE_HAND_OVER: Final = 60


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    """Handle an event of Custom::ImportedVmImage or Custom::VmImportTask, or a step of a wait.

    Args:
        event: CloudFormation's event. When the state machine calls, the state of the wait is in
            it.
        context: Of the invocation.

    Returns:
        To the state machine, the event with the state of the wait for the next step.
    """
    waiting = Waiting.resume(event[KEY]) if KEY in event else None
    event = {**event, KEY: waiting}
    if waiting and waiting.answered:
        ImportedVmImage(event, context, cfn_resource).go_on()
    else:
        cfn_resource(event, context)
    return {**event, KEY: waiting.state()} if waiting else None


@cfn_resource.create
@cfn_resource.update
@cfn_resource.delete
def handle(event: Mapping[str, Any], context: LambdaContext) -> str:
    """Create, update or delete a resource, as a step of the state machine.

    Returns:
        The physical id.

    Raises:
        NotYetError: The state machine will call for the event, or call again.
    """
    waiting: Waiting | None = event[KEY]
    state_machine = event["ResourceProperties"].get("Waiter")
    if waiting is None and state_machine and _is_handed_over(event, context, state_machine):
        raise NotYetError
    if state_machine and not (waiting and waiting.waited):
        take_turn(event, state_machine)
    kind = VmImportTask if event["ResourceType"] == IMPORT_TASK else ImportedVmImage
    resource = kind(event, context, cfn_resource)
    match event["RequestType"]:
        case "Create":
            return resource.create()
        case "Update":
            return resource.update()
        case _:
            return resource.delete()


def _is_handed_over(event: Mapping[str, Any], context: LambdaContext, state_machine: str) -> bool:
    try:
        hand_over(event, state_machine, Deadline(context, _FOR_THE_HAND_OVER))
    except AwsError as error:
        # A deletion needs no state machine: there is still the function's own time for that.
        if event["RequestType"] != "Delete":
            raise
        logger.warning("done without the state machine: %s", error)
        return False
    return True
