"""The executions of events: one for each event, and in the order in which events were sent."""

import hashlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from aws.session import LAG
from aws.step_functions import StateMachine
from cloudformation.event import Event, seconds_of
from cloudformation.step import State
from contract import ImageProperty, Step
from errors import SupersededError

# By how many seconds the clocks of CloudFormation and of the function may differ.
_SKEW: Final = 5
# What the names of the executions of Deletes end with.
_DELETE: Final = "-D"


def data(event: Event, state: State, seconds: int = 0) -> dict[str, Any]:
    """Return the data of an execution: what the next step receives.

    Args:
        event: CloudFormation's event.
        state: What is known of it.
        seconds: The pause before the next step; 0 ends the execution.
    """
    return {Step.EVENT: dict(event.raw), Step.STATE: asdict(state), Step.SECONDS: seconds}


def first_state(event: Event) -> State:
    """Return the state before the first step. CloudFormation waits since it sent the event."""
    return State(started=event.sent or time.time())


def start(event: Event) -> None:
    """Start the execution of an event. Lambda may deliver the event again: it has one execution.

    Raises:
        AwsError: Step Functions did not start it.
    """
    _state_machine(event).start(execution_name(event), data(event, first_state(event)))


def start_follow_up(event: Event, state: State) -> None:
    """Start the execution that follows an import which the deployment does not wait for.

    It has no ResponseURL. Later events of the resource stop it only with `stop_follow_ups`.

    Raises:
        AwsError: Step Functions did not start it.
    """
    rest = {name: value for name, value in event.raw.items() if name != "ResponseURL"}
    name = _name_of_follow_up(event, state.image)
    _state_machine(event).start(name, data(Event(rest), state))


def stop_follow_ups(event: Event, image: str) -> None:
    """Stop the executions with which earlier events of the resource follow an import.

    Args:
        event: CloudFormation's event. Its own execution that follows the import is not stopped.
        image: The ARN of the image that is imported.

    Raises:
        AwsError: Step Functions did not list the executions, or did not stop them.
    """
    state_machine, own = _state_machine(event), _name_of_follow_up(event, image)
    for other in state_machine.running():
        name = other["name"]
        is_later = (seconds_of(name) or 0) > (event.sent or math.inf)
        if name.startswith(_prefix_of_follow_ups(event, image)) and name != own and not is_later:
            state_machine.stop(other["executionArn"], f"superseded by {execution_name(event)}")


def put_in_order(event: Event, started: float, *, is_first: bool = True) -> None:
    """Stop the executions of earlier events of the resource: nobody waits for their responses.

    Args:
        event: CloudFormation's event.
        started: When its execution was started, in seconds since 1970.
        is_first: Whether the execution may have begun just now.

    Raises:
        SupersededError: A later event exists, so nobody waits for the response to this one.
        AwsError: Step Functions did not list the executions, or did not stop them.
    """
    state_machine, name = _state_machine(event), execution_name(event)
    sent = seconds_of(name) or started
    if is_first and time.time() - sent > _SKEW:
        # It is late, so a later event may have an execution that is not listed yet.
        time.sleep(LAG)
    running = _of(event, state_machine.running())
    others = running | _of(event, state_machine.ended_since(sent - _SKEW))
    # Events have whole seconds: without an execution, it began within the next one.
    begun = datetime.fromtimestamp(started + 1, UTC)
    own = others.pop(name, {"name": name, "startDate": begun})
    if any(_is_later(other, own) for other in others.values()):
        raise SupersededError(
            f"CloudFormation has sent a later event for {event.owner.logical_id}, so this "
            f"{event.request_type} came too late and was not carried out"
        )
    for other in running.values():
        if other["name"] != name and _is_later(own, other):
            state_machine.stop(other["executionArn"], f"superseded by {name}")


def last_before(event: Event, started: float) -> float | None:
    """Return when the last Create or Update of the resource before a Delete was sent.

    Args:
        event: The Delete.
        started: When its execution was started, in seconds since 1970.

    Returns:
        Seconds since 1970. None if that event had ended before the Delete was sent.
    """
    state_machine = _state_machine(event)
    sent = seconds_of(execution_name(event)) or started
    others = _of(event, state_machine.running())
    others |= _of(event, state_machine.ended_since(sent - _SKEW))
    times = [seconds_of(other) for other in others if not other.endswith(_DELETE)]
    return max((time for time in times if time and time <= sent), default=None)


def execution_name(event: Event) -> str:
    """Return the name of an event's execution: the same when Lambda delivers the event again."""
    return f"{_prefix(event)}{_suffix(event)}"


def _name_of_follow_up(event: Event, image: str) -> str:
    return f"{_prefix_of_follow_ups(event, image)}{_suffix(event)}"


def _suffix(event: Event) -> str:
    return f"{event.id}-{event.request_type[0]}"


def _state_machine(event: Event) -> StateMachine:
    return StateMachine(event.properties.get(ImageProperty.STATE_MACHINE_ARN, ""))


def _of(event: Event, executions: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the executions of the event's resource, by name."""
    prefix = _prefix(event)
    return {one["name"]: one for one in executions if one["name"].startswith(prefix)}


def _prefix(event: Event) -> str:
    """Return what the names of all executions of the event's resource begin with."""
    return f"{_hash(event.owner.stack_id, event.owner.logical_id)}-"


def _prefix_of_follow_ups(event: Event, image: str) -> str:
    """Return what the names of all executions begin with that follow an import for a resource."""
    return f"follow-{_hash(event.owner.stack_id, event.owner.logical_id, image)}-"


def _hash(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def _is_later(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether the event of one execution was sent after that of another."""
    sent, other_sent = seconds_of(one["name"]), seconds_of(other["name"])
    # Lambda may deliver the later one first.
    if sent and other_sent and sent != other_sent:
        return sent > other_sent
    return bool(one["startDate"] > other["startDate"])
