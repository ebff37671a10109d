"""Custom::VmImageWait: one more hour of waiting for an image.

CloudFormation waits at most an hour for a resource. A longer wait is a chain: the image resource
waits for the first hour, and each link for one more. Links create nothing.
"""

from __future__ import annotations

from dataclasses import replace

from aws.deadline import LambdaContext
from cloudformation.event import Event
from cloudformation.properties import check, is_true
from cloudformation.step import Done, Pending, Response, State
from contract import WaitAttribute
from contract import WaitProperty as P
from errors import failures_name
from image.waiting import wait

_REQUIRED = (P.IMAGE_ARN, P.VM_IMPORT_TASK_ID)


def step(event: Event, state: State, context: LambdaContext) -> Pending | Done:
    """Take a step of an event of a link.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        context: The context of the invocation.
    """
    if event.request_type == "Delete":
        return Done(Response(event.physical_id))
    # Constant, so that a link that waits for another image is changed in place.
    physical_id, properties = event.owner.logical_id, event.properties
    with failures_name(physical_id):
        check(properties, required=_REQUIRED, strings=_REQUIRED)
        arn = properties[P.IMAGE_ARN]
        data: dict[str, str] = {WaitAttribute.IMAGE_ARN: arn, WaitAttribute.IMAGE_ID: ""}
        if is_true(properties.get(P.IMPORT_FAILED)):
            # A rollback returned to an image that had already failed.
            return Done(Response(physical_id, data, f"the import of {arn} had failed before"))
        state = replace(state, image=arn, attributes=data)
        return wait(event, state, context, properties[P.VM_IMPORT_TASK_ID], physical_id=physical_id)
