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
from errors import AwsError, ImageFailedError, ImageGoneError, failures_name, tolerated
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
        resource = state.resource or properties.get(P.IMAGE_LOGICAL_ID, "")
        state = replace(state, image=arn, resource=resource, attributes=data)
        task_id = properties[P.VM_IMPORT_TASK_ID]
        # The image resource knows: a rollback returned to an image that had already failed.
        has_failed = is_true(properties.get(P.IMPORT_FAILED))
        try:
            return _wait(Wait(event, state, task_id, physical_id), aws, has_failed=has_failed)
        except ImageFailedError as error:
            was_waited_for = event.old_properties.get(P.IMAGE_ARN) == arn
            if not (was_waited_for or has_failed):
                raise
            with tolerated(f"the AMI of {arn} is not known", unless=state.may_pass):
                found = Amis(event.owner, aws).find(task_id)
                data[WaitAttribute.IMAGE_ID] = "".join(ami.id for ami in found)
            # A change of the timeout succeeds after somebody deleted the image, if its AMI exists.
            is_usable = (
                was_waited_for
                and isinstance(error, ImageGoneError)
                and data[WaitAttribute.IMAGE_ID]
            )
            if not (is_usable or _is_rolling_back(event, state, aws, unknown=has_failed)):
                raise
            return Done(Response(physical_id, data, error.reason))


def _wait(wait: Wait, aws: Aws, *, has_failed: bool) -> Pending | Done:
    if has_failed:
        raise ImageFailedError(
            "the import of the image had failed before", ids=[f"image {wait.state.image}"]
        )
    return wait.step(aws)


def _is_rolling_back(event: Event, state: State, aws: Aws, *, unknown: bool) -> bool:
    """Return whether the stack is rolled back: a rollback to an image must succeed.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        aws: The AWS APIs.
        unknown: What to return if the function may not describe the stack.
    """
    try:
        return aws.stacks.get(event.owner.stack_id, state.started).is_rolling_back
    except AwsError as error:
        if not error.is_denied or state.may_pass(error):
            raise
        return unknown
