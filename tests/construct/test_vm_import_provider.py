from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_vm_import import VmDisk, VmImportProvider, VmImportTask
from contract import OwnTag, ResourceType

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.construct.conftest import ImportImage, NewApp, Predecessors, ResourcesOf

FUNCTION = "AWS::Lambda::Function"
ROLE = "AWS::IAM::Role"
MACHINE = "AWS::StepFunctions::StateMachine"


def function(stack: cdk.Stack) -> dict[str, Any]:
    (found,) = assertions.Template.from_stack(stack).find_resources(FUNCTION).values()
    properties: dict[str, Any] = found["Properties"]
    return properties


def statements(stack: cdk.Stack) -> dict[str, dict[str, Any]]:
    roles = assertions.Template.from_stack(stack).find_resources(ROLE).values()
    (policy,) = (p for role in roles for p in role["Properties"]["Policies"] if is_own(p))
    return {statement.pop("Sid"): statement for statement in policy["PolicyDocument"]["Statement"]}


def is_own(policy: dict[str, Any]) -> bool:
    return bool(policy["PolicyName"] == "VmImport")


def policies(role: dict[str, Any]) -> str:
    # The name of the state machine derives from the path of the stack.
    return re.sub(
        "vm-import-[0-9a-f]{8}-", "vm-import-", json.dumps(role["Properties"]["Policies"])
    )


def vpc(stack: cdk.Stack) -> ec2.Vpc:
    # CDK restricts the default security group with a function and a role of its own.
    return ec2.Vpc(stack, "Vpc", max_azs=1, restrict_default_security_group=False)


def arn(service: str, resource: str, region: str = "${AWS::Region}") -> object:
    text = f"arn:${{AWS::Partition}}:{service}:{region}:${{AWS::AccountId}}:{resource}"
    parts = [
        {"Ref": part.removesuffix("}")} if part.endswith("}") else part
        for piece in text.split("${")
        for part in piece.replace("}", "}\0").split("\0")
        if part
    ]
    return {"Fn::Join": ["", parts]}


def test_two_images_share_one_function(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack, "First")
    import_image(Construct(stack, "Deeper"), "Second", semantic_version="2.0.0")

    images = resources_of(stack, ResourceType.IMAGE).values()
    (function,) = resources_of(stack, FUNCTION)
    assert [image["Properties"]["ServiceToken"] for image in images] == [
        {"Fn::GetAtt": [function, "Arn"]}
    ] * 2


