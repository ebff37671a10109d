"""pyright, strict, reports nothing about the apps of users: as the README and the examples do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from local_aws.client.environment import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Every argument and method that takes a construct of CDK, each with the class that users create.
CDK_CONSTRUCTS = """\
import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_imagebuilder_alpha as alpha
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs

from cdk_vm_import import ImportedVmImage, IVmImage, Platform
from cdk_vm_import import VmDisk, VmImportProvider, VmImportRole, VmImportTask


def create(stack: cdk.Stack, user: iam.User, role: iam.Role, function: lambda_.IFunction) -> None:
    key, vpc = kms.Key(stack, "Key"), ec2.Vpc(stack, "Vpc")
    provider = VmImportProvider(
        stack,
        "VmImportProvider",
        vpc=vpc,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        security_groups=[ec2.SecurityGroup(stack, "Group", vpc=vpc)],
        encryption_key=key,
        role=role,
        dead_letter_queue=sqs.Queue(stack, "Queue"),
    )
    disks = [
        VmDisk.from_bucket(s3.Bucket(stack, "Disks"), "rhel9.vmdk", encryption_key=key),
        VmDisk.from_asset("rhel9.vmdk", encryption_key=key),
        VmDisk.from_snapshot("snap-0123456789abcdef0", encryption_key=key),
    ]
    own_role = VmImportRole(stack, "VmImportRole", disks=disks, encryption_key=key)
    VmImportTask(stack, "Other", disks=disks, role=role, provider=provider)
    task = VmImportTask(stack, "Import", disks=disks, role=own_role, encryption_key=key)
    image = ImportedVmImage(
        stack,
        "Image",
        image_name="rhel9-golden",
        semantic_version="1.0.0",
        platform=Platform.LINUX,
        vm_import_task=task,
        log_group=logs.LogGroup(stack, "Log", log_group_name="/aws/imagebuilder/rhel9"),
    )
    use(image, user, function, vpc)
    use(ImportedVmImage.from_image_name(stack, "Latest", "rhel9-golden"), user, function, vpc)
    image.apply_removal_policy(cdk.RemovalPolicy.DESTROY)
    cdk.Tags.of(image).add("team", "platform")


def use(image: IVmImage, user: iam.User, function: lambda_.IFunction, vpc: ec2.Vpc) -> None:
    alpha.ImageRecipe(user, "Recipe", base_image=image.to_base_image())
    ec2.Instance(
        user,
        "Instance",
        vpc=vpc,
        instance_type=ec2.InstanceType("m7i.large"),
        machine_image=image.to_machine_image(),
    )
    image.grant_read(user)
    image.grant(user, "imagebuilder:GetImage")
    image.on_state_change("Changed", target=targets.LambdaFunction(function))
    image.on_failed("Failed", target=targets.LambdaFunction(function))
"""
WRONG = """\
from cdk_vm_import import VmDisk

VmDisk.from_snapshot(1)
"""


# What pyright reports about calls of CDK alone, whose classes lack their interfaces for pyright.
OF_CDK = {
    'Argument of type "EmailSubscription" cannot be assigned to parameter "topic_subscription"',
    'Argument of type "Key" cannot be assigned to parameter "encryption_master_key"',
    'Argument of type "ServicePrincipal" cannot be assigned to parameter "assumed_by"',
    'Argument of type "Topic" cannot be assigned to parameter "topic"',
}
EXAMPLES = sorted((CHECKOUT / "examples").glob("*.py"))


@pytest.fixture
def findings(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs pyright, strict, on a project and returns what it reports."""

    def findings(*files: str) -> list[str]:
        for number, file in enumerate(files):
            (tmp_path / f"app{number}.py").write_text(file)
        settings = {"typeCheckingMode": "strict", "extraPaths": [str(CHECKOUT / "constructs")]}
        (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
        pyright = [str(CHECKOUT / "node_modules/.bin/pyright"), "--outputjson"]
        command = [*pyright, "--pythonpath", sys.executable, "--project", str(tmp_path)]
        report = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
        assert report["summary"]["filesAnalyzed"] == len(files)
        return [diagnostic["message"] for diagnostic in report["generalDiagnostics"]]

    return findings


def test_the_readme_has_no_findings_and_a_wrong_type_is_one(
    findings: Callable[..., list[str]],
) -> None:
    first, *later = re.findall(
        r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL
    )
    end = first.index("app.synth()")

    (finding,) = findings(first[:end] + "\n".join(later) + first[end:], WRONG)

    assert finding.startswith('Argument of type "Literal[1]" cannot be assigned')


@pytest.mark.slow  # pyright reads all of aws_ec2
def test_the_examples_and_cdks_constructs_as_arguments_have_no_findings_of_ours(
    findings: Callable[..., list[str]],
) -> None:
    found = findings(CDK_CONSTRUCTS, *(example.read_text() for example in EXAMPLES))

    assert {finding.partition(' of type "I')[0] for finding in found} == OF_CDK
