"""Stacks that are deleted during their creation, and the Delete after a failed create."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.custom_resources import FUNCTION, Stack, custom, eventually

if TYPE_CHECKING:
    from local_aws import LocalAws

_NESTED = "AWS::CloudFormation::Stack"


@pytest.fixture
def stack(server: LocalAws) -> Stack:
    return Stack(server)


def test_a_stack_deleted_during_its_creation_sends_delete_with_a_generated_id(
    stack: Stack,
) -> None:
    stack.create({"Slow": custom(Create="NONE"), "Later": custom(after=("Slow",))})
    assert eventually(lambda: stack.requests() == ["Create Slow"])

    stack.delete()

    assert stack.ends("DELETE_COMPLETE")
    create, delete = stack.received()
    assert delete["RequestType"] == "Delete"
    assert delete["ResourceProperties"] == create["ResourceProperties"]
    assert re.fullmatch(f"{stack.name}-Slow-[A-Z0-9]{{13}}", delete["PhysicalResourceId"])
    assert stack.statuses("Slow") == [
        "CREATE_IN_PROGRESS",
        "CREATE_FAILED",
        "DELETE_IN_PROGRESS",
        "DELETE_COMPLETE",
    ]
    assert "Resource creation cancelled" in str(stack.events())
    assert stack.statuses("Later") == []
    assert stack.statuses("Function")[-1] == "DELETE_COMPLETE"


def test_a_late_response_does_not_continue_a_cancelled_creation(stack: Stack) -> None:
    slow = custom(PauseCreate="300", PauseDelete="600")
    before = stack.pauses()
    stack.create({"Slow": slow, "Later": custom(after=("Slow",))})
    assert eventually(lambda: stack.pauses() == before + 1)

    stack.delete()
    assert eventually(lambda: stack.pauses() == before + 2)
    for line in ("responded to Create", "responded to Delete"):
        while line not in stack.log():
            stack.server.advance(60)

    assert stack.ends("DELETE_COMPLETE")
    # Sorted: invocations write their logs at their end, and either may end first.
    assert sorted(stack.requests()) == ["Create Slow", "Delete Slow"]


@pytest.mark.parametrize(
    ("policy", "is_retained"),
    [("Delete", False), ("RetainExceptOnCreate", False), ("Retain", True)],
)
def test_only_deletion_policy_retain_retains_a_resource_without_a_response(
    stack: Stack, policy: str, *, is_retained: bool
) -> None:
    stack.create({"Slow": custom(Create="NONE", policy=policy)})
    assert eventually(lambda: stack.requests() == ["Create Slow"])

    stack.delete()

    assert stack.ends("DELETE_COMPLETE")
    # Lambda writes the log of a function after the function has responded.
    assert eventually(lambda: ("Delete Slow" in stack.requests()) is not is_retained)
    assert ("DELETE_SKIPPED" in stack.statuses("Slow")) is is_retained


@pytest.mark.parametrize("policy", ["RetainExceptOnCreate", "Retain"])
def test_resources_created_before_the_deletion_are_retained_by_their_policy(
    stack: Stack, policy: str
) -> None:
    stack.create({"Made": custom(policy=policy), "Slow": custom(Create="NONE", after=("Made",))})
    assert eventually(lambda: "Create Slow" in stack.requests())

    stack.delete()

    assert stack.ends("DELETE_COMPLETE")
    assert stack.requests() == ["Create Made", "Create Slow", "Delete Slow"]


def test_a_failed_create_is_followed_by_a_delete_with_the_id_of_its_response(
    stack: Stack,
) -> None:
    stack.create({"First": custom(), "Thing": custom(Create="FAILED", after=("First",))})

    assert stack.ends("ROLLBACK_COMPLETE")
    assert stack.requests() == ["Create First", "Create Thing", "Delete Thing", "Delete First"]
    assert stack.received()[2]["PhysicalResourceId"] == "its-own-id"


def test_a_failed_create_without_rollback_is_deleted_with_its_stack(
    stack: Stack,
) -> None:
    stack.create({"Thing": custom(Create="FAILED")}, DisableRollback=True)
    assert stack.ends("CREATE_FAILED")
    assert stack.requests() == ["Create Thing"]

    stack.delete()

    assert stack.ends("DELETE_COMPLETE")
    assert stack.requests() == ["Create Thing", "Delete Thing"]


@pytest.mark.parametrize("again", ["SUCCESS", "FAILED"], ids=["changed", "same"])
def test_a_failed_creation_is_deleted_and_created_again_by_the_next_deployment(
    stack: Stack, again: str
) -> None:
    first = {"First": custom()}
    later = {"Later": custom(after=("Failing",))}
    stack.create(
        first | {"Failing": custom(Create="FAILED", after=("First",))} | later,
        DisableRollback=True,
    )
    assert stack.ends("CREATE_FAILED")

    stack.deploy_again(first | {"Failing": custom(Create=again, after=("First",))} | later)

    assert stack.ends("UPDATE_COMPLETE" if again == "SUCCESS" else "UPDATE_FAILED")
    requests = ["Create First", "Create Failing", "Delete Failing", "Create Failing"]
    assert stack.requests() == requests + ["Create Later"] * (again == "SUCCESS")
    assert stack.received()[2]["PhysicalResourceId"] == "its-own-id"


def test_a_failed_creation_is_retained_if_its_policy_says_so(stack: Stack) -> None:
    retained = {"DeletionPolicy": "Retain"}
    stack.create({"Failing": custom(Create="FAILED") | retained}, DisableRollback=True)
    assert stack.ends("CREATE_FAILED")

    stack.deploy_again({"Failing": custom(Create="SUCCESS") | retained})

    assert stack.ends("UPDATE_COMPLETE")
    assert stack.requests() == ["Create Failing", "Create Failing"]


def test_a_failed_creation_can_be_deleted_after_the_next_one(stack: Stack) -> None:
    stack.server.knobs(failed_creation_deleted="after")
    try:
        stack.create({"Failing": custom(Create="FAILED")}, DisableRollback=True)
        assert stack.ends("CREATE_FAILED")

        stack.deploy_again({"Failing": custom(Create="SUCCESS")})

        requests = ["Create Failing", "Create Failing", "Delete Failing"]
        assert eventually(lambda: stack.requests() == requests)
        assert stack.ends("UPDATE_COMPLETE")
    finally:
        stack.server.knobs(failed_creation_deleted="before")


def test_a_failed_create_in_an_update_is_followed_by_a_delete(stack: Stack) -> None:
    stack.create({"First": custom()})
    assert stack.ends("CREATE_COMPLETE")

    stack.update({"First": custom(), "Thing": custom(Create="FAILED")})

    assert stack.ends("UPDATE_ROLLBACK_COMPLETE")
    assert stack.requests() == ["Create First", "Create Thing", "Delete Thing"]


def test_a_stack_that_is_being_updated_cannot_be_deleted(stack: Stack) -> None:
    stack.create({"Thing": custom()})
    assert stack.ends("CREATE_COMPLETE")
    stack.update({"Thing": custom(Update="NONE")})

    with pytest.raises(ClientError, match="cannot be deleted while in status UPDATE_IN_PROGRESS"):
        stack.delete()


def test_a_nested_stack_is_cancelled_and_deleted_with_its_parent(stack: Stack) -> None:
    stack.s3.create_bucket(Bucket=stack.name)
    nested = json.dumps({"Resources": FUNCTION | {"Slow": custom(Create="NONE")}})
    body = nested.replace('{"Ref": "AWS::StackName"}', json.dumps(stack.name))
    stack.s3.put_object(Bucket=stack.name, Key="nested.json", Body=body.encode())
    url = f"{stack.server.environment['AWS_ENDPOINT_URL']}/{stack.name}/nested.json"
    stack.create({"Nested": {"Type": _NESTED, "Properties": {"TemplateURL": url}}})
    assert eventually(lambda: stack.requests() == ["Create Slow"])

    stack.delete()

    assert stack.ends("DELETE_COMPLETE")
    assert stack.requests() == ["Create Slow", "Delete Slow"]
    assert stack.statuses("Nested")[-1] == "DELETE_COMPLETE"
