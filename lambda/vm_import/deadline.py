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


# What is kept back, in seconds: a call to AWS that began just in time may take its four attempts
# of 25 seconds each, and then there is the answer to CloudFormation.
_FOR_THE_ANSWER: Final = 120.0


class Deadline:
    """Ends waiting while there is still time to answer."""

    def __init__(self, context: LambdaContext, at_most: float | None = None) -> None:
        """Take the function's own limit as the deadline, less what the answer needs.

        Args:
            context: Of the invocation.
            at_most: An earlier end, in seconds from now, for those that can come again.
        """
        self._context = context
        self._end = None if at_most is None else time.monotonic() + at_most

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
        seconds = 0.0
        pause = first
        while True:
            remaining = self._context.get_remaining_time_in_millis() / 1000 - _FOR_THE_ANSWER
            if self._end is not None:
                remaining = min(remaining, self._end - time.monotonic())
            if remaining < seconds:
                raise OutOfTimeError(
                    f"the function ran out of time waiting for {waiting_for}; nothing is lost: "
                    "run the stack operation again"
                )
            time.sleep(seconds)
            yield
            seconds = pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not cryptography
            pause = min(pause * 2, longest)
