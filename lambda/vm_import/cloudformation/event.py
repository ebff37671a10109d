"""An event of CloudFormation.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cloudformation.properties import is_true
from contract import GRACE, MAX_SERVICE_TIMEOUT, ImageProperty, service_timeout
from identity import Owner

_DATE: Final = re.compile(r"\d{8}T\d{6}Z")


class Event:
    """What CloudFormation asks of a resource.

    Attributes:
        raw: What Lambda received.
        request_type: Create, Update or Delete.
        owner: The resource.
        physical_id: What CloudFormation knows the resource by; empty on Create.
        properties: What the template says now.
        old_properties: What it said before; empty but on Update.
        continues: Whether another resource waits on when the timeout is over.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Read what Lambda received."""
        self.raw = raw
        self.request_type: str = raw["RequestType"]
        self.owner = Owner(raw["StackId"], raw["LogicalResourceId"])
        self.physical_id: str = raw.get("PhysicalResourceId", "")
        self.properties: Mapping[str, Any] = raw["ResourceProperties"]
        self.old_properties: Mapping[str, Any] = raw.get("OldResourceProperties", {})
        self.continues = is_true(self.properties.get(ImageProperty.CONTINUE_AFTER_TIMEOUT))

    @property
    def timeout(self) -> int:
        """How many seconds the resource waits for the import; 0 if not at all."""
        return int(self.properties.get(ImageProperty.TIMEOUT_SECONDS) or 0)

    @property
    def sent(self) -> float | None:
        """When CloudFormation sent the event, in seconds since 1970, if it says."""
        return seconds_of(self.date)

    @property
    def date(self) -> str:
        """When CloudFormation signed the ResponseURL, as `20261124T031500Z`, or nothing.

        https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
        """
        query = parse_qs(urlsplit(self.raw.get("ResponseURL", "")).query)
        date = query.get("X-Amz-Date", [""])[0]
        return date if _DATE.fullmatch(date) else ""

    @property
    def id(self) -> str:
        """What identifies the event, the same when Lambda delivers it again. Begins with its date.

        Without a ResponseURL, as in a follow-up, it has no date.
        """
        return "-".join(filter(None, [self.date, self.raw["RequestId"]]))

    @property
    def retry_limit(self) -> int:
        """For how many seconds what AWS may accept later is retried."""
        return service_timeout(self.timeout or MAX_SERVICE_TIMEOUT) - GRACE


def seconds_of(event_id: str) -> float | None:
    """Return when an event was sent, in seconds since 1970, or None if its id has no date.

    Args:
        event_id: The id, or the name of the event's execution.
    """
    date = _DATE.search(event_id)
    return datetime.fromisoformat(date[0]).timestamp() if date else None
