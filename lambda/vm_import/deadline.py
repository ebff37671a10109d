"""The time that is left to the function."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, Protocol

from errors import OutOfTimeError

if TYPE_CHECKING:
    from collections.abc import Iterator


class LambdaContext(Protocol):
    """What the handler reads of Lambda's context object.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    aws_request_id: str
    invoked_function_arn: str
    log_group_name: str
    log_stream_name: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends the invocation."""


# What is kept back for the answer to CloudFormation.
_FOR_THE_ANSWER: Final = 30.0


class Deadline:
    """Ends waiting while there is still time to answer."""

    def __init__(self, context: LambdaContext) -> None:
        """Take the function's own limit as the deadline, less what the answer needs."""
        self._context = context

    def pauses(
        self, waiting_for: str, *, first: float = 1.0, longest: float = 15.0
    ) -> Iterator[None]:
        """Yield at once and then after growing, jittered pauses, until the time is up.

        Args:
            waiting_for: What the error names when the time is up.
            first: The first pause, in seconds.
            longest: No pause is longer, in seconds.

        Raises:
            OutOfTimeError: No time is left but for the answer.
        """
        pause = first
        while True:
            yield
            seconds = pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not cryptography
            remaining = self._context.get_remaining_time_in_millis() / 1000
            if remaining - _FOR_THE_ANSWER < seconds:
                raise OutOfTimeError(
                    f"the function ran out of time waiting for {waiting_for}; nothing is lost: "
                    "run the stack operation again"
                )
            time.sleep(seconds)
            pause = min(pause * 2, longest)
