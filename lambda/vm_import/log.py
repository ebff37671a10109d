"""The log: lines of JSON for CloudWatch Logs Insights, each with a message in words.

`cdk deploy` shows the level and the message of the last lines when a resource fails.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from contract import Dimension, LogField


class JsonFormatter(logging.Formatter):
    """Write a line: the message, the stack and the resource, what else is known, and the event.

    A line with more fields has them in `extra={"fields": {...}}`.
    """

    def __init__(self, event: Mapping[str, Any] | None = None) -> None:
        """Name an event of CloudFormation in each line.

        Args:
            event: What Lambda received. Default: the line is about no event.
        """
        super().__init__()
        self._resource: dict[str, str] = {}
        self._event: dict[str, str] = {}
        if event:
            self._resource = {
                Dimension.STACK: event["StackId"].split("/")[1],
                Dimension.RESOURCE: event["LogicalResourceId"],
            }
            self._event = {name: event[name] for name in ("RequestType", "RequestId")}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            LogField.MESSAGE: record.getMessage(),
            **self._resource,
            **getattr(record, "fields", {}),
            "level": record.levelname,
            **self._event,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def use(formatter: JsonFormatter) -> None:
    """Write all lines from here on with a formatter."""
    for handler in logging.root.handlers:
        handler.setFormatter(formatter)
