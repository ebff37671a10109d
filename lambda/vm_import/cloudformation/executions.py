"""The executions of events: one for each event, and in the order in which events were sent."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from aws.deadline import Deadline
from aws.step_functions import Execution, StateMachine
from cloudformation.event import DATE, Event
from cloudformation.step import State
from contract import Step
from errors import SupersededError
from identity import Owner

# By how many seconds the clocks of CloudFormation's servers may differ.
_SKEW: Final = 5


def data(event: Event, state: State, seconds: int = 0) -> dict[str, Any]:
    """Return the data of an execution: what the next step receives.

    Args:
        event: CloudFormation's event.
        state: What is known of it.
        seconds: The pause before the next step; 0 ends the execution.
    """
    return {Step.EVENT: dict(event.raw), Step.STATE: asdict(state), Step.SECONDS: seconds}


def start(event: Event, deadline: Deadline) -> None:
    """Start the execution of an event. Lambda may deliver the event again: it has one execution.

    Raises:
        VmImportError: Step Functions did not start it.
    """
    state = State(started=time.time())
    _state_machine(event, deadline).start(execution_name(event), data(event, state))


def start_follow_up(event: Event, state: State, deadline: Deadline) -> None:
    """Start the execution that follows an import which the deployment does not wait for.

    It has no ResponseURL, and later events of the resource do not stop it.

    Raises:
        VmImportError: Step Functions did not start it.
    """
    rest = {name: value for name, value in event.raw.items() if name != "ResponseURL"}
    name = f"follow-{execution_name(event)}"
    _state_machine(event, deadline).start(name, data(Event(rest), state))


def put_in_order(event: Event, deadline: Deadline) -> None:
    """Stop the executions of earlier events of the resource: nobody waits for their responses.

    Raises:
        SupersededError: A later event exists, so nobody waits for the response to this one.
        AwsError: Step Functions did not list the executions, or did not stop them.
    """
    state_machine = _state_machine(event, deadline)
    prefix, name = _prefix(event.owner), execution_name(event)
    sent = _seconds(name) or time.time()
    running = {e.name: e for e in state_machine.running() if e.name.startswith(prefix)}
    ended = (e for e in state_machine.ended_since(sent - _SKEW) if e.name.startswith(prefix))
    others = running | {e.name: e for e in ended}
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
    return _prefix(event.owner) + "-".join(filter(None, [event.date, event.raw["RequestId"]]))


def _state_machine(event: Event, deadline: Deadline) -> StateMachine:
    return StateMachine(event.properties.get("StateMachineArn", ""), deadline)


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


def _seconds(name: str) -> float | None:
    date = DATE.search(name)
    return datetime.fromisoformat(date[0]).timestamp() if date else None
