"""Limits of CloudFormation, IAM and Lambda that a stack with many images can meet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.account import policy
from tests.local_aws.custom_resources import TRUST, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    import boto3

TOPIC = {"Type": "AWS::SNS::Topic"}
TRUST_POLICY = json.dumps({"Version": "2012-10-17", **TRUST})


def statement(characters: int) -> str:
    """Return a policy document of so many characters, not counting white space."""
    allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": ""}
    empty = len("".join(policy(allow).split()))
    return policy({**allow, "Resource": "x" * (characters - empty)})


@pytest.mark.parametrize(
    ("resources", "outputs", "refusal"),
    [
        (501, 1, "Number of resources, 501, is greater than maximum allowed, 500"),
        (1, 201, "Number of outputs, 201, is greater than maximum allowed, 200"),
    ],
)
def test_a_stack_has_at_most_500_resources_and_200_outputs(
    session: boto3.Session, resources: int, outputs: int, refusal: str
) -> None:
    client: Any = session.client("cloudformation")

    def validate(fewer: int) -> None:
        template = {
            "Resources": {f"Topic{n}": TOPIC for n in range(max(1, resources - fewer))},
            "Outputs": {f"Out{n}": {"Value": "x"} for n in range(max(1, outputs - fewer))},
        }
        client.validate_template(TemplateBody=json.dumps(template))

    validate(1)
    with pytest.raises(ClientError, match=refusal):
        validate(0)


def test_the_inline_policies_of_a_role_have_at_most_10240_characters(
    session: boto3.Session,
) -> None:
    iam: Any = session.client("iam")
    iam.create_role(RoleName="full", AssumeRolePolicyDocument=TRUST_POLICY)
    iam.put_role_policy(RoleName="full", PolicyName="first", PolicyDocument=statement(5_000))
    second = {"RoleName": "full", "PolicyName": "second"}

    with pytest.raises(ClientError, match="Maximum policy size of 10240 bytes exceeded for role"):
        iam.put_role_policy(**second, PolicyDocument=statement(5_241))

    assert iam.list_role_policies(RoleName="full")["PolicyNames"] == ["first"]
    iam.put_role_policy(**second, PolicyDocument=statement(5_240))


def test_a_stack_with_a_role_whose_policies_are_too_large_fails(session: boto3.Session) -> None:
    client: Any = session.client("cloudformation")
    document = json.loads(statement(10_241))
    role = {
        "AssumeRolePolicyDocument": TRUST,
        "Policies": [{"PolicyName": "large", "PolicyDocument": document}],
    }
    template = {"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": role}}}

    client.create_stack(
        StackName="large-role",
        TemplateBody=json.dumps(template),
        Capabilities=["CAPABILITY_IAM"],
        OnFailure="DO_NOTHING",
    )

    events = client.describe_stack_events(StackName="large-role")["StackEvents"]
    assert "Maximum policy size of 10240 bytes exceeded" in str(events)


@pytest.mark.parametrize("separate", [True, False])
def test_a_stack_update_that_makes_the_policies_of_a_role_too_large_is_rolled_back(
    session: boto3.Session, *, separate: bool
) -> None:
    client: Any = session.client("cloudformation")
    name = f"growing-role-{separate}"

    def put(act: Callable[..., object], characters: int) -> str:
        """Create or update the stack; return the reasons in its events."""
        policy = {"PolicyName": "large", "PolicyDocument": json.loads(statement(characters))}
        role = {"AssumeRolePolicyDocument": TRUST, "Policies": [] if separate else [policy]}
        resources = {"Role": {"Type": "AWS::IAM::Role", "Properties": role}}
        if separate:
            properties = {**policy, "Roles": [{"Ref": "Role"}]}
            resources["Policy"] = {"Type": "AWS::IAM::Policy", "Properties": properties}
        body = json.dumps({"Resources": resources})
        act(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
        assert eventually(lambda: status().endswith("_COMPLETE"))
        return str(client.describe_stack_events(StackName=name)["StackEvents"])

    def status() -> str:
        return str(client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])

    put(client.create_stack, 10_240)

    reasons = put(client.update_stack, 10_241)

    assert "Maximum policy size of 10240 bytes exceeded" in reasons
    assert status() == "UPDATE_ROLLBACK_COMPLETE"


def test_the_policy_of_a_function_has_at_most_20480_characters(session: boto3.Session) -> None:
    functions: Any = session.client("lambda")
    iam: Any = session.client("iam")
    role = iam.create_role(RoleName="called", AssumeRolePolicyDocument=TRUST_POLICY)["Role"]
    functions.create_function(
        FunctionName="called",
        Runtime="python3.13",
        Role=role["Arn"],
        Handler="index.handler",
        Code={"ZipFile": b"PK\x05\x06" + bytes(18)},
    )

    def permit_until_refused() -> None:
        for number in range(100):
            functions.add_permission(
                FunctionName="called",
                StatementId=f"statement-{number:03}",
                Action="lambda:InvokeFunction",
                Principal="events.amazonaws.com",
                SourceArn="arn:aws:events:us-east-1:000000000000:rule/" + "x" * 64,
            )

    with pytest.raises(ClientError, match=r"policy size \(\d+\) is bigger than the limit \(20480"):
        permit_until_refused()

    permitted = json.loads(functions.get_policy(FunctionName="called")["Policy"])
    size = len(json.dumps(permitted, separators=(",", ":")))
    assert 20_480 - 400 < size <= 20_480
