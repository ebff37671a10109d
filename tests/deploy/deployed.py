"""What a person sees of the account and of a stack in it."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any, Final

from botocore.config import Config

from local_aws.client.prerequisites import DISK, Prerequisites
from tests.support.cloudformation import signature_date

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local_aws import LocalAws

HOUR: Final = 3600
numbers = itertools.count()
# What `played` moves the clock by, in seconds of AWS time, and how often, in real seconds.
_STEP: Final = 90
_PAUSE: Final = 0.05
_RESPONSES: Final = "cloudformation-custom-resource-response"


class Account:
    """The account of the simulated AWS."""

    def __init__(self, local: LocalAws) -> None:
        self.local = local
        self._prerequisites = Prerequisites(local)
        client: Any = local.session().client
        self.images = client("imagebuilder")
        self.cloudformation = client("cloudformation")
        self.ec2 = client("ec2")
        self.functions = client("lambda")
        self.logs = client("logs")
        self.s3 = client("s3")
        self.ssm = client("ssm")
        self.step_functions = client("stepfunctions")

    def import_image(self, key: str = DISK) -> str:
        """Start an ImportImage task."""
        return self._prerequisites.import_image(key)

    def image(self, arn: str) -> dict[str, Any] | None:
        """An image as Image Builder describes it; None if there is none."""
        try:
            return dict(self.images.get_image(imageBuildVersionArn=arn)["image"])
        except self.images.exceptions.ResourceNotFoundException:
            return None

    def builds(self, image_name: str) -> list[str]:
        """The ARNs of all builds of all versions of an image."""
        versions = self.images.list_images(
            owner="Self", filters=[{"name": "name", "values": [image_name]}]
        )["imageVersionList"]
        return [
            build["arn"]
            for version in versions
            for build in self.images.list_image_build_versions(
                imageVersionArn="/".join(version["arn"].split("/")[:3])
            )["imageSummaryList"]
        ]

    def imports(self, image_name: str) -> int:
        """How often the import of an image was started, successfully or not."""
        calls = self.local.calls("ImportVmImage")
        return sum((call["request"] or {}).get("name") == image_name for call in calls)

    def ami_of(self, arn: str) -> str:
        """The id of the AMI of an image that is AVAILABLE."""
        image = self.image(arn) or {}
        assert image["state"]["status"] == "AVAILABLE"
        return str(image["outputResources"]["amis"][0]["image"])

    def tags_of_ami(self, ami: str) -> dict[str, str]:
        (found,) = self.ec2.describe_images(ImageIds=[ami])["Images"]
        return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}


class StackView:
    """A stack as CloudFormation shows it, during its life and after it.

    Args:
        account: The account.
        name: The name of the stack, which no other test has.
    """

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.local = account.local
        self.name = name

    def events(self) -> list[dict[str, Any]]:
        """The stack events, the newest first."""
        found = self.account.cloudformation.describe_stack_events(StackName=self.name)
        return list(found["StackEvents"])

    @property
    def id(self) -> str:
        return str(self.events()[0]["StackId"])

    def status(self) -> str:
        stacks = self.account.cloudformation.describe_stacks(StackName=self.id)["Stacks"]
        return str(stacks[0]["StackStatus"])

    def failures(self) -> str:
        """The reasons of failed resources, as the stack events show them."""
        return "\n".join(
            event.get("ResourceStatusReason", "")
            for event in self.events()
            if event["ResourceStatus"].endswith("_FAILED")
        )

    def failed(self) -> list[str]:
        """The logical ids of the resources that failed, not those that were cancelled for that."""
        return [
            event["LogicalResourceId"]
            for event in self.events()
            if event["ResourceStatus"].endswith("_FAILED")
            and event["LogicalResourceId"] != self.name
        ]

    def was_begun(self, logical_id_prefix: str) -> bool:
        """Whether CloudFormation has begun to create or change a resource."""
        return any(e["LogicalResourceId"].startswith(logical_id_prefix) for e in self.events())

    def resources(self, resource_type: str) -> dict[str, str]:
        """Logical and physical ids of the resources of a type."""
        described = self.account.cloudformation.describe_stack_resources(StackName=self.id)
        return {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in described["StackResources"]
            if resource["ResourceType"] == resource_type
        }

    def state_machines(self) -> list[str]:
        """The ARNs of the state machines of the stack."""
        uuid = self.id.split("/")[2]
        machines = self.account.step_functions.list_state_machines()["stateMachines"]
        return [m["stateMachineArn"] for m in machines if m["name"].endswith(uuid)]

    def executions(self, **which: str) -> list[dict[str, Any]]:
        """The executions of the state machines of the stack, in the order of their start."""
        found = [
            execution
            for machine in self.state_machines()
            for page in self.account.step_functions.get_paginator("list_executions").paginate(
                stateMachineArn=machine, **which
            )
            for execution in page["executions"]
        ]
        return sorted(found, key=lambda execution: execution["startDate"])

    def running_executions(self) -> list[str]:
        return [e["executionArn"] for e in self.executions(statusFilter="RUNNING")]

    def minutes(self) -> list[int]:
        """How long each execution that has ended ran, in minutes of AWS time."""
        return [
            round((execution["stopDate"] - execution["startDate"]).total_seconds() / 60)
            for execution in self.executions()
            if "stopDate" in execution
        ]

    def was_stopped(self, execution: str) -> bool:
        """Whether an execution was stopped, or does not exist any more."""
        client = self.account.step_functions
        try:
            found = client.describe_execution(executionArn=execution)
        except client.exceptions.ExecutionDoesNotExist:
            return True
        return bool(found["status"] == "ABORTED")

    def function_names(self) -> list[str]:
        functions = self.account.functions.list_functions()["Functions"]
        return [
            function["FunctionName"]
            for function in functions
            if function["FunctionName"].startswith(f"{self.name}-")
        ]

    def left_of_stack(self) -> list[str]:
        """What is left of the stack itself after its deletion."""
        described = self.account.cloudformation.describe_stack_resources(StackName=self.id)
        return [
            *({self.status()} - {"DELETE_COMPLETE"}),
            *(resource["PhysicalResourceId"] for resource in described["StackResources"]),
            *self.function_names(),
            *self.state_machines(),
        ]


class Function:
    """A deployed function, to which events are sent as CloudFormation sends them.

    Args:
        account: The account.
        name: The name of the function.
    """

    def __init__(self, account: Account, name: str) -> None:
        self._account, self._name = account, name
        client: Any = account.local.session().client
        self._s3 = client("s3", config=Config(signature_version="s3"))
        self._s3.create_bucket(Bucket=_RESPONSES)

    def send(self, event: Mapping[str, Any]) -> str:
        """Send an event with a signed ResponseURL; return the key of its response."""
        key = f"{event['StackId']}|{event['LogicalResourceId']}|{event['RequestId']}"
        url = self._s3.generate_presigned_url(
            "put_object", Params={"Bucket": _RESPONSES, "Key": key}, ExpiresIn=7200
        )
        # The time of the event. Signatures of version 4 contain it, but only in real time.
        url += f"&X-Amz-Date={signature_date(self._account.local.now())}"
        payload = json.dumps({**event, "ResponseURL": url})
        self._account.functions.invoke(
            FunctionName=self._name, InvocationType="Event", Payload=payload
        )
        return key

    def has_responded(self, key: str) -> bool:
        """Whether the response to an event exists."""
        found = self._s3.list_objects_v2(Bucket=_RESPONSES, Prefix=key)
        return bool(found["KeyCount"])

    def response(self, key: str) -> dict[str, Any]:
        """The response to an event, as soon as it exists."""
        assert eventually(lambda: self.has_responded(key), 120), "an event has no response"
        return dict(json.load(self._s3.get_object(Bucket=_RESPONSES, Key=key)["Body"]))


def eventually(holds: Callable[[], object], seconds: float = 60) -> bool:
    """Wait until something holds; return whether it does."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(held)


def played(local: LocalAws, until: Callable[[], object], hours: float = 20) -> bool:
    """Let AWS time pass quickly until something holds; return whether it does.

    An hour takes about three real seconds: the functions need real time for their polls.

    Args:
        local: The simulated AWS.
        until: What is waited for.
        hours: How much time passes at most.
    """
    end = local.now() + hours * HOUR
    while not (held := until()) and local.now() < end:
        local.advance(_STEP)
        time.sleep(_PAUSE)
    return bool(held)
