"""A hundred images of one stack whose deployment waits for all of them at the same time.

    PYTHONPATH=.:lambda/vm_import python -m benchmarks.many_images [number]

The real CDK CLI deploys a stack of so many images, with one function and one state machine, to the
simulated AWS. CloudFormation creates and updates independent resources in parallel, the simulated
CloudFormation one at a time. So the stack is deployed without a wait, and then this program sends
the Updates that make the resources wait, all at once, to the deployed function.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aws_cdk as cdk

from cdk_vm_import import ImportedVmImage, Platform
from contract import ImageProperty, ResourceType
from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli
from tests.deploy.deployed import HOUR, Account, Function, StackView

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER: Final = 100
NAME: Final = "ManyImages"
# AWS seconds in a real one: slow enough for a small machine to run the polls of so many images.
SPEED: Final = 10
IMPORT: Final = HOUR
# How far the clock is moved in each real second, when all images wait.
STEP: Final = 60


def synthesize(folder: Path, number: int, task: str) -> str:
    """Synthesize the stack; the folder is the app for the CDK CLI."""
    app = cdk.App(outdir=str(folder))
    stack = cdk.Stack(app, NAME)
    for index in range(number):
        ImportedVmImage(
            stack,
            f"Image{index}",
            image_name=f"many-{index}",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=task,
            wait_for_available=False,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
    app.synth()
    return str(folder)


def updates(stack: StackView, task: str, state_machine: str) -> Iterator[dict[str, Any]]:
    """Yield an Update for each image, which makes its resource wait."""
    for logical_id, arn in stack.resources(ResourceType.IMAGE).items():
        image = stack.account.image(arn) or {}
        properties = {
            ImageProperty.NAME.value: image["name"],
            ImageProperty.SEMANTIC_VERSION.value: "1.0.0",
            ImageProperty.PLATFORM.value: "Linux",
            ImageProperty.VM_IMPORT_TASK_ID.value: task,
            ImageProperty.STATE_MACHINE_ARN.value: state_machine,
        }
        yield {
            "RequestType": "Update",
            "RequestId": str(uuid.uuid4()),
            "StackId": stack.id,
            "LogicalResourceId": logical_id,
            "PhysicalResourceId": arn,
            "ResourceType": ResourceType.IMAGE.value,
            "ResourceProperties": {**properties, ImageProperty.TIMEOUT_SECONDS.value: str(HOUR)},
            "OldResourceProperties": properties,
        }


def running(stack: StackView) -> int:
    """Return how many executions run that CloudFormation waits for."""
    return sum(":follow-" not in execution for execution in stack.running_executions())


def main() -> int:
    """Deploy, wait, and print what happened."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else NUMBER
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalAws.start(speed=SPEED, auth=True) as local,
    ):
        CdkCli(local, Path(folder)).bootstrap()
        local.knobs(import_seconds=IMPORT)
        account = Account(local)
        task = account.import_image()
        began = time.monotonic()
        app = synthesize(Path(folder) / "assembly", number, task)
        CdkCli(local, Path(folder), app=app).deploy()
        _print(f"{number} images deployed in {time.monotonic() - began:.0f} s")

        stack = StackView(account, NAME)
        (name,) = stack.resources("AWS::Lambda::Function").values()
        (state_machine,) = stack.state_machines()
        function = Function(account, name)
        followed = len(stack.running_executions())
        events = list(updates(stack, task, state_machine))
        keys = [function.send(event) for event in events]
        most = 0
        while most < number and not all(map(function.has_responded, keys)):
            most = max(most, running(stack))
        _print(f"{most} executions wait at the same time, beside {followed} in the background")

        until = time.monotonic() + 1800
        while not all(map(function.has_responded, keys)) and time.monotonic() < until:
            local.advance(STEP)
            time.sleep(1)
        responses = [function.response(key) for key in keys]
        statuses = collections.Counter(response["Status"] for response in responses)
        available = sum(bool(response["Data"].get("ImageId")) for response in responses)
        polls = len(local.calls("GetImage"))
        ended = collections.Counter(execution["status"] for execution in stack.executions())
        try:
            policy = account.functions.get_policy(FunctionName=name)["Policy"]
        except account.functions.exceptions.ResourceNotFoundException:
            policy = ""
    _print(
        f"responses: {dict(statuses)}, {available} of them with the AMI\n"
        f"executions: {dict(ended)}\n"
        f"{polls} GetImage calls in {time.monotonic() - began:.0f} s\n"
        f"the resource-based policy of the function has {len(policy)} of 20480 bytes"
    )
    for reason in {response["Reason"] for response in responses if response["Status"] == "FAILED"}:
        _print(reason)
    return 0 if most >= number and available == statuses["SUCCESS"] == number else 1


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
