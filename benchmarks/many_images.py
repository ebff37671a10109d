"""A hundred images that wait at once, in one stack, on one provider, by the real CDK CLI.

    PYTHONPATH=. python -m benchmarks.many_images [number]

All images wait by wait conditions, and so all at once: the local CloudFormation makes one resource
after the other, and here the wait conditions come last. What is printed is taken from the
executions of the state machine. Plain crhelper ends at about 50, see benchmarks/waiting.py.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aws_cdk as cdk

from cdk_vm_import import ImportedVmImage, Platform
from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli
from local_aws.client.prerequisites import Prerequisites

NUMBER: Final = 100
SPEED: Final = 20
# Long enough, in real seconds, for the stack's resources to be made before the first is AVAILABLE.
SECONDS_AN_IMAGE: Final = 3


def synthesize(folder: Path, number: int, task: str) -> str:
    """Synthesize the stack; the folder is the app for the CDK CLI."""
    app = cdk.App(outdir=str(folder))
    stack = cdk.Stack(app, "ManyImages")
    images = [
        ImportedVmImage(
            stack,
            f"Image{index}",
            image_name=f"image-{index}",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=task,
            timeout=cdk.Duration.hours(12),
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        for index in range(number)
    ]
    last = images[-1].node.find_child("Resource")
    for child in stack.node.find_all():
        if isinstance(child, cdk.CfnWaitCondition):
            child.node.add_dependency(last)
    app.synth()
    return str(folder)


def most_at_once(executions: list[dict[str, Any]]) -> int:
    """How many executions ran at the same time."""
    changes = [(execution["startDate"], 1) for execution in executions]
    changes += [(execution["stopDate"], -1) for execution in executions]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def main() -> int:
    """Deploy, and print what happened."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else NUMBER
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalAws.start(speed=SPEED, auth=True) as aws,
    ):
        CdkCli(aws, Path(folder)).bootstrap()
        aws.knobs(import_seconds=number * SECONDS_AN_IMAGE * SPEED + 600)
        task = Prerequisites(aws).import_image()
        began = time.monotonic()
        app = synthesize(Path(folder) / "assembly", number, task)
        outputs = CdkCli(aws, Path(folder), app=app).deploy()
        seconds = time.monotonic() - began

        client: Any = aws.session().client
        step_functions, images = client("stepfunctions"), client("imagebuilder")
        (machine,) = step_functions.list_state_machines()["stateMachines"]
        executions: list[dict[str, Any]] = []
        for page in step_functions.get_paginator("list_executions").paginate(
            stateMachineArn=machine["stateMachineArn"]
        ):
            executions += page["executions"]
        states = [
            images.get_image(imageBuildVersionArn=arn)["image"]["state"]["status"]
            for arn in outputs.values()
        ]
        policy: str | None = None
        functions = client("lambda")
        for function in functions.list_functions()["Functions"]:
            if "VmImportProvider" in function["FunctionName"]:
                try:
                    policy = functions.get_policy(FunctionName=function["FunctionName"])["Policy"]
                except functions.exceptions.ResourceNotFoundException:
                    policy = None
        looks = aws.calls("GetImage")
    sys.stdout.write(
        f"{len(outputs)} images, {states.count('AVAILABLE')} of them AVAILABLE, "
        f"in {seconds:.0f} s, that is {seconds * SPEED / 3600:.1f} hours of AWS time\n"
        f"{len(executions)} executions, {most_at_once(executions)} of them at once, "
        f"{sum(e['status'] == 'SUCCEEDED' for e in executions)} succeeded\n"
        f"{len(looks)} looks; the function's own policy has {len(policy or '')} of 20480 bytes\n"
    )
    return 0 if states.count("AVAILABLE") == number else 1


if __name__ == "__main__":
    sys.exit(main())
