"""The stacks to compare: ours in each mode, and custom resources that CDK users write instead."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aws_cdk as cdk
from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import custom_resources as cr

from cdk_vm_import import ImportedVmImage, Platform, VmDisk, VmImportTask

if TYPE_CHECKING:
    from collections.abc import Callable

    Build = Callable[[cdk.App], cdk.Stack]

ROOT: Final = Path(__file__).resolve().parents[1]
TASK: Final = "import-ami-0123456789abcdef0"
_IMAGES: Final = f"arn:{Aws.PARTITION}:imagebuilder:{Aws.REGION}:{Aws.ACCOUNT_ID}:image/*"
_REQUEST: Final = {
    "name": "rhel9-golden",
    "semanticVersion": "1.0.0",
    "platform": "Linux",
    "vmImportTaskId": TASK,
    "clientToken": "0c4b4d1e-6a5c-5d3b-8f0e-2f1f5d1f6b1a",
}
# The code does not matter to cdk-nag and checkov.
_CODE: Final = "def handler(event, context): ..."


def hardened(app: cdk.App) -> cdk.Stack:
    """Create the stack of examples/hardened_provider.py."""
    example = runpy.run_path(str(ROOT / "examples/hardened_provider.py"))
    stack: cdk.Stack = example["HardenedProvider"](
        app,
        "Stack",
        task=TASK,
        vpc="vpc-0123456789abcdef0",
        zone="us-east-1a",
        subnet="subnet-0123456789abcdef0",
    )
    return stack


def _ours(app: cdk.App, **arguments: Any) -> cdk.Stack:  # noqa: ANN401 - of ImportedVmImage
    stack = cdk.Stack(app, "Stack")
    _image(stack, vm_import_task_id=TASK, **arguments)
    return stack


def _with_task(app: cdk.App) -> cdk.Stack:
    stack = cdk.Stack(app, "Stack")
    bucket = s3.Bucket.from_bucket_name(stack, "Disks", "disks")
    task = VmImportTask(stack, "Import", disks=[VmDisk.from_bucket(bucket, "rhel9.vmdk")])
    _image(stack, vm_import_task=task)
    return stack


def _image(stack: cdk.Stack, **arguments: Any) -> None:  # noqa: ANN401 - of ImportedVmImage
    ImportedVmImage(
        stack,
        "Image",
        image_name="rhel9-golden",
        semantic_version="1.0.0",
        platform=Platform.LINUX,
        **arguments,
    )


def _function(app: cdk.App) -> cdk.Stack:
    stack = cdk.Stack(app, "Stack")
    function = _importing(stack, "Function")
    cdk.CustomResource(stack, "Image", service_token=function.function_arn, properties=_REQUEST)
    return stack


def _sdk_call(app: cdk.App) -> cdk.Stack:
    stack = cdk.Stack(app, "Stack")
    cr.AwsCustomResource(
        stack,
        "Image",
        on_create=cr.AwsSdkCall(
            service="imagebuilder",
            action="importVmImage",
            parameters=_REQUEST,
            physical_resource_id=cr.PhysicalResourceId.of("image"),
        ),
        policy=cr.AwsCustomResourcePolicy.from_statements(_statements()),
    )
    return stack


def _provider(app: cdk.App, *, is_async: bool) -> cdk.Stack:
    stack = cdk.Stack(app, "Stack")
    provider = cr.Provider(
        stack,
        "Provider",
        on_event_handler=_importing(stack, "OnEvent"),
        is_complete_handler=_importing(stack, "IsComplete") if is_async else None,
    )
    cdk.CustomResource(stack, "Image", service_token=provider.service_token, properties=_REQUEST)
    return stack


def _importing(stack: cdk.Stack, name: str) -> lambda_.Function:
    return lambda_.Function(
        stack,
        name,
        runtime=lambda_.Runtime.PYTHON_3_13,
        handler="index.handler",
        code=lambda_.Code.from_inline(_CODE),
        initial_policy=_statements(),
    )


def _statements() -> list[iam.PolicyStatement]:
    """Return the least that an import needs. The service-linked role exists already."""
    return [
        iam.PolicyStatement(
            actions=[f"imagebuilder:{name}" for name in ("ImportVmImage", "GetImage")],
            resources=[_IMAGES],
        ),
        iam.PolicyStatement(
            actions=["ec2:DescribeImages", "ec2:DescribeImportImageTasks"], resources=["*"]
        ),
    ]


TEMPLATES: Final[dict[str, Build]] = {
    "ImportedVmImage, no wait": partial(_ours, wait_for_available=False),
    "ImportedVmImage, 1 hour": _ours,
    "ImportedVmImage, 12 hours": partial(_ours, timeout=cdk.Duration.hours(12)),
    "ImportedVmImage with VmImportTask": _with_task,
    "examples/hardened_provider.py": hardened,
    "custom resource with a function": _function,
    "AwsCustomResource": _sdk_call,
    "cr.Provider": partial(_provider, is_async=False),
    "cr.Provider with is_complete": partial(_provider, is_async=True),
}
