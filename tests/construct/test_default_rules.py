"""CDK's own rules for templates: projects made by `cdk init` reject each finding at synthesis."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_ssm as ssm

from cdk_vm_import import (
    ImportedVmImage,
    LicenseType,
    Platform,
    VmDisk,
    VmImportProvider,
    VmImportTask,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from constructs import Construct

    from tests.construct.conftest import ImportImage, NewApp

FLAG = "@aws-cdk/core:validateAgainstDefaultRules"


@pytest.fixture
def app(new_app: NewApp, tmp_path: Path) -> cdk.App:
    return new_app(outdir=str(tmp_path))


@pytest.fixture
def findings(app: cdk.App) -> Callable[[], list[str]]:
    """Returns what CDK's rules reported, as errors or as warnings."""
    return lambda: [
        f"{violation['ruleName']}: {violation['description']}"
        for report in Path(app.outdir).glob("*validation-report.json")
        for plugin in json.loads(report.read_text())["pluginReports"]
        if plugin["pluginName"] == "CloudFormation Validate"
        for violation in plugin["violations"]
    ]


def test_the_flags_of_cdk_init_turn_findings_into_errors(init_flags: dict[str, Any]) -> None:
    assert init_flags[FLAG] is True


def test_the_data_of_a_wait_condition_in_an_output_is_a_finding(
    app: cdk.App, stack: cdk.Stack, findings: Callable[[], list[str]]
) -> None:
    handle = cdk.CfnWaitConditionHandle(stack, "Handle")
    condition = cdk.CfnWaitCondition(stack, "Condition", handle=handle.ref, timeout="60")
    cdk.CfnOutput(stack, "Data", value=condition.attr_data.to_string())
    with suppress(RuntimeError):  # it is an error only with the flag
        app.synth()

    assert [finding for finding in findings() if "F6101" in finding]


@pytest.mark.parametrize(
    "waits",
    [
        {"wait_for_available": False},
        {"timeout": cdk.Duration.hours(1)},
        {"timeout": cdk.Duration.hours(12)},
    ],
    ids=["no wait", "1 h", "12 h"],
)
def test_the_consumers_of_an_image_cause_no_finding(
    app: cdk.App,
    stack: cdk.Stack,
    findings: Callable[[], list[str]],
    import_image: ImportImage,
    waits: dict[str, Any],
) -> None:
    image = import_image(stack, **waits, export_name="golden")
    for scope in (stack, cdk.Stack(app, "Other")):
        use(scope, image)
        if "timeout" in waits:
            use_ami(scope, image)
    app.synth()

    assert findings() == []


def use(scope: Construct, image: ImportedVmImage) -> None:
    for name in ("image_arn", "image_version_arn", "latest_image_arn", "latest_minor_image_arn"):
        imagebuilder.CfnImageRecipe(
            scope,
            f"Recipe-{name}",
            name=f"recipe-{name}",
            version="1.0.0",
            parent_image=getattr(image, name),
        )
    for name in ("image_arn", "image_name", "image_version", "vm_import_task_id", "client_token"):
        cdk.CfnOutput(scope, f"Output-{name}", value=getattr(image, name))
    image.grant_read(iam.User(scope, "User"))
    image.on_available(f"{scope.node.id}Rule")


def use_ami(scope: Construct, image: ImportedVmImage) -> None:
    cdk.CfnOutput(scope, "Output-AmiId", value=image.image_id)
    ssm.StringParameter(scope, "Parameter", string_value=image.image_id)
    ec2.LaunchTemplate(scope, "Template", machine_image=image.to_machine_image())


def test_an_import_with_all_options_causes_no_finding(
    app: cdk.App,
    stack: cdk.Stack,
    findings: Callable[[], list[str]],
    import_image: ImportImage,
) -> None:
    key = kms.Key(stack, "Key", enable_key_rotation=True)
    VmImportProvider(stack, "VmImportProvider", vpc=ec2.Vpc(stack, "Vpc"), encryption_key=key)
    task = VmImportTask(
        stack,
        "Import",
        disks=[
            VmDisk.from_bucket(
                s3.Bucket(stack, "Disks", encryption_key=key),
                "windows.vhdx",
                device_name="/dev/sda1",
            )
        ],
        platform=Platform.WINDOWS,
        license_type=LicenseType.AWS,
        encryption_key=key,
        tags={"team": "platform"},
    )
    import_image(
        stack,
        platform=Platform.WINDOWS,
        vm_import_task=task,
        vm_import_task_id=None,
        delete_ami=True,
        tags={"team": "platform"},
        timeout=cdk.Duration.hours(12),
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    app.synth()

    assert findings() == []
