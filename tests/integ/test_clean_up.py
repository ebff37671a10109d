"""The clean-up of stacks that CloudFormation cannot delete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from integ.account import Account
from integ.clean_up import CleanUp
from integ.run import PREFIX, Run

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
