"""What deployed stacks and users' code rely on. A change here is a breaking change."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import botocore.validate
import pytest
from aws_cdk import assertions
from aws_cdk import aws_logs as logs

import cdk_vm_import
import image_properties
from cdk_vm_import import (
    ImportedVmImage,
    IVmImage,
    Platform,
    VmImportProvider,
    _contract,
)

if TYPE_CHECKING:
    import aws_cdk as cdk

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


@pytest.mark.usefixtures("full_image")
def test_the_handler_makes_a_request_of_the_properties_that_the_model_accepts(
    stack: cdk.Stack, request_model: Any
) -> None:
    properties = image_properties.ImageProperties.parse(image_properties_of(stack))
    request = properties.request(image_properties.Owner("stack", "Image"), "a-token-of-my-own")

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


def test_construct_and_handler_name_the_same_tags() -> None:
    assert {str(tag) for tag in _contract.OwnTag} == {
        image_properties.TOKEN_TAG,
        image_properties.STACK_TAG,
        image_properties.RESOURCE_TAG,
    }
    assert image_properties.TAG_PREFIX == _contract.RESERVED_TAG_PREFIX


@pytest.mark.parametrize("name", ["RHEL9_golden", "Amazon Linux 2 ARM64", "dev_env-e243ad8"])
def test_construct_and_handler_spell_names_alike(name: str) -> None:
    properties = image_properties.ImageProperties(name, "1.0.0", "Linux", "import-ami-01234567")

    assert _contract.slug(name) == properties.slug


def test_the_names_of_the_resource_are_pinned() -> None:
    assert _contract.RESOURCE_TYPE == "Custom::ImportedVmImage"
    assert [str(name) for name in _contract.Property] == [
        "Name",
        "SemanticVersion",
        "Description",
        "Platform",
        "OsVersion",
        "VmImportTaskId",
        "LoggingConfiguration",
        "Tags",
        "ClientToken",
        "Waiter",
        "TimeoutSeconds",
        "WaitHandle",
        "DeleteAmi",
        "Retain",
    ]
    assert _contract.LOG_GROUP_NAME == "LogGroupName"
    assert [str(name) for name in _contract.Attribute] == [
        "ImageArn",
        "ImageVersionArn",
        "LatestImageArn",
        "ImageName",
        "ImageVersion",
        "ClientToken",
        "VmImportTaskId",
        "RequestId",
        "ImageId",
    ]


def test_the_names_of_the_package_are_pinned() -> None:
    assert cdk_vm_import.__all__ == [
        "Architecture",
        "BootMode",
        "DiskFormat",
        "IVmImage",
        "ImportedVmImage",
        "LicenseType",
        "Platform",
        "VmDisk",
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
        "export_name",
        "provider",
    ]
    assert arguments_of(VmImportProvider.__init__) == [
        "vpc",
        "vpc_subnets",
        "security_groups",
        "encryption_key",
        "log_retention",
        "architecture",
        "memory_size",
    ]


def test_the_members_are_pinned() -> None:
    def own_members(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    shared = own_members(IVmImage)
    assert shared == {
        "grant",
        "grant_read",
        "image_arn",
        "image_name",
        "image_version",
        "image_version_arn",
        "latest_image_arn",
    }
    assert own_members(ImportedVmImage.__mro__[1]) == shared
    assert own_members(ImportedVmImage) == {
        "cdk_tag_manager",
        "client_token",
        "from_image_arn",
        "image_id",
        "request_id",
        "to_machine_image",
        "vm_import_task_id",
    }
    assert own_members(VmImportProvider) == {
        "allow_deletion_of_amis",
        "allow_imports",
        "function",
        "get_or_create",
        "grant_principal",
        "service_token",
        "waiter",
    }


def test_the_logical_ids_are_pinned(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack)

    template = assertions.Template.from_stack(stack).to_json()
    assert {name: resource["Type"] for name, resource in template["Resources"].items()} == {
        "Image9D742C96": "Custom::ImportedVmImage",
        "VmImportProviderHandlerD6951CDD": "AWS::Lambda::Function",
        "VmImportProviderHandlerEventInvokeConfig182A4BAE": "AWS::Lambda::EventInvokeConfig",
        "VmImportProviderLogGroup884847F1": "AWS::Logs::LogGroup",
        "VmImportProviderRole84245795": "AWS::IAM::Role",
        "VmImportProviderWaiterF6FCE749": "AWS::StepFunctions::StateMachine",
        "VmImportProviderWaiterRole9786AFE0": "AWS::IAM::Role",
    }
    assert list(template["Outputs"]) == ["ImageImageArnCD42D5A5"]


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("template-*.json")), ids=lambda path: path.stem
)
def test_a_stack_of_each_released_version_keeps_its_resources(
    path: Path, stack: cdk.Stack, import_image: ImportImage
) -> None:
    """CloudFormation refuses a changed ServiceToken, so a new id would brick the stack."""
    import_image(stack, "First", tags={"team": "platform"})
    import_image(stack, "Second", semantic_version="2.0.0")
    old = json.loads(path.read_text())["Resources"]
    new = assertions.Template.from_stack(stack).to_json()["Resources"]

    assert {name: new[name]["Type"] for name in old} == {
        name: resource["Type"] for name, resource in old.items()
    }
    images = [name for name in old if old[name]["Type"] == "Custom::ImportedVmImage"]
    for name in images:
        # What is new may only be added: it must not change what an image is.
        assert old[name]["Properties"].items() <= new[name]["Properties"].items()
    assert {json.dumps(new[name]["Properties"]["ServiceToken"]) for name in images} == {
        '{"Fn::GetAtt": ["VmImportProviderHandlerD6951CDD", "Arn"]}'
    }
