"""An event of CloudFormation.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from cloudformation.properties import is_true
from contract import GRACE, MAX_SERVICE_TIMEOUT, service_timeout, wait_limit
from identity import Owner

DATE_FORMAT: Final = "%Y%m%dT%H%M%S%z"
# Creating fails after this many seconds of throttling and faults of AWS.
_CREATE_LIMIT: Final = 900


@dataclass(frozen=True)
class Event:
    """What CloudFormation asks of a resource."""

    request_type: str
    request_id: str
    resource_type: str
    owner: Owner
    physical_id: str
    """What CloudFormation knows the resource by; empty on Create."""
    properties: Mapping[str, Any]
    old_properties: Mapping[str, Any]
    state_machine_arn: str
    timeout: int | None
    """How many seconds the resource waits for the import; None: not at all."""
    continues: bool
    """Whether another resource waits on when the timeout is over."""
    date: str
    """When CloudFormation sent it, as `20261124T031500Z`; empty if the ResponseURL does not say."""

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Self:
        """Read what Lambda received."""
        properties = event["ResourceProperties"]
        timeout = properties.get("TimeoutSeconds")
        return cls(
            request_type=event["RequestType"],
            request_id=event["RequestId"],
            resource_type=event["ResourceType"],
            owner=Owner(event["StackId"], event["LogicalResourceId"]),
            physical_id=event.get("PhysicalResourceId", ""),
            properties=properties,
            old_properties=event.get("OldResourceProperties", {}),
            state_machine_arn=properties.get("StateMachineArn", ""),
            timeout=int(timeout) if timeout else None,
            continues=is_true(properties.get("ContinueAfterTimeout")),
            date=_date(event.get("ResponseURL", "")),
        )

    @property
    def wait_limit(self) -> int:
        """After how many seconds the wait for the import ends."""
        return wait_limit(self.timeout or 0)

    @property
    def retry_limit(self) -> int:
        """For how many seconds what AWS may accept later is retried."""
        limit = service_timeout(self.timeout or MAX_SERVICE_TIMEOUT) - GRACE
        return limit if self.request_type == "Delete" else min(limit, _CREATE_LIMIT)


def _date(response_url: str) -> str:
    """Return when a ResponseURL was signed.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    date = parse_qs(urlsplit(response_url).query).get("X-Amz-Date", [""])[0]
    try:
        datetime.strptime(date, DATE_FORMAT)
    except ValueError:
        return ""
    return date
