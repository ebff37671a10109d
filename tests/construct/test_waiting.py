"""How a deployment waits: the templates of the three ways."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn

import waiting
from cdk_vm_import import Platform, VmImportProvider, imported_vm_image

if TYPE_CHECKING:
    from tests.construct.conftest import ImportImage, ResourcesOf

IMAGE = "Custom::ImportedVmImage"
MACHINE = "AWS::StepFunctions::StateMachine"
ROLE = "AWS::IAM::Role"
CONDITION = "AWS::CloudFormation::WaitCondition"
HANDLE = "AWS::CloudFormation::WaitConditionHandle"
TWO_HOURS = cdk.Duration.hours(2)


def properties(stack: cdk.Stack) -> dict[str, Any]:
    (image,) = assertions.Template.from_stack(stack).find_resources(IMAGE).values()
    return dict(image["Properties"])


def types(stack: cdk.Stack) -> set[str]:
    resources = assertions.Template.from_stack(stack).to_json()["Resources"]
    return {resource["Type"] for resource in resources.values()}


def logical_ids(stack: cdk.Stack) -> set[str]:
    return set(assertions.Template.from_stack(stack).to_json()["Resources"])


def test_without_waiting_the_state_machine_takes_the_events_all_the_same(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, wait_for_available=False)

    assert types(stack) == {
        IMAGE,
        MACHINE,
        ROLE,
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Function",
        "AWS::Logs::LogGroup",
    }
    assert "Waiter" in properties(stack)
    assert not {"TimeoutSeconds", "WaitHandle", "ServiceTimeout"} & set(properties(stack))


@pytest.mark.parametrize(
    ("minutes", "seconds", "service_timeout"),
    [(1, 60, 900), (20, 1200, 1320), (58, 3480, 3600), (60, 3600, 3600)],
)
def test_up_to_an_hour_cloudformation_waits_a_little_longer_than_the_function(
    stack: cdk.Stack, import_image: ImportImage, minutes: int, seconds: int, service_timeout: int
) -> None:
    import_image(stack, timeout=cdk.Duration.minutes(minutes))

    found = properties(stack)
    assert found["TimeoutSeconds"] == seconds
    assert found["ServiceTimeout"] == str(service_timeout)
    assert waiting.import_limit(seconds, after_answer=False) <= service_timeout - 120
    assert waiting.delete_limit(seconds, after_answer=False) == service_timeout - 120
    assert types(stack).isdisjoint({CONDITION, HANDLE})


def test_construct_and_handler_leave_cloudformation_the_same_time() -> None:
    assert waiting.GRACE == imported_vm_image._GRACE
    assert waiting.LONGEST_ANSWER == imported_vm_image._LONGEST_SERVICE_TIMEOUT
    assert waiting.LEAST_ANSWER == imported_vm_image._LEAST_SERVICE_TIMEOUT
    assert waiting.LONGEST_SIGNAL == imported_vm_image._LONGEST_WAIT_CONDITION


def test_an_hour_is_the_default(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack)

    assert properties(stack)["TimeoutSeconds"] == 3600


@pytest.mark.parametrize(
    ("timeout", "condition_timeout"),
    [
        (cdk.Duration.minutes(61), "3780"),
        (TWO_HOURS, "7320"),
        (cdk.Duration.hours(12), "43200"),
    ],
)
def test_over_an_hour_a_wait_condition_waits(
    stack: cdk.Stack,
    import_image: ImportImage,
    resources_of: ResourcesOf,
    timeout: cdk.Duration,
    condition_timeout: str,
) -> None:
    import_image(stack, timeout=timeout)

    (handle,) = resources_of(stack, HANDLE)
    (condition,) = resources_of(stack, CONDITION).values()
    assert condition["Properties"] == {"Handle": {"Ref": handle}, "Timeout": condition_timeout}
    assert condition["DependsOn"] == ["Image9D742C96"]
    assert properties(stack)["WaitHandle"] == {"Ref": handle}
    assert "ServiceTimeout" not in properties(stack)
    assert (
        waiting.import_limit(timeout.to_seconds(), after_answer=True)
        <= int(condition_timeout) - 120
    )


def evaluate(value: Any, data: str) -> Any:
    """What CloudFormation makes of an expression, when the wait condition has this data."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return separator.join(evaluate(part, data) for part in parts)
        case {"Fn::Select": [index, parts]}:
            return evaluate(parts, data)[int(index)]
        case {"Fn::Split": [separator, text]}:
            return evaluate(text, data).split(separator)
        case {"Fn::GetAtt": [_, "Data"]}:
            return data
        case {"Fn::GetAtt": [_, "ImageArn"]}:
            return "arn:image"
    return value


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_over_an_hour_the_arn_and_the_ami_hang_on_the_signal(
    stack: cdk.Stack,
    import_image: ImportImage,
    separators: tuple[str, str],
) -> None:
    image = import_image(stack, timeout=TWO_HOURS)
    data = json.dumps({"available": "||ami-0123456789abcdef0|"}, separators=separators)

    arn, ami = stack.resolve(image.image_arn), stack.resolve(image.image_id)

    assert evaluate(arn, data) == "arn:image"
    assert evaluate(ami, data) == "ami-0123456789abcdef0"
    assert '"Data"' in json.dumps(arn)


