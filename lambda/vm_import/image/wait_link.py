"""Custom::VmImageWait: one more hour of waiting for an image.

CloudFormation waits at most an hour for a resource. A longer wait is a chain: the image resource
waits for the first hour, and each link for one more. Links create nothing.
"""

from __future__ import annotations

from dataclasses import replace

from aws import Aws
from aws.deadline import LambdaContext
from cloudformation.event import Event
from cloudformation.properties import check, is_true
from cloudformation.step import Done, Pending, Response, State
from contract import WaitAttribute
from contract import WaitProperty as P
from errors import failures_name
from image.waiting import Wait

# How long a poll may take, in seconds.
_POLL: int = 10


def step(event: Event, state: State, context: LambdaContext) -> Pending | Done:
    """Take a step of an event of a link.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        context: The context of the invocation.
    """
    # Constant, so that a link that waits for another image is changed in place.
    physical_id = event.owner.logical_id
    if event.request_type == "Delete":
        return Done(Response(event.physical_id))
    with failures_name(physical_id):
        properties = event.properties
        check(
            properties,
            required=(P.IMAGE_ARN, P.VM_IMPORT_TASK_ID),
            strings=(P.IMAGE_ARN, P.VM_IMPORT_TASK_ID),
        )
        arn = properties[P.IMAGE_ARN]
        data: dict[str, str] = {WaitAttribute.IMAGE_ARN: arn, WaitAttribute.IMAGE_ID: ""}
        if is_true(properties.get(P.IMPORT_FAILED)):
            # A rollback returned to an image that had already failed.
            return Done(Response(physical_id, data, f"the import of {arn} had failed before"))
        wait = Wait(event, replace(state, image=arn), properties[P.VM_IMPORT_TASK_ID])
        progress = wait.step(Aws(context, _POLL))
        if isinstance(progress, Pending):
            return progress
        if progress.ami:
            return Done(Response(physical_id, {**data, WaitAttribute.IMAGE_ID: progress.ami}))
        if event.continues:
            return Done(Response(physical_id, data, f"still waiting for {arn}: {progress}"))
        raise wait.timed_out(progress)
