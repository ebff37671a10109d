"""Failed and cancelled creations: delete what they may have created, and create it again.

MiniStack does neither.

CloudFormation follows a create that fails, or that the deletion of its stack cancels, with a
Delete. MiniStack sends none, and continues a creation during a deletion. AWS documents little:

- The Delete has the physical id of the FAILED response. Without a response, CloudFormation
  generates an id, and may send the Delete while the provider still works on the Create.
  https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1814
  https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1730
- A stack that is being updated cannot be deleted: the user must cancel the update first.
  https://github.com/aws-amplify/amplify-backend/pull/2366
- For a resource whose creation failed, only DeletionPolicy Retain prevents the Delete.
  RetainExceptOnCreate does not, because it excludes creations.
  https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html
- Inferred: a deletion during a rollback starts after the rollback, and a deletion during a deletion
  does nothing.
- The next operation on a stack that failed without a rollback deletes the resources whose creation
  failed, and creates them again. The same template may be deployed again. The order is a knob.
  https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stack-failure-options.html
"""

from __future__ import annotations

import asyncio
import secrets
import string
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from local_aws.server.world import World

_NESTED: Final = "AWS::CloudFormation::Stack"
# As in https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1814
_GENERATED_ID: Final = string.ascii_uppercase + string.digits
# The physical ids in responses of custom resources, by StackId and LogicalResourceId.
_RESPONDED: Final[dict[tuple[object, object], str]] = {}


class CreationCancelledError(Exception):
    """The creation of a resource is cancelled because its stack is deleted."""


class _Operation:
    """A running creation or update of a stack."""

    def __init__(self, task: asyncio.Task[None] | None) -> None:
        self.task = task
        self.cancelled: Future[None] = Future()
        self.rolls_back = False

    async def end(self) -> None:
        """Cancel it unless it already rolls back, and wait until it ends."""
        if self.task is None or self.task is asyncio.current_task():
            return
        if not self.rolls_back:
            # In this order, because MiniStack's engine notices when the current resource ends.
            self.task.cancel()
            self.cancelled.set_result(None)
        await asyncio.wait([self.task])


# The failures of a create that was sent: cancelled, responded with FAILED, or without a response.
# No Delete follows if it was not sent, because CloudFormation cannot invoke the function.
_SENT: Final = (CreationCancelledError, RuntimeError, TimeoutError)
_RUNNING: Final[dict[str, _Operation]] = {}
_OPERATION: ContextVar[_Operation | None] = ContextVar("operation", default=None)


def register(world: World) -> None:
    """Change MiniStack's CloudFormation for the whole process."""
    seams.STACK_TIME.put(world.timestamp)
    seams.DELETE_STACK.replace(_unless_updated)
    seams.DELIVER_RESPONSE.replace(_recorded)
    seams.DEPLOY_STACK.replace(partial(_track, world))
    seams.ROLL_BACK.replace(_with_failed_creations)
    seams.DELETE_STACK_LATER.replace(_after_the_creation)
    seams.PROVISION_RESOURCE.replace(_with_failures_recorded)
    seams.DIFF_RESOURCES.replace(_with_missing_added)


