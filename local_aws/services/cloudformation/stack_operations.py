"""What MiniStack's CloudFormation lacks where a creation does not end well.

A create that fails, or that the deletion of its stack cancels, is followed by a Delete of what it
may have made. MiniStack forgets it, and goes on with the creation. AWS documents little of it:

- The Delete carries the id of the FAILED answer; where none came, CloudFormation makes an id up,
  and may send it while the provider still works on the Create.
  https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1814
  https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1730
- A stack that is being updated cannot be deleted: its update is to be cancelled first.
  https://github.com/aws-amplify/amplify-backend/pull/2366
- Inferred: of a resource that never came to be only DeletionPolicy Retain keeps CloudFormation
  from sending the Delete; RetainExceptOnCreate does not, as there it speaks of a create. A
  deletion during a rollback begins when that is over, one during a deletion is no other.
"""

from __future__ import annotations

import asyncio
import secrets
import string
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from ministack.core.responses import now_iso
from ministack.services import cloudformation
from ministack.services.cloudformation import (
    changesets,
    custom_resource,
    handlers,
    provisioners,
    stacks,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_NESTED: Final = "AWS::CloudFormation::Stack"
# As https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1814 shows them.
_MADE_UP: Final = string.ascii_uppercase + string.digits
# The ids of answers to custom resources, by StackId and LogicalResourceId.
_ANSWERED: Final[dict[tuple[object, object], str]] = {}


class CreationCancelledError(Exception):
    """The resource is not created any further: its stack is to be deleted."""


class _Operation:
    """The creation or update of a stack, under way."""

    def __init__(self, task: asyncio.Task[None] | None) -> None:
        self.task = task
        self.cancelled: Future[None] = Future()
        self.rolls_back = False

    async def end(self) -> None:
        """Cancel it, unless it rolls back already, and see it end."""
        if self.task is None or self.task is asyncio.current_task():
            return
        if not self.rolls_back:
            # in this order: MiniStack's engine takes note once the resource in the making ends
            self.task.cancel()
            self.cancelled.set_result(None)
        await asyncio.wait([self.task])


# How a create fails that was begun: cancelled, answered FAILED, never answered. Nothing follows
# one that was not: of a function that is not there, or that CloudFormation may not call.
_BEGUN: Final = (CreationCancelledError, RuntimeError, TimeoutError)
_UNDER_WAY: Final[dict[str, _Operation]] = {}
_OPERATION: ContextVar[_Operation | None] = ContextVar("operation", default=None)


def register() -> None:
    """Teach MiniStack's CloudFormation these things; for the whole process."""
    actions = handlers._ACTION_HANDLERS  # noqa: SLF001
    actions["DeleteStack"] = _unless_updated(actions["DeleteStack"])
    custom_resource.deliver_response = _noted(custom_resource.deliver_response)
    better = {
        "_deploy_stack_async": _under_way(stacks._deploy_stack_async),  # noqa: SLF001
        "_roll_back_operation": _with_what_failed(stacks._roll_back_operation),  # noqa: SLF001
        "_delete_stack_async": _after_the_creation(stacks._delete_stack_async),  # noqa: SLF001
        "_provision_resource": _remembered(provisioners._provision_resource),  # noqa: SLF001
    }
    for module in (stacks, handlers, changesets, provisioners):  # which import from each other
        for name in better.keys() & vars(module).keys():
            setattr(module, name, better[name])


def _unless_updated(delete_stack: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(delete_stack)
    def unless_updated(params: dict[str, Any]) -> Any:  # noqa: ANN401
        stack = handlers._resolve_stack(handlers._p(params, "StackName")) or {}  # noqa: SLF001
        status = stack.get("StackStatus", "")
        if status.startswith("UPDATE_") and status.endswith("_IN_PROGRESS"):
            message = f"Stack [{stack['StackId']}] cannot be deleted while in status {status}"
            return handlers._error("ValidationError", message)  # noqa: SLF001
        if status == "DELETE_IN_PROGRESS":
            return handlers._xml(200, "DeleteStackResponse", "")  # noqa: SLF001
        answer = delete_stack(params)
        if answer[0] == HTTPStatus.OK and stack.get("StackId") in _UNDER_WAY:
            stack["StackStatus"] = "DELETE_IN_PROGRESS"
        return answer

    return unless_updated


def _noted(deliver: Callable[[str, dict[str, Any]], bool]) -> Callable[..., bool]:
    """Note the id of an answer: MiniStack takes none from one that FAILED."""

    @wraps(deliver)
    def noted(token: str, answer: dict[str, Any]) -> bool:
        if physical_id := answer.get("PhysicalResourceId"):
            _ANSWERED[answer.get("StackId"), answer.get("LogicalResourceId")] = physical_id
        return deliver(token, answer)

    return noted


def _under_way(deploy: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(deploy)
    async def under_way(
        stack_name: str, stack_id: str, template: dict[str, Any], *others: object, **more: object
    ) -> None:
        stack = cloudformation._stacks[stack_name]  # noqa: SLF001
        # MiniStack sets it last when a change set creates; a deletion reads its policies and order
        stack["_template"] = stack["_template"] or template
        _UNDER_WAY[stack_id] = operation = _Operation(asyncio.current_task())
        _OPERATION.set(operation)
        try:
            await deploy(stack_name, stack_id, template, *others, **more)
        finally:
            del _UNDER_WAY[stack_id]

    return under_way


def _with_what_failed(roll_back: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(roll_back)
    async def with_what_failed(
        stack_name: str, stack_id: str, stack: dict[str, Any], run: dict[str, Any], *others: object
    ) -> None:
        if operation := _OPERATION.get():
            operation.rolls_back = True
        run["created"] += [
            name for name in _failed(stack["_resources"]) if name not in run["created"]
        ]
        await roll_back(stack_name, stack_id, stack, run, *others)

    return with_what_failed


def _after_the_creation(delete: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(delete)
    async def after_the_creation(
        stack_name: str, stack_id: str, *others: object, **more: object
    ) -> None:
        stack = cloudformation._stacks[stack_name]  # noqa: SLF001
        if operation := _UNDER_WAY.get(stack_id):
            await operation.end()
        definitions = stack["_template"].get("Resources", {})
        for logical_id in _failed(stack["_resources"]):
            if definitions.get(logical_id, {}).get("DeletionPolicy") == "RetainExceptOnCreate":
                definitions[logical_id]["DeletionPolicy"] = "Delete"
        await delete(stack_name, stack_id, *others, **more)

    return after_the_creation


def _remembered(provision: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what failed or was cancelled; of the types that others make, and take their time."""

    @wraps(provision)
    def remembered(
        resource_type: str, logical_id: str, properties: dict[str, Any], stack_name: str
    ) -> Any:  # noqa: ANN401
        arguments = (resource_type, logical_id, properties, stack_name)
        stack = cloudformation._stacks[stack_name]  # noqa: SLF001
        if logical_id in stack["_resources"] or not stacks._runs_on_worker_thread(resource_type):  # noqa: SLF001
            return provision(*arguments)
        record = {
            "PhysicalResourceId": "",
            "ResourceType": resource_type,
            "ResourceStatus": "CREATE_COMPLETE",
            "LogicalResourceId": logical_id,
            "Properties": properties,
            "Attributes": {},
            "Timestamp": now_iso(),
        }
        _ANSWERED.pop((stack["StackId"], logical_id), None)
        try:
            # what is in a nested stack is cancelled for itself
            act = provision if resource_type == _NESTED else _unless_cancelled(provision)
            record["PhysicalResourceId"], record["Attributes"] = made = act(*arguments)
        except Exception as error:
            if resource_type == _NESTED or isinstance(error, _BEGUN):
                record["PhysicalResourceId"] = _id_of_what_failed(resource_type, logical_id, stack)
                record["ResourceStatus"] = "CREATE_FAILED"
            if isinstance(error, CreationCancelledError) and stack["StackId"] in _UNDER_WAY:
                event = (logical_id, resource_type, "CREATE_FAILED", str(error))
                stacks._add_event(stack["StackId"], stack_name, *event)  # noqa: SLF001
            raise
        finally:
            # Here, as the engine forgets even what was made, if it is cancelled in that moment.
            if record["PhysicalResourceId"]:
                stack["_resources"][logical_id] = record
        return made

    return remembered


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


def _id_of_what_failed(resource_type: str, logical_id: str, stack: dict[str, Any]) -> str:
    name = stack["StackName"]
    if resource_type == _NESTED:
        children = [
            child["StackId"]
            for child in cloudformation._stacks.values()  # noqa: SLF001
            if child.get("_parent_stack_name") == name
            and child["StackName"].startswith(f"{name}-{logical_id}-")
        ]
        return children[-1] if children else ""
    made_up = f"{name}-{logical_id}-" + "".join(secrets.choice(_MADE_UP) for _ in range(13))
    return _ANSWERED.pop((stack["StackId"], logical_id), None) or made_up


def _failed(resources: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, r in resources.items() if r["ResourceStatus"] == "CREATE_FAILED"]
