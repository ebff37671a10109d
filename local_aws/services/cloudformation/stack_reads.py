"""DescribeStacks, which is eventually consistent.

https://github.com/aws/aws-cdk-cli/issues/1802
MiniStack shows each change at once.
"""

from __future__ import annotations

import copy
from functools import wraps
from typing import TYPE_CHECKING, Any

from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.world import World


class StackReads:
    """The stacks of all accounts and Regions, each time that their status changed."""

    def __init__(self, world: World) -> None:
        """Change MiniStack's CloudFormation for the whole process."""
        self._world = world
        # By account and Region: when a stack had which description, oldest first.
        self._past: dict[tuple[str, str], list[tuple[float, dict[str, Any]]]] = {}
        seams.ADD_STACK_EVENT.replace(self._recorded)
        seams.DESCRIBE_STACKS.replace(self._lagging)

    def forget_the_past(self) -> None:
        """Forget all stacks."""
        self._past.clear()

    def _here(self) -> list[tuple[float, dict[str, Any]]]:
        return self._past.setdefault((seams.get_account_id(), seams.get_region()), [])

    def _recorded(self, add_event: Callable[..., Any]) -> Callable[..., Any]:
        """Record the description of a stack when its status changes, which is an event."""

        @wraps(add_event)
        def recorded(stack_id: str, name: str, logical_id: str, *more: Any, **others: Any) -> Any:  # noqa: ANN401
            stack = seams.STACKS.get(name)
            if stack and logical_id == name:
                shown = {key: value for key, value in stack.items() if not key.startswith("_")}
                self._here().append((self._world.now(), copy.deepcopy(shown)))
            return add_event(stack_id, name, logical_id, *more, **others)

        return recorded

    def _lagging(self, describe: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(describe)
        def lagging(params: dict[str, Any]) -> Any:  # noqa: ANN401
            lag = self._world.knobs.stack_lag_seconds
            if not lag:
                return describe(params)
            then = self._world.now() - lag
            shown = {stack["StackName"]: stack for time, stack in self._here() if time <= then}
            # Stack operations run in threads, which must see the present. So the past is in the
            # same store for a moment, in an account of its own.
            with seams.request_scope(f"past of {seams.get_account_id()}", seams.get_region()):
                seams.STACKS.update(shown)
                try:
                    return describe(params)
                finally:
                    for name in shown:
                        del seams.STACKS[name]

        return lagging
