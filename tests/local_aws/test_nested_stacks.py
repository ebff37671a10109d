"""Nested stacks: their limits, and their exports."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.custom_resources import eventually

if TYPE_CHECKING:
    from local_aws import LocalAws

_numbers = count()
TOPIC = {"Type": "AWS::SNS::Topic"}


@dataclass
class Parent:
    """A stack with one nested stack."""

    server: LocalAws
    name: str = field(default_factory=lambda: f"parent-{next(_numbers)}")

    def __post_init__(self) -> None:
        session: Any = self.server.session()
        self.cloudformation, self.s3 = map(session.client, ("cloudformation", "s3"))
        self.s3.create_bucket(Bucket=self.name)
        self.versions = count()

    def put(self, outputs: dict[str, Any], resources: int = 1) -> str:
        """Create or update the stacks; return the reasons in the parent's events."""
        template = {"Resources": {f"T{n}": TOPIC for n in range(resources)}, "Outputs": outputs}
        key = f"{next(self.versions)}.json"
        self.s3.put_object(Bucket=self.name, Key=key, Body=json.dumps(template).encode())
        url = f"{self.server.environment['AWS_ENDPOINT_URL']}/{self.name}/{key}"
        nested = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": url}}
        return self.deploy({"Resources": {"Nested": nested}})

    def deploy(self, template: dict[str, Any]) -> str:
        known = {s["StackName"] for s in self.cloudformation.describe_stacks()["Stacks"]}
        client = self.cloudformation
        put = client.update_stack if self.name in known else client.create_stack
        put(StackName=self.name, TemplateBody=json.dumps(template))
        return self.reasons()

    def delete(self) -> str:
        self.cloudformation.delete_stack(StackName=self.name)
        return self.reasons()

    def status(self) -> str:
        id_ = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"][0]
        (stack,) = self.cloudformation.describe_stacks(StackName=id_["StackId"])["Stacks"]
        return str(stack["StackStatus"])

    def reasons(self) -> str:
        assert eventually(lambda: not self.status().endswith("IN_PROGRESS"))
        events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return " ".join(event.get("ResourceStatusReason", "") for event in events)

    def export(self) -> dict[str, str]:
        exports = self.cloudformation.list_exports()["Exports"]
        return {e["Name"]: e["Value"] for e in exports if e["Name"].startswith(self.name)}


def exported(name: str, value: str) -> dict[str, Any]:
    return {"Out": {"Value": value, "Export": {"Name": name}}}


@pytest.fixture
def parent(server: LocalAws) -> Parent:
    return Parent(server)


@pytest.fixture
def user(parent: Parent) -> Parent:
    """A stack that imports the export of the nested stack."""
    parent.put(exported(parent.name, "first"))
    user = Parent(parent.server)
    value = {"Value": {"Fn::ImportValue": parent.name}}
    user.deploy({"Resources": {"Topic": TOPIC}, "Outputs": {"Out": value}})
    assert user.status() == "CREATE_COMPLETE"
    return user


@pytest.mark.parametrize(
    ("resources", "outputs", "refusal"),
    [
        (501, 1, "Number of resources, 501, is greater than maximum allowed, 500"),
        (1, 201, "Number of outputs, 201, is greater than maximum allowed, 200"),
    ],
)
def test_a_nested_stack_has_at_most_500_resources_and_200_outputs(
    parent: Parent, resources: int, outputs: int, refusal: str
) -> None:
    reasons = parent.put({f"Out{n}": {"Value": "x"} for n in range(outputs)}, resources)

    assert refusal in reasons
    assert parent.status() == "ROLLBACK_COMPLETE"


@pytest.mark.parametrize(("outputs", "what"), [("second", "updated"), (None, "deleted")])
def test_a_nested_export_in_use_cannot_change(
    parent: Parent, user: Parent, outputs: str | None, what: str
) -> None:
    reasons = parent.put(exported(parent.name, outputs) if outputs else {})

    assert f"Export {parent.name} cannot be {what} as it is in use by {user.name}" in reasons
    assert parent.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert parent.export() == {parent.name: "first"}


def test_a_nested_stack_whose_export_is_in_use_cannot_be_deleted(
    parent: Parent, user: Parent
) -> None:
    reasons = parent.delete()

    assert f"Export {parent.name} cannot be deleted as it is in use by {user.name}" in reasons
    assert parent.status() == "DELETE_FAILED"
    user.delete()
    parent.delete()
    assert parent.status() == "DELETE_COMPLETE"
    assert parent.export() == {}


def test_another_stack_cannot_have_the_name_of_a_nested_export(
    parent: Parent, server: LocalAws
) -> None:
    parent.put(exported(parent.name, "first"))

    reasons = Parent(server).put(exported(parent.name, "second"))

    assert f"Export with name {parent.name} is already exported by stack {parent.name}-" in reasons
    assert parent.export() == {parent.name: "first"}


def test_an_export_that_nobody_uses_can_be_renamed_and_then_not_be_imported(parent: Parent) -> None:
    parent.put(exported(parent.name, "first"))

    parent.put(exported(f"{parent.name}-new", "second"))

    assert parent.status() == "UPDATE_COMPLETE"
    assert parent.export() == {f"{parent.name}-new": "second"}
