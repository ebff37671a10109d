"""The hand-over of an event to the state machine that waits."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from aws_calls import aws_client
from errors import AwsError, OutOfTimeError
from waiting import KEY, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadline import Deadline

logger = logging.getLogger(__name__)

# The permission may be so new that not all of IAM knows it.
_DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied"})


def hand_over(event: Mapping[str, Any], state_machine: str, deadline: Deadline) -> None:
    """Have the state machine call the function with the event; once, however often it comes.

    Args:
        event: CloudFormation's event. The execution's name is made of its RequestId.
        state_machine: ARN of the state machine.
        deadline: Ends the patience with Step Functions and IAM.

    Raises:
        AwsError: Step Functions did not take the event.
    """
    execution = {
        "stateMachineArn": state_machine,
        "name": _prefix(event) + event["RequestId"],
        "input": json.dumps({**event, KEY: Waiting.begin().state()}),
    }
    refusal: AwsError | None = None
    try:
        for _ in deadline.pauses("Step Functions"):
            try:
                aws_client("stepfunctions").start_execution(**execution)
            except (ClientError, BotoCoreError) as error:
                refusal = AwsError("StartExecution", error)
                if refusal.code == "ExecutionAlreadyExists":
                    break
                if not (refusal.is_transient or refusal.code in _DENIED):
                    raise refusal from error
            else:
                break
    except OutOfTimeError as error:
        raise refusal or error from None
    logger.info({"action": "StartExecution", "name": execution["name"]})


def end_earlier(event: Mapping[str, Any], state_machine: str) -> None:
    """End the waits of earlier events of the resource, as CloudFormation did when it sent this one.

    Each would notice for itself. But one that Lambda kept from its first step would still import.

    Args:
        event: CloudFormation's event.
        state_machine: ARN of the state machine.
    """
    client = aws_client("stepfunctions")
    prefix = _prefix(event)
    try:
        pages = client.get_paginator("list_executions").paginate(
            stateMachineArn=state_machine, statusFilter="RUNNING"
        )
        for page in pages:
            for execution in page["executions"]:
                name = execution["name"]
                if name.startswith(prefix) and name != prefix + event["RequestId"]:
                    client.stop_execution(
                        executionArn=execution["executionArn"], cause=event["RequestType"]
                    )
                    logger.info({"action": "StopExecution", "name": name})
    except (ClientError, BotoCoreError) as error:
        logger.warning("earlier waits end by themselves: %s", AwsError("ListExecutions", error))


def _prefix(event: Mapping[str, Any]) -> str:
    """What the names of all executions of a resource begin with."""
    resource = f"{event['StackId']}/{event['LogicalResourceId']}"
    return f"{hashlib.sha256(resource.encode()).hexdigest()[:16]}-"