def _unless_updated(delete_stack: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(delete_stack)
    def unless_updated(params: dict[str, Any]) -> Any:  # noqa: ANN401
        stack = seams.find_stack(seams.query_parameter(params, "StackName")) or {}
        status = stack.get("StackStatus", "")
        if status.startswith("UPDATE_") and status.endswith("_IN_PROGRESS"):
            message = f"Stack [{stack['StackId']}] cannot be deleted while in status {status}"
            return seams.cloudformation_error("ValidationError", message)
        if status == "DELETE_IN_PROGRESS":
            return seams.cloudformation_response(200, "DeleteStackResponse", "")
        response = delete_stack(params)
        if response[0] == HTTPStatus.OK and stack.get("StackId") in _RUNNING:
            stack["StackStatus"] = "DELETE_IN_PROGRESS"
        return response

    return unless_updated


def _recorded(deliver: Callable[[str, dict[str, Any]], bool]) -> Callable[..., bool]:
    """Record the physical id of a response, which MiniStack ignores in a FAILED one."""

    @wraps(deliver)
    def recorded(token: str, response: dict[str, Any]) -> bool:
        if physical_id := response.get("PhysicalResourceId"):
            _RESPONDED[response.get("StackId"), response.get("LogicalResourceId")] = physical_id
        return deliver(token, response)

    return recorded


def _track(world: World, deploy: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(deploy)
    async def track(
        stack_name: str, stack_id: str, template: dict[str, Any], *others: object, **more: object
    ) -> None:
        stack = seams.STACKS[stack_name]
        # A deletion needs its policies and order, and MiniStack sets it late for a change set.
        stack["_template"] = stack["_template"] or template
        _RUNNING[stack_id] = operation = _Operation(asyncio.current_task())
        _OPERATION.set(operation)
        failed = _forget_failed_creations(stack, more.get("previous_stack"))
        is_first = world.knobs.failed_creation_deleted == "before"
        try:
            if is_first:
                await _delete_resources(stack, failed)
            await deploy(stack_name, stack_id, template, *others, **more)
        finally:
            if not is_first:
                await _delete_resources(stack, failed)
            del _RUNNING[stack_id]

    return track


def _forget_failed_creations(
    stack: dict[str, Any],
    previous: Any,  # noqa: ANN401
) -> list[dict[str, Any]]:
    """Return the resources to delete: earlier creations that failed without a rollback."""
    if not previous:
        return []
    definitions = stack["_template"].get("Resources", {})
    records = []
    for logical_id in reversed(_failed(stack["_resources"])):
        record = stack["_resources"].pop(logical_id)
        previous["_resources"].pop(logical_id, None)
        if definitions.get(logical_id, {}).get("DeletionPolicy") != "Retain":
            records.append(record)
    return records


async def _delete_resources(stack: dict[str, Any], records: list[dict[str, Any]]) -> None:
    name, stack_id = stack["StackName"], stack["StackId"]
    for record in records:
        logical_id, type_ = record["LogicalResourceId"], record["ResourceType"]
        physical_id = record["PhysicalResourceId"]
        arguments = (type_, physical_id, record["Properties"], name, logical_id)
        status, reason = "DELETE_COMPLETE", ""
        try:
            await seams.run_reentrant(seams.DELETE_RESOURCE, *arguments)
        except Exception as error:  # noqa: BLE001 - the operation goes on, as in a clean-up
            status, reason = "DELETE_FAILED", str(error)
        seams.ADD_STACK_EVENT(stack_id, name, logical_id, type_, status, reason, physical_id)


def _with_missing_added(diff: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Show in a change set that resources are added whose creation failed or never began."""

    @wraps(diff)
    def with_missing_added(
        old: dict[str, Any],
        new: dict[str, Any],
        resources: dict[str, Any] | None = None,
        *others: object,
        **more: object,
    ) -> list[Any]:
        existing = resources or {}
        if failed := _failed(existing):
            known = existing.keys() - set(failed)
            definitions = old.get("Resources", {})
            old = {**old, "Resources": {n: d for n, d in definitions.items() if n in known}}
        return diff(old, new, resources, *others, **more)

    return with_missing_added


def _with_failed_creations(
    roll_back: Callable[..., Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    @wraps(roll_back)
    async def with_failed_creations(
        stack_name: str, stack_id: str, stack: dict[str, Any], run: dict[str, Any], *others: object
    ) -> None:
        if operation := _OPERATION.get():
            operation.rolls_back = True
        run["created"] += [
            name for name in _failed(stack["_resources"]) if name not in run["created"]
        ]
        await roll_back(stack_name, stack_id, stack, run, *others)

    return with_failed_creations


def _after_the_creation(delete: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(delete)
    async def after_the_creation(
        stack_name: str, stack_id: str, *others: object, **more: object
    ) -> None:
        stack = seams.STACKS[stack_name]
        if operation := _RUNNING.get(stack_id):
            await operation.end()
        definitions = stack["_template"].get("Resources", {})
        for logical_id in _failed(stack["_resources"]):
            if definitions.get(logical_id, {}).get("DeletionPolicy") == "RetainExceptOnCreate":
                definitions[logical_id]["DeletionPolicy"] = "Delete"
        await delete(stack_name, stack_id, *others, **more)

    return after_the_creation


def _with_failures_recorded(provision: Callable[..., Any]) -> Callable[..., Any]:
    """Record failed and cancelled creations of custom resources and other slow types."""

    @wraps(provision)
    def with_failures_recorded(
        resource_type: str, logical_id: str, properties: dict[str, Any], stack_name: str
    ) -> Any:  # noqa: ANN401
        arguments = (resource_type, logical_id, properties, stack_name)
        stack = seams.STACKS[stack_name]
        if logical_id in stack["_resources"] or not seams.RUNS_IN_A_THREAD(resource_type):
            return provision(*arguments)
        record = {
            "PhysicalResourceId": "",
            "ResourceType": resource_type,
            "ResourceStatus": "CREATE_COMPLETE",
            "LogicalResourceId": logical_id,
            "Properties": properties,
            "Attributes": {},
            "Timestamp": seams.STACK_TIME(),
        }
        _RESPONDED.pop((stack["StackId"], logical_id), None)
        try:
            # The resources in a nested stack are cancelled by themselves.
            act = provision if resource_type == _NESTED else _unless_cancelled(provision)
            record["PhysicalResourceId"], record["Attributes"] = created = act(*arguments)
        except Exception as error:
            if resource_type == _NESTED or isinstance(error, _SENT):
                record["PhysicalResourceId"] = _physical_id_of_failed(
                    resource_type, logical_id, stack
                )
                record["ResourceStatus"] = "CREATE_FAILED"
            if isinstance(error, CreationCancelledError) and stack["StackId"] in _RUNNING:
                event = (logical_id, resource_type, "CREATE_FAILED", str(error))
                seams.ADD_STACK_EVENT(stack["StackId"], stack_name, *event)
            raise
        finally:
            # The engine forgets a created resource if it is cancelled at this moment.
            if record["PhysicalResourceId"]:
                stack["_resources"][logical_id] = record
        return created

    return with_failures_recorded


def _unless_cancelled(provision: Callable[..., Any]) -> Callable[..., Any]:
    def unless_cancelled(*arguments: Any) -> Any:  # noqa: ANN401
        operation = _OPERATION.get()
        if operation is None:
            return provision(*arguments)
        executor = ThreadPoolExecutor(max_workers=1)
        done = executor.submit(copy_context().run, provision, *arguments)
        executor.shutdown(wait=False)
        wait([done, operation.cancelled], return_when=FIRST_COMPLETED)
        if not done.done():
            raise CreationCancelledError("Resource creation cancelled")
        return done.result()

    return unless_cancelled


def _physical_id_of_failed(resource_type: str, logical_id: str, stack: dict[str, Any]) -> str:
    name = stack["StackName"]
    if resource_type == _NESTED:
        children = [
            child["StackId"]
            for child in seams.STACKS.values()
            if child.get("_parent_stack_name") == name
            and child["StackName"].startswith(f"{name}-{logical_id}-")
        ]
        return children[-1] if children else ""
    generated = f"{name}-{logical_id}-" + "".join(secrets.choice(_GENERATED_ID) for _ in range(13))
    return _RESPONDED.pop((stack["StackId"], logical_id), None) or generated


def _failed(resources: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, r in resources.items() if r["ResourceStatus"] == "CREATE_FAILED"]
