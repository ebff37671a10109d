"""The calls to CloudFormation."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from aws.session import LAG, AwsApi


@dataclass(frozen=True)
class Stack:
    """A stack, as DescribeStacks describes it.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Stack.html
    """

    status: str
    changed: datetime
    """When the current or last stack operation began."""

    @property
    def is_rolling_back(self) -> bool:
        """Whether CloudFormation rolls a stack operation back: its events do not say."""
        return "ROLLBACK" in self.status

    @property
    def is_deleted(self) -> bool:
        """Whether CloudFormation deletes all resources of the stack."""
        return self.status.startswith(("ROLLBACK", "DELETE"))

    @property
    def is_updated(self) -> bool:
        """Whether CloudFormation carries out a new template."""
        is_undone = self.is_rolling_back or self.is_deleted
        return self.status.endswith("IN_PROGRESS") and not is_undone


class Stacks(AwsApi):
    """The stack of an event."""

    service: ClassVar[str] = "cloudformation"

    def get(self, stack_id: str, sent: float) -> Stack:
        """Return the stack as it is during an event, or later.

        Args:
            stack_id: The stack.
            sent: When the event was sent, in seconds since 1970. Reads lag behind changes, so a
                read that is too early would show the stack operation before that of the event.
        """
        time.sleep(max(0.0, sent + LAG - time.time()))
        (stack,) = self._call("describe_stacks", StackName=stack_id)["Stacks"]
        changed = stack.get("LastUpdatedTime") or stack["CreationTime"]
        return Stack(stack["StackStatus"], changed)
