"""Deployments that wait, by the real CDK CLI: half an hour of AWS time is a second."""

from __future__ import annotations

import itertools
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest

from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.prerequisites import Prerequisites
from tests.deploy.waiting_app import synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count()
CLIENT_ERROR = "ClientError: Unsupported kernel version 2.6.18"
# Up to an hour the custom resource's answer waits, over an hour a wait condition.
BY_ANSWER, BY_SIGNAL = 60, 720
MODES = pytest.mark.parametrize("minutes", [BY_ANSWER, BY_SIGNAL], ids=["answer", "signal"])
HOUR = 3600.0


@dataclass
class Stack:
    """A stack of tests/deploy/waiting_app.py, through its life."""

    local: LocalAws
    prerequisites: Prerequisites
    folder: Path
    name: str = field(default_factory=lambda: f"Waiting{next(_numbers)}")

    def __post_init__(self) -> None:
        self.task = self.prerequisites.import_image()
        clients: Any = self.local.session().client
        self.images, self.cloudformation, self.step_functions, self.functions, self.ec2 = map(
            clients, ("imagebuilder", "cloudformation", "stepfunctions", "lambda", "ec2")
        )

    def _cdk(self, arguments: dict[str, Any], *, fail: bool = False) -> CdkCli:
        image = {
            "image_name": self.name.lower(),
            "semantic_version": "1.0.0",
            "vm_import_task_id": self.task,
        }
        assembly = self.folder / f"assembly{next(_numbers)}"
        app = synthesize(assembly, self.name, image | arguments, fail=fail)
        return CdkCli(self.local, self.folder, app=app)

    def deploy(self, *, fail: bool = False, **arguments: Any) -> dict[str, str]:
        return self._cdk(arguments, fail=fail).deploy()

    def destroy(self, **arguments: Any) -> None:
        self._cdk(arguments).destroy()

    def builds(self) -> dict[str, dict[str, Any]]:
        """All builds of all versions of its image, by ARN."""
        versions = self.images.list_images(
            owner="Self", filters=[{"name": "name", "values": [self.name.lower()]}]
        )["imageVersionList"]
        return {
            build["arn"]: self.images.get_image(imageBuildVersionArn=build["arn"])["image"]
            for version in versions
            for build in self.images.list_image_build_versions(
                imageVersionArn="/".join(version["arn"].split("/")[:3])
            )["imageSummaryList"]
        }

    def id(self) -> str:
        stacks = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        return str(stacks[0]["StackId"])

    def uuid(self) -> str:
        return self.id().split("/")[2]

    def status(self) -> str:
        stacks = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        return str(stacks[0]["StackStatus"])

    def failures(self) -> str:
        """The reasons of failed resources, as the stack events show them."""
        events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return "\n".join(
            event.get("ResourceStatusReason", "")
            for event in events
            if event["ResourceStatus"].endswith("_FAILED")
        )

    def tags_of_ami(self, ami: str) -> dict[str, str]:
        (found,) = self.ec2.describe_images(ImageIds=[ami])["Images"]
        return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}

    def executions(self, **which: str) -> list[str]:
        """The waits of this stack."""
        machines = self.step_functions.list_state_machines()["stateMachines"]
        return [
            execution["executionArn"]
            for machine in machines
            if machine["name"].endswith(self.uuid())
            for execution in self.step_functions.list_executions(
                stateMachineArn=machine["stateMachineArn"], **which
            )["executions"]
        ]

    def running_executions(self) -> list[str]:
        return self.executions(statusFilter="RUNNING")

    def function_names(self) -> list[str]:
        functions = self.functions.list_functions()["Functions"]
        return [f["FunctionName"] for f in functions if f["FunctionName"].startswith(self.name)]

    def waits_for_a_signal(self) -> bool:
        events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return "AWS::CloudFormation::WaitCondition" in {event["ResourceType"] for event in events}

    def was_aborted(self, execution: str) -> bool:
        try:
            found = self.step_functions.describe_execution(executionArn=execution)
        except self.step_functions.exceptions.ExecutionDoesNotExist:
            return False
        return bool(found["status"] == "ABORTED")

    def leftovers(self, stack_id: str) -> list[str]:
        """What is still there, once it is destroyed."""
        (stack,) = self.cloudformation.describe_stacks(StackName=stack_id)["Stacks"]
        resources = self.cloudformation.describe_stack_resources(StackName=stack_id)
        machines = self.step_functions.list_state_machines()["stateMachines"]
        return [
            *({stack["StackStatus"]} - {"DELETE_COMPLETE"}),
            *(resource["PhysicalResourceId"] for resource in resources["StackResources"]),
            *self.function_names(),
            *(m["name"] for m in machines if m["name"].endswith(stack_id.split("/")[2])),
            *self.builds(),
        ]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with LocalAws.start(speed=1800, auth=True) as local:
        CdkCli(local, tmp_path_factory.mktemp("bootstrap")).bootstrap()
        yield local