def test_each_stack_has_a_function_of_its_own(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    other = cdk.Stack(app, "Other")
    import_image(stack)
    import_image(other)

    assert len(resources_of(stack, FUNCTION)) == 1
    assert len(resources_of(other, FUNCTION)) == 1


def test_a_nested_stack_has_a_function_of_its_own(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    nested = cdk.NestedStack(stack, "Nested")
    import_image(stack)
    import_image(nested)

    assert len(resources_of(stack, FUNCTION)) == 1
    assert len(resources_of(nested, FUNCTION)) == 1


def test_images_in_several_stages_use_the_same_asset(
    app: cdk.App, import_image: ImportImage
) -> None:
    stacks = [cdk.Stack(cdk.Stage(app, name), "Stack") for name in ("Test", "Live")]
    for stack in stacks:
        import_image(stack)

    test, live = (function(stack)["Code"] for stack in stacks)
    assert test == live


def test_images_use_a_provider_that_was_created_first_with_the_shared_id(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    provider = VmImportProvider(stack, "VmImportProvider", memory_size=512)
    import_image(stack)

    assert VmImportProvider.get_or_create(stack) is provider
    assert function(stack)["MemorySize"] == 512


def test_another_construct_with_the_shared_id_is_an_error(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    Construct(stack, "VmImportProvider")

    with pytest.raises(ValueError, match=r"^Stack/VmImportProvider: this construct is not a"):
        import_image(stack)


def test_the_function_runs_the_handler(stack: cdk.Stack) -> None:
    VmImportProvider(stack, "Provider")

    found = function(stack)
    assert found["Runtime"] == "python3.13"
    assert found["Handler"] == "index.handler"
    assert found["Timeout"] == 900
    assert found["MemorySize"] == 256
    assert found["Architectures"] == ["x86_64"]
    assert "VpcConfig" not in found
    assert "KmsKeyArn" not in found


def test_lambda_discards_events_that_cloudformation_no_longer_waits_for(
    stack: cdk.Stack,
) -> None:
    VmImportProvider(stack, "Provider")

    assertions.Template.from_stack(stack).has_resource_properties(
        "AWS::Lambda::EventInvokeConfig",
        {
            "FunctionName": {"Ref": assertions.Match.string_like_regexp("ProviderHandler")},
            "Qualifier": "$LATEST",
            "MaximumEventAgeInSeconds": 3600,
            "MaximumRetryAttempts": assertions.Match.absent(),  # Lambda's own: two
        },
    )


def test_an_image_waits_for_all_that_its_first_event_needs(
    stack: cdk.Stack, import_image: ImportImage, predecessors: Predecessors
) -> None:
    network = ec2.Vpc(stack, "Vpc", restrict_default_security_group=False)
    network.add_interface_endpoint(
        "States", service=ec2.InterfaceVpcEndpointAwsService.STEP_FUNCTIONS
    )
    group = ec2.SecurityGroup(stack, "Group", vpc=network, allow_all_outbound=False)
    group.add_egress_rule(group, ec2.Port.tcp(443))
    provider = VmImportProvider(stack, "VmImportProvider", vpc=network, security_groups=[group])
    key = kms.Key(stack, "Key")
    key.grant_decrypt(provider)
    import_image(stack)

    found = predecessors(stack, "Image9D742C96")
    assert {kind: len(found[kind]) for kind in sorted(found) if "EC2" not in kind} == {
        "AWS::IAM::Policy": 1,  # what the app grants to the function
        "AWS::IAM::Role": 2,
        "AWS::KMS::Key": 1,
        "AWS::Lambda::EventInvokeConfig": 1,
        "AWS::Lambda::Function": 1,
        "AWS::Logs::LogGroup": 1,
        "AWS::StepFunctions::StateMachine": 1,
    }
    for kind in ("NatGateway", "Route", "SecurityGroupEgress", "VPCEndpoint"):
        assert found[f"AWS::EC2::{kind}"]


def test_each_image_depends_on_the_provider_through_its_properties_only(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    """400 images must not repeat a list of dependencies."""
    import_image(stack)

    (image,) = resources_of(stack, ResourceType.IMAGE).values()
    assert "DependsOn" not in image


def test_architecture_memory_and_log_retention_can_be_set(stack: cdk.Stack) -> None:
    VmImportProvider(
        stack,
        "Provider",
        architecture=lambda_.Architecture.ARM_64,
        memory_size=128,
        log_retention=logs.RetentionDays.ONE_WEEK,
    )

    found = function(stack)
    assert found["Architectures"] == ["arm64"]
    assert found["MemorySize"] == 128
    assertions.Template.from_stack(stack).has_resource_properties(
        "AWS::Logs::LogGroup", {"RetentionInDays": 7}
    )


def test_the_log_is_retained_for_three_months_and_deleted_with_the_stack(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    VmImportProvider(stack, "Provider")

    ((logical_id, log_group),) = resources_of(stack, "AWS::Logs::LogGroup").items()
    assert log_group["Properties"] == {"RetentionInDays": 90}
    assert log_group["DeletionPolicy"] == "Delete"
    assert function(stack)["LoggingConfig"] == {"LogGroup": {"Ref": logical_id}}


def test_the_role_has_these_permissions_and_no_others(stack: cdk.Stack) -> None:
    provider = VmImportProvider(stack, "Provider")

    in_request = {f"aws:RequestTag/{OwnTag.STACK}": {"Ref": "AWS::StackId"}}
    on_resource = {f"aws:ResourceTag/{OwnTag.STACK}": {"Ref": "AWS::StackId"}}
    new_or_own = {"StringEquals": in_request, "StringEqualsIfExists": on_resource}
    own = {"StringEquals": on_resource, "StringEqualsIfExists": in_request}
    images = arn("imagebuilder", "image/*")
    ec2 = ["arn:", {"Ref": "AWS::Partition"}, ":ec2:", {"Ref": "AWS::Region"}, "::*"]
    amis_and_snapshots = {"Fn::Join": ["", ec2]}
    log_group = provider.node.find_child("LogGroup")
    assert isinstance(log_group, logs.LogGroup)
    found = statements(stack)
    del found["StartExecutions"], found["StopExecutions"]  # see test_event_state_machine.py
    assert found == {
        "ImportImagesOfThisStack": {
            "Effect": "Allow",
            "Action": "imagebuilder:ImportVmImage",
            "Resource": images,
            "Condition": {"StringEquals": in_request},
        },
        "TagImagesOfThisStack": {
            "Effect": "Allow",
            "Action": "imagebuilder:TagResource",
            "Resource": images,
            "Condition": new_or_own,
        },
        "ChangeImagesOfThisStack": {
            "Effect": "Allow",
            "Action": [
                "imagebuilder:CancelImageCreation",
                "imagebuilder:DeleteImage",
                "imagebuilder:TagResource",
                "imagebuilder:UntagResource",
            ],
            "Resource": images,
            "Condition": own,
        },
        "ReadImages": {
            "Effect": "Allow",
            "Action": ["imagebuilder:GetImage", "imagebuilder:ListImageBuildVersions"],
            "Resource": images,
        },
        "ReadImportTasks": {
            "Effect": "Allow",
            "Action": ["ec2:DescribeImages", "ec2:DescribeImportImageTasks"],
            "Resource": "*",
        },
        "ReadStatusOfThisStack": {
            "Effect": "Allow",
            "Action": "cloudformation:DescribeStacks",
            "Resource": {"Ref": "AWS::StackId"},
        },
        "CreateServiceLinkedRole": {
            "Effect": "Allow",
            "Action": "iam:CreateServiceLinkedRole",
            "Resource": arn(
                "iam",
                "role/aws-service-role/imagebuilder.amazonaws.com/AWSServiceRoleForImageBuilder",
                region="",
            ),
            "Condition": {"StringEquals": {"iam:AWSServiceName": "imagebuilder.amazonaws.com"}},
        },
        "TagAmisOfThisStack": {
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": amis_and_snapshots,
            "Condition": new_or_own,
        },
        "UntagAmisOfThisStack": {
            "Effect": "Allow",
            "Action": "ec2:DeleteTags",
            "Resource": amis_and_snapshots,
            "Condition": {"StringEquals": on_resource},
        },
        "ChangeImportTasksOfThisStack": {
            "Effect": "Allow",
            "Action": ["ec2:CancelImportTask", "ec2:CreateTags", "ec2:DeleteTags"],
            "Resource": arn("ec2", "import-image-task/*"),
            "Condition": own,
        },
        "ChangeAmisOfThisStack": {
            "Effect": "Allow",
            "Action": [
                "ec2:DeregisterImage",
                "ec2:DisableImageDeprecation",
                "ec2:EnableImageDeprecation",
                "ec2:ModifyImageAttribute",
            ],
            "Resource": amis_and_snapshots,
            "Condition": {"StringEquals": on_resource},
        },
        "DeleteSnapshotsOfThisStack": {
            "Effect": "Allow",
            "Action": "ec2:DeleteSnapshot",
            "Resource": amis_and_snapshots,
            "Condition": {"StringEquals": on_resource},
        },
        "ReadUsesOfAmis": {
            "Effect": "Allow",
            "Action": ["ec2:DescribeImageAttribute", "imagebuilder:ListImages"],
            "Resource": "*",
        },
        "ReadSnapshots": {
            "Effect": "Allow",
            "Action": "ec2:DescribeSnapshots",
            "Resource": "*",
        },
        "WriteOwnLog": {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": stack.resolve(log_group.log_group_arn),
        },
    }


def test_the_roles_have_inline_policies_only(stack: cdk.Stack, resources_of: ResourcesOf) -> None:
    VmImportProvider(stack, "Provider", vpc=vpc(stack))

    for role in resources_of(stack, ROLE).values():
        assert "ManagedPolicyArns" not in role["Properties"]
    assert resources_of(stack, "AWS::IAM::Policy") == {}
    assert resources_of(stack, "AWS::IAM::ManagedPolicy") == {}


def test_the_policy_has_the_same_size_for_forty_images_as_for_one(
    app: cdk.App, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    one, forty = cdk.Stack(app, "One"), cdk.Stack(app, "Forty")
    import_image(one)
    for number in range(40):
        import_image(forty, f"Image{number}", semantic_version=f"{number}.0.0")

    roles = list(resources_of(one, ROLE).values())
    assert [*map(policies, resources_of(forty, ROLE).values())] == [*map(policies, roles)]
    # IAM's limit for all inline policies of a role.
    assert all(len(policies(role)) < 10_240 for role in roles)


def test_no_arn_contains_a_fixed_partition(stack: cdk.Stack, import_image: ImportImage) -> None:
    VmImportProvider(stack, "VmImportProvider", vpc=vpc(stack))
    import_image(stack)

    assert "arn:aws" not in json.dumps(assertions.Template.from_stack(stack).to_json())


def test_in_a_vpc_the_role_may_manage_network_interfaces(stack: cdk.Stack) -> None:
    VmImportProvider(stack, "Provider", vpc=vpc(stack))

    assert statements(stack)["RunInVpc"] == {
        "Effect": "Allow",
        "Action": [
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:UnassignPrivateIpAddresses",
        ],
        "Resource": "*",
    }


def test_the_function_runs_in_the_given_subnets_and_security_groups(
    stack: cdk.Stack,
) -> None:
    own_vpc = vpc(stack)
    group = ec2.SecurityGroup(stack, "Group", vpc=own_vpc)
    VmImportProvider(
        stack,
        "Provider",
        vpc=own_vpc,
        vpc_subnets=ec2.SubnetSelection(subnets=own_vpc.private_subnets),
        security_groups=[group],
    )

    assert function(stack)["VpcConfig"] == {
        "SecurityGroupIds": [stack.resolve(group.security_group_id)],
        "SubnetIds": [stack.resolve(own_vpc.private_subnets[0].subnet_id)],
    }


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("count", [0, 1])
def test_security_groups_can_be_any_sequence(
    stack: cdk.Stack, kind: Callable[[list[Any]], Any], count: int
) -> None:
    own_vpc = vpc(stack)
    groups = [ec2.SecurityGroup(stack, "Group", vpc=own_vpc)][:count]
    VmImportProvider(stack, "Provider", vpc=own_vpc, security_groups=kind(groups))

    found = function(stack)["VpcConfig"]["SecurityGroupIds"]
    assert found == [stack.resolve(group.security_group_id) for group in groups] or not groups


def test_subnets_without_a_vpc_are_refused(stack: cdk.Stack) -> None:
    subnets = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC)

    with pytest.raises(ValueError, match=r"^Stack/Provider: vpc_subnets and security_groups need"):
        VmImportProvider(stack, "Provider", vpc_subnets=subnets)


def test_a_key_encrypts_the_log_and_the_function(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    key = kms.Key(stack, "Key")
    VmImportProvider(stack, "Provider", encryption_key=key)

    (log_group,) = resources_of(stack, "AWS::Logs::LogGroup").values()
    assert log_group["Properties"]["KmsKeyId"] == stack.resolve(key.key_arn)
    assert function(stack)["KmsKeyArn"] == stack.resolve(key.key_arn)


def test_the_policy_of_a_key_of_this_app_allows_cloudwatch_logs_to_use_it(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    VmImportProvider(stack, "Provider", encryption_key=kms.Key(stack, "Key"))

    (key,) = resources_of(stack, "AWS::KMS::Key").values()
    assert key["Properties"]["KeyPolicy"]["Statement"][1] == {
        "Sid": "EncryptLogs",
        "Effect": "Allow",
        "Principal": {
            "Service": {
                "Fn::Join": ["", ["logs.", {"Ref": "AWS::Region"}, ".", {"Ref": "AWS::URLSuffix"}]]
            }
        },
        "Action": [
            "kms:Decrypt*",
            "kms:Describe*",
            "kms:Encrypt*",
            "kms:GenerateDataKey*",
            "kms:ReEncrypt*",
        ],
        "Resource": "*",
        "Condition": {
            "ArnLike": {"kms:EncryptionContext:aws:logs:arn": arn("logs", "log-group:*")}
        },
    }


def test_a_key_may_be_used_to_log_encrypted_executions_as_with_a_state_machine_of_cdk(
    new_stack: Callable[[], cdk.Stack],
) -> None:
    ours, of_cdk = new_stack(), new_stack()
    VmImportProvider(ours, "Provider", encryption_key=kms.Key(ours, "Key"), log_executions=True)
    key = kms.Key(of_cdk, "Key")
    sfn.StateMachine(
        of_cdk,
        "Machine",
        definition_body=sfn.DefinitionBody.from_chainable(sfn.Pass(of_cdk, "Pass")),
        encryption_configuration=sfn.CustomerManagedEncryptionConfiguration(key),
        logs=sfn.LogOptions(destination=logs.LogGroup(of_cdk, "Logs"), level=sfn.LogLevel.ALL),
    )

    assert delivery_statements(ours) == delivery_statements(of_cdk)
    assert len(delivery_statements(ours)) == 2


@pytest.mark.parametrize("has_key", [True, False])
def test_without_both_a_key_and_a_log_of_executions_no_delivery_may_use_a_key(
    stack: cdk.Stack, *, has_key: bool
) -> None:
    key = kms.Key(stack, "Key") if has_key else None
    VmImportProvider(stack, "Provider", encryption_key=key, log_executions=not has_key)

    assert delivery_statements(stack) == []


def delivery_statements(stack: cdk.Stack) -> list[dict[str, Any]]:
    """The statements about keys and the delivery of logs, without their Sid."""
    found: list[dict[str, Any]] = []
    for resource in assertions.Template.from_stack(stack).to_json()["Resources"].values():
        properties = resource["Properties"]
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        names = {"PolicyDocument", "KeyPolicy"} & properties.keys()
        documents += [properties[name] for name in names]
        found += [
            {name: value for name, value in statement.items() if name != "Sid"}
            for document in documents
            for statement in document["Statement"]
            if "kms:EncryptionContext:SourceArn" in str(statement)
            or "delivery.logs" in str(statement)
        ]
    return sorted(found, key=str)


def test_an_imported_key_is_used_without_a_change(stack: cdk.Stack) -> None:
    key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    VmImportProvider(stack, "Provider", encryption_key=kms.Key.from_key_arn(stack, "Key", key_arn))

    assert function(stack)["KmsKeyArn"] == key_arn


def test_a_permissions_boundary_reaches_the_role(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)
    boundary = iam.ManagedPolicy.from_managed_policy_name(stack, "Boundary", "limit")
    iam.PermissionsBoundary.of(stack).apply(boundary)

    roles = resources_of(stack, ROLE).values()
    boundary_arn = stack.resolve(boundary.managed_policy_arn)
    assert [role["Properties"]["PermissionsBoundary"] for role in roles] == [boundary_arn] * 2


def test_a_grant_to_the_provider_goes_to_the_functions_role(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    provider = VmImportProvider(stack, "Provider")
    kms.Key(stack, "Key").grant_decrypt(provider)

    roles = resources_of(stack, ROLE).items()
    (own,) = (name for name, role in roles if is_own(role["Properties"]["Policies"][0]))
    (policy,) = resources_of(stack, "AWS::IAM::Policy").values()
    assert policy["Properties"]["Roles"] == [{"Ref": own}]


def test_an_alarm_can_use_the_metrics_of_the_function(stack: cdk.Stack) -> None:
    provider = VmImportProvider(stack, "Provider")
    provider.function.metric_errors().create_alarm(
        stack, "Alarm", threshold=1, evaluation_periods=1
    )

    assertions.Template.from_stack(stack).resource_count_is("AWS::CloudWatch::Alarm", 1)


# What a security review asks for


def test_reserved_concurrency_name_and_runtime_are_those_of_the_function(stack: cdk.Stack) -> None:
    VmImportProvider(
        stack,
        "Provider",
        reserved_concurrent_executions=5,
        function_name="vm-import",
        runtime=lambda_.Runtime.PYTHON_3_14,
    )

    found = function(stack)
    assert found["ReservedConcurrentExecutions"] == 5
    assert found["FunctionName"] == "vm-import"
    assert found["Runtime"] == "python3.14"


def test_memory_and_reserved_concurrency_can_be_parameters_of_the_stack(stack: cdk.Stack) -> None:
    parameter: Any = cdk.CfnParameter(stack, "Number", type="Number").value_as_number
    VmImportProvider(
        stack, "Provider", memory_size=parameter, reserved_concurrent_executions=parameter
    )

    assert function(stack)["ReservedConcurrentExecutions"] == {"Ref": "Number"}
    assert function(stack)["MemorySize"] == {"Ref": "Number"}


def test_events_that_lambda_cannot_deliver_go_to_the_dead_letter_queue(stack: cdk.Stack) -> None:
    key = kms.Key(stack, "Key")
    queue = sqs.Queue(stack, "Queue", encryption_master_key=key)
    VmImportProvider(stack, "Provider", dead_letter_queue=queue)

    assert function(stack)["DeadLetterConfig"] == {"TargetArn": stack.resolve(queue.queue_arn)}
    found = statements(stack)
    assert found["SendToDeadLetterQueue"]["Resource"] == stack.resolve(queue.queue_arn)
    assert found["EncryptDeadLetters"]["Resource"] == stack.resolve(key.key_arn)


def test_a_queue_without_a_key_needs_no_permission_for_one(stack: cdk.Stack) -> None:
    VmImportProvider(stack, "Provider", dead_letter_queue=sqs.Queue(stack, "Queue"))

    assert "EncryptDeadLetters" not in statements(stack)


@pytest.mark.parametrize(
    ("tracing", "mode"),
    [
        (lambda_.Tracing.ACTIVE, "Active"),
        (lambda_.Tracing.PASS_THROUGH, "PassThrough"),
        (lambda_.Tracing.DISABLED, None),
    ],
)
def test_tracing_is_for_the_function_and_if_active_for_the_state_machine(
    stack: cdk.Stack, resources_of: ResourcesOf, tracing: lambda_.Tracing, mode: str | None
) -> None:
    VmImportProvider(stack, "Provider", tracing=tracing)

    (machine,) = resources_of(stack, MACHINE).values()
    assert function(stack).get("TracingConfig", {}).get("Mode") == mode
    assert ("SendTraces" in statements(stack)) is (mode is not None)
    active = {"Enabled": True} if mode == "Active" else None
    assert machine["Properties"].get("TracingConfiguration") == active
    roles = json.dumps(resources_of(stack, ROLE))
    assert ("xray:GetSamplingRules" in roles) is (mode == "Active")


def test_the_log_of_the_executions_contains_no_data(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    """The data contain the signed ResponseURL."""
    key = kms.Key(stack, "Key")
    VmImportProvider(
        stack,
        "Provider",
        log_executions=True,
        log_retention=logs.RetentionDays.ONE_WEEK,
        encryption_key=key,
    )

    groups = resources_of(stack, "AWS::Logs::LogGroup")
    (name,) = (name for name in groups if "EventStateMachine" in name)
    properties = groups[name]["Properties"]
    assert "/aws/vendedlogs/states/vm-import-" in json.dumps(properties["LogGroupName"])
    assert properties["KmsKeyId"] == stack.resolve(key.key_arn)
    assert properties["RetentionInDays"] == 7
    (machine,) = resources_of(stack, MACHINE).values()
    arn_of_group = {"Fn::GetAtt": [name, "Arn"]}
    assert machine["Properties"]["LoggingConfiguration"] == {
        "Level": "ALL",
        "IncludeExecutionData": False,
        "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": arn_of_group}}],
    }


def test_no_argument_adds_a_second_policy_to_a_role(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    VmImportProvider(
        stack,
        "Provider",
        dead_letter_queue=sqs.Queue(stack, "Queue"),
        tracing=lambda_.Tracing.ACTIVE,
        log_executions=True,
        vpc=vpc(stack),
    )

    assert resources_of(stack, "AWS::IAM::Policy") == {}


# A role of the user


def own_role(stack: cdk.Stack, name: str = "Own") -> iam.Role:
    return iam.Role(stack, name, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))


def test_a_given_role_has_the_statements_that_a_role_of_the_provider_has(
    app: cdk.App, stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    disk = VmDisk.from_bucket(s3.Bucket.from_bucket_name(stack, "Disks", "disks"), "a.vmdk")
    role = own_role(stack)
    VmImportProvider(stack, "VmImportProvider", role=role)
    VmImportTask(stack, "Import", disks=[disk])  # after the provider: its statements count
    other = cdk.Stack(app, "Other")
    VmImportProvider(other, "VmImportProvider")
    VmImportTask(other, "Import", disks=[disk])

    (policy,) = resources_of(stack, "AWS::IAM::Policy").values()
    assert policy["Properties"]["Roles"] == [stack.resolve(role.role_name)]
    given = policy["Properties"]["PolicyDocument"]["Statement"]
    (own,) = (each for name, each in resources_of(other, ROLE).items() if "ProviderRole" in name)
    expected = own["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert [each["Sid"] for each in given] == [each["Sid"] for each in expected]
    assert function(stack)["Role"] == stack.resolve(role.role_arn)


def test_the_policy_of_a_given_role_exists_before_the_function_and_outlives_the_images(
    stack: cdk.Stack, import_image: ImportImage, predecessors: Predecessors
) -> None:
    VmImportProvider(stack, "VmImportProvider", role=own_role(stack), vpc=vpc(stack))
    import_image(stack)

    for logical_id in ("VmImportProviderHandlerD6951CDD", "Image9D742C96"):
        assert len(predecessors(stack, logical_id)["AWS::IAM::Policy"]) == 1


def test_an_imported_role_gets_the_policy_too(stack: cdk.Stack, resources_of: ResourcesOf) -> None:
    role = iam.Role.from_role_arn(stack, "Role", "arn:aws:iam::123456789012:role/vm-import")
    VmImportProvider(stack, "Provider", role=role)

    (policy,) = resources_of(stack, "AWS::IAM::Policy").values()
    assert policy["Properties"]["Roles"] == ["vm-import"]


@pytest.mark.parametrize("kind", ["imported", "without updates"])
def test_a_role_that_accepts_no_policies_is_a_warning_that_says_what_to_do(
    stack: cdk.Stack, resources_of: ResourcesOf, kind: str
) -> None:
    arn_of_role = "arn:aws:iam::123456789012:role/vm-import"
    role: iam.IRole = (
        iam.Role.from_role_arn(stack, "Role", arn_of_role, mutable=False)
        if kind == "imported"
        else own_role(stack).without_policy_updates()
    )
    VmImportProvider(stack, "Provider", role=role)

    assertions.Annotations.from_stack(stack).has_warning(
        "/Stack/Provider", assertions.Match.string_like_regexp("docs/permissions.md lists")
    )
    assert resources_of(stack, "AWS::IAM::Policy") == {}


def test_the_report_of_precreated_roles_lists_the_statements(
    new_app: NewApp, tmp_path: Path, import_image: ImportImage
) -> None:
    app = new_app(outdir=str(tmp_path))
    paths = ("VmImportProvider/Role", "VmImportProvider/EventStateMachine/Role", "VmImportTaskRole")
    iam.Role.customize_roles(
        app,
        use_precreated_roles={f"Stack/{path}": f"own-{n}" for n, path in enumerate(paths)},
    )
    stack = cdk.Stack(app, "Stack")
    image = import_image(stack)
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "disks")
    VmImportTask(stack, "Import", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])
    template = app.synth().get_stack_by_name("Stack").template

    assert image.node.path == "Stack/Image"
    assert not [r for r in template["Resources"].values() if r["Type"] == ROLE]
    report = (tmp_path / "iam-policy-report.json").read_text()
    for sid in ("ImportImagesOfThisStack", "CheckDisks", "InvokeFunction", "ReadDisks"):
        assert report.count(f'"{sid}"') == 1


def test_the_policy_of_a_given_role_stays_below_the_limit_of_iam(
    app: cdk.App, stack: cdk.Stack
) -> None:
    VmImportProvider(stack, "VmImportProvider", role=own_role(stack))
    for index in range(100):
        bucket = s3.Bucket.from_bucket_name(stack, f"Bucket{index}", f"disks-{index}")
        VmImportTask(stack, f"Import{index}", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])

    with pytest.raises(Exception, match=r"Policy\] the policy of this role may have"):
        app.synth()


def test_lambda_must_be_allowed_to_assume_a_given_role(app: cdk.App, stack: cdk.Stack) -> None:
    role = iam.Role(stack, "Own", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    VmImportProvider(stack, "Provider", role=role)

    with pytest.raises(Exception, match=r"Lambda may not assume the role Stack/Own: create it"):
        app.synth()
    # What the app adds later counts.
    trust = role.assume_role_policy
    assert trust
    trust.add_statements(
        iam.PolicyStatement(
            actions=["sts:AssumeRole"], principals=[iam.ServicePrincipal("lambda.amazonaws.com")]
        )
    )
    app.synth()