@pytest.mark.parametrize(
    "change",
    [
        {"image_name": "another"},
        {"semantic_version": "1.0.1"},
        {"platform": Platform.WINDOWS},
        {"vm_import_task_id": "import-ami-fedcba9876543210f"},
        {"description": "changed"},
        {"os_version": "RHEL 9"},
        {"client_token": "mine"},
        {"timeout": cdk.Duration.hours(3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_import_has_a_wait_condition_of_its_own(
    import_image: ImportImage, change: dict[str, Any]
) -> None:
    before, after = cdk.Stack(), cdk.Stack()
    import_image(before, timeout=TWO_HOURS)
    import_image(after, **{"timeout": TWO_HOURS} | change)

    gone = logical_ids(before) - logical_ids(after)
    assert {name[:9] for name in gone} == {"ImageWait"}
    assert len(gone) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"tags": {"team": "images"}},
        {"removal_policy": cdk.RemovalPolicy.DESTROY},
        {"export_name": "golden"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_part_of_the_image_keeps_the_wait_condition(
    import_image: ImportImage, change: dict[str, Any]
) -> None:
    before, after = cdk.Stack(), cdk.Stack()
    import_image(before, timeout=TWO_HOURS)
    import_image(after, timeout=TWO_HOURS, **change)

    assert logical_ids(before) == logical_ids(after)


def test_a_log_group_and_parameters_are_told_apart_as_far_as_synth_knows(
    import_image: ImportImage,
) -> None:
    ids = []
    for name in ("One", "Two", "Two"):
        stack = cdk.Stack()
        parameter = cdk.CfnParameter(stack, name)
        group = logs.LogGroup(stack, "Log", log_group_name="/aws/imagebuilder/golden")
        import_image(
            stack, timeout=TWO_HOURS, log_group=group, vm_import_task_id=parameter.value_as_string
        )
        ids.append({name for name in logical_ids(stack) if name.startswith("ImageWait")})

    assert ids[0].isdisjoint(ids[1])
    assert ids[1] == ids[2]


def test_images_of_a_stack_share_one_state_machine(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    for number, timeout in enumerate([None, cdk.Duration.minutes(5), TWO_HOURS]):
        waits = {"timeout": timeout} if timeout else {"wait_for_available": False}
        import_image(stack, f"Image{number}", semantic_version=f"{number}.0.0", **waits)

    (machine,) = resources_of(stack, MACHINE)
    waiters = [image["Properties"]["Waiter"] for image in resources_of(stack, IMAGE).values()]
    assert waiters == [{"Ref": machine}] * 3


def test_the_function_keeps_its_logical_id_and_its_properties_when_something_waits(
    import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    stacks = [cdk.Stack(), cdk.Stack()]
    for stack, wait_for_available in zip(stacks, (False, True), strict=True):
        import_image(stack, wait_for_available=wait_for_available)

    before, after = (resources_of(stack, "AWS::Lambda::Function") for stack in stacks)
    assert before == after


def test_the_state_machine_calls_the_function_until_no_pause_is_left(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    definition = evaluate_references(machine["Properties"]["DefinitionString"])
    states = definition["States"]
    assert definition["StartAt"] == "Step"
    assert states["Step"]["Next"] == "Done?"
    assert states["Done?"]["Choices"][0]["Next"] == "Wait"
    assert states["Wait"] == {
        "Type": "Wait",
        "SecondsPath": "$.Waiting.Seconds",
        "Next": "Step",
    }
    assert definition["TimeoutSeconds"] > waiting.LONGEST_SIGNAL
    assert "LoggingConfiguration" not in machine["Properties"]


def evaluate_references(text: Any) -> Any:
    parts = text["Fn::Join"][1]
    return json.loads("".join(part if isinstance(part, str) else "reference" for part in parts))


def test_an_outage_of_lambda_of_an_hour_does_not_end_the_wait(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (machine,) = resources_of(stack, MACHINE).values()
    step = evaluate_references(machine["Properties"]["DefinitionString"])["States"]["Step"]
    (everything,) = (r for r in step["Retry"] if r["ErrorEquals"] == ["States.ALL"])
    # FULL jitter takes half of each pause on average
    pauses = [
        min(
            everything["IntervalSeconds"] * everything["BackoffRate"] ** n,
            everything["MaxDelaySeconds"],
        )
        for n in range(everything["MaxAttempts"])
    ]
    assert everything["JitterStrategy"] == "FULL"
    assert sum(pauses) / 2 > 1800


def test_the_roles_may_call_each_other_and_nothing_else(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)

    (name,) = (m["Properties"]["StateMachineName"] for m in resources_of(stack, MACHINE).values())
    (role,) = (r for n, r in resources_of(stack, ROLE).items() if "Waiter" in n)
    (function,) = resources_of(stack, "AWS::Lambda::Function")
    (policy,) = role["Properties"]["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Sid": "CallFunction",
            "Effect": "Allow",
            "Action": "lambda:InvokeFunction",
            "Resource": {"Fn::GetAtt": [function, "Arn"]},
        }
    ]
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "states.amazonaws.com"}
    assert set(trust["Condition"]) == {"ArnEquals", "StringEquals"}
    (own,) = (r for n, r in resources_of(stack, ROLE).items() if "Waiter" not in n)
    start, end = (
        statement
        for statement in own["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        if "states" in str(statement["Action"])
    )
    assert start["Action"] == ["states:ListExecutions", "states:StartExecution"]
    assert end["Action"] == "states:StopExecution"
    assert end["Resource"]["Fn::Join"][1][-1] == ":*"
    # by name: the machine refers to the function, and the function to its role
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
    (role,) = (r for n, r in resources_of(stack, ROLE).items() if "Waiter" in n)
    statement = role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][1]
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == stack.resolve(key.key_arn)
    assert list(statement["Condition"]["StringEquals"]) == [
        "kms:EncryptionContext:aws:states:stateMachineArn"
    ]


@pytest.mark.parametrize(
    ("timeout", "problem"),
    [
        (cdk.Duration.seconds(59), "timeout 59 seconds is not possible: give 1 minute to 12 hours"),
        (cdk.Duration.hours(13), "timeout 13 hours is not possible: give 1 minute to 12 hours"),
        (cdk.Duration.minutes(cdk.Token.as_number({"Ref": "P"})), "timeout is a token"),
        (3600, "timeout 3600 is no Duration"),
    ],
    ids=["59 seconds", "13 hours", "token", "number"],
)
def test_a_timeout_that_cloudformation_cannot_wait_is_refused(
    stack: cdk.Stack, import_image: ImportImage, timeout: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        import_image(stack, timeout=timeout)


def test_without_waiting_there_is_no_image_id(stack: cdk.Stack, import_image: ImportImage) -> None:
    image = import_image(stack, wait_for_available=False)

    for ask in (lambda: image.image_id, image.to_machine_image):
        with pytest.raises(
            ValueError, match="Stack/Image has no image_id: with wait_for_available"
        ):
            ask()


@pytest.mark.parametrize("timeout", [cdk.Duration.hours(1), TWO_HOURS], ids=["1 h", "2 h"])
@pytest.mark.parametrize(
    ("platform", "system"),
    [
        (Platform.LINUX, ec2.OperatingSystemType.LINUX),
        (Platform.WINDOWS, ec2.OperatingSystemType.WINDOWS),
    ],
)
def test_an_instance_launches_from_the_image(
    stack: cdk.Stack,
    import_image: ImportImage,
    timeout: cdk.Duration,
    platform: Platform,
    system: ec2.OperatingSystemType,
) -> None:
    image = import_image(stack, timeout=timeout, platform=platform)
    ec2.Instance(
        stack,
        "Instance",
        vpc=ec2.Vpc(stack, "Vpc"),
        instance_type=ec2.InstanceType("t3.micro"),
        machine_image=image.to_machine_image(),
    )

    assertions.Template.from_stack(stack).has_resource_properties(
        "AWS::EC2::Instance", {"ImageId": stack.resolve(image.image_id)}
    )
    assert image.to_machine_image().get_image(stack).os_type == system


def test_what_the_provider_is_granted_elsewhere_closes_no_circle(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, timeout=TWO_HOURS)
    iam.Grant.add_to_principal(
        grantee=VmImportProvider.get_or_create(stack), actions=["s3:GetObject"], resource_arns=["*"]
    )
    (machine,) = (
        child
        for child in VmImportProvider.get_or_create(stack).node.find_all()
        if isinstance(child, sfn.CfnStateMachine)
    )

    assert machine.ref
    app.synth()
