"""The calls to Step Functions."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from aws.deadline import Deadline
from aws.session import AwsApi
from errors import AwsError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """An execution of the state machine, as ListExecutions describes it."""

    arn: str
    name: str
    started: float
    stopped: float | None

    @classmethod
    def read(cls, listed: Mapping[str, Any]) -> Execution:
        """Read a member of ListExecutions."""
        stopped = listed.get("stopDate")
        return cls(
            arn=listed["executionArn"],
            name=listed["name"],
            started=listed["startDate"].timestamp(),
            stopped=stopped.timestamp() if stopped else None,
        )


class StateMachine(AwsApi):
    """A state machine and its executions."""

    service: ClassVar[str] = "stepfunctions"

    def __init__(self, arn: str, deadline: Deadline) -> None:
        """Call Step Functions about one state machine."""
        self._arn = arn
        super().__init__(deadline)

    def start(self, name: str, data: Mapping[str, Any]) -> None:
        """Start an execution, unless one of this name exists.

        Args:
            name: The name of the execution.
            data: Its input.
        """
        try:
            self._call(
                "start_execution",
                # The permission may be so new that not all of IAM has it.
                retry_if=lambda error: error.is_transient or error.is_denied,
                stateMachineArn=self._arn,
                name=name,
                input=json.dumps(data),
            )
        except AwsError as error:
            if error.code != "ExecutionAlreadyExists":
                raise
        logger.info({"action": "StartExecution", "name": name})

    def running(self) -> Iterator[Execution]:
        """Yield the executions that have not ended."""
        for page in self._list(statusFilter="RUNNING"):
            yield from page

    def ended_since(self, seconds: float) -> Iterator[Execution]:
        """Yield the executions that ended after a time.

        ListExecutions sorts executions that have ended by the date of their end, the latest first.

        Args:
            seconds: The time, in seconds since 1970.
        """
        for page in self._list():
            ended = [execution for execution in page if execution.stopped is not None]
            yield from (execution for execution in ended if (execution.stopped or 0) >= seconds)
            if any((execution.stopped or 0) < seconds for execution in ended):
                return

    def stop(self, execution: Execution, cause: str) -> None:
        """Stop an execution. One that has ended stays as it is."""
        self._call("stop_execution", executionArn=execution.arn, cause=cause)
        logger.info({"action": "StopExecution", "name": execution.name})

    def _list(self, **request: str) -> Iterator[list[Execution]]:
        pages = self._pages(
            "list_executions", "nextToken", stateMachineArn=self._arn, maxResults=1000, **request
        )
        for page in pages:
            yield [Execution.read(listed) for listed in page["executions"]]
