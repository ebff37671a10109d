"""Deployments that wait, by the real CDK CLI: half an hour of AWS time is a second."""

from __future__ import annotations

import itertools
import json
import re
import ssl
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import LocalAws
from local_aws.cdk_cli import CdkCli, CdkError
from local_aws.prerequisites import Prerequisites
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
        self.images, self.cloudformation, self.step_functions = map(
            clients, ("imagebuilder", "cloudformation", "stepfunctions")
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

    def uuid(self) -> str:
        stacks = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        return str(stacks[0]["StackId"].split("/")[2])

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

    def running_inputs(self) -> list[dict[str, Any]]:
        """The events that are waited for."""
        describe = self.step_functions.describe_execution
        return [
            json.loads(describe(executionArn=execution)["input"])
            for execution in self.running_executions()
        ]

    def invoke(self, function: str, event: dict[str, Any]) -> None:
        """Send an event as CloudFormation does."""
        client: Any = self.local.session().client
        client("lambda").invoke(
            FunctionName=function, InvocationType="Event", Payload=json.dumps(event)
        )

    def give_up(self, create: dict[str, Any]) -> None:
        """Answer a create, and signal its wait condition, as nobody does any more."""
        answers = {create["ResponseURL"]: {"Status": "FAILED", "Reason": "cancelled"}}
        if handle := create["ResourceProperties"].get("WaitHandle"):
            failure = {"Status": "FAILURE", "Reason": "cancelled", "UniqueId": "test", "Data": ""}
            answers = {handle: failure}
        tls = ssl.create_default_context(cafile=self.local.environment["AWS_CA_BUNDLE"])
        for url, answer in answers.items():
            body = json.dumps(answer).encode()
            request = urllib.request.Request(url, body, method="PUT")  # noqa: S310 - the local AWS
            request.add_header("Content-Type", "")
            urllib.request.urlopen(request, context=tls).close()  # noqa: S310


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
def test_a_deployment_that_does_not_wait_ends_before(make_stack: Callable[[float], Stack]) -> None:
    stack = make_stack(1000 * HOUR)

    stack.deploy(wait_for_available=False)

    ((_, image),) = stack.builds().items()
    assert image["state"]["status"] == "PENDING"
    assert stack.status() == "CREATE_COMPLETE"


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
    stack_uuid = stack.uuid()

    stack.destroy(minutes=minutes)

    assert stack.builds() == {}
    machines = stack.step_functions.list_state_machines()["stateMachines"]
    assert [machine for machine in machines if stack_uuid in machine["name"]] == []


@MODES
@pytest.mark.slow
def test_a_deletion_while_the_image_is_waited_for_leaves_nothing_and_nobody_waiting(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    """The local CloudFormation does not end a resource in the making, so its part is taken here."""
    stack = make_stack(1000 * HOUR)
    deployment = threading.Thread(target=_fails, args=(lambda: stack.deploy(minutes=minutes),))
    deployment.start()
    assert eventually(lambda: stack.builds() and stack.running_executions(), 60)
    (create,) = stack.running_inputs()
    url = create["ResponseURL"]
    deletion = {
        **{name: value for name, value in create.items() if name != "Waiting"},
        "RequestType": "Delete",
        "RequestId": str(uuid.uuid4()),
        "PhysicalResourceId": f"{stack.name}-Image9D742C96-1ABCDEFGHIJKL",
        "ResponseURL": url[: url.rindex("/")] + "/nobody",
    }

    stack.invoke(create["ResourceProperties"]["ServiceToken"], deletion)

    assert eventually(lambda: stack.running_executions() == [])
    assert stack.builds() == {}
    stack.give_up(create)
    deployment.join(120)
    assert stack.status() == "ROLLBACK_COMPLETE"


def _fails(act: Callable[[], object]) -> None:
    with pytest.raises(CdkError):
        act()


@pytest.mark.slow
def test_an_outage_of_lambda_does_not_end_the_wait(make_stack: Callable[[float], Stack]) -> None:
    stack = make_stack(1000 * HOUR)
    client: Any = stack.local.session().client
    functions = client("lambda")
    deployment = ThreadPoolExecutor().submit(stack.deploy, minutes=BY_SIGNAL)
    assert eventually(lambda: stack.builds() and stack.running_executions(), 60)
    (create,) = stack.running_inputs()
    function = create["ResourceProperties"]["ServiceToken"]

    # no call comes through, for over ten minutes of AWS time
    functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    time.sleep(12 * 60 / 1800)
    functions.delete_function_concurrency(FunctionName=function)
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
