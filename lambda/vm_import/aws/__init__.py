"""The AWS APIs that the handler calls."""

from __future__ import annotations

from aws.deadline import Deadline, LambdaContext
from aws.ec2 import Ec2
from aws.image_builder import ImageBuilder


class Aws:
    """The APIs of Image Builder and EC2, and the deadline that both keep."""

    def __init__(self, context: LambdaContext, seconds: float) -> None:
        """Call AWS for one step.

        Args:
            context: The context of the invocation.
            seconds: How long the step may take.
        """
        self.deadline = Deadline(context, seconds)
        self.image_builder = ImageBuilder(context.invoked_function_arn, self.deadline)
        self.ec2 = Ec2(self.deadline)
