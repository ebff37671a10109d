"""Custom::VmImageWait: one more hour of waiting for an image.

CloudFormation waits at most an hour for a resource. A longer wait is a chain: the image resource
waits for the first hour, and each link for one more. Links create nothing.
"""

from dataclasses import replace

from amis import Amis
from aws import Aws
from cloudformation.event import Event
from cloudformation.properties import check, is_true
from cloudformation.step import Done, Pending, Response, State
from contract import WaitAttribute
from contract import WaitProperty as P
from errors import ImageFailedError, ImageGoneError, failures_name
from image.waiting import Wait

_REQUIRED = (P.IMAGE_ARN, P.VM_IMPORT_TASK_ID)


def step(event: Event, state: State, aws: Aws) -> Pending | Done:
    """Take a step of an event of a link.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        aws: The AWS APIs.
    """
    if event.request_type == "Delete":
        return Done(Response(event.physical_id))
    # Constant, so that a link that waits for another image is changed in place.
    physical_id, properties = event.owner.logical_id, event.properties
    with failures_name(physical_id):
        check(properties, _REQUIRED, dict.fromkeys(_REQUIRED, str))
        arn = properties[P.IMAGE_ARN]
        data: dict[str, str] = {WaitAttribute.IMAGE_ARN: arn, WaitAttribute.IMAGE_ID: ""}
        if is_true(properties.get(P.IMPORT_FAILED)):
            # A rollback returned to an image that had already failed.
            return Done(Response(physical_id, data, f"the import of {arn} had failed before"))
        state = replace(state, image=arn, attributes=data)
        task_id = properties[P.VM_IMPORT_TASK_ID]
        try:
            return Wait(event, state, task_id, physical_id).step(aws)
        except ImageFailedError as error:
            if event.old_properties.get(P.IMAGE_ARN) != arn:
                raise
            # Another event waited for this image before. A rollback to it must succeed. So must a
            # change of the timeout after somebody deleted the image, which was AVAILABLE then.
            if not (
                isinstance(error, ImageGoneError)
                or aws.stacks.get(event.owner.stack_id).is_rolling_back
            ):
                raise
            found = Amis(event.owner, aws).find(task_id)
            data[WaitAttribute.IMAGE_ID] = "".join(ami.id for ami in found)
            return Done(Response(physical_id, data, str(error)))
