"""AWS API calls with retries."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aws.deadline import Deadline
from errors import AwsError, OutOfTimeError


@functools.cache
def aws_client(service: str) -> Any:  # noqa: ANN401 - boto3 creates its clients' types at run time
    """Return the client of a service, the same one for all events."""
    # Every write carries a client token or can be repeated, so all may be retried.
    config = Config(
        connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 4}
    )
    session: Any = boto3.Session()
    return session.client(service, config=config)


class AwsApi:
    """The API of one service, as far as the handler uses it."""

    service: ClassVar[str]

    def __init__(self, deadline: Deadline) -> None:
        """Call the API until the deadline."""
        self._deadline = deadline

    def _call(
        self,
        operation: str,
        *,
        retry_if: Callable[[AwsError], bool] = lambda error: error.is_transient,
        **request: Any,  # noqa: ANN401 - the parameters of any operation
    ) -> dict[str, Any]:
        """Call an operation, and retry it until the deadline.

        Args:
            operation: boto3's name of the operation.
            retry_if: Which errors to retry. Default: throttling, faults of AWS, lost connections.
            **request: The operation's parameters.

        Raises:
            AwsError: The call failed, and is not to be retried.
            OutOfTimeError: The deadline is over. The text includes the last error.
        """
        client = aws_client(self.service)
        method: Callable[..., dict[str, Any]] = getattr(client, operation)
        name: str = client.meta.method_to_api_mapping[operation]
        failure: AwsError | None = None
        try:
            for _ in self._deadline.attempts(name):
                try:
                    return method(**request)
                except (ClientError, BotoCoreError) as error:
                    failure = AwsError(name, error)
                    if not retry_if(failure):
                        raise failure from error
        except OutOfTimeError as error:
            raise (OutOfTimeError(f"{error}: {failure}") if failure else error) from None
        raise AssertionError  # attempts() never ends by itself

    def _pages(
        self,
        operation: str,
        token: str,
        **request: Any,  # noqa: ANN401
    ) -> Iterator[dict[str, Any]]:
        """Call an operation for each page of its results.

        Args:
            operation: boto3's name of the operation.
            token: The name of the next page's token, in the request and in the response.
            **request: The operation's parameters.
        """
        while True:
            page = self._call(operation, **request)
            yield page
            if not page.get(token):
                return
            request[token] = page[token]
