"""CloudFormation's side of a custom resource: it sends events and receives responses."""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from contract import ResourceType
from tests.support.lambda_function import FUNCTION_ARN
from tests.support.local_services import ACCOUNT, REGION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.aws import Aws
    from tests.support.step_functions import Execution

    Event = dict[str, Any]
    Response = dict[str, Any]
    Properties = Mapping[str, Any]

SIGNATURE: Final = "X-Amz-Signature=0123456789abcdef-not-for-logs"
_numbers = itertools.count()


def signature_date(seconds: float) -> str:
    """A time as the signature of a ResponseURL has it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def response_url(seconds: float) -> str:
    """A ResponseURL, signed at a time, that no other event has."""
    where = "https://cloudformation-custom-resource-response.s3.amazonaws.com"
    return f"{where}/{next(_numbers)}?X-Amz-Date={signature_date(seconds)}&{SIGNATURE}"


def new_stack_id(name: str = "images") -> str:
    """The ARN of a stack that no other test has."""
    return f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{uuid.uuid4()}"


@dataclass
class CustomResource:
    """One resource of one stack, from its creation to its deletion.

    Attributes:
        resource_type: Custom::ImportedVmImage or another type of the handler.
        properties: The properties of the last event that created or updated it.
        physical_id: The physical id that CloudFormation knows.
    """

    aws: Aws
    resource_type: str = ResourceType.IMAGE.value
    logical_id: str = "GoldenImageF00D"
    stack_id: str = field(default_factory=new_stack_id)
    properties: Properties = field(default_factory=dict)
    physical_id: str | None = None

    # --- events ---

    def event(self, request_type: str, **more: Any) -> Event:
        """An event that CloudFormation sends now."""
        event = {
            "RequestType": request_type,
            "RequestId": str(uuid.uuid4()),
            "StackId": self.stack_id,
            "ResponseURL": response_url(
                self.aws.now() - self.aws.local.knobs.response_url_age_seconds
            ),
            "ResourceType": self.resource_type,
            "LogicalResourceId": self.logical_id,
            "ResourceProperties": {"ServiceToken": FUNCTION_ARN, **self.properties},
        }
        return {**event, **more}

    def create_event(self, properties: Properties) -> Event:
        self.properties = properties
        return self.event("Create")

    def update_event(self, properties: Properties, physical_id: str | None = None) -> Event:
        """An Update from the current properties to others."""
        old, self.properties = self.properties, properties
        return self.event(
            "Update",
            PhysicalResourceId=physical_id or self.physical_id,
            OldResourceProperties={"ServiceToken": FUNCTION_ARN, **old},
        )

    def delete_event(
        self, physical_id: str | None = None, properties: Properties | None = None
    ) -> Event:
        event = self.event("Delete", PhysicalResourceId=physical_id or self.physical_id)
        if properties is not None:
            event["ResourceProperties"] = dict(properties)
        return event

    # --- events and their responses ---

    def send(self, event: Event) -> Response:
        """Deliver an event and return the one response to it."""
        self.aws.deliver(event)
        (response,) = self.aws.responses[event["ResponseURL"]]
        self.aws.sleep(1)  # until CloudFormation sends the next event
        return response

    def start(self, event: Event) -> Execution:
        """Deliver an event and return its execution, which has not run any step."""
        self.aws.call(event)
        execution = self.aws.step_functions.of(event)
        assert execution
        return execution

    def responses(self) -> list[Response]:
        """All responses about this resource, in order."""
        found = [r for responses in self.aws.responses.values() for r in responses]
        return [
            response
            for response in found
            if (response["StackId"], response["LogicalResourceId"])
            == (self.stack_id, self.logical_id)
        ]

    def create(self, properties: Properties) -> Response:
        response = self.send(self.create_event(properties))
        self.physical_id = response["PhysicalResourceId"]
        return response

    def update(self, properties: Properties, physical_id: str | None = None) -> Response:
        response = self.send(self.update_event(properties, physical_id))
        if response["Status"] == "SUCCESS":
            self.physical_id = response["PhysicalResourceId"]
        return response

    def delete(
        self, physical_id: str | None = None, properties: Properties | None = None
    ) -> Response:
        return self.send(self.delete_event(physical_id, properties))