@pytest.fixture(scope="module")
def prerequisites(local: LocalAws) -> Prerequisites:
    return Prerequisites(local)


@pytest.fixture
def make_stack(
    local: LocalAws, prerequisites: Prerequisites, tmp_path: Path
) -> Iterator[Callable[[float], Stack]]:
    """Make a stack whose disk takes so many seconds of AWS time to import."""

    def make(import_seconds: float) -> Stack:
        local.knobs(import_seconds=import_seconds)
        return Stack(local, prerequisites, tmp_path)

    yield make
    local.clear_faults()


def eventually(holds: Callable[[], object], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(holds())


@MODES
def test_a_deployment_ends_when_the_image_is_available(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(3 * HOUR)

    outputs = stack.deploy(minutes=minutes)

    ((arn, image),) = stack.builds().items()
    assert image["state"]["status"] == "AVAILABLE"
    assert outputs["ImageId"] == image["outputResources"]["amis"][0]["image"]
    assert next(v for k, v in outputs.items() if k.startswith("ImageImageArn")) == arn
    assert eventually(lambda: stack.running_executions() == [])


@pytest.mark.slow
def test_a_deployment_that_does_not_wait_ends_before_and_the_ami_is_tagged_all_the_same(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(11 * HOUR)

    stack.deploy(wait_for_available=False)

    ((arn, image),) = stack.builds().items()
    assert image["state"]["status"] == "PENDING"
    assert stack.status() == "CREATE_COMPLETE"
    stack.local.advance(11 * HOUR)
    assert eventually(lambda: stack.running_executions() == [], 60)
    (ami,) = stack.builds()[arn]["outputResources"]["amis"]
    assert stack.tags_of_ami(ami["image"])["cdk-vm-import:stack"] == stack.id()


@pytest.mark.slow
def test_a_stack_that_does_not_wait_and_retains_its_image_is_destroyed_without_remains(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(1000 * HOUR)
    arguments: dict[str, Any] = {
        "wait_for_available": False,
        "removal_policy": cdk.RemovalPolicy.RETAIN,
    }
    stack.deploy(**arguments)
    stack_id = stack.id()

    stack.destroy(**arguments)

    assert stack.leftovers(stack_id) == list(stack.builds()) != []


def test_twelve_hours_are_waited(make_stack: Callable[[float], Stack]) -> None:
    stack = make_stack(11.5 * HOUR)
    began = time.monotonic()

    stack.deploy(minutes=BY_SIGNAL)

    ((_, image),) = stack.builds().items()
    assert image["state"]["status"] == "AVAILABLE"
    assert time.monotonic() - began > 11.5 * HOUR / 1800


@MODES
def test_an_import_that_fails_half_way_rolls_back_with_ec2s_reason(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(3 * HOUR)
    stack.local.fail_import(CLIENT_ERROR, task_id=stack.task, fail_at_progress=58)

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes)

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert CLIENT_ERROR in stack.failures()
    assert stack.builds() == {}


@pytest.mark.parametrize("minutes", [5, 61], ids=["answer", "signal"])
@pytest.mark.slow
def test_an_import_that_takes_too_long_rolls_back_with_how_far_it_came(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(3 * HOUR)
    stack.local.fail_import(None, task_id=stack.task, fail_at_progress=58)

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes)

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert f"was not AVAILABLE after {minutes} minutes" in stack.failures()
    assert re.search("the image is PENDING; EC2's import is at [0-9]+ %, [a-z]+", stack.failures())
    assert stack.builds() == {}


@MODES
@pytest.mark.slow
def test_a_new_version_is_waited_for_and_takes_the_old_ones_place(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(HOUR)
    first = stack.deploy(minutes=minutes)
    old = set(stack.builds())
    stack.task = stack.prerequisites.import_image()

    second = stack.deploy(minutes=minutes, semantic_version="2.0.0")

    ((arn, image),) = stack.builds().items()
    assert arn not in old
    assert image["state"]["status"] == "AVAILABLE"
    assert second["ImageId"] == image["outputResources"]["amis"][0]["image"] != first["ImageId"]
    assert stack.status() == "UPDATE_COMPLETE"


@MODES
@pytest.mark.slow
def test_a_new_version_that_fails_leaves_the_old_one(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(HOUR)
    stack.deploy(minutes=minutes)
    old = list(stack.builds())
    stack.task = stack.prerequisites.import_image()
    stack.local.fail_import(CLIENT_ERROR, task_id=stack.task, fail_at_progress=58)

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes, semantic_version="2.0.0")

    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert CLIENT_ERROR in stack.failures()
    assert list(stack.builds()) == old


@pytest.mark.parametrize(
    "ways",
    [(None, BY_ANSWER, BY_SIGNAL), (BY_SIGNAL, BY_ANSWER, None), (BY_ANSWER, None, BY_SIGNAL)],
    ids=str,
)
@pytest.mark.slow
def test_the_way_of_waiting_can_change_and_the_image_stays(
    make_stack: Callable[[float], Stack], ways: tuple[int | None, ...]
) -> None:
    stack = make_stack(HOUR)
    seen = []
    for minutes in ways:
        stack.deploy(**({"minutes": minutes} if minutes else {"wait_for_available": False}))
        seen.append(list(stack.builds()))

    assert seen == [seen[0]] * 3
    assert len(seen[0]) == 1


@pytest.mark.slow
def test_tags_change_while_nothing_is_waited_for_again(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(HOUR)
    stack.deploy(minutes=BY_SIGNAL)

    stack.deploy(minutes=BY_SIGNAL, tags={"stage": "live"})

    ((_, image),) = stack.builds().items()
    assert image["tags"]["stage"] == "live"


@MODES
@pytest.mark.slow
def test_the_stack_is_destroyed_with_its_image(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(HOUR)
    stack.deploy(minutes=minutes)
    stack_id = stack.id()

    stack.destroy(minutes=minutes)

    assert stack.leftovers(stack_id) == []


@pytest.mark.parametrize(
    "minutes",
    [BY_ANSWER, pytest.param(BY_SIGNAL, marks=pytest.mark.slow)],
    ids=["answer", "signal"],
)
def test_a_stack_that_is_destroyed_while_it_waits_leaves_nothing_and_nobody_waiting(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(1000 * HOUR)
    deployment = ThreadPoolExecutor().submit(stack.deploy, minutes=minutes)
    assert eventually(lambda: stack.builds() and stack.running_executions(), 60)
    assert minutes == BY_ANSWER or eventually(stack.waits_for_a_signal)
    (wait,), stack_id = stack.running_executions(), stack.id()

    destruction = ThreadPoolExecutor().submit(stack.destroy, minutes=minutes)

    assert eventually(lambda: stack.was_aborted(wait), 60)
    destruction.result()
    assert isinstance(deployment.exception(), CdkError)
    assert stack.leftovers(stack_id) == []


@pytest.mark.slow
def test_a_stack_that_is_destroyed_while_it_imports_leaves_nothing(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(1000 * HOUR)
    stack.local.fault("imagebuilder", "ImportVmImage", delay=20)
    imports = len(stack.local.calls("ImportVmImage"))
    deployment = ThreadPoolExecutor().submit(stack.deploy, wait_for_available=False)
    assert eventually(lambda: len(stack.local.calls("ImportVmImage")) > imports, 60)
    stack_id = stack.id()

    stack.destroy(wait_for_available=False)

    assert isinstance(deployment.exception(), CdkError)
    assert stack.leftovers(stack_id) == []


@pytest.mark.slow
def test_an_outage_of_lambda_does_not_end_the_wait(make_stack: Callable[[float], Stack]) -> None:
    stack = make_stack(1000 * HOUR)
    deployment = ThreadPoolExecutor().submit(stack.deploy, minutes=BY_SIGNAL)
    assert eventually(lambda: stack.builds() and stack.running_executions(), 60)
    (function,) = stack.function_names()

    # no call comes through, for over ten minutes of AWS time
    stack.functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    time.sleep(12 * 60 / 1800)
    stack.functions.delete_function_concurrency(FunctionName=function)
    stack.local.advance(1001 * HOUR)

    deployment.result()
    (execution,) = stack.executions()
    history = stack.step_functions.get_execution_history(
        executionArn=execution, maxResults=1000, reverseOrder=True
    )
    assert "TaskFailed" in {event["type"] for event in history["events"]}
    assert stack.status() == "CREATE_COMPLETE"


@MODES
@pytest.mark.slow
def test_a_rollback_that_another_resource_causes_leaves_nothing_and_nobody_waiting(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(0.5 * HOUR)

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes, fail=True)

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert stack.builds() == {}
    assert eventually(lambda: stack.running_executions() == [])


@MODES
@pytest.mark.slow
def test_an_update_that_another_resource_rolls_back_leaves_the_old_image(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(0.5 * HOUR)
    stack.deploy(minutes=minutes)
    old = list(stack.builds())

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes, semantic_version="2.0.0", fail=True)

    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert list(stack.builds()) == old
    assert eventually(lambda: stack.running_executions() == [])


@pytest.mark.slow
def test_an_image_that_changes_by_a_parameter_alone_is_refused_over_an_hour(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(HOUR)
    stack.deploy(minutes=BY_SIGNAL, task_by_parameter=True)
    old = list(stack.builds())
    task = stack.prerequisites.import_image()

    # not by the CDK CLI, which keeps parameters as they are
    stack.cloudformation.update_stack(
        StackName=stack.name,
        UsePreviousTemplate=True,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": "Task", "ParameterValue": task},
            {"ParameterKey": "BootstrapVersion", "UsePreviousValue": True},
        ],
    )

    assert eventually(lambda: stack.status() == "UPDATE_ROLLBACK_COMPLETE", 60)
    assert "a wait condition cannot be used twice" in stack.failures()
    assert list(stack.builds()) == old
