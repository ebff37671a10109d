"""The clean-up of stacks that CloudFormation cannot delete, and of processes."""

from __future__ import annotations

import os
import signal
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from integ.account import Account
from integ.check import Record
from integ.clean_up import CleanUp
from integ.run import PREFIX, Run
from integ.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STACK = f"{PREFIX}-1128-4f2a9c-first"


class CloudFormation:
    """It has one stack, of which it cannot delete one resource."""

    def __init__(self, resource_type: str, attempts: int) -> None:
        self.resource_type = resource_type
        self.attempts = attempts
        self.status = "CREATE_COMPLETE"
        self.modes: list[str] = []

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [getattr(self, operation)()])

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        return {"Stacks": [{"StackName": STACK, "StackId": STACK, "StackStatus": self.status}]}

    def list_stack_resources(self) -> dict[str, Any]:
        deleted = ("Last", "AWS::Logs::LogGroup", "DELETE_COMPLETE")
        failed = ("Failed", self.resource_type, "DELETE_FAILED")
        names = ("LogicalResourceId", "ResourceType", "ResourceStatus")
        return {
            "StackResourceSummaries": [
                dict(zip(names, values, strict=True)) for values in (deleted, failed)
            ]
        }

    def delete_stack(self, *, StackName: str, DeletionMode: str = "STANDARD") -> None:  # noqa: N803
        assert StackName == STACK
        self.modes.append(DeletionMode)
        is_deleted = DeletionMode != "STANDARD" or len(self.modes) == self.attempts
        self.status = "DELETE_COMPLETE" if is_deleted else "DELETE_FAILED"


@pytest.mark.parametrize(
    ("resource_type", "attempts", "modes", "status"),
    [
        pytest.param(
            "AWS::EC2::Subnet",
            2,
            ["STANDARD", "STANDARD"],
            "DELETE_COMPLETE",
            id="the second attempt succeeds",
        ),
        pytest.param(
            "AWS::EC2::Subnet",
            9,
            ["STANDARD", "STANDARD"],
            "DELETE_FAILED",
            id="a resource that nobody would find keeps its stack",
        ),
        pytest.param(
            "Custom::ImportedVmImage",
            9,
            ["STANDARD", "STANDARD", "FORCE_DELETE_STACK"],
            "DELETE_COMPLETE",
            id="an image is found without its stack",
        ),
    ],
)
def test_a_stack_that_cannot_be_deleted_is_deleted_by_force_only_if_that_hides_nothing(
    resource_type: str, attempts: int, modes: list[str], status: str
) -> None:
    cloudformation = CloudFormation(resource_type, attempts)
    account = Account(None, {})
    services = ("ec2", "imagebuilder", "logs", "s3", "iam")
    account._clients = {"cloudformation": cloudformation, **dict.fromkeys(services)}

    CleanUp(Run(account, "1128-4f2a9c"))._delete_stacks()

    assert cloudformation.modes == modes
    assert cloudformation.status == status


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt: a shell ignores it in what runs in the background."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_while_the_cdk_cli_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, _: list[str], **options: Any) -> None:
            super().__init__(["sleep", "60"], **options)
            pids.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("integ.stack.subprocess.Popen", Interrupted)
    run = Run(Account(None, {}), "1128-4f2a9c", reports=tmp_path)

    with pytest.raises(KeyboardInterrupt), Stack(run, Record("tokens"), "first") as stack:
        stack._start_cdk("deploy")

    assert pids
    assert not psutil.pid_exists(pids[0])
