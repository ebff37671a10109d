"""Stacks of a custom resource type whose function responds as its properties say."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws import LocalAws

_numbers = itertools.count()
# Logs each event, and responds as the properties of the resource say: with a status and an id,
# after a pause, or not at all.
CODE = """
import json, logging, time, urllib.request
import boto3
def handler(event, context):
    logged = ("RequestType", "LogicalResourceId", "PhysicalResourceId", "ResourceProperties")
    logging.warning(json.dumps({key: event.get(key) for key in logged}))
    status = "SUCCESS"
    if event["RequestType"] != "Delete":
        status = event["ResourceProperties"].get(event["RequestType"], status)
    if status == "NONE":
        return
    if pause := event["ResourceProperties"].get("Pause" + event["RequestType"]):
        boto3.client("imagebuilder").list_images()  # the log is only written at the end
        time.sleep(float(pause))
    own_id = event["ResourceProperties"].get("Id", "its-own-id")
    response = {"Status": status, "PhysicalResourceId": own_id, "Reason": "as requested"}
    response |= {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    urllib.request.urlopen(urllib.request.Request(
        event["ResponseURL"], json.dumps(response).encode(), method="PUT"))
    logging.warning("responded to " + event["RequestType"])
"""
TRUST = {
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "lambda.amazonaws.com"},
        }
    ]
}
FUNCTION = {
    "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST}},
    "Function": {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Runtime": "python3.13",
            "Handler": "index.handler",
            "Timeout": 900,
            "Code": {"ZipFile": CODE},
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "LoggingConfig": {"LogGroup": {"Ref": "AWS::StackName"}},
        },
    },
}


def custom(*, policy: str = "Delete", after: tuple[str, ...] = (), **responses: str) -> Any:
    """Return a custom resource, with its response to each type of event."""
    token = {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}}
    return {
        "Type": "Custom::Thing",
        "Properties": {**token, **responses},
        "DeletionPolicy": policy,
        "DependsOn": list(after),
    }


@dataclass
class Stack:
    """A stack, and the events that its function received."""

    server: LocalAws
    name: str = field(default_factory=lambda: f"operations-{next(_numbers)}")

    def __post_init__(self) -> None:
        session: Any = self.server.session()
        self.cloudformation, self.logs, self.s3 = map(
            session.client, ("cloudformation", "logs", "s3")
        )

    def _request(self, resources: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"Resources": FUNCTION | resources})
        return {"StackName": self.name, "TemplateBody": body, "Capabilities": ["CAPABILITY_IAM"]}

    def create(self, resources: dict[str, Any], **more: Any) -> None:
        self.logs.create_log_group(logGroupName=self.name)
        self.cloudformation.create_stack(**self._request(resources), **more)

    def update(self, resources: dict[str, Any]) -> None:
        self.cloudformation.update_stack(**self._request(resources))

    def deploy_again(self, resources: dict[str, Any]) -> None:
        """Update the stack by a change set, as the CDK CLI does."""
        name = {"StackName": self.name, "ChangeSetName": "again"}
        self.cloudformation.create_change_set(
            **self._request(resources) | name, ChangeSetType="UPDATE"
        )
        self.cloudformation.execute_change_set(**name, DisableRollback=True)

    def delete(self) -> None:
        self.cloudformation.delete_stack(StackName=self.name)

    def ends(self, status: str) -> bool:
        return eventually(lambda: self.status() == status)

    def status(self) -> str:
        stacks = self.cloudformation.describe_stacks(StackName=self.id())["Stacks"]
        return str(stacks[0]["StackStatus"])

    def id(self) -> str:
        return str(self.events()[0]["StackId"])

    def events(self) -> list[dict[str, Any]]:
        """Return the stack events, oldest first."""
        found = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return list(reversed(found))

    def statuses(self, logical_id: str) -> list[str]:
        events = [e for e in self.events() if e["LogicalResourceId"] == logical_id]
        return [event["ResourceStatus"] for event in events]

    def log(self) -> list[str]:
        events = self.logs.filter_log_events(logGroupName=self.name)["events"]
        return [str(event["message"]).rpartition("\t")[2].strip() for event in events]

    def received(self) -> list[dict[str, Any]]:
        """Return the events that the function received."""
        return [json.loads(line) for line in self.log() if line.startswith('{"RequestType"')]

    def pauses(self) -> int:
        """Return how often functions of the server have begun to pause."""
        return len(self.server.calls("ListImages"))

    def requests(self) -> list[str]:
        return [f"{event['RequestType']} {event['LogicalResourceId']}" for event in self.received()]


def eventually(holds: Callable[[], object]) -> bool:
    end = time.monotonic() + 300
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(holds())
