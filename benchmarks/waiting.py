"""What a wait costs, and how late its answer is: this library, plain crhelper, CDK's Provider.

    PYTHONPATH=lambda/vm_import python -m benchmarks.waiting

Each way waits for imports of 1 minute, 1 hour and 12 hours on the local AWS, whose clock is moved
by the pauses that the way makes. Ours runs the real handler and plain crhelper the real crhelper
2.0.12, both with a stand-in for what calls them again; CDK's Provider framework, which is written
in JavaScript, is reduced to what its waiter does: isComplete every 5 seconds, as retries of one
task state.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import crhelper

from local_aws import LocalAws
from local_aws.client.prerequisites import Prerequisites
from waiting import KEY, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTE: Final = 60
HOUR: Final = 3600
IMPORTS: Final = {
    "1 minute": MINUTE,
    "50 minutes": 50 * MINUTE,
    "1 hour": HOUR,
    "12 hours": 11.9 * HOUR,
}
# CloudFormation's limit for the answer of a custom resource.
SERVICE_TIMEOUT: Final = HOUR
PROVIDER_INTERVAL: Final = 5
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LONGEST_FUNCTION_POLICY: Final = 20_480
ACCOUNT: Final = "123456789012"
FUNCTION: Final = "Stack-VmImportProviderHandlerD6951CDD-0123456789AB"
STACK: Final = f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/images/{uuid.uuid4()}"


@dataclass
class Run:
    """A wait, as it is counted."""

    aws: LocalAws
    elapsed: float = 0
    invocations: int = 0
    transitions: int = 0
    control_calls: int = 0
    ended: list[str] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.aws.advance(seconds)
        self.elapsed += seconds


class Context:
    """Lambda's context object."""

    invoked_function_arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{FUNCTION}"
    function_name = FUNCTION
    aws_request_id = log_group_name = log_stream_name = "benchmark"

    def get_remaining_time_in_millis(self) -> int:
        """Always 15 minutes."""
        return 900_000


def create_event(task: str, **properties: str) -> dict[str, Any]:
    """An event to create an image that no other run has."""
    return {
        "RequestType": "Create",
        "RequestId": str(uuid.uuid4()),
        "StackId": STACK,
        "ResponseURL": "https://cloudformation-custom-resource-response/",
        "ResourceType": "Custom::ImportedVmImage",
        "LogicalResourceId": "GoldenImage0123ABCD",
        "ResourceProperties": {
            "Name": f"bench-{uuid.uuid4().hex[:8]}",
            "SemanticVersion": "1.0.0",
            "Platform": "Linux",
            "VmImportTaskId": task,
            **properties,
        },
    }


def ours(run: Run, task: str, seconds: float) -> None:
    """The handler, called by a stand-in for the state machine."""
    import index  # noqa: PLC0415 - its clients want the environment
    import wait_condition  # noqa: PLC0415

    timeout = {"TimeoutSeconds": "3600"}
    if seconds >= HOUR:
        timeout = {"TimeoutSeconds": "43200", "WaitHandle": "https://handle/"}

    def put(body: bytes) -> None:
        if "WaitHandle" not in timeout:
            run.ended.append(json.loads(body)["Status"])

    def signal(handle: str, signal: dict[str, Any]) -> None:  # noqa: ARG001
        run.ended.append(signal["Status"])

    index.cfn_resource._put = put  # type: ignore[method-assign]  # noqa: SLF001
    wait_condition._signal = signal  # noqa: SLF001
    state: Any = create_event(task, **timeout) | {KEY: Waiting.begin().state()}
    run.control_calls += 1  # StartExecution
    run.invocations += 1
    while True:
        state = index.handler(state, Context())
        run.invocations += 1
        run.transitions += 3  # Step, Done?, and Wait or Done
        if not state[KEY]["Seconds"]:
            return
        run.pass_time(state[KEY]["Seconds"])


class Recorder:
    """The clients of Lambda and EventBridge, as far as crhelper uses them."""

    def __init__(self, run: Run) -> None:
        """Count for a run."""
        self.run = run
        self.input: dict[str, Any] = {}
        self.statements: list[dict[str, str]] = []

    def put_rule(self, **request: str) -> dict[str, str]:
        """Make a rule."""
        self.run.control_calls += 1
        return {"RuleArn": f"arn:aws:events:us-east-1:{ACCOUNT}:rule/{request['Name']}"}

    def put_targets(self, **request: Any) -> None:  # noqa: ANN401 - as boto3's
        """Keep what the rule calls the function with."""
        self.run.control_calls += 1
        self.input = json.loads(request["Targets"][0]["Input"])

    def add_permission(self, **request: str) -> None:
        """Keep the statement that the function's policy gets."""
        self.run.control_calls += 1
        self.statements.append(request)

    def __getattr__(self, _: str) -> Callable[..., None]:
        """Take the calls that remove it all again."""

        def call(**_: object) -> None:
            self.run.control_calls += 1

        return call


def plain_crhelper(run: Run, task: str, _seconds: float) -> None:
    """Crhelper's own polling, called by a stand-in for its EventBridge rule."""
    helper, recorder = crhelper_helper(run)
    images = client(run.aws, "imagebuilder")

    def create(event: dict[str, Any], _: object) -> str:
        properties = event["ResourceProperties"]
        return str(
            images.import_vm_image(
                name=properties["Name"],
                semanticVersion=properties["SemanticVersion"],
                platform=properties["Platform"],
                vmImportTaskId=task,
                clientToken=event["RequestId"],
            )["imageArn"]
        )

    def poll_create(event: dict[str, Any], _: object) -> str | None:
        arn: str = event["CrHelperData"]["PhysicalResourceId"]
        image = images.get_image(imageBuildVersionArn=arn)["image"]
        return arn if image["state"]["status"] == "AVAILABLE" else None

    helper.create(create)
    helper.poll_create(poll_create)
    run.invocations += 1
    helper(create_event(task), Context())
    while not run.ended:
        run.pass_time(helper._polling_interval * MINUTE)  # noqa: SLF001
        if run.elapsed >= SERVICE_TIMEOUT:
            return
        run.invocations += 1
        helper(json.loads(json.dumps(recorder.input)), Context())


