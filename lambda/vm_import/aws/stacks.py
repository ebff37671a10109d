"""The calls to CloudFormation."""

from typing import ClassVar

from aws.session import AwsApi


class Stacks(AwsApi):
    """The stack of an event."""

    service: ClassVar[str] = "cloudformation"

    def is_rolling_back(self, stack_id: str) -> bool:
        """Return whether CloudFormation rolls the stack back: its events do not say."""
        (stack,) = self._call("describe_stacks", StackName=stack_id)["Stacks"]
        return "ROLLBACK" in stack["StackStatus"]
