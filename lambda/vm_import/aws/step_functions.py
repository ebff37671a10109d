"""The calls to Step Functions."""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from aws.session import AwsApi
from errors import AwsError

logger = logging.getLogger(__name__)


class StateMachine(AwsApi):
    """A state machine and its executions, as ListExecutions describes them.

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_ExecutionListItem.html
    """

    service: ClassVar[str] = "stepfunctions"

    def __init__(self, arn: str) -> None:
        """Call Step Functions about one state machine."""
        self._arn = arn

    def start(self, name: str, data: Mapping[str, Any]) -> None:
        """Start an execution, unless one of this name exists.

        Args:
            name: The name of the execution.
            data: Its input.
        """
        try:
            self._call(
                "start_execution", stateMachineArn=self._arn, name=name, input=json.dumps(data)
            )
        except AwsError as error:
            if error.code != "ExecutionAlreadyExists":
                raise

    def running(self) -> Iterator[dict[str, Any]]:
        """Yield the executions that have not ended."""
        for page in self._list(statusFilter="RUNNING"):
            yield from page

    def ended_since(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Yield the executions that ended after a time.

        ListExecutions sorts executions that have ended by the date of their end, the latest first.

        Args:
            seconds: The time, in seconds since 1970.
        """
        for page in self._list():
            ended = [execution for execution in page if execution.get("stopDate")]
            recent = [one for one in ended if one["stopDate"].timestamp() >= seconds]
            yield from recent
            if len(recent) < len(ended):
                return

    def stop(self, execution_arn: str, cause: str) -> None:
        """Stop an execution. One that has ended stays as it is."""
        self._call("stop_execution", executionArn=execution_arn, cause=cause)
        logger.info("StopExecution stopped %s", execution_arn)

    def _list(self, **request: str) -> Iterator[list[dict[str, Any]]]:
        pages = self._pages(
            "list_executions", stateMachineArn=self._arn, maxResults=1000, **request
        )
        return (page["executions"] for page in pages)