def crhelper_helper(run: Run) -> tuple[Any, Recorder]:
    """A helper of crhelper's, whose calls are counted."""
    helper: Any = crhelper.CfnResource(log_level="CRITICAL")
    recorder = Recorder(run)
    helper._lambda_client = helper._events_client = helper._logs_client = recorder  # noqa: SLF001
    helper._send = lambda *_: run.ended.append(helper.Status)  # noqa: SLF001
    helper._set_timeout = lambda: None  # noqa: SLF001 - a thread that outlives the run
    helper._wait_for_cwlogs = lambda: None  # noqa: SLF001
    return helper, recorder


def provider_framework(run: Run, task: str, _seconds: float) -> None:
    """What the waiter of CDK's Provider framework does."""
    images = client(run.aws, "imagebuilder")
    properties = create_event(task)["ResourceProperties"]
    arn = images.import_vm_image(
        name=properties["Name"],
        semanticVersion=properties["SemanticVersion"],
        platform="Linux",
        vmImportTaskId=task,
        clientToken=str(uuid.uuid4()),
    )["imageArn"]
    run.control_calls += 1  # StartExecution
    run.invocations += 2  # framework-onEvent, and the user's onEvent
    while run.elapsed < SERVICE_TIMEOUT:
        run.transitions += 1
        run.invocations += 2  # framework-isComplete, and the user's isComplete
        image = images.get_image(imageBuildVersionArn=arn)["image"]
        if image["state"]["status"] == "AVAILABLE":
            run.ended.append("SUCCESS")
            return
        run.pass_time(PROVIDER_INTERVAL)


def client(aws: LocalAws, service: str) -> Any:  # noqa: ANN401 - boto3's types are of run time
    """A client of the local AWS."""
    make: Any = aws.session().client
    return make(service)


def seconds_until_available(aws: LocalAws, task: str, seconds: float) -> int:
    """When an import of a length is AVAILABLE, to the second."""
    images = client(aws, "imagebuilder")
    arn = images.import_vm_image(
        name=f"bench-{uuid.uuid4().hex[:8]}",
        semanticVersion="1.0.0",
        platform="Linux",
        vmImportTaskId=task,
        clientToken=str(uuid.uuid4()),
    )["imageArn"]
    elapsed = int(seconds)
    aws.advance(elapsed)
    while images.get_image(imageBuildVersionArn=arn)["image"]["state"]["status"] != "AVAILABLE":
        aws.advance(1)
        elapsed += 1
    return elapsed


WAYS: Final = {
    "cdk-vm-import": ours,
    "plain crhelper, 2 min": plain_crhelper,
    "CDK Provider, 5 s": provider_framework,
}


def rows(aws: LocalAws) -> Iterator[tuple[str, ...]]:
    """Run everything; the cells of each line of the table."""
    prerequisites = Prerequisites(aws)
    for length, seconds in IMPORTS.items():
        aws.knobs(import_seconds=float(seconds))
        available = seconds_until_available(aws, prerequisites.import_image(), seconds)
        for name, way in WAYS.items():
            task = prerequisites.import_image()
            run = Run(aws)
            before = len(aws.calls())
            with contextlib.redirect_stdout(io.StringIO()):
                way(run, task, seconds)
            calls = len(aws.calls()) - before
            answered = run.ended == ["SUCCESS"]
            yield (
                length,
                name,
                str(sum(call["operation"] == "GetImage" for call in aws.calls()[before:])),
                str(calls + run.control_calls),
                str(run.invocations),
                str(run.transitions),
                f"{run.elapsed - available:.0f} s" if answered else "never: gave up after 1 h",
            )


def crhelpers_most_polls() -> int:
    """How many resources plain crhelper can poll for at once: until the policy is full."""
    helper, recorder = crhelper_helper(Run(LocalAws(0)))
    helper.create(lambda *_: "id")
    helper.poll_create(lambda *_: None)
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{FUNCTION}"
    while True:
        event = create_event("import-ami-0123456789abcdef0")
        helper(event, Context())
        statements = [
            {
                "Sid": statement["StatementId"],
                "Effect": "Allow",
                "Principal": {"Service": statement["Principal"]},
                "Action": statement["Action"],
                "Resource": function,
                "Condition": {"ArnLike": {"AWS:SourceArn": statement["SourceArn"]}},
            }
            for statement in recorder.statements
        ]
        policy = {"Version": "2012-10-17", "Id": "default", "Statement": statements}
        if len(json.dumps(policy, separators=(",", ":"))) > LONGEST_FUNCTION_POLICY:
            return len(statements) - 1


def main() -> int:
    """Print the table."""
    head = (
        "import", "way", "looks", "AWS calls", "invocations", "transitions",
        "answer after AVAILABLE",
    )  # fmt: skip
    # slow, so that the time of the run itself does not count
    with LocalAws.start(speed=0.0001) as aws:
        os.environ.update(aws.environment)
        table = [head, *rows(aws)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.write(
        f"\nAt once on one function: plain crhelper {crhelpers_most_polls()} polls; each adds a "
        f"statement to the function's policy, which ends at {LONGEST_FUNCTION_POLICY} bytes.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
