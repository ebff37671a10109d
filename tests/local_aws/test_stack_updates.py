"""Updates of stacks: exports in use, the order of resources, and the clean-up."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.custom_resources import FUNCTION, Stack, custom, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws

_numbers = itertools.count()


@pytest.fixture
def stack(server: LocalAws) -> Iterator[Stack]:
    before = server.knobs()
    yield Stack(server)
    server.knobs(**before)


class Exporter:
    """A stack with an export, and perhaps one that imports it."""

    def __init__(self, server: LocalAws) -> None:
        self._client: Any = server.session().client("cloudformation")
        self.name = f"exporter-{next(_numbers)}"

    def put(
        self, value: str, *, export: str = "", is_exported: bool = True, after: str = ""
    ) -> str:
        """Create or update the stack, maybe with a first export that nobody uses.

        Returns:
            The reasons in its events.
        """
        exported = {"Export": {"Name": export or self.name}} if is_exported else {}
        first = {"First": {"Value": "1", "Export": {"Name": after}}} if after else {}
        return self._put(self.name, {**first, "Out": {"Value": value, **exported}})

    def add_user(self) -> str:
        name = f"{self.name}-user"
        self._put(name, {"Out": {"Value": {"Fn::ImportValue": self.name}}})
        return name

    def status(self) -> str:
        (stack,) = self._client.describe_stacks(StackName=self.name)["Stacks"]
        return str(stack["StackStatus"])

    def value(self) -> str:
        (stack,) = self._client.describe_stacks(StackName=self.name)["Stacks"]
        return str(stack["Outputs"][0]["OutputValue"])

    def _put(self, name: str, outputs: dict[str, Any]) -> str:
        resources = {"Topic": {"Type": "AWS::SNS::Topic"}}
        template = json.dumps({"Resources": resources, "Outputs": outputs})
        known = {s["StackName"] for s in self._client.describe_stacks()["Stacks"]}
        put = self._client.update_stack if name in known else self._client.create_stack
        put(StackName=name, TemplateBody=template)

        def has_ended() -> bool:
            (stack,) = self._client.describe_stacks(StackName=name)["Stacks"]
            return not stack["StackStatus"].endswith("IN_PROGRESS")

        assert eventually(has_ended)
        events = self._client.describe_stack_events(StackName=name)["StackEvents"]
        return " ".join(event.get("ResourceStatusReason", "") for event in events)


@pytest.mark.parametrize(("is_exported", "what"), [(True, "updated"), (False, "deleted")])
def test_an_export_in_use_cannot_change(server: LocalAws, what: str, *, is_exported: bool) -> None:
    exporter = Exporter(server)
    exporter.put("first")
    user = exporter.add_user()

    reasons = exporter.put("second", is_exported=is_exported)

    assert f"Export {exporter.name} cannot be {what} as it is in use by {user}" in reasons
    assert exporter.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert exporter.value() == "first"


def test_an_export_in_use_cannot_change_after_one_that_nobody_uses(server: LocalAws) -> None:
    exporter = Exporter(server)
    unused = f"{exporter.name}-unused"
    exporter.put("first", after=unused)
    user = exporter.add_user()

    reasons = exporter.put("second", after=unused)

    assert f"Export {exporter.name} cannot be updated as it is in use by {user}" in reasons
    assert exporter.status() == "UPDATE_ROLLBACK_COMPLETE"


def test_another_stack_cannot_have_the_name_of_an_export(server: LocalAws) -> None:
    first, second = Exporter(server), Exporter(server)
    first.put("first")

    reasons = second.put("second", export=first.name)

    assert f"Export with name {first.name} is already exported by stack {first.name}" in reasons
    assert (first.value(), second.status()) == ("first", "ROLLBACK_COMPLETE")


def test_an_export_that_nobody_uses_can_change(server: LocalAws) -> None:
    exporter = Exporter(server)
    exporter.put("first")

    exporter.put("second")

    assert (exporter.status(), exporter.value()) == ("UPDATE_COMPLETE", "second")


def test_a_clean_up_deletes_what_was_replaced_a_while_later_with_its_old_properties(
    stack: Stack,
) -> None:
    stack.create({"Thing": custom(Id="first")})
    assert stack.ends("CREATE_COMPLETE")
    stack.server.knobs(clean_up_seconds=10**9)

    stack.update({"Thing": custom(Id="second")})

    assert stack.ends("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    # As long as a Delete takes.
    other = Stack(stack.server)
    other.create({"Thing": custom()})
    assert other.ends("CREATE_COMPLETE")
    other.delete()
    assert other.ends("DELETE_COMPLETE")
    assert stack.status() == "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
    assert stack.requests() == ["Create Thing", "Update Thing"]
    while stack.status() != "UPDATE_COMPLETE":
        stack.server.advance(10**9)
    # Lambda writes the log of a function after the function has responded.
    assert eventually(lambda: "Delete Thing" in stack.requests())
    (delete,) = [event for event in stack.received() if event["RequestType"] == "Delete"]
    assert (delete["PhysicalResourceId"], delete["ResourceProperties"]["Id"]) == ("first", "first")


def test_a_clean_up_of_all_types_begins_a_while_after_the_update(stack: Stack) -> None:
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": stack.name}}
    sns: Any = stack.server.session().client("sns")

    def topic_exists() -> bool:
        return f":{stack.name}'" in str(sns.list_topics()["Topics"])

    # The topic would be the first to be deleted, and the things the next.
    things = {name: custom(after=("Role",)) for name in ("A", "B")}
    stack.create({**things, "Topic": {**topic, "DependsOn": ["A", "B"]}})
    assert stack.ends("CREATE_COMPLETE")
    stack.server.knobs(clean_up_seconds=10**6)

    stack.update({})

    assert stack.ends("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    stack.server.advance(10**6 - 3600)
    assert topic_exists()
    assert stack.requests() == ["Create A", "Create B"]
    stack.server.advance(3600)
    assert stack.ends("UPDATE_COMPLETE")
    assert not topic_exists()
    assert eventually(lambda: stack.requests()[2:] == ["Delete B", "Delete A"])


def test_a_clean_up_of_a_rollback_begins_once_for_all(stack: Stack) -> None:
    stack.create({})
    assert stack.ends("CREATE_COMPLETE")
    stack.server.knobs(clean_up_seconds=10**6)

    stack.update({"A": custom(), "Failing": custom(Create="FAILED", after=("A",))})

    assert stack.ends("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
    assert stack.requests() == ["Create A", "Create Failing"]
    stack.server.advance(10**6)
    assert stack.ends("UPDATE_ROLLBACK_COMPLETE")
    assert eventually(lambda: stack.requests()[2:] == ["Delete Failing", "Delete A"])


def role(description: str) -> dict[str, Any]:
    resource: dict[str, Any] = json.loads(json.dumps(FUNCTION["Role"]))
    resource["Properties"]["Description"] = description
    return {"Role": resource}


def updates_and_deletions(stack: Stack) -> list[tuple[str, str]]:
    seen = [(event["LogicalResourceId"], event["ResourceStatus"]) for event in stack.events()]
    ends = {("Role", "UPDATE_COMPLETE"), ("Thing", "DELETE_COMPLETE")}
    return [end for end in seen if end in ends]


def test_a_role_is_updated_before_the_clean_up(stack: Stack) -> None:
    stack.create({**role("old"), "Thing": custom()})
    assert stack.ends("CREATE_COMPLETE")

    stack.update(role("new"))

    assert stack.ends("UPDATE_COMPLETE")
    cleanup = [status for status in stack.statuses(stack.name) if status.startswith("UPDATE_")]
    assert cleanup == [
        "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_COMPLETE",
    ]
    events = [(event["LogicalResourceId"], event["ResourceStatus"]) for event in stack.events()]
    role_is_updated = events.index(("Role", "UPDATE_COMPLETE"))
    assert role_is_updated < events.index((stack.name, cleanup[1]))
    assert stack.requests() == ["Create Thing", "Delete Thing"]


def test_a_role_is_rolled_back_before_the_clean_up_of_the_rollback(stack: Stack) -> None:
    stack.create(role("old"))
    assert stack.ends("CREATE_COMPLETE")

    failing = custom(Create="FAILED", after=("Thing",))
    stack.update({**role("new"), "Thing": custom(), "Failing": failing})

    assert stack.ends("UPDATE_ROLLBACK_COMPLETE")
    assert updates_and_deletions(stack) == [
        ("Role", "UPDATE_COMPLETE"),
        ("Role", "UPDATE_COMPLETE"),
        ("Thing", "DELETE_COMPLETE"),
    ]


@pytest.mark.parametrize(("order", "created"), [("by_name", ["A", "B"]), ("reverse", ["B", "A"])])
def test_resources_that_do_not_depend_on_each_other_have_any_order(
    stack: Stack, order: str, created: list[str]
) -> None:
    stack.server.knobs(resource_order=order)
    stack.create({"A": custom(), "B": custom(), "C": custom(after=("A", "B"))})
    assert stack.ends("CREATE_COMPLETE")

    stack.delete()

    assert stack.ends("DELETE_COMPLETE")
    first, second = created
    assert stack.requests() == [
        *(f"Create {name}" for name in (first, second, "C")),
        *(f"Delete {name}" for name in ("C", second, first)),
    ]
