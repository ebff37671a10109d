"""CloudFormation uses the execution role of a stack, or the permissions of its caller."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local_aws import LocalAws

_numbers = itertools.count()
CODE = """
import json, urllib.request
def handler(event, context):
    result = {"Status": "SUCCESS", "PhysicalResourceId": "thing"}
    result |= {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    urllib.request.urlopen(urllib.request.Request(
        event["ResponseURL"], json.dumps(result).encode(), method="PUT"))
"""


def trust(service: str) -> dict[str, Any]:
    principal = {"Service": f"{service}.amazonaws.com"}
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}],
    }


ROLE = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust("lambda")}}
WAITER = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust("states")}}
FUNCTION = {
    "Type": "AWS::Lambda::Function",
    "Properties": {
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Code": {"ZipFile": CODE},
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
    },
}
THING = {
    "Type": "Custom::Thing",
    "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}},
}
MACHINE = {
    "Type": "AWS::StepFunctions::StateMachine",
    "Properties": {
        "RoleArn": {"Fn::GetAtt": ["Waiter", "Arn"]},
        "DefinitionString": '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
    },
}
ALL = {"Role": ROLE, "Function": FUNCTION, "Waiter": WAITER, "Thing": THING, "Machine": MACHINE}
ACTIONS = {
    "iam:CreateRole",
    "iam:DeleteRole",
    "iam:PassRole",
    "lambda:CreateFunction",
    "lambda:DeleteFunction",
    "lambda:InvokeFunction",
    "states:CreateStateMachine",
    "states:DeleteStateMachine",
}


@dataclass
class Deployer:
    """The administrator of an account, a role for CloudFormation, and a stack."""

    server: LocalAws
    name: str = field(default_factory=lambda: f"by-role-{next(_numbers)}")

    def __post_init__(self) -> None:
        session: Any = self.server.session()
        self.iam, self.cloudformation = session.client("iam"), session.client("cloudformation")
        self.s3 = session.client("s3")

    def role(self, actions: Iterable[str], trusted: str = "cloudformation") -> str:
        """Create or change a role with permissions for these actions, and return its ARN."""
        statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
        return self.role_by(statement, trusted)

    def role_by(self, statement: dict[str, Any], trusted: str = "cloudformation") -> str:
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        arn = f"arn:aws:iam::123456789012:role/{self.name}"
        with suppress(self.iam.exceptions.EntityAlreadyExistsException):
            self.iam.create_role(
                RoleName=self.name, AssumeRolePolicyDocument=json.dumps(trust(trusted))
            )
        self.iam.put_role_policy(RoleName=self.name, PolicyName="p", PolicyDocument=document)
        return arn

    def user(self, *statements: dict[str, Any]) -> Any:
        """Create a user with these permissions, and return its CloudFormation client."""
        self.iam.create_user(UserName=self.name)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document)
        key = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        session: Any = self.server.session()
        return session.client(
            "cloudformation",
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )

    def create(self, resources: dict[str, Any], client: Any = None, **more: Any) -> str:
        """Create the stack and return its status."""
        (client or self.cloudformation).create_stack(**self.request(resources), **more)
        return self.status()

    def request(self, resources: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"Resources": resources})
        return {
            "StackName": self.name,
            "TemplateBody": body,
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }

    def update(self, resources: dict[str, Any]) -> str:
        self.cloudformation.update_stack(**self.request(resources))
        return self.status()

    def delete(self) -> str:
        self.cloudformation.delete_stack(StackName=self.name)
        return self.status()

    def status(self) -> str:
        """Wait until the operation of the stack ends, and return its status."""
        while True:
            time.sleep(0.05)
            found = self.cloudformation.describe_stacks(StackName=self.id())["Stacks"]
            if not found[0]["StackStatus"].endswith("_IN_PROGRESS"):
                return str(found[0]["StackStatus"])

    def id(self) -> str:
        return str(self.events()[0]["StackId"])

    def events(self) -> list[dict[str, Any]]:
        found = self.cloudformation.describe_stack_events(StackName=self.name)
        return list(found["StackEvents"])

    def reasons(self) -> str:
        return " ".join(event.get("ResourceStatusReason", "") for event in self.events())


@pytest.fixture
def deployer(enforcing: LocalAws) -> Deployer:
    return Deployer(enforcing)


def test_a_role_with_the_permissions_of_its_resources_can_create_and_delete_them(
    deployer: Deployer,
) -> None:
    assert deployer.create(ALL, RoleARN=deployer.role(ACTIONS)) == "CREATE_COMPLETE"
    assert deployer.delete() == "DELETE_COMPLETE"


@pytest.mark.parametrize("action", sorted(a for a in ACTIONS if "Delete" not in a))
def test_a_resource_fails_with_the_name_of_the_action_that_the_role_lacks(
    deployer: Deployer, action: str
) -> None:
    role = deployer.role(ACTIONS - {action})
    assert deployer.create(ALL, RoleARN=role) == "ROLLBACK_COMPLETE"
    session = f"arn:aws:sts::123456789012:assumed-role/{deployer.name}/AWSCloudFormation"
    denial = f"User: {session} is not authorized to perform: {action} on resource: arn:aws:"
    assert denial in deployer.reasons()
    assert "AccessDenied" in deployer.reasons()


def test_a_deletion_fails_if_the_role_may_not_delete(deployer: Deployer) -> None:
    role = deployer.role(ACTIONS - {"lambda:DeleteFunction"})
    assert deployer.create(ALL, RoleARN=role) == "CREATE_COMPLETE"
    assert deployer.delete() == "DELETE_FAILED"
    assert "lambda:DeleteFunction" in deployer.reasons()


def test_an_update_needs_permissions_for_what_it_changes(deployer: Deployer) -> None:
    actions = ACTIONS | {"lambda:UpdateFunctionConfiguration"}
    deployer.create(ALL, RoleARN=deployer.role(actions))
    code = {**FUNCTION["Properties"], "Code": {"ZipFile": CODE + "# changed"}}  # type: ignore[dict-item]
    changed = {**ALL, "Function": {**FUNCTION, "Properties": code}}

    assert deployer.update(changed) == "UPDATE_ROLLBACK_COMPLETE"
    assert "lambda:UpdateFunctionCode" in deployer.reasons()

    deployer.role(actions | {"lambda:UpdateFunctionCode"})
    assert deployer.update(changed) == "UPDATE_COMPLETE"


def test_a_role_can_be_limited_to_resource_names(deployer: Deployer) -> None:
    mine = [f"arn:aws:iam::123456789012:role/{deployer.name}-*"]
    role = deployer.role_by({"Effect": "Allow", "Action": "iam:*", "Resource": mine})
    assert deployer.create({"Role": ROLE}, RoleARN=role) == "CREATE_COMPLETE"
    named = {**ROLE, "Properties": {**ROLE["Properties"], "RoleName": "other"}}  # type: ignore[dict-item]
    assert deployer.update({"Role": ROLE, "Named": named}) == "UPDATE_ROLLBACK_COMPLETE"


def test_pass_role_is_limited_to_the_service_that_uses_the_role(deployer: Deployer) -> None:
    to_lambda = {
        "Effect": "Allow",
        "Action": sorted(ACTIONS),
        "Resource": "*",
        "Condition": {
            "StringEqualsIfExists": {"iam:PassedToService": "lambda.amazonaws.com"},
        },
    }
    role = deployer.role_by(to_lambda)
    assert deployer.create(ALL, RoleARN=role) == "ROLLBACK_COMPLETE"
    assert "iam:PassRole on resource" in deployer.reasons()
    assert {e["LogicalResourceId"] for e in deployer.events() if "CREATE_F" in str(e)} == {
        "Machine"
    }


def test_a_stack_keeps_its_role_for_later_operations(deployer: Deployer) -> None:
    deployer.create({"Role": ROLE}, RoleARN=deployer.role({"iam:CreateRole"}))
    assert deployer.delete() == "DELETE_FAILED"
    assert "iam:DeleteRole" in deployer.reasons()


def test_the_role_of_a_change_set_is_used_when_it_is_executed(deployer: Deployer) -> None:
    client, role = deployer.cloudformation, deployer.role({"iam:DeleteRole"})
    request = {**deployer.request({"Role": ROLE}), "ChangeSetName": "first", "RoleARN": role}
    client.create_change_set(**request, ChangeSetType="CREATE")
    client.execute_change_set(StackName=deployer.name, ChangeSetName="first")
    assert deployer.status() == "ROLLBACK_COMPLETE"
    assert "iam:CreateRole" in deployer.reasons()


def test_a_stack_without_a_role_uses_the_permissions_of_its_caller(deployer: Deployer) -> None:
    client = deployer.user({"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"})
    assert deployer.create({"Role": ROLE}, client) == "ROLLBACK_COMPLETE"
    user = f"arn:aws:iam::123456789012:user/{deployer.name}"
    assert f"User: {user} is not authorized to perform: iam:CreateRole" in deployer.reasons()


@pytest.mark.parametrize("operation", ["create_stack", "create_change_set"])
def test_a_role_that_does_not_trust_cloudformation_is_refused(
    deployer: Deployer, operation: str
) -> None:
    request = deployer.request({"Role": ROLE})
    if operation == "create_change_set":
        request |= {"ChangeSetName": "first", "ChangeSetType": "CREATE"}
    role = deployer.role(ACTIONS, trusted="lambda")
    with pytest.raises(ClientError, match=f"Role {role} is invalid or cannot be assumed"):
        getattr(deployer.cloudformation, operation)(**request, RoleARN=role)


def test_a_caller_that_may_not_pass_the_role_is_denied(deployer: Deployer) -> None:
    role = deployer.role(ACTIONS)
    client = deployer.user({"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"})
    with pytest.raises(ClientError, match=f"not authorized to perform: iam:PassRole .*{role}"):
        deployer.create({"Role": ROLE}, client, RoleARN=role)


def test_a_nested_stack_uses_the_role_of_its_parent(deployer: Deployer) -> None:
    deployer.s3.create_bucket(Bucket=deployer.name)
    nested = json.dumps({"Resources": {"Role": ROLE}}).encode()
    deployer.s3.put_object(Bucket=deployer.name, Key="nested.json", Body=nested)
    url = f"{deployer.server.environment['AWS_ENDPOINT_URL']}/{deployer.name}/nested.json"
    stack = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": url}}
    role = deployer.role({"cloudformation:CreateStack", "cloudformation:DeleteStack"})
    assert deployer.create({"Nested": stack}, RoleARN=role) == "ROLLBACK_COMPLETE"
    assert "iam:CreateRole" in deployer.reasons()


def test_image_builder_checks_the_role_of_the_stack(deployer: Deployer) -> None:
    properties = {"Name": deployer.name, "InstanceProfileName": "none"}
    configuration = {
        "Type": "AWS::ImageBuilder::InfrastructureConfiguration",
        "Properties": properties,
    }
    role = deployer.role({"iam:CreateRole"})
    assert deployer.create({"Thing": configuration}, RoleARN=role) == "ROLLBACK_COMPLETE"
    assert "imagebuilder:CreateInfrastructureConfiguration" in deployer.reasons()


def test_a_resource_type_with_unknown_permissions_is_refused(deployer: Deployer) -> None:
    queue = {"Type": "AWS::SQS::Queue"}
    role = deployer.role({"*"})
    assert deployer.create({"Queue": queue}, RoleARN=role) == "ROLLBACK_COMPLETE"
    assert "does not know the permissions that AWS::SQS::Queue needs" in deployer.reasons()
