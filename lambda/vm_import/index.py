"""The Lambda function: it starts an execution for each event, and takes the execution's steps."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import ami_settings.resource
import image.resource
import image.wait_link
import import_task.resource
from aws import Aws, LambdaContext
from aws.session import LAG
from cloudformation import executions
from cloudformation.event import Event
from cloudformation.properties import Properties
from cloudformation.response import CfnResource, Outcome
from cloudformation.step import Done, Pending, State
from contract import MAX_TIMEOUT, ResourceType, Step
from errors import PropertyError, SupersededError, VmImportError, failures_name, tolerated
from image.properties import ImageProperties
from import_task.properties import ImportTaskProperties

logger = logging.getLogger(__name__)
cfn_resource = CfnResource()

_STEPS: Final = {
    ResourceType.IMAGE: image.resource.step,
    ResourceType.WAIT: image.wait_link.step,
    ResourceType.IMPORT_TASK: import_task.resource.step,
    ResourceType.AMI_SETTINGS: ami_settings.resource.step,
}
# Of the resource types that create something.
_PROPERTIES: Final[Mapping[str, type[Properties]]] = {
    ResourceType.IMAGE: ImageProperties,
    ResourceType.IMPORT_TASK: ImportTaskProperties,
}
# How long starting an execution is repeated, in seconds.
_START_LIMIT: Final = 90
# How long a Delete waits until the order of events is known, in seconds.
_ORDER_LIMIT: Final = 300
# How long steps are repeated without the state machine, in seconds: an invocation has 15 minutes.
_ALONE: Final = 600
# Between two steps that failed and may succeed later, in seconds.
_SHORTEST_RETRY: Final = 5
_LONGEST_RETRY: Final = 30
_LONGEST_RETRY_OF_FOLLOW_UP: Final = 90


def handler(payload: Mapping[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    """Handle an event of CloudFormation, or a step of its execution."""
    if Step.EVENT in payload:
        return on_step(payload, context)
    on_event(payload, context)
    return None


def on_event(raw: Mapping[str, Any], context: LambdaContext) -> None:
    """Start the execution of an event.

    Args:
        raw: What Lambda received from CloudFormation.
        context: The context of the invocation.
    """
    event = Event(raw)
    if event.request_type != "Delete":
        cfn_resource.respond(raw, context, lambda: _start(event))
        return
    cfn_resource.log_as(raw, context)
    try:
        _start(event)
    except Exception as error:  # noqa: BLE001 - whatever it is
        # A stack can always be deleted: the function itself has the time for that.
        logger.warning("the steps are taken without the state machine: %s", error)
        payload = executions.data(event, executions.first_state(event))
        while seconds := (payload := on_step(payload, context, _ALONE))[Step.SECONDS]:
            time.sleep(seconds)


def _start(event: Event) -> None:
    """Start the execution of an event, within the time that IAM and Step Functions may take."""
    state = State(started=time.time())
    while True:
        try:
            with failures_name(_placeholder(event)):
                return executions.start(event)
        except VmImportError as error:
            if not state.may_pass(error, _START_LIMIT):
                raise
            _log_repetition(state, error)
            state = state.after(error)
            time.sleep(_SHORTEST_RETRY)


def _log_repetition(state: State, error: VmImportError) -> None:
    """Log that a step is repeated, unless it was repeated for the same cause before."""
    if error.summary != state.problem:
        logger.info("repeated, because it may succeed later: %s", error.reason.cause)


def on_step(
    payload: Mapping[str, Any], context: LambdaContext, longest: float = math.inf
) -> dict[str, Any]:
    """Take a step of an event.

    Args:
        payload: The event and the state after the step before.
        context: The context of the invocation.
        longest: For how many seconds steps are repeated at most.

    Returns:
        The same with the new state, and the seconds until the next step; 0 if there is none.
    """
    event, state = Event(payload[Step.EVENT]), State.read(payload[Step.STATE])
    outcome: Outcome = None
    if state.follow_up:
        cfn_resource.log_as(event.raw, context)
        with tolerated("CloudFormation has the response, so this is only logged"):
            outcome = _take(event, state, context, longest)
    else:
        outcome = cfn_resource.respond(
            event.raw, context, lambda: _take(event, state, context, longest)
        )
    if isinstance(outcome, Pending):
        return executions.data(event, outcome.state, outcome.seconds)
    return executions.data(event, state)


def _take(event: Event, state: State, context: LambdaContext, longest: float) -> Pending | Done:
    """Take a step, or repeat it later if that may help."""
    if state.failure:
        with failures_name(state.failed_id):
            raise VmImportError.because(state.reason)
    resource_type = event.raw["ResourceType"]
    if resource_type not in _STEPS:
        raise PropertyError(
            f"resource type {resource_type!r} is not supported: use one of {', '.join(_STEPS)}"
        )
    try:
        with failures_name(_placeholder(event)):
            if not (state.in_order or state.follow_up):
                _put_in_order(event, state)
                state = replace(state, in_order=state.elapsed >= LAG, order_checked=True)
            outcome = _STEPS[resource_type](event, state, Aws(context))
            if isinstance(outcome, Done) and outcome.follow_up:
                executions.start_follow_up(event, outcome.follow_up)
    except VmImportError as error:
        limit = MAX_TIMEOUT if state.follow_up else event.retry_limit
        if state.elapsed >= min(limit, longest) or not state.may_pass(error):
            if event.request_type == "Delete" or state.follow_up:
                raise
            # Kept in the state first: if the function is killed after its response, the step that
            # is repeated must not create what CloudFormation takes for failed.
            reason = state.reason if state.import_failure else error.reason
            failed = replace(
                state,
                failure=reason.cause,
                hint=reason.hint,
                ids=reason.ids,
                failed_id=error.physical_id,
            )
            return Pending(failed, 1)
        _log_repetition(state, error)
        longest_retry = _LONGEST_RETRY_OF_FOLLOW_UP if state.follow_up else _LONGEST_RETRY
        pause = min(max(state.elapsed / 10, _SHORTEST_RETRY), longest_retry)
        return Pending(state.after(error), round(pause))
    if isinstance(outcome, Pending):
        return replace(outcome, state=outcome.state.after_success())
    return outcome


def _placeholder(event: Event) -> str:
    """Return what a failed Create names, so that its Delete finds all that it created, and only it.

    Empty for other events: CloudFormation knows the resource by its id.
    """
    known = _PROPERTIES.get(event.raw["ResourceType"])
    if event.request_type != "Create" or known is None:
        return ""
    properties = known.read_known(event.properties)
    return properties.lookup(event.owner).placeholder(event.id) if properties else ""


def _put_in_order(event: Event, state: State) -> None:
    try:
        executions.put_in_order(event, state.started, is_first=not state.order_checked)
    except VmImportError as error:
        # A stack can always be deleted, also where Step Functions denies or fails what this needs.
        may_pass = state.may_pass(error, _ORDER_LIMIT)
        if event.request_type != "Delete" or may_pass or isinstance(error, SupersededError):
            raise
        logger.warning("earlier events of the resource may still run: %s", error)
