"""Reads and permissions that lag behind changes, and lists of executions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import seams
from local_aws.server.world import World
from local_aws.services.stepfunctions.executions import Executions
from tests.local_aws.account import READ, REGISTER, policy, refused
from tests.local_aws.account import TRUST as TRUST_OF_VM_IMPORT
from tests.local_aws.custom_resources import TRUST, eventually
from tests.support.local_services import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import boto3

    from local_aws import LocalAws
    from tests.local_aws.account import Account

TRUST_POLICY = json.dumps({"Version": "2012-10-17", **TRUST})


@pytest.fixture
def lagging(aws: Account) -> Account:
    aws.server.knobs(read_lag_seconds=300)
    return aws


def test_an_image_is_found_when_the_lag_is_over(lagging: Account) -> None:
    task_id = lagging.start()
    arn = lagging.import_image(task_id)

    assert refused(lambda: lagging.image(arn))[0] == "ResourceNotFoundException"
    assert lagging.images.list_images()["imageVersionList"] == []
    lagging.server.advance(301)
    assert lagging.status(arn) == "PENDING"


def test_a_deleted_image_and_its_old_tags_are_shown_until_the_lag_is_over(aws: Account) -> None:
    arn = aws.import_image(tags={"a": "old"})
    aws.finish()
    aws.server.knobs(read_lag_seconds=300)

    aws.images.tag_resource(resourceArn=arn, tags={"a": "new"})
    aws.images.delete_image(imageBuildVersionArn=arn)

    assert aws.image(arn)["tags"] == {"a": "old"}
    aws.server.advance(301)
    assert refused(lambda: aws.image(arn))[0] == "ResourceNotFoundException"


def test_an_import_task_and_its_tags_are_shown_when_the_lag_is_over(lagging: Account) -> None:
    task_id = lagging.start()

    listed = lagging.ec2.describe_import_image_tasks()["ImportImageTasks"]
    assert listed == []
    lagging.server.advance(301)
    lagging.ec2.create_tags(Resources=[task_id], Tags=[{"Key": "a", "Value": "b"}])
    assert lagging.task(task_id)["Tags"] == []
    lagging.server.advance(301)
    assert lagging.task(task_id)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_tags_are_described_when_the_lag_is_over(lagging: Account) -> None:
    task_id = lagging.start()
    lagging.server.advance(301)
    lagging.ec2.create_tags(Resources=[task_id], Tags=[{"Key": "a", "Value": "b"}])

    def tags() -> list[str]:
        return [tag["Key"] for tag in lagging.ec2.describe_tags()["Tags"]]

    assert tags() == []
    lagging.server.advance(301)
    assert tags() == ["a"]


def test_an_attribute_of_an_ami_is_described_when_the_lag_is_over(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    ami = aws.task(task_id)["ImageId"]
    aws.server.knobs(read_lag_seconds=300)

    def users() -> list[str]:
        attribute = {"ImageId": ami, "Attribute": "launchPermission"}
        found = aws.ec2.describe_image_attribute(**attribute)["LaunchPermissions"]
        return [permission["UserId"] for permission in found]

    aws.ec2.modify_image_attribute(
        ImageId=ami, LaunchPermission={"Add": [{"UserId": "111122223333"}]}
    )
    assert users() == []
    aws.server.advance(301)
    assert users() == ["111122223333"]
    aws.ec2.deregister_image(ImageId=ami)
    assert users() == ["111122223333"]
    aws.server.advance(301)
    assert refused(users)[0] == "InvalidAMIID.NotFound"


def test_what_has_ended_is_still_shown_as_running_during_the_lag(aws: Account) -> None:
    task_id = aws.start()
    arn = aws.import_image(task_id)
    aws.server.knobs(read_lag_seconds=86400)

    aws.finish()

    assert (aws.task(task_id)["Status"], aws.status(arn)) == ("active", "PENDING")
    assert refused(lambda: aws.cancel(arn))[0] == "InvalidRequestException"
    aws.server.advance(86400)
    assert (aws.task(task_id)["Status"], aws.status(arn)) == ("completed", "AVAILABLE")


def test_the_status_of_a_stack_is_shown_when_the_lag_is_over(
    server: LocalAws, aws: Account, session: boto3.Session
) -> None:
    server.knobs(stack_lag_seconds=300)
    client: Any = session.client("cloudformation", aws_access_key_id=aws.account_id)
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}

    def stacks(**more: str) -> list[tuple[str, str]]:
        found = client.describe_stacks(**more)["Stacks"]
        return [(stack["StackName"], stack["StackStatus"]) for stack in found]

    id_ = client.create_stack(StackName="late", TemplateBody=json.dumps(template))["StackId"]

    assert stacks() == []
    assert refused(lambda: stacks(StackName=id_))[0] == "ValidationError"
    assert eventually(lambda: "CREATE_COMPLETE" in str(client.describe_stack_events(StackName=id_)))
    server.advance(301)
    assert stacks(StackName="late") == [("late", "CREATE_COMPLETE")]
    client.delete_stack(StackName="late")
    assert stacks(StackName=id_) == [("late", "CREATE_COMPLETE")]
    server.advance(301)
    assert stacks(StackName=id_) == [("late", "DELETE_COMPLETE")]
    assert stacks() == []


def test_a_stack_is_not_shown_until_the_whole_lag_is_over(
    server: LocalAws, aws: Account, session: boto3.Session
) -> None:
    server.knobs(stack_lag_seconds=86400)
    client: Any = session.client("cloudformation", aws_access_key_id=aws.account_id)
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    id_ = client.create_stack(StackName="late", TemplateBody=json.dumps(template))["StackId"]
    assert eventually(lambda: "CREATE_COMPLETE" in str(client.describe_stack_events(StackName=id_)))

    server.advance(80000)

    assert client.describe_stacks()["Stacks"] == []
    server.advance(6401)
    assert len(client.describe_stacks()["Stacks"]) == 1


@pytest.fixture
def machine(aws: Account, session: boto3.Session) -> Iterator[tuple[Any, str]]:
    """A state machine whose executions wait for a day."""
    states: Any = session.client("stepfunctions", aws_access_key_id=aws.account_id)
    wait = {"Type": "Wait", "Seconds": 86400, "End": True}
    arn = states.create_state_machine(
        name="waiting",
        definition=json.dumps({"StartAt": "Wait", "States": {"Wait": wait}}),
        roleArn=f"arn:aws:iam::{aws.account_id}:role/any",
    )["stateMachineArn"]
    yield states, arn
    states.delete_state_machine(stateMachineArn=arn)


def listed(states: Any, arn: str, **more: Any) -> list[str]:
    pages = states.get_paginator("list_executions").paginate(stateMachineArn=arn, **more)
    return [execution["name"] for page in pages for execution in page["executions"]]


def test_executions_are_listed_by_start_while_they_run_and_by_end_afterwards(
    server: LocalAws, machine: tuple[Any, str]
) -> None:
    states, arn = machine
    started = {}
    for name in ("first", "second", "third"):
        request = {"stateMachineArn": arn, "name": name}
        started[name] = states.start_execution(**request)["executionArn"]
        server.advance(10)
    assert listed(states, arn) == ["third", "second", "first"]

    states.stop_execution(executionArn=started["first"])

    assert listed(states, arn) == ["first", "third", "second"]
    assert listed(states, arn, statusFilter="RUNNING") == ["third", "second"]


def test_a_page_has_100_executions_unless_maxresults_asks_for_up_to_1000(
    machine: tuple[Any, str],
) -> None:
    states, arn = machine
    for number in range(101):
        states.start_execution(stateMachineArn=arn, name=str(number))

    first = states.list_executions(stateMachineArn=arn)
    rest = states.list_executions(stateMachineArn=arn, nextToken=first["nextToken"])

    assert (len(first["executions"]), len(rest["executions"])) == (100, 1)
    assert "nextToken" not in rest
    larger = states.list_executions(stateMachineArn=arn, maxResults=1000)
    assert (len(larger["executions"]), larger.get("nextToken")) == (101, None)
    assert refused(lambda: states.list_executions(stateMachineArn=arn, nextToken="no"))[0] == (
        "InvalidToken"
    )
    too_large = refused(lambda: states.list_executions(stateMachineArn=arn, maxResults=1001))
    assert too_large[0] == "ValidationException"


def test_an_account_that_lists_executions_too_often_is_throttled() -> None:
    clock = VirtualClock()
    executions = Executions(World(clock))

    def calls_until_throttled() -> int:
        return next(
            number
            for number in range(1000)
            if b"ThrottlingException" in executions.respond({"stateMachineArn": "none"})[2]
        )

    assert calls_until_throttled() == 200
    clock.advance(2)
    assert calls_until_throttled() == 10
    with seams.request_scope("111122223333", "us-east-1"):
        assert calls_until_throttled() == 200
    with seams.request_scope(seams.get_account_id(), "eu-west-1"):
        assert calls_until_throttled() == 200


def test_a_token_of_a_list_of_executions_expires_after_24_hours(
    server: LocalAws, machine: tuple[Any, str]
) -> None:
    states, arn = machine
    for number in range(2):
        states.start_execution(stateMachineArn=arn, name=str(number))
    token = states.list_executions(stateMachineArn=arn, maxResults=1)["nextToken"]
    following = {"stateMachineArn": arn, "nextToken": token}

    server.advance(86_000)
    assert len(states.list_executions(**following)["executions"]) == 1
    server.advance(500)
    assert refused(lambda: states.list_executions(**following))[0] == "InvalidToken"


def test_executions_of_a_state_machine_or_of_a_map_run_are_listed_but_not_of_both(
    machine: tuple[Any, str],
) -> None:
    states, arn = machine
    run = arn.replace("stateMachine", "mapRun") + "/label:1"

    def code(**request: Any) -> str:
        return refused(lambda: states.list_executions(**request))[0]

    assert code(stateMachineArn=arn, mapRunArn=run) == "ValidationException"
    assert code() == "ValidationException"
    assert code(mapRunArn=run) == "ResourceNotFound"
    assert code(stateMachineArn=arn, statusFilter="PENDING_REDRIVE") == "ValidationException"
    assert code(stateMachineArn=arn, redriveFilter="REDRIVEN") == "ValidationException"


def test_the_executions_of_a_map_run_are_listed(machine: tuple[Any, str]) -> None:
    states, arn = machine
    item = {"StartAt": "End", "States": {"End": {"Type": "Pass", "End": True}}}
    mode = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}}
    each = {"Type": "Map", "ItemProcessor": mode | item, "End": True}
    definition = json.dumps({"StartAt": "Each", "States": {"Each": each}})
    states.update_state_machine(stateMachineArn=arn, definition=definition)
    execution = states.start_execution(stateMachineArn=arn, input="[1, 2, 3]")["executionArn"]
    assert eventually(lambda: states.list_map_runs(executionArn=execution)["mapRuns"])
    (run,) = states.list_map_runs(executionArn=execution)["mapRuns"]

    def children() -> list[dict[str, Any]]:
        found = states.list_executions(mapRunArn=run["mapRunArn"], statusFilter="SUCCEEDED")
        return list(found["executions"])

    assert eventually(lambda: len(children()) == 3)
    assert {child["mapRunArn"] for child in children()} == {run["mapRunArn"]}
    assert len(listed(states, arn)) == 1


def test_executions_are_listed_when_the_lag_is_over(
    server: LocalAws, machine: tuple[Any, str]
) -> None:
    states, arn = machine
    server.knobs(read_lag_seconds=300)
    execution = states.start_execution(stateMachineArn=arn, name="one")["executionArn"]
    assert listed(states, arn) == []
    server.advance(301)
    assert listed(states, arn) == ["one"]

    states.stop_execution(executionArn=execution)

    assert listed(states, arn, statusFilter="RUNNING") == ["one"]
    server.advance(301)
    assert listed(states, arn, statusFilter="RUNNING") == []


ALLOW = policy({"Effect": "Allow", "Action": "imagebuilder:ListImages", "Resource": "*"})
DENY = policy({"Effect": "Deny", "Action": "imagebuilder:ListImages", "Resource": "*"})


class Caller:
    """A role or a user, to which IAM changes apply late."""

    def __init__(self, server: LocalAws, name: str) -> None:
        self.server = server
        self.name = name
        self.session: Any = server.session()
        self.iam: Any = self.session.client("iam")

    def assume(self) -> Caller:
        trust = TRUST_POLICY.replace('"Service": "lambda.amazonaws.com"', '"AWS": "*"')
        request = {"RoleName": self.name, "AssumeRolePolicyDocument": trust}
        role = self.iam.create_role(**request)["Role"]["Arn"]
        sts = self.session.client("sts")
        return self.use(sts.assume_role(RoleArn=role, RoleSessionName="late")["Credentials"])

    def create(self) -> Caller:
        self.iam.create_user(UserName=self.name)
        return self.use(self.iam.create_access_key(UserName=self.name)["AccessKey"])

    def use(self, keys: dict[str, str]) -> Caller:
        self.images = self.session.client(
            "imagebuilder",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
        )
        return self

    def may(self) -> bool:
        try:
            self.images.list_images()
        except self.images.exceptions.AccessDeniedException:
            return False
        return True

    def changes_late(self, change: Callable[[], object]) -> bool:
        """Return whether the caller may do what it may not, or the reverse, after a change."""
        before = self.may()
        self.server.knobs(iam_lag_seconds=3600)
        change()
        assert self.may() is before
        self.server.knobs(iam_lag_seconds=0)
        self.server.advance(3601)
        return self.may() is not before

    def managed(self) -> str:
        """Attach a new policy, and return its ARN."""
        create = self.iam.create_policy
        arn = create(PolicyName=self.name, PolicyDocument=ALLOW)["Policy"]["Arn"]
        self.iam.attach_role_policy(RoleName=self.name, PolicyArn=arn)
        return str(arn)


def test_a_role_has_its_new_policies_when_the_lag_is_over(enforcing: LocalAws) -> None:
    role = Caller(enforcing, "late").assume()
    inline = {"RoleName": "late", "PolicyName": "p"}

    assert role.changes_late(lambda: role.iam.put_role_policy(**inline, PolicyDocument=ALLOW))
    assert role.changes_late(lambda: role.iam.delete_role_policy(**inline))


def test_a_role_has_the_new_version_of_its_policy_when_the_lag_is_over(
    enforcing: LocalAws,
) -> None:
    role = Caller(enforcing, "late-version").assume()
    version = {"PolicyArn": role.managed(), "PolicyDocument": DENY, "SetAsDefault": True}

    assert role.changes_late(lambda: role.iam.create_policy_version(**version))


def test_a_role_has_its_permissions_boundary_when_the_lag_is_over(enforcing: LocalAws) -> None:
    role = Caller(enforcing, "late-boundary").assume()
    role.managed()
    boundary = {"PolicyName": "late-limits", "PolicyDocument": DENY}
    arn = role.iam.create_policy(**boundary)["Policy"]["Arn"]

    def limit() -> None:
        role.iam.put_role_permissions_boundary(RoleName=role.name, PermissionsBoundary=arn)

    assert role.changes_late(limit)
    assert role.changes_late(lambda: role.iam.delete_role_permissions_boundary(RoleName=role.name))


def test_a_user_has_its_new_policies_when_the_lag_is_over(enforcing: LocalAws) -> None:
    user = Caller(enforcing, "late-user").create()
    inline = {"UserName": user.name, "PolicyName": "p"}

    assert user.changes_late(lambda: user.iam.put_user_policy(**inline, PolicyDocument=ALLOW))
    assert user.changes_late(lambda: user.iam.delete_user_policy(**inline))


def test_a_service_can_assume_a_new_role_when_the_lag_is_over(aws: Account) -> None:
    aws.server.knobs(iam_lag_seconds=300)

    assert refused(aws.start)[0] == "InvalidParameter"
    aws.server.advance(301)
    aws.start()


def test_a_service_sees_the_trust_policy_of_a_role_when_the_lag_is_over(aws: Account) -> None:
    aws.start()
    aws.server.knobs(iam_lag_seconds=300)

    aws.iam.update_assume_role_policy(RoleName="vmimport", PolicyDocument=TRUST_POLICY)

    aws.start()
    aws.server.advance(301)
    assert refused(aws.start)[0] == "InvalidParameter"


def test_a_service_sees_an_update_of_a_role_by_a_stack_when_the_lag_is_over(
    aws: Account, session: boto3.Session
) -> None:
    client: Any = session.client("cloudformation", aws_access_key_id=aws.account_id)

    def put(act: Callable[..., object], trust: dict[str, Any]) -> None:
        policy = {"PolicyName": "disks", "PolicyDocument": {"Statement": [READ, REGISTER]}}
        role = {"RoleName": "vmimport", "AssumeRolePolicyDocument": trust, "Policies": [policy]}
        resources = {"Role": {"Type": "AWS::IAM::Role", "Properties": role}}
        capabilities = {"Capabilities": ["CAPABILITY_NAMED_IAM"]}
        body = json.dumps({"Resources": resources})
        act(StackName="role", TemplateBody=body, **capabilities)
        assert eventually(lambda: status().endswith("_COMPLETE"))

    def status() -> str:
        return str(client.describe_stacks(StackName="role")["Stacks"][0]["StackStatus"])

    put(client.create_stack, {"Statement": [TRUST_OF_VM_IMPORT]})
    aws.start()
    aws.server.knobs(iam_lag_seconds=86400)

    put(client.update_stack, TRUST)

    assert status() == "UPDATE_COMPLETE"
    aws.start()
    aws.server.advance(86401)
    assert refused(aws.start)[0] == "InvalidParameter"
