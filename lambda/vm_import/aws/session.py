"""AWS API calls: boto3's clients and retries, and this project's errors."""

import functools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from errors import AwsError

# Reads may lag behind writes: attempts, within 8 to 15 seconds.
READS: Final = 5
# Another event, or AWS itself, may need time: attempts, within 30 to 60 seconds. That is longer
# than a Create takes that finds four tokens used, and shorter than contract.GRACE.
READS_WHILE_OTHERS_WORK: Final = 8
# For how many seconds reads may lag behind writes.
LAG: Final = 8

T = TypeVar("T")


@functools.cache
def aws_client(service: str) -> Any:  # noqa: ANN401 - boto3 creates its clients' types at run time
    """Return the client of a service, the same one for all events."""
    # Every write carries a client token or can be repeated, so all may be retried.
    config = Config(
        connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 6}
    )
    session: Any = boto3.Session()
    return session.client(service, config=config)


class AwsApi:
    """The API of one service, as far as the handler uses it."""

    service: ClassVar[str]

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Call an operation; boto3 retries throttling, faults of AWS and lost connections.

        Args:
            operation: boto3's name of the operation.
            **request: The operation's parameters.

        Raises:
            AwsError: The call failed.
        """
        with self._errors(operation):
            return dict(getattr(aws_client(self.service), operation)(**request))

    def _pages(self, operation: str, **request: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
        """Call an operation for each page of its results."""
        with self._errors(operation):
            yield from aws_client(self.service).get_paginator(operation).paginate(**request)

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            name = aws_client(self.service).meta.method_to_api_mapping[operation]
            raise AwsError(name, error) from error


def read_until_found(read: Callable[[], T], attempts: int) -> T:
    """Read until something is found: others write too, and reads lag behind writes.

    Args:
        read: Reads it; returns something false if there is nothing.
        attempts: How often to read at most. Five take up to 15 seconds, eight up to a minute.

    Returns:
        What was found, or what the last attempt returned.
    """
    pause = 1.0
    for _ in range(attempts - 1):
        if found := read():
            return found
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not cryptography
        pause = min(pause * 2, 15.0)
    return read()
