"""What the wait for an import costs, and how late its response is, as tables for docs/waiting.md.

    PYTHONPATH=.:lambda/vm_import python -m benchmarks.waiting

The handler of this checkout waits for imports of different lengths in an AWS in this process, on a
virtual clock, in a chain of resources as `timeout=Duration.hours(12)` creates it.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aws_cdk as cdk
import crhelper

import contract
from cdk_vm_import import ImportedVmImage, Platform
from tests.support.account import Account
from tests.support.aws import shared_aws
from tests.support.cloudformation import CustomResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.aws import Aws

MINUTE: Final = 60
HOUR: Final = 3600
IMPORTS: Final = {
    "1 min": MINUTE,
    "10 min": 10 * MINUTE,
    "60 min": HOUR,
    "3 h": 3 * HOUR,
    "6 h": 6 * HOUR,
    "11 h": 11 * HOUR,
    "too long": 14 * HOUR,
}
# Imports of about each length that are played, because the intervals have jitter.
RUNS: Final = 8
HOURS_OF_TIMEOUT: Final = (1, 3, 6, 12)
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
RESOURCES_OF_A_STACK: Final = 500
# An AWS call takes about so many seconds, and the rest of an invocation too.
SECONDS_A_CALL: Final = 0.1
# The default of VmImportProvider, in GiB.
MEMORY: Final = 0.25
# US dollars in us-east-1. https://aws.amazon.com/lambda/pricing/ (x86),
# https://aws.amazon.com/step-functions/pricing/ (standard workflows)
PRICE_OF_GB_SECOND: Final = 0.0000166667
PRICE_OF_INVOCATION: Final = 0.20 / 1e6
PRICE_OF_TRANSITION: Final = 25 / 1e6
# States that each step passes: Step, Done?, and Wait or Done.
TRANSITIONS_OF_A_STEP: Final = 3
HEAD_OF_WAITS: Final = (
    "import", "polls, mean", "polls, most", "AWS calls", "state transitions", "GB-seconds", "price",
    "delay, mean", "delay, longest",
)  # fmt: skip
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LONGEST_FUNCTION_POLICY: Final = 20_480
FUNCTION: Final = "Stack-VmImportProviderHandlerD6951CDD-0123456789AB"


@dataclass(frozen=True)
class Wait:
    """The wait for one import.

    Attributes:
        polls: How often the handler asked for the image.
        calls: All calls of the handler to AWS.
        steps: The invocations by the state machine.
        events: The invocations by CloudFormation.
        delay: The seconds from AVAILABLE to the last response.
    """

    polls: int
    calls: int
    steps: int
    events: int
    delay: float

    @property
    def transitions(self) -> int:
        """The state transitions of the executions."""
        return self.steps * TRANSITIONS_OF_A_STEP

    @property
    def gb_seconds(self) -> float:
        """What Lambda bills for the time of the function."""
        return (self.calls + self.steps + self.events) * SECONDS_A_CALL * MEMORY

    @property
    def price(self) -> float:
        """The price in US dollars."""
        return (
            self.gb_seconds * PRICE_OF_GB_SECOND
            + (self.steps + self.events) * PRICE_OF_INVOCATION
            + self.transitions * PRICE_OF_TRANSITION
        )


def play(aws: Aws, seconds: float) -> Wait:
    """Import an image in so many seconds, and wait for it with a chain of 12 resources."""
    aws.reset(import_seconds=float(seconds))
    account = Account(aws)
    started = aws.now()
    more = {contract.ImageProperty.CONTINUE_AFTER_TIMEOUT.value: "true"}
    image = CustomResource(aws)
    properties = {**account.waiting(contract.MAX_SERVICE_TIMEOUT), **more}
    response = image.create(properties)
    attributes, events = response["Data"], 1
    while not response["Data"].get("ImageId") and events < contract.MAX_TIMEOUT // HOUR:
        events += 1
        link = CustomResource(
            aws, contract.ResourceType.WAIT.value, f"Wait{events}", image.stack_id
        )
        response = link.create(
            {
                "ImageArn": attributes["ImageArn"],
                "VmImportTaskId": attributes["VmImportTaskId"],
                "ImportFailed": attributes["ImportFailed"],
                "StateMachineArn": properties["StateMachineArn"],
                "TimeoutSeconds": str(HOUR),
                **more,
            }
        )
    responded = max(aws.responded.values())
    calls = [call["operation"] for call in account.calls()]
    return Wait(
        polls=calls.count("DescribeImportImageTasks") - 1,  # one before the import
        calls=len(calls) - calls.count("ImportImage"),  # which the user calls
        steps=sum(execution.steps for execution in aws.step_functions.executions),
        events=events,
        delay=responded - started - seconds_until_available(aws, seconds),
    )


def seconds_until_available(aws: Aws, seconds: float) -> int:
    """Return when an image is AVAILABLE whose import takes so many seconds."""
    aws.reset(import_seconds=float(seconds))
    account, elapsed = Account(aws), int(seconds)
    arn = account.images.import_vm_image(
        name="measured",
        semanticVersion="1.0.0",
        platform="Linux",
        vmImportTaskId=account.import_task(),
        clientToken=str(uuid.uuid4()),
    )["imageArn"]
    aws.sleep(elapsed)
    while account.image(arn)["state"]["status"] != "AVAILABLE":
        aws.sleep(1)
        elapsed += 1
    return elapsed


def rows_of_waits(aws: Aws) -> Iterator[tuple[str, ...]]:
    """Play the imports; yield a row of the table for each length."""
    for length, seconds in IMPORTS.items():
        # About this length, so that the end meets each moment between two polls.
        waits = [play(aws, seconds * (1 - run / RUNS / 20)) for run in range(RUNS)]

        def mean(of: Callable[[Wait], float], waits: Sequence[Wait] = waits) -> float:
            return statistics.mean(of(wait) for wait in waits)

        yield (
            length,
            f"{mean(lambda wait: wait.polls):.0f}",
            f"{max(wait.polls for wait in waits)}",
            f"{mean(lambda wait: wait.calls):.0f}",
            f"{mean(lambda wait: wait.transitions):.0f}",
            f"{mean(lambda wait: wait.gb_seconds):.1f}",
            f"{mean(lambda wait: wait.price) * 100:.2f} ¢",
            *(
                (f"{delay:.0f} s" if delay >= 0 else "")
                for delay in (mean(lambda wait: wait.delay), max(wait.delay for wait in waits))
            ),
        )


def rows_of_other_ways() -> Iterator[tuple[str, ...]]:
    """Yield what others poll: they start no import, and give up when CloudFormation does."""
    for length, seconds in list(IMPORTS.items())[:3]:
        waited = min(seconds, HOUR)
        framework, helper = waited // 5 + 1, waited // 120 + 1
        in_time = "" if seconds < HOUR else " (then fails)"
        yield (length, f"{framework}{in_time}", str(2 * framework), f"{helper}{in_time}")


def rows_of_resources() -> Iterator[tuple[str, ...]]:
    """Yield how many resources an image has, and how many images a stack can have."""
    for hours in HOURS_OF_TIMEOUT:
        one, two = (resources_of(images, hours) for images in (1, 2))
        each = two - one
        shared = one - each
        yield (f"{hours} h", str(each), str((RESOURCES_OF_A_STACK - shared) // each))
    yield ("shared by all images of a stack", str(shared), "")


def resources_of(images: int, hours: int) -> int:
    """Return how many resources a stack with so many images has."""
    with tempfile.TemporaryDirectory() as folder:
        app = cdk.App(outdir=folder)
        stack = cdk.Stack(app, "Images")
        for number in range(images):
            ImportedVmImage(
                stack,
                f"Image{number}",
                image_name=f"image-{number}",
                semantic_version="1.0.0",
                platform=Platform.LINUX,
                vm_import_task_id="import-ami-0123456789abcdef0",
                timeout=cdk.Duration.hours(hours),
            )
        return len(app.synth().get_stack_by_name("Images").template["Resources"])


def most_polls_of_crhelper() -> int:
    """Return for how many resources plain crhelper can poll at once: until the policy is full."""
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_SAM_LOCAL="true")
    helper: Any = crhelper.CfnResource(log_level="CRITICAL", sleep_on_delete=0)
    statements: list[dict[str, str]] = []

    class Recorder:
        def put_rule(self, **request: str) -> dict[str, str]:
            return {"RuleArn": f"arn:aws:events:us-east-1:123456789012:rule/{request['Name']}"}

        def add_permission(self, **request: str) -> None:
            statements.append(request)

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda **_: None

    helper._lambda_client = helper._events_client = helper._logs_client = Recorder()  # noqa: SLF001
    helper._set_timeout = lambda: None  # noqa: SLF001 - a thread that outlives the event
    helper._send = helper._wait_for_cwlogs = lambda *_: None  # noqa: SLF001
    helper._sam_local = False  # noqa: SLF001 - that was for its clients, it polls otherwise
    helper.create(lambda *_: "id")
    helper.poll_create(lambda *_: None)
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{FUNCTION}"
    while True:
        helper(_create_event(), _Context(arn))
        assert statements  # noqa: S101 - otherwise it has failed
        policy = {
            "Version": "2012-10-17",
            "Id": "default",
            "Statement": [
                {
                    "Sid": statement["StatementId"],
                    "Effect": "Allow",
                    "Principal": {"Service": statement["Principal"]},
                    "Action": statement["Action"],
                    "Resource": arn,
                    "Condition": {"ArnLike": {"AWS:SourceArn": statement["SourceArn"]}},
                }
                for statement in statements
            ],
        }
        if len(json.dumps(policy, separators=(",", ":"))) > LONGEST_FUNCTION_POLICY:
            return len(statements) - 1


@dataclass(frozen=True)
class _Context:
    invoked_function_arn: str
    function_name: str = FUNCTION
    aws_request_id: str = "benchmark"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def _create_event() -> dict[str, Any]:
    return {
        "RequestType": "Create",
        "RequestId": str(uuid.uuid4()),
        "StackId": f"arn:aws:cloudformation:us-east-1:123456789012:stack/images/{uuid.uuid4()}",
        "ResponseURL": "https://cloudformation-custom-resource-response/",
        "ResourceType": "Custom::ImportedVmImage",
        "LogicalResourceId": "GoldenImage0123ABCD",
        "ResourceProperties": {},
    }


def print_table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()
    sys.stdout.write("\n")


def main() -> int:
    """Print the tables."""
    print_table(["timeout", "resources of an image", "images in a stack"], rows_of_resources())
    logging.disable(logging.CRITICAL)
    with shared_aws().installed() as aws:
        print_table(HEAD_OF_WAITS, rows_of_waits(aws))
    print_table(
        ["import", "polls of CDK's Provider", "its invocations", "polls of crhelper"],
        rows_of_other_ways(),
    )
    sys.stdout.write(f"crhelper polls for at most {most_polls_of_crhelper()} resources at once.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
