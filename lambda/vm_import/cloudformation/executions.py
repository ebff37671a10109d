"""The executions of events: one for each event, and in the order in which events were sent."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from aws.deadline import Deadline
from aws.step_functions import Execution, StateMachine
from cloudformation.event import DATE_FORMAT, Event
from cloudformation.step import State
from contract import Step
from errors import SupersededError
from identity import Owner

# By how many seconds the clocks of CloudFormation's servers may differ.
_SKEW: Final = 5
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")


def first_step(event: Mapping[str, Any], state: State) -> dict[str, Any]:
    """Return the input of an execution."""
    return {Step.EVENT: dict(event), Step.STATE: state.write(), Step.SECONDS: 0}


def start(event: Mapping[str, Any], deadline: Deadline) -> None:
    """Start the execution of an event. Lambda may deliver the event again: it has one execution.

    Args:
        event: What Lambda received.
        deadline: Ends retries.

    Raises:
        VmImportError: Step Functions did not start it.
    """
    read = Event.read(event)
    state_machine = StateMachine(read.state_machine_arn, deadline)
    state_machine.start(execution_name(read), first_step(event, State(started=time.time())))


def start_follow_up(event: Mapping[str, Any], state: State, deadline: Deadline) -> None:
    """Start the execution that follows an import which the deployment does not wait for.

    It has no ResponseURL, and no later event of the resource stops it.

    Args:
        event: What Lambda received.
        state: What is known of the image.
        deadline: Ends retries.

    Raises:
        VmImportError: Step Functions did not start it.
    """
    read = Event.read(event)
    rest = {name: value for name, value in event.items() if name != "ResponseURL"}
    name = f"follow-{execution_name(read)}"[:80]
    StateMachine(read.state_machine_arn, deadline).start(name, first_step(rest, state))


def put_in_order(event: Event, deadline: Deadline) -> None:
    """Stop the executions of earlier events of the resource: nobody waits for their responses.

    Args:
        event: The event.
        deadline: Ends retries.

    Raises:
        SupersededError: A later event exists, so nobody waits for the response to this one.
        AwsError: Step Functions did not say, or did not stop them.
    """
    state_machine = StateMachine(event.state_machine_arn, deadline)
    prefix = _prefix(event.owner)
    name = execution_name(event)
    own_date = _seconds(event.date) or time.time()
    running = {e.name: e for e in state_machine.running() if e.name.startswith(prefix)}
    ended = state_machine.ended_since(own_date - _SKEW)
    others = {**running, **{e.name: e for e in ended if e.name.startswith(prefix)}}
    own = others.pop(name, Execution("", name, time.time(), None))
    if any(_is_later(other, own) for other in others.values()):
        raise SupersededError(
            f"CloudFormation has sent a later event for {event.owner.logical_id}, so this "
            f"{event.request_type} came too late and was not carried out"
        )
    for other in running.values():
        if other.name != name and _is_later(own, other):
            state_machine.stop(other, f"superseded by a later {event.request_type}")


def execution_name(event: Event) -> str:
    """Return the name of an event's execution: the same when Lambda delivers the event again."""
    return _prefix(event.owner) + "-".join(filter(None, [event.date, event.request_id]))


def _prefix(owner: Owner) -> str:
    """Return what the names of all executions of a resource begin with."""
    resource = f"{owner.stack_id}/{owner.logical_id}"
    return f"{hashlib.sha256(resource.encode()).hexdigest()[:16]}-"


def _is_later(one: Execution, other: Execution) -> bool:
    """Return whether the event of one execution was sent after that of another."""
    sent, other_sent = _seconds(one.name), _seconds(other.name)
    if sent and other_sent and abs(sent - other_sent) > _SKEW:
        return sent > other_sent
    return one.started > other.started


def _seconds(text: str) -> float | None:
    date = _DATE.search(text)
    return datetime.strptime(date[0], DATE_FORMAT).timestamp() if date else None  # noqa: DTZ007 - the format has %z
