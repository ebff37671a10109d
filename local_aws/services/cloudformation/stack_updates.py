"""The order in which CloudFormation updates resources, and how it cleans up.

MiniStack deletes what an update replaced at once, and without a status of its own.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial, wraps
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.cloudformation.exports import change_exports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from local_aws.server.world import World


# The stack of the current operation, and when its clean-up begins.
_STACK: ContextVar[str] = ContextVar("stack", default="")
_CLEAN_UP: Final = "_clean_up"


def register(world: World) -> None:
    """Change MiniStack's CloudFormation for the whole process."""
    seams.RESOLVE_OUTPUTS.replace(_then_clean_up)
    seams.TOPOLOGICAL_SORT.replace(partial(_in_order, world))
    seams.DEPLOY_STACK.replace(_tracked)
    seams.ROLL_BACK.replace(_tracked)
    seams.RUNS_IN_A_THREAD.replace(partial(_in_a_thread, world))
    seams.DELETE_RESOURCE.replace(partial(_after_a_while, world))


def _then_clean_up(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """Check the exports before the update is complete; what follows is the clean-up."""

    @wraps(resolve)
    def then_clean_up(*arguments: Any) -> Any:  # noqa: ANN401
        outputs, exports = resolve(*arguments)
        stack_name, stack_id = arguments[-2:]
        stack = seams.STACKS[stack_name]
        change_exports(stack_name, stack.get("Outputs", []), exports)
        if stack["StackStatus"].startswith("UPDATE"):
            # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
            stack["StackStatus"] = status = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
            type_ = "AWS::CloudFormation::Stack"
            seams.ADD_STACK_EVENT(
                stack_id, stack_name, stack_name, type_, status, physical_id=stack_id
            )
        return outputs, exports

    return then_clean_up


def _in_order(world: World, sort: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Sort resources after those that they depend on; the order of others is a knob."""

    @wraps(sort)
    def in_order(resources: dict[str, Any], conditions: dict[str, Any]) -> list[str]:
        by_name = sort(resources, conditions)
        if world.knobs.resource_order == "by_name":
            return by_name
        names = set(by_name)
        sorter = TopologicalSorter(
            {name: seams.dependencies(resources[name], names) - {name} for name in names}
        )
        sorter.prepare()
        order: list[str] = []
        ready: list[str] = []
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()])
            order.append(ready.pop())
            sorter.done(order[-1])
        return order

    return in_order


def _tracked(operation: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(operation)
    async def tracked(stack_name: str, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        _STACK.set(stack_name)
        seams.STACKS[stack_name].pop(_CLEAN_UP, None)
        await operation(stack_name, *arguments, **more)

    return tracked


def _in_a_thread(world: World, needs_thread: Callable[[str], bool]) -> Callable[[str], bool]:
    """Delete all types in a thread, where they may sleep, during a clean-up that begins later."""

    @wraps(needs_thread)
    def in_a_thread(resource_type: str) -> bool:
        stack = seams.STACKS.get(_STACK.get()) or {}
        if not stack.get("StackStatus", "").endswith("CLEANUP_IN_PROGRESS"):
            return needs_thread(resource_type)
        # MiniStack asks before it deletes the first resource.
        stack.setdefault(_CLEAN_UP, world.now() + world.knobs.clean_up_seconds)
        return True

    return in_a_thread


def _after_a_while(world: World, delete: Callable[..., Any]) -> Callable[..., Any]:
    """Delete a resource when the clean-up begins; what MiniStack's handlers delete is not here."""

    @wraps(delete)
    def after_a_while(
        resource_type: str,
        physical_id: str,
        properties: dict[str, Any],
        stack_name: str,
        *more: object,
    ) -> Any:  # noqa: ANN401
        begins = seams.STACKS[stack_name].get(_CLEAN_UP, 0)
        world.clock.sleep(begins - world.now())
        return delete(resource_type, physical_id, properties, stack_name, *more)

    return after_a_while
