"""Deployments that wait for an import, for up to 12 hours, with the real CDK CLI."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest

from contract import OwnTag, ResourceType
from local_aws.client.cdk_cli import CdkCli, CdkError
from tests.deploy.deployed import HOUR, Account, StackView, eventually, numbers, played
from tests.deploy.waiting_app import TASK_PARAMETER, synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from local_aws import LocalAws

CLIENT_ERROR = "ClientError: Unsupported kernel version 2.6.18"
NEVER = 1000 * HOUR
# Up to an hour the image resource waits alone, over an hour each further hour has a link.
ONE_HOUR, THREE_HOURS, TWELVE_HOURS = 60, 180, 720
TIMEOUTS = pytest.mark.parametrize("minutes", [ONE_HOUR, TWELVE_HOURS], ids=["1 hour", "12 hours"])
# Shorter than an hour that a resource waits, in minutes.
ALMOST_AN_HOUR = 50


class Stack(StackView):
    """A stack of tests/deploy/waiting_app.py, from its creation to its deletion."""

    def __init__(self, account: Account, folder: Path) -> None:
        super().__init__(account, f"Waiting{next(numbers)}")
        self._folder = folder
        self.image_name = self.name.lower()
        self.task = account.import_image()

    def _cdk(self, arguments: dict[str, Any], fail_after_hour: int = 0) -> CdkCli:
        image = {
            "image_name": self.image_name,
            "semantic_version": "1.0.0",
            "vm_import_task_id": self.task,
        }
        assembly = self._folder / f"assembly{next(numbers)}"
        app = synthesize(assembly, self.name, image | arguments, fail_after_hour=fail_after_hour)
        return CdkCli(self.local, self._folder, app=app)

    def start(
        self, *options: str, fail_after_hour: int = 0, **arguments: Any
    ) -> Future[dict[str, str]]:
        """Start `cdk deploy`; return when the import of a new image, or its wait, has begun."""
        cdk_cli, imports = self._cdk(arguments, fail_after_hour), self.imports()
        executor = ThreadPoolExecutor(max_workers=1)
        deployment = executor.submit(cdk_cli.deploy, *options)
        executor.shutdown(wait=False)
        assert eventually(
            lambda: deployment.done() or self.imports() > imports or self.is_waiting(), 120
        )
        return deployment

    def deploy(self, *options: str, **arguments: Any) -> dict[str, str]:
        """Run `cdk deploy`, and let the hours pass quickly that it waits."""
        deployment = self.start(*options, **arguments)
        return self.ended(deployment)

    def ended(self, deployment: Future[dict[str, str]]) -> dict[str, str]:
        """Let the hours pass quickly until a deployment ends."""
        assert played(self.local, deployment.done)
        return deployment.result()

    def destroy(self, **arguments: Any) -> None:
        self._cdk(arguments).destroy()

    def imports(self) -> int:
        return self.account.imports(self.image_name)

    def builds(self) -> list[str]:
        return self.account.builds(self.image_name)

    def is_waiting(self) -> bool:
        """Whether an execution runs for a resource of the stack."""
        try:
            return bool(self.running_executions())
        except self.account.cloudformation.exceptions.ClientError:
            return False  # the stack does not exist yet

    def links(self) -> dict[str, str]:
        """The links of the chain, by logical id."""
        return self.resources(ResourceType.WAIT)

    def waits(self) -> int:
        """How many resources waited for about an hour or longer."""
        return sum(minutes > ALMOST_AN_HOUR for minutes in self.minutes())

    def left(self) -> list[str]:
        """What is left after its deletion."""
        return [*self.left_of_stack(), *self.builds()]


@pytest.fixture
def make_stack(
    local: LocalAws, account: Account, tmp_path: Path
) -> Iterator[Callable[[float], Stack]]:
    """Return a function that returns a stack whose disk takes so many seconds to import."""

    def make(import_seconds: float) -> Stack:
        local.knobs(import_seconds=import_seconds)
        return Stack(account, tmp_path)

    yield make
    local.clear_faults()


# --- imports of different lengths ---


@pytest.mark.parametrize(
    ("hours", "waits"),
    [
        pytest.param(1 / 3, 0, id="20 minutes"),
        pytest.param(3, 3, id="3 hours"),
        pytest.param(11, 11, id="11 hours", marks=pytest.mark.slow),
    ],
)
def test_a_deployment_of_up_to_12_hours_ends_when_the_image_is_available(
    make_stack: Callable[[float], Stack], hours: float, waits: int
) -> None:
    stack = make_stack(hours * HOUR)

    outputs = stack.deploy(minutes=TWELVE_HOURS)

    (arn,) = stack.builds()
    assert outputs["Arn"] == arn
    assert outputs["ImageId"] == stack.account.ami_of(arn)
    assert len(stack.links()) == 11
    # Each resource of the chain waits for about an hour; those after the import respond at once.
    assert waits - 1 <= stack.waits() <= waits
    assert eventually(lambda: stack.running_executions() == [])


@pytest.mark.slow
def test_a_deployment_that_waits_for_an_hour_has_no_link(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(0.5 * HOUR)

    outputs = stack.deploy(minutes=ONE_HOUR)

    assert outputs["ImageId"] == stack.account.ami_of(*stack.builds())
    assert stack.links() == {}


@pytest.mark.slow
def test_a_deployment_that_does_not_wait_ends_at_once_and_the_ami_is_tagged_later(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(11 * HOUR)

    stack.deploy(wait_for_available=False)

    (arn,) = stack.builds()
    assert (stack.account.image(arn) or {})["state"]["status"] == "PENDING"
    assert stack.status() == "CREATE_COMPLETE"
    assert played(stack.local, lambda: stack.running_executions() == [])
    tags = stack.account.tags_of_ami(stack.account.ami_of(arn))
    assert tags[OwnTag.STACK] == stack.id


# --- failures ---


@pytest.mark.parametrize(
    ("progress", "failed"),
    [
        pytest.param(28, "Image9", id="first hour", marks=pytest.mark.slow),
        pytest.param(58, "ImageWait3", id="third hour"),
    ],
)
def test_an_import_that_fails_rolls_back_at_once_with_ec2s_reason_and_leaves_nothing(
    make_stack: Callable[[float], Stack], progress: int, failed: str
) -> None:
    stack = make_stack(4 * HOUR)
    stack.local.fail_import(CLIENT_ERROR, task_id=stack.task, fail_at_progress=progress)

    with pytest.raises(CdkError):
        stack.deploy(minutes=TWELVE_HOURS)

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert CLIENT_ERROR in stack.failures()
    assert [name.startswith(failed) for name in stack.failed()] == [True]
    assert stack.builds() == []


@pytest.mark.parametrize("minutes", [5, 90, THREE_HOURS], ids=lambda minutes: f"{minutes} minutes")
@pytest.mark.slow
def test_an_import_that_takes_too_long_rolls_back_with_its_progress_in_the_reason(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(4 * HOUR)
    stack.local.fail_import(None, task_id=stack.task)

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes)

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert re.search(
        "the image is not AVAILABLE after [0-9]+ minutes: EC2's import is at [0-9]+ %, [a-z]+; "
        "the image is PENDING. Hint: ",
        stack.failures(),
    )
    assert stack.builds() == []


@pytest.mark.parametrize("hour", [1, 2])
@pytest.mark.slow
def test_a_rollback_that_another_resource_causes_leaves_nothing_that_waits(
    make_stack: Callable[[float], Stack], hour: int
) -> None:
    stack = make_stack(4 * HOUR)

    with pytest.raises(CdkError):
        stack.deploy(minutes=TWELVE_HOURS, fail_after_hour=hour)

    assert stack.status() == "ROLLBACK_COMPLETE"
    assert stack.failed() == ["Broken"]
    assert stack.was_begun(f"ImageWait{hour}") is (hour > 1)
    assert not stack.was_begun(f"ImageWait{hour + 1}")
    assert stack.builds() == []


@pytest.mark.slow
def test_an_update_that_another_resource_rolls_back_in_the_second_hour_keeps_the_original_image(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(0.5 * HOUR)
    stack.deploy(minutes=TWELVE_HOURS)
    old = stack.builds()
    stack.local.knobs(import_seconds=4 * HOUR)
    stack.task = stack.account.import_image()

    with pytest.raises(CdkError):
        stack.deploy(minutes=TWELVE_HOURS, semantic_version="2.0.0", fail_after_hour=2)

    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.failed() == ["Broken"]
    assert stack.waits() == 2
    assert stack.builds() == old
    assert eventually(lambda: stack.running_executions() == [])


@pytest.mark.slow
def test_an_outage_of_lambda_for_an_hour_does_not_end_the_wait(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(4 * HOUR)
    deployment = stack.start(minutes=TWELVE_HOURS)
    (function,) = stack.function_names()

    stack.account.functions.put_function_concurrency(
        FunctionName=function, ReservedConcurrentExecutions=0
    )
    end = stack.local.now() + HOUR
    assert played(stack.local, lambda: stack.local.now() >= end)
    stack.account.functions.delete_function_concurrency(FunctionName=function)

    outputs = stack.ended(deployment)
    assert outputs["ImageId"] == stack.account.ami_of(*stack.builds())
    history = stack.account.step_functions.get_execution_history(
        executionArn=stack.executions()[0]["executionArn"], maxResults=1000
    )
    assert "TaskFailed" in {event["type"] for event in history["events"]}


# --- retries of a deployment that failed without a rollback ---


@pytest.mark.slow
def test_a_deployment_that_timed_out_without_a_rollback_is_continued_by_the_next(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(3.5 * HOUR)
    with pytest.raises(CdkError):
        stack.deploy("--no-rollback", minutes=120)
    assert stack.status() == "CREATE_FAILED"
    image = stack.builds()
    assert len(image) == 1

    outputs = stack.deploy("--no-rollback", minutes=240)

    assert stack.status() == "UPDATE_COMPLETE"
    assert outputs["ImageId"] == stack.account.ami_of(*image)
    assert (stack.builds(), stack.imports()) == (image, 1)


@pytest.mark.slow
@pytest.mark.parametrize("failed_creation_deleted", ["before", "after"])
def test_an_import_that_failed_without_a_rollback_is_repeated_with_another_task(
    make_stack: Callable[[float], Stack], failed_creation_deleted: str
) -> None:
    stack = make_stack(2 * HOUR)
    stack.local.knobs(failed_creation_deleted=failed_creation_deleted)
    stack.local.fail_import(CLIENT_ERROR, task_id=stack.task, fail_at_progress=58)
    with pytest.raises(CdkError):
        stack.deploy("--no-rollback", minutes=TWELVE_HOURS)
    assert stack.status() == "CREATE_FAILED"
    assert CLIENT_ERROR in stack.failures()
    with pytest.raises(CdkError, match=re.escape(CLIENT_ERROR)):
        stack.deploy("--no-rollback", minutes=TWELVE_HOURS)
    stack.task = stack.account.import_image()

    outputs = stack.deploy("--no-rollback", minutes=TWELVE_HOURS)

    assert stack.status() == "UPDATE_COMPLETE"
    (arn,) = stack.builds()
    assert outputs["ImageId"] == stack.account.ami_of(arn)


# --- updates ---


@TIMEOUTS
@pytest.mark.slow
def test_a_new_version_is_waited_for_and_replaces_the_old_one(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(0.5 * HOUR)
    first = stack.deploy(minutes=minutes)
    (old,) = stack.builds()
    stack.local.knobs(import_seconds=minutes / 2 * 60)
    stack.task = stack.account.import_image()

    second = stack.deploy(minutes=minutes, semantic_version="2.0.0")

    (arn,) = stack.builds()
    assert arn == second["Arn"] != old
    assert second["ImageId"] == stack.account.ami_of(arn) != first["ImageId"]
    assert stack.status() == "UPDATE_COMPLETE"


@TIMEOUTS
@pytest.mark.slow
def test_a_new_version_that_fails_keeps_the_original_image(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(0.5 * HOUR)
    stack.deploy(minutes=minutes)
    old, task = stack.builds(), stack.task
    stack.local.knobs(import_seconds=minutes / 2 * 60)
    stack.task = stack.account.import_image()
    stack.local.fail_import(CLIENT_ERROR, task_id=stack.task, fail_at_progress=58)

    with pytest.raises(CdkError):
        stack.deploy(minutes=minutes, semantic_version="2.0.0")

    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert CLIENT_ERROR in stack.failures()
    assert stack.builds() == old
    # The chain still ends at the original image.
    stack.task = task
    assert stack.deploy(minutes=minutes, tags={"stage": "live"})["Arn"] == old[0]
    assert stack.imports() == 2


@pytest.mark.slow
def test_a_parameter_that_changes_the_task_imports_another_image(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(0.5 * HOUR)

    def deploy(recipe_version: str) -> dict[str, str]:
        parameter = f"{TASK_PARAMETER}={stack.task}"
        arguments: dict[str, Any] = {"minutes": TWELVE_HOURS, "task_by_parameter": True}
        return stack.deploy("--parameters", parameter, recipe_version=recipe_version, **arguments)

    first = deploy("1.0.0")
    stack.local.knobs(import_seconds=2.5 * HOUR)
    stack.task = stack.account.import_image()

    second = deploy("2.0.0")

    (arn,) = stack.builds()
    assert arn == second["Arn"] != first["Arn"]
    assert second["ImageId"] == stack.account.ami_of(arn) != first["ImageId"]
    assert deploy("2.0.0") == second
    assert stack.imports() == 2


WAYS_OF_WAITING = [
    (ONE_HOUR, THREE_HOURS, ONE_HOUR),
    (None, TWELVE_HOURS, None),
    (TWELVE_HOURS, None, ONE_HOUR),
]


@pytest.mark.parametrize("ways", WAYS_OF_WAITING, ids=str)
@pytest.mark.slow
def test_the_timeout_can_change_and_the_image_stays(
    make_stack: Callable[[float], Stack], ways: tuple[int | None, ...]
) -> None:
    stack = make_stack(0.5 * HOUR)
    arns = []
    for minutes in ways:
        arguments = {"minutes": minutes} if minutes else {"wait_for_available": False}
        arns.append(stack.deploy(**arguments)["Arn"])
        assert len(stack.links()) == ((minutes or ONE_HOUR) - 1) // 60

    assert arns == stack.builds() * 3
    assert stack.imports() == 1


@pytest.mark.slow
def test_waiting_can_be_switched_on_during_the_import(make_stack: Callable[[float], Stack]) -> None:
    stack = make_stack(5 * HOUR)
    stack.deploy(wait_for_available=False)
    (arn,) = stack.builds()

    outputs = stack.deploy(minutes=TWELVE_HOURS)

    assert outputs["ImageId"] == stack.account.ami_of(arn)
    assert (stack.builds(), stack.imports()) == ([arn], 1)


@pytest.mark.slow
def test_tags_change_in_place_and_nothing_waits_again(make_stack: Callable[[float], Stack]) -> None:
    stack = make_stack(0.5 * HOUR)
    stack.deploy(minutes=TWELVE_HOURS)
    waited = len(stack.executions())

    stack.deploy(minutes=TWELVE_HOURS, tags={"stage": "live"})

    (arn,) = stack.builds()
    assert (stack.account.image(arn) or {})["tags"]["stage"] == "live"
    # Only the image resource has changed.
    assert len(stack.executions()) == waited + 1


# --- deletions and cancellations ---


@TIMEOUTS
@pytest.mark.slow
def test_a_stack_is_destroyed_with_its_image(
    make_stack: Callable[[float], Stack], minutes: int
) -> None:
    stack = make_stack(0.5 * HOUR)
    stack.deploy(minutes=minutes)

    stack.destroy(minutes=minutes)

    assert stack.left() == []


@pytest.mark.slow
def test_a_stack_that_does_not_wait_and_retains_its_image_is_destroyed(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(NEVER)
    arguments: dict[str, Any] = {
        "wait_for_available": False,
        "removal_policy": cdk.RemovalPolicy.RETAIN,
    }
    stack.deploy(**arguments)

    stack.destroy(**arguments)

    assert stack.left() == stack.builds() != []


@pytest.mark.parametrize(
    "hour", [pytest.param(1, marks=pytest.mark.slow), 3], ids=lambda hour: f"hour {hour}"
)
def test_a_stack_that_is_destroyed_while_it_waits_leaves_nothing(
    make_stack: Callable[[float], Stack], hour: int
) -> None:
    stack = make_stack(NEVER)
    deployment = stack.start(minutes=TWELVE_HOURS)
    assert played(stack.local, lambda: hour == 1 or stack.was_begun(f"ImageWait{hour}"))
    assert eventually(stack.running_executions)
    (wait,) = stack.running_executions()

    stack.destroy(minutes=TWELVE_HOURS)

    assert stack.was_stopped(wait)
    assert isinstance(deployment.exception(), CdkError)
    assert stack.left() == []


@pytest.mark.slow
def test_a_stack_that_is_destroyed_while_it_imports_leaves_nothing(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(NEVER)
    stack.local.fault("imagebuilder", "ImportVmImage", delay=20)
    deployment = stack.start(wait_for_available=False)

    stack.destroy(wait_for_available=False)

    assert isinstance(deployment.exception(), CdkError)
    assert stack.left() == []


@pytest.mark.slow
def test_an_update_that_is_cancelled_in_a_later_hour_keeps_the_original_image(
    make_stack: Callable[[float], Stack],
) -> None:
    stack = make_stack(0.5 * HOUR)
    stack.deploy(minutes=TWELVE_HOURS)
    old = stack.builds()
    stack.local.knobs(import_seconds=NEVER)
    stack.task = stack.account.import_image()
    deployment = stack.start(minutes=TWELVE_HOURS, semantic_version="2.0.0")
    assert played(stack.local, lambda: stack.waits() == 2)

    stack.account.cloudformation.cancel_update_stack(StackName=stack.name)

    with pytest.raises(CdkError):
        stack.ended(deployment)
    assert stack.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.builds() == old
    assert eventually(lambda: stack.running_executions() == [])
