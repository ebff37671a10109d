"""The state machine that runs each event of CloudFormation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_stepfunctions as sfn

import contract
from cdk_vm_import import VmImportProvider
from contract import ImageProperty, ResourceType, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage, ResourcesOf

IMAGE = ResourceType.IMAGE
LINK = ResourceType.WAIT
MACHINE = "AWS::StepFunctions::StateMachine"
ROLE = "AWS::IAM::Role"
TWO_HOURS = cdk.Duration.hours(2)


def definition(machine: dict[str, Any]) -> dict[str, Any]:
    parts = machine["Properties"]["DefinitionString"]["Fn::Join"][1]
    found: dict[str, Any] = json.loads(
        "".join(part if isinstance(part, str) else "reference" for part in parts)
    )
    return found


def roles(resources_of: ResourcesOf, stack: cdk.Stack) -> tuple[dict[str, Any], dict[str, Any]]:
    """The properties of the function's role and of the state machine's role."""
    found = {
        role["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]: role
        for role in resources_of(stack, ROLE).values()
    }
    return (
        found["lambda.amazonaws.com"]["Properties"],
        found["states.amazonaws.com"]["Properties"],
    )


def test_all_resources_of_a_stack_share_one_state_machine(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    for number, timeout in enumerate([None, cdk.Duration.minutes(5), TWO_HOURS]):
        waits = {"timeout": timeout} if timeout else {"wait_for_available": False}
        import_image(stack, f"Image{number}", semantic_version=f"{number}.0.0", **waits)

    (machine,) = resources_of(stack, MACHINE)
    found = [*resources_of(stack, IMAGE).values(), *resources_of(stack, LINK).values()]
    assert [resource["Properties"][ImageProperty.STATE_MACHINE_ARN] for resource in found] == [
        {"Ref": machine}
    ] * 4


def test_the_function_is_the_same_whether_a_deployment_waits_or_not(
    new_stack: Callable[[], cdk.Stack], import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    stacks = [new_stack(), new_stack()]
    for stack, wait_for_available in zip(stacks, (False, True), strict=True):
        import_image(stack, wait_for_available=wait_for_available)

    before, after = (resources_of(stack, "AWS::Lambda::Function") for stack in stacks)
    assert before == after


def test_the_state_machine_calls_the_function_until_there_are_no_seconds_to_wait(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    found = definition(machine)
    states = found["States"]
    assert found["StartAt"] == "Step"
    assert found["TimeoutSeconds"] == contract.MAX_EXECUTION > contract.MAX_TIMEOUT
    assert states["Step"]["Parameters"] == {"FunctionName": "reference", "Payload.$": "$"}
    assert states["Step"]["OutputPath"] == "$.Payload"
    assert states["Step"]["Next"] == "Done?"
    assert states["Done?"] == {
        "Type": "Choice",
        "Choices": [{"Variable": f"$.{Step.SECONDS}", "NumericGreaterThan": 0, "Next": "Wait"}],
        "Default": "Done",
    }
    assert states["Wait"] == {"Type": "Wait", "SecondsPath": f"$.{Step.SECONDS}", "Next": "Step"}
    assert states["Done"] == {"Type": "Succeed"}


def test_the_executions_are_not_logged_because_their_data_contain_the_response_url(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    assert "LoggingConfiguration" not in machine["Properties"]


def test_an_undelivered_response_is_retried_twice(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    response, _ = definition(machine)["States"]["Step"]["Retry"]
    assert response == {
        "ErrorEquals": [contract.UNDELIVERED_RESPONSE],
        "IntervalSeconds": 60,
        "MaxAttempts": 2,
        "BackoffRate": 1,
    }


def test_an_execution_survives_an_outage_of_lambda_of_an_hour(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    _, everything = definition(machine)["States"]["Step"]["Retry"]
    assert everything["ErrorEquals"] == ["States.ALL"]
    assert everything["JitterStrategy"] == "FULL"
    delays = [
        min(
            everything["IntervalSeconds"] * everything["BackoffRate"] ** attempt,
            everything["MaxDelaySeconds"],
        )
        for attempt in range(everything["MaxAttempts"])
    ]
    # With FULL jitter a delay is uniformly distributed between 0 and its maximum.
    mean = sum(delays) / 2
    deviation = (sum(delay**2 for delay in delays) / 12) ** 0.5
    assert mean - 3 * deviation > 3600


def test_function_and_state_machine_may_call_each_other_and_nothing_else(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    function_role, machine_role = roles(resources_of, stack)
    (name,) = (m["Properties"]["StateMachineName"] for m in resources_of(stack, MACHINE).values())
    (function,) = resources_of(stack, "AWS::Lambda::Function")
    (policy,) = machine_role["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Sid": "InvokeFunction",
            "Effect": "Allow",
            "Action": "lambda:InvokeFunction",
            "Resource": {"Fn::GetAtt": [function, "Arn"]},
        }
    ]
    (trust,) = machine_role["AssumeRolePolicyDocument"]["Statement"]
    assert set(trust["Condition"]) == {"ArnEquals", "StringEquals"}
    start, stop = (
        statement
        for statement in function_role["Policies"][0]["PolicyDocument"]["Statement"]
        if "states" in str(statement["Action"])
    )
    assert start["Action"] == ["states:ListExecutions", "states:StartExecution"]
    assert stop["Action"] == "states:StopExecution"
    assert stop["Resource"]["Fn::Join"][1][-1] == ":*"
    # By name, because a reference would be circular: state machine, function, role.
    assert name["Fn::Join"][1][0].strip("-") in json.dumps(start["Resource"])
    assert "Ref" not in json.dumps(start["Resource"]).replace('{"Ref": "AWS::', "")
    assert resources_of(stack, "AWS::IAM::Policy") == {}


def test_a_key_encrypts_the_executions(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    key = kms.Key(stack, "Key")
    VmImportProvider(stack, "VmImportProvider", encryption_key=key)
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    assert machine["Properties"]["EncryptionConfiguration"] == {
        "Type": "CUSTOMER_MANAGED_KMS_KEY",
        "KmsKeyId": stack.resolve(key.key_arn),
    }
    _, machine_role = roles(resources_of, stack)
    statement = machine_role["Policies"][0]["PolicyDocument"]["Statement"][1]
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == stack.resolve(key.key_arn)
    assert list(statement["Condition"]["StringEquals"]) == [
        "kms:EncryptionContext:aws:states:stateMachineArn"
    ]


def test_a_grant_to_the_provider_causes_no_circular_dependency(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, timeout=TWO_HOURS)
    provider = VmImportProvider.get_or_create(stack)
    iam.Grant.add_to_principal(grantee=provider, actions=["s3:GetObject"], resource_arns=["*"])
    (machine,) = (
        child for child in provider.node.find_all() if isinstance(child, sfn.CfnStateMachine)
    )

    assert machine.ref
    app.synth()
