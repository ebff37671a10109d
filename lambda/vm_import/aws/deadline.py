"""The time that a step of the handler may take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

from errors import OutOfTimeError

T = TypeVar("T")


class LambdaContext(Protocol):
    """What the handler reads of Lambda's context object.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    aws_request_id: str
    invoked_function_arn: str
    log_group_name: str
    log_stream_name: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""


# Reserved for the response, in seconds: a call that begins just in time may take four attempts of
# 25 seconds each, and then the response must still be delivered.
_RESERVED: Final = 120.0


class Deadline:
    """Ends retries while there is still time to respond."""

    def __init__(
        self, context: LambdaContext, seconds: float, *, reserved: float = _RESERVED
    ) -> None:
        """Start the time of a step.

        Args:
            context: The context of the invocation. Its own limit comes first if it is earlier.
            seconds: How long the step may take.
            reserved: How much of the invocation's time remains. Default: what a call to AWS and
                the response may take.
        """
        self._context = context
        self._reserved = reserved
        self._end = time.monotonic() + seconds

    def attempts(
        self, waiting_for: str, *, first: float = 1.0, longest: float = 15.0
    ) -> Iterator[int]:
        """Yield 1 at once, then 2, 3, ... after growing pauses with jitter.

        Args:
            waiting_for: What the error names when the time is over.
            first: The first pause, in seconds.
            longest: The longest pause, in seconds.

        Raises:
            OutOfTimeError: The next attempt would be too late.
        """
        attempt, seconds, pause = 1, 0.0, first
        while True:
            remaining = self._context.get_remaining_time_in_millis() / 1000 - self._reserved
            if min(remaining, self._end - time.monotonic()) < seconds:
                raise OutOfTimeError(f"no time is left to wait for {waiting_for}")
            time.sleep(seconds)
            yield attempt
            attempt += 1
            seconds = pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not cryptography
            pause = min(pause * 2, longest)

    def until_found(self, what: str, attempts: int, read: Callable[[], T | None]) -> T | None:
        """Read until something is found: others write too, and reads lag behind writes.

        Args:
            what: What is read.
            attempts: How often to read at most.
            read: Reads it; returns something false if there is nothing.

        Returns:
            What was found, or what the last attempt returned.

        Raises:
            OutOfTimeError: No time is left, and nothing was found.
        """
        found = None
        for attempt in self.attempts(f"{what} to be found"):
            if (found := read()) or attempt == attempts:
                break
        return found
