"""Calls of AWS, with patience."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from errors import THROTTLED, AwsError, OutOfTimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadline import Deadline


@functools.cache
def aws_client(service: str) -> Any:  # noqa: ANN401 - boto3 makes its clients' types at run time
    """A client that is patient with AWS, the same one for all events."""
    # Every write carries a client token or can be done twice, so all may be retried.
    config = Config(
        connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 4}
    )
    session: Any = boto3.Session()
    return session.client(service, config=config)


class AwsCalls:
    """Calls that wait out what AWS will get over."""

    def __init__(self, deadline: Deadline) -> None:
        """Take the end of all patience."""
        self._deadline = deadline

    def _call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Make a call, waiting out throttling and AWS's own faults for as long as there is time."""
        client = aws_client(service)
        method: Callable[..., dict[str, Any]] = getattr(client, operation)
        name: str = client.meta.method_to_api_mapping[operation]
        failure: AwsError | None = None
        try:
            for _ in self._deadline.pauses(name):
                try:
                    return method(**request)
                except (ClientError, BotoCoreError) as error:
                    failure = AwsError(name, error)
                    # Its caller looks whether a fault hides a success.
                    patient = failure.is_transient and operation != "import_vm_image"
                    if not (patient or failure.code in THROTTLED):
                        raise failure from error
        except OutOfTimeError as error:
            raise (OutOfTimeError(f"{error}; {failure}") if failure else error) from None
        raise AssertionError  # pauses() never ends by itself
