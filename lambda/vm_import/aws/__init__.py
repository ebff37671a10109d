"""The AWS APIs that the handler calls."""

from typing import Protocol

from aws.ec2 import Ec2
from aws.image_builder import ImageBuilder
from aws.stacks import Stacks


class LambdaContext(Protocol):
    """What the handler reads of Lambda's context object.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    aws_request_id: str
    invoked_function_arn: str
    log_group_name: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""


class Aws:
    """The APIs of Image Builder, EC2 and CloudFormation."""

    def __init__(self, context: LambdaContext) -> None:
        """Call AWS in the account, Region and partition of the function."""
        self.image_builder = ImageBuilder(context.invoked_function_arn)
        self.ec2 = Ec2()
        self.stacks = Stacks()
