"""What deployed stacks and users' code rely on. A change here is a breaking change."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import botocore.session
import botocore.validate
import pytest
from aws_cdk import assertions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs

import cdk_vm_import
import contract
from ami_settings.record import Record, digest, digest_of_all, tag_key
from cdk_vm_import import (
    AmiSettings,
    ImportedVmImage,
    IVmImage,
    Platform,
    VmDisk,
    VmImportDashboard,
    VmImportProvider,
    VmImportRole,
    VmImportTask,
)
from identity import Owner
from image.properties import ImageProperties

if TYPE_CHECKING:
    from tests.construct.conftest import ImportImage

FIXTURES = Path(__file__).parent / "fixtures"

# Each member of the ImportVmImage request: its argument and its property.
FIELDS = {
    "name": ("image_name", "Name"),
    "semanticVersion": ("semantic_version", "SemanticVersion"),
    "description": ("description", "Description"),
    "platform": ("platform", "Platform"),
    "osVersion": ("os_version", "OsVersion"),
    "vmImportTaskId": ("vm_import_task_id", "VmImportTaskId"),
    "loggingConfiguration": ("log_group", "LoggingConfiguration"),
    "tags": ("tags", "Tags"),
    "clientToken": ("client_token", "ClientToken"),
}

# One for each hour after the first, up to twelve hours.
LINKS = [
    "ImageWait2A14E77CC",
    "ImageWait3F6D85905",
    "ImageWait4D992BE71",
    "ImageWait507D8A844",
    "ImageWait691DAEF4A",
    "ImageWait7F19EF108",
    "ImageWait8B3DA79AC",
    "ImageWait9BDA29437",
    "ImageWait10BD84503C",
    "ImageWait1102022A44",
    "ImageWait123A313879",
]


@pytest.fixture(scope="session")
def request_model() -> Any:
    model = botocore.session.get_session().get_service_model("imagebuilder")
    return model.operation_model("ImportVmImage").input_shape


@pytest.fixture
def full_image(stack: cdk.Stack, import_image: ImportImage) -> ImportedVmImage:
    return import_image(
        stack,
        description="The golden image",
        os_version="RHEL 9",
        log_group=logs.LogGroup.from_log_group_name(stack, "Log", "/aws/imagebuilder/golden"),
        tags={"team": "platform"},
        client_token="a-token-of-my-own",
        timeout=cdk.Duration.hours(12),
    )


def image_properties_of(stack: cdk.Stack) -> dict[str, Any]:
    resources = assertions.Template.from_stack(stack).find_resources("Custom::ImportedVmImage")
    (image,) = resources.values()
    properties: dict[str, Any] = image["Properties"]
    return properties


def arguments_of(function: object) -> list[str]:
    assert callable(function)
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]


def test_the_table_of_fields_is_the_whole_request(request_model: Any) -> None:
    assert request_model.members.keys() == FIELDS.keys()


@pytest.mark.parametrize(("argument", "name"), FIELDS.values(), ids=FIELDS)
def test_each_member_of_the_request_is_an_argument_and_a_property(
    full_image: ImportedVmImage, argument: str, name: str
) -> None:
    assert argument in arguments_of(ImportedVmImage.__init__)
    assert name in image_properties_of(full_image.stack)


def test_each_property_of_a_template_is_in_the_contract(
    stack: cdk.Stack, full_image: ImportedVmImage
) -> None:
    cloudformation = {"ServiceToken", "ServiceTimeout"}
    names = {
        contract.ResourceType.IMAGE: contract.ImageProperty,
        contract.ResourceType.WAIT: contract.WaitProperty,
    }
    for resource_type, allowed in names.items():
        resources = assertions.Template.from_stack(stack).find_resources(resource_type.value)
        assert resources, full_image
        for resource in resources.values():
            assert resource["Properties"].keys() - cloudformation <= set(allowed)


def test_the_handler_makes_a_request_from_the_template_that_the_model_accepts(
    full_image: ImportedVmImage, request_model: Any
) -> None:
    properties = ImageProperties.read(image_properties_of(full_image.stack))
    request = properties.request(Owner("stack", "Image"), "a-token-of-my-own")

    assert not botocore.validate.ParamValidator().validate(request, request_model).has_errors()
    assert request == {
        "name": "rhel9-golden",
        "semanticVersion": "1.0.0",
        "description": "The golden image",
        "platform": "Linux",
        "osVersion": "RHEL 9",
        "vmImportTaskId": "import-ami-0123456789abcdef0",
        "loggingConfiguration": {"logGroupName": "/aws/imagebuilder/golden"},
        "tags": {
            "team": "platform",
            "cdk-vm-import:token": "a-token-of-my-own",
            "cdk-vm-import:stack": "stack",
            "cdk-vm-import:resource": "Image",
        },
        "clientToken": "a-token-of-my-own",
    }


def test_the_resource_types_are_pinned() -> None:
    assert [str(name) for name in contract.ResourceType] == [
        "Custom::ImportedVmImage",
        "Custom::VmImportTask",
        "Custom::VmImageWait",
        "Custom::VmAmiSettings",
    ]


def test_the_names_of_the_image_resource_are_pinned() -> None:
    assert [str(name) for name in contract.ImageProperty] == [
        "Name",
        "SemanticVersion",
        "Description",
        "Platform",
        "OsVersion",
        "VmImportTaskId",
        "LoggingConfiguration",
        "Tags",
        "ClientToken",
        "StateMachineArn",
        "TimeoutSeconds",
        "ContinueAfterTimeout",
        "DeleteAmi",
        "Retain",
    ]
    assert contract.LOG_GROUP_NAME == "LogGroupName"
    assert [str(name) for name in contract.ImageAttribute] == [
        "ImageArn",
        "ImageVersionArn",
        "LatestImageArn",
        "ImageName",
        "ImageVersion",
        "ClientToken",
        "VmImportTaskId",
        "RequestId",
        "ImageId",
        "ImportFailed",
    ]


def test_the_names_of_the_links_are_pinned() -> None:
    assert [str(name) for name in contract.WaitProperty] == [
        "ImageArn",
        "ImageLogicalId",
        "VmImportTaskId",
        "ImportFailed",
        "StateMachineArn",
        "TimeoutSeconds",
        "ContinueAfterTimeout",
    ]
    assert [str(name) for name in contract.WaitAttribute] == ["ImageArn", "ImageId"]


def test_the_names_of_the_settings_of_an_ami_are_pinned() -> None:
    assert [str(name) for name in contract.AmiSettingsProperty] == [
        "ImageId",
        "UserIds",
        "OrganizationArns",
        "OrganizationalUnitArns",
        "ImdsSupport",
        "DeprecateAt",
        "Retain",
        "StateMachineArn",
    ]
    assert contract.AMI_SETTINGS_TAG == "cdk-vm-import:settings-"
    permission = ("UserId", "1")
    record = Record(digest_of_all([permission]), frozenset({digest(permission)}), "")
    assert {tag_key(Owner("stack", "Sharing")): record.value} == {
        "cdk-vm-import:settings-bbedc70e": "_4CFxL32aZdX//_4CFx"
    }
    assert dataclasses.replace(record, is_retained=True).value == "_4CFxL32aZdX//_4CFx/r"


def test_the_tag_keys_are_pinned() -> None:
    assert contract.TAG_PREFIX == "cdk-vm-import:"
    assert [str(tag) for tag in contract.OwnTag] == [
        "cdk-vm-import:token",
        "cdk-vm-import:stack",
        "cdk-vm-import:resource",
    ]
    assert contract.MAX_TAGS == 46


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("RHEL9_golden", "rhel9-golden"),
        ("Amazon Linux 2 ARM64", "amazon-linux-2-arm64"),
        ("dev_env-e243ad8", "dev-env-e243ad8"),
    ],
)
def test_the_slug_of_a_name_is_pinned(name: str, slug: str) -> None:
    assert contract.slug(name) == slug


def test_the_members_of_the_state_machines_data_are_pinned() -> None:
    assert [str(name) for name in contract.Step] == ["Event", "State", "Seconds"]
    assert contract.UNDELIVERED_RESPONSE == "UndeliveredResponseError"


def test_the_metrics_and_the_fields_of_the_log_that_alarms_and_queries_use_are_pinned() -> None:
    assert contract.METRIC_NAMESPACE == "CdkVmImport"
    assert [str(name) for name in contract.Metric] == ["Duration", "Failed"]
    assert [str(name) for name in contract.Dimension] == ["Stack", "Resource"]
    assert [str(name) for name in contract.LogField] == [
        "message",
        "state",
        "progress",
        "response",
        "outcome",
    ]
    assert [str(name) for name in contract.ImportOutcome] == [
        "available",
        "failed",
        "timeout",
        "deleted",
    ]


def test_the_names_of_the_package_are_pinned() -> None:
    assert cdk_vm_import.__all__ == [
        "AmiSettings",
        "Architecture",
        "BootMode",
        "DiskFormat",
        "IVmImage",
        "ImportedVmImage",
        "LicenseType",
        "Platform",
        "VmDisk",
        "VmImportDashboard",
        "VmImportProvider",
        "VmImportRole",
        "VmImportTask",
    ]
    assert [platform.name for platform in Platform] == ["WINDOWS", "LINUX", "MACOS"]


def test_the_arguments_are_pinned_and_keyword_only() -> None:
    assert arguments_of(ImportedVmImage.__init__) == [
        "image_name",
        "semantic_version",
        "platform",
        "vm_import_task_id",
        "vm_import_task",
        "description",
        "os_version",
        "log_group",
        "tags",
        "client_token",
        "wait_for_available",
        "timeout",
        "removal_policy",
        "delete_ami",
        "stack_output",
        "export_name",
        "provider",
    ]
    assert arguments_of(AmiSettings.__init__) == [
        "image",
        "account_ids",
        "organization_arns",
        "organizational_unit_arns",
        "imds_support",
        "deprecation_date",
        "removal_policy",
    ]
    assert arguments_of(VmImportProvider.__init__) == [
        "vpc",
        "vpc_subnets",
        "security_groups",
        "encryption_key",
        "log_retention",
        "architecture",
        "memory_size",
        "runtime",
        "function_name",
        "role",
        "reserved_concurrent_executions",
        "dead_letter_queue",
        "tracing",
        "log_executions",
    ]
    assert arguments_of(VmImportDashboard.__init__) == ["provider", "dashboard_name"]


def test_the_members_are_pinned() -> None:
    def own_members(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    shared = own_members(IVmImage)
    assert shared == {
        "grant",
        "grant_read",
        "image_arn",
        "image_id",
        "image_name",
        "image_version",
        "image_version_arn",
        "latest_image_arn",
        "latest_major_image_arn",
        "latest_minor_image_arn",
        "metric",
        "metric_duration",
        "metric_failed",
        "on_available",
        "on_failed",
        "on_state_change",
        "publish_image_id_to_ssm",
        "to_base_image",
        "to_machine_image",
    }
    assert own_members(ImportedVmImage.__mro__[1]) == shared | {"image_ref"}
    assert own_members(ImportedVmImage) == {
        "add_query_definition",
        "apply_removal_policy",
        "cdk_tag_manager",
        "client_token",
        "from_image_arn",
        "from_image_attributes",
        "from_image_name",
        "request_id",
        "vm_import_task_id",
    }
    assert own_members(VmImportProvider) == {
        "add_query_definitions",
        "function",
        "get_or_create",
        "grant_principal",
        "log_group",
        "metric_errors",
        "metric_failed_executions",
    }
    assert own_members(VmImportDashboard) == {"dashboard"}
    assert own_members(AmiSettings) == set()
    assert own_members(VmImportTask) == {"cdk_tag_manager", "import_task_id", "platform", "role"}
    assert own_members(VmImportRole) == set()
    assert own_members(VmDisk) == {
        "format",
        "from_asset",
        "from_bucket",
        "from_snapshot",
        "is_snapshot",
    }


def test_the_logical_ids_are_pinned(stack: cdk.Stack, import_image: ImportImage) -> None:
    image = import_image(stack, timeout=cdk.Duration.hours(12))
    AmiSettings(stack, "Sharing", image=image, imds_support="v2.0")

    template = assertions.Template.from_stack(stack).to_json()
    assert {name: resource["Type"] for name, resource in template["Resources"].items()} == {
        "Image9D742C96": "Custom::ImportedVmImage",
        "Sharing58144A44": "Custom::VmAmiSettings",
        "VmImportProviderEventStateMachine79B5AC06": "AWS::StepFunctions::StateMachine",
        "VmImportProviderEventStateMachineRole179D9F4F": "AWS::IAM::Role",
        "VmImportProviderHandlerD6951CDD": "AWS::Lambda::Function",
        "VmImportProviderHandlerEventInvokeConfig182A4BAE": "AWS::Lambda::EventInvokeConfig",
        "VmImportProviderLogGroup884847F1": "AWS::Logs::LogGroup",
        "VmImportProviderRole84245795": "AWS::IAM::Role",
    } | dict.fromkeys(LINKS, "Custom::VmImageWait")
    assert list(template["Outputs"]) == ["ImageImageArnCD42D5A5"]


def test_the_logical_ids_of_the_dashboard_and_of_the_queries_are_pinned(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack).add_query_definition()
    VmImportProvider.get_or_create(stack).add_query_definitions()
    VmImportDashboard(stack, "Imports")

    resources = assertions.Template.from_stack(stack).to_json()["Resources"]
    assert {name for name in resources if "Query" in name or "Imports" in name} == {
        "Imports86737704",
        "ImageHistoryQuery5E2F521B",
        "VmImportProviderFailedImportsQuery0950E843",
        "VmImportProviderRunningImportsQuery24389823",
    }


def test_the_logical_ids_of_settings_of_the_provider_are_pinned(stack: cdk.Stack) -> None:
    role = iam.Role(stack, "Own", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    VmImportProvider(stack, "VmImportProvider", role=role, log_executions=True)

    template = assertions.Template.from_stack(stack).to_json()
    assert {name: resource["Type"] for name, resource in template["Resources"].items()} == {
        "Own30425842": "AWS::IAM::Role",
        "VmImportProviderEventStateMachine79B5AC06": "AWS::StepFunctions::StateMachine",
        "VmImportProviderEventStateMachineLogGroup1C30BE28": "AWS::Logs::LogGroup",
        "VmImportProviderEventStateMachineRole179D9F4F": "AWS::IAM::Role",
        "VmImportProviderHandlerD6951CDD": "AWS::Lambda::Function",
        "VmImportProviderHandlerEventInvokeConfig182A4BAE": "AWS::Lambda::EventInvokeConfig",
        "VmImportProviderLogGroup884847F1": "AWS::Logs::LogGroup",
        "VmImportProviderPolicy91761623": "AWS::IAM::Policy",
    }


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("template-*.json")), ids=lambda path: path.stem
)
def test_a_stack_of_each_released_version_keeps_its_resources(
    path: Path, stack: cdk.Stack, import_image: ImportImage
) -> None:
    """CloudFormation refuses a changed ServiceToken, so a new id would break the stack."""
    import_image(stack, "First", tags={"team": "platform"}, timeout=cdk.Duration.hours(12))
    import_image(stack, "Second", semantic_version="2.0.0")
    old = json.loads(path.read_text())["Resources"]
    new = assertions.Template.from_stack(stack).to_json()["Resources"]

    assert {name: new[name]["Type"] for name in old} == {
        name: resource["Type"] for name, resource in old.items()
    }
    own = {str(name) for name in contract.ResourceType}
    images = [name for name in old if old[name]["Type"] in own]
    for name in images:
        # A property may be added, but none may change.
        assert old[name]["Properties"].items() <= new[name]["Properties"].items()
    assert {json.dumps(new[name]["Properties"]["ServiceToken"]) for name in images} == {
        '{"Fn::GetAtt": ["VmImportProviderHandlerD6951CDD", "Arn"]}'
    }
