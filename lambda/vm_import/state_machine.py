"""The hand-over of an event to the state machine: once, and in the order of the events."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from aws_calls import aws_client
from errors import AwsError, OutOfTimeError, OvertakenError
from waiting import KEY, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadline import Deadline

logger = logging.getLogger(__name__)

# The permission may be so new that not all of IAM knows it.
_DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied"})
# An hour more than the state machine lets one live, in seconds.
_LONGEST_EXECUTION: Final = 14 * 3600
# By how many seconds the clocks of CloudFormation may differ among themselves.
_SKEW: Final = 5
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")


def hand_over(event: Mapping[str, Any], state_machine: str, deadline: Deadline) -> None:
    """Have the state machine call the function with the event; once, however often it comes.

    Args:
        event: CloudFormation's event. The execution's name is made of its RequestId and date.
        state_machine: ARN of the state machine.
        deadline: Ends the patience with Step Functions and IAM.

    Raises:
        AwsError: Step Functions did not take the event.
    """
    execution = {
        "stateMachineArn": state_machine,
        "name": _name(event),
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


def take_turn(event: Mapping[str, Any], state_machine: str) -> None:
    """End what still goes on for earlier events of the resource: CloudFormation gave them up.

    Each would notice for itself. But one that Lambda kept from its first step would still import.

    Args:
        event: CloudFormation's event.
        state_machine: ARN of the state machine.

    Raises:
        OvertakenError: A later event came first, so it is this one that CloudFormation gave up.
    """
    try:
        executions = _executions(event, state_machine)
        name = _name(event)
        # When the function does it without the state machine, it has none: it begins now.
        own = executions.get(name, _Execution(name, time.time()))
        for other in executions.values():
            if other.is_after(own):
                raise OvertakenError(
                    f"CloudFormation has sent a later {event['ResourceType']} event for "
                    f"{event['LogicalResourceId']} than this {event['RequestType']}, which came "
                    "too late and was not carried out"
                )
        for other in executions.values():
            if other.is_running and own.is_after(other):
                aws_client("stepfunctions").stop_execution(
                    executionArn=other.arn, cause=event["RequestType"]
                )
                logger.info({"action": "StopExecution", "name": other.name})
    except (ClientError, BotoCoreError) as error:
        logger.warning("earlier waits end by themselves: %s", AwsError("ListExecutions", error))


@dataclass(frozen=True)
class _Execution:
    """What is done about an event."""

    name: str
    started: float
    arn: str = ""
    is_running: bool = False

    @property
    def sent(self) -> float | None:
        """When CloudFormation sent the event, if that is known."""
        return _sent(self.name)

    def is_after(self, other: _Execution) -> bool:
        """Whether its event is the later one."""
        if self.sent and other.sent and abs(self.sent - other.sent) > _SKEW:
            return self.sent > other.sent
        return self.started > other.started


def _executions(event: Mapping[str, Any], state_machine: str) -> dict[str, _Execution]:
    """The executions for a resource, by name: those that may still run, and all later ones."""
    since = (_sent(_date(event)) or time.time()) - _LONGEST_EXECUTION
    prefix = _prefix(event)
    found: dict[str, _Execution] = {}
    pages = aws_client("stepfunctions").get_paginator("list_executions")
    for page in pages.paginate(stateMachineArn=state_machine):
        for listed in page["executions"]:
            started = listed["startDate"].timestamp()
            if started < since:  # the newest come first
                return found
            if listed["name"].startswith(prefix):
                found[listed["name"]] = _Execution(
                    listed["name"],
                    started,
                    listed["executionArn"],
                    is_running=listed["status"] == "RUNNING",
                )
    return found


def _name(event: Mapping[str, Any]) -> str:
    """The name of an event's execution: the same when Lambda brings the event again."""
    return _prefix(event) + "-".join(filter(None, [_date(event), event["RequestId"]]))


def _date(event: Mapping[str, Any]) -> str:
    """When CloudFormation sent an event, as the signature of its ResponseURL has it, if it does.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    date = parse_qs(urlsplit(event["ResponseURL"]).query).get("X-Amz-Date", [""])[0]
    return date if _DATE.fullmatch(date) else ""


def _sent(text: str) -> float | None:
    date = _DATE.search(text)
    return datetime.strptime(date[0], "%Y%m%dT%H%M%S%z").timestamp() if date else None


def _prefix(event: Mapping[str, Any]) -> str:
    """What the names of all executions of a resource begin with."""
    resource = f"{event['StackId']}/{event['LogicalResourceId']}"
    return f"{hashlib.sha256(resource.encode()).hexdigest()[:16]}-"
