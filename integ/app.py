"""The CDK app of the checks: import tasks and images as a check defines them.

The CDK CLI runs it: `python -m integ.app FILE`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3

from cdk_vm_import import (
    ImportedVmImage,
    LicenseType,
    Platform,
    VmDisk,
    VmImportProvider,
    VmImportTask,
)
from integ.definition import ENDPOINTS, Definition, Disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constructs import IConstruct

# Long enough for every import of a small disk that is known.
_TIMEOUT: Final = cdk.Duration.minutes(60)
_CIDR: Final = "10.0.0.0/16"


def synthesize(name: str, definition: Definition, tags: Mapping[str, str]) -> None:
    """Synthesize a stack into the folder that the CDK CLI chooses.

    Args:
        name: The name of the stack, and what the names of its images begin with.
        definition: What it contains.
        tags: Tags of the stack.
    """
    app = cdk.App()
    stack = cdk.Stack(app, name, tags=dict(tags))
    provider = _provider_in_vpc(stack) if definition.in_vpc else None
    # The simulated CloudFormation notices a cancelled update when it begins the next resource.
    last = logs.LogGroup(stack, "Last", removal_policy=cdk.RemovalPolicy.DESTROY)
    for image_id, image in definition.images.items():
        task: VmImportTask | None = None
        if isinstance(image.source, Disk):
            bucket = s3.Bucket.from_bucket_name(stack, f"{image_id}Bucket", image.source.bucket)
            task = VmImportTask(
                stack,
                f"{image_id}Task",
                disks=[VmDisk.from_bucket(bucket, image.source.key)],
                platform=Platform.LINUX,
                license_type=LicenseType.BYOL,
                tags=tags,
                provider=provider,
            )
        imported = ImportedVmImage(
            stack,
            image_id,
            image_name=f"{name}-{image_id.lower()}",
            semantic_version=image.version,
            platform=Platform.LINUX,
            vm_import_task=task,
            vm_import_task_id=image.source if isinstance(image.source, str) else None,
            tags=tags,
            wait_for_available=image.waits,
            timeout=_TIMEOUT,
            removal_policy=cdk.RemovalPolicy.DESTROY,
            delete_ami=image.delete_ami and task is not None,
            provider=provider,
        )
        last.node.add_dependency(imported)
        if definition.fails_after == image_id:
            broken = imagebuilder.CfnImageRecipe(
                stack,
                "Broken",
                name=f"{name}-broken",
                version="1.0.0",
                # This image does not exist.
                parent_image=f"arn:{stack.partition}:imagebuilder:{stack.region}:{stack.account}"
                ":image/no-such/1.0.0/1",
            )
            broken.node.add_dependency(task or imported)
    app.synth()


def _provider_in_vpc(stack: cdk.Stack) -> VmImportProvider:
    isolated = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
    vpc = ec2.Vpc(
        stack,
        "Vpc",
        ip_addresses=ec2.IpAddresses.cidr(_CIDR),
        max_azs=1,
        nat_gateways=0,
        subnet_configuration=[
            ec2.SubnetConfiguration(
                name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
            )
        ],
        restrict_default_security_group=False,
    )
    # The default rules of the endpoints use an attribute of the VPC that MiniStack does not have.
    inside = ec2.SecurityGroup(stack, "Inside", vpc=vpc)
    inside.add_ingress_rule(ec2.Peer.ipv4(_CIDR), ec2.Port.HTTPS)
    provider = VmImportProvider(
        stack, "VmImportProvider", vpc=vpc, vpc_subnets=isolated, security_groups=[inside]
    )
    endpoints: list[IConstruct] = [
        vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
    ]
    endpoints += [
        vpc.add_interface_endpoint(
            name,
            service=getattr(ec2.InterfaceVpcEndpointAwsService, name),
            security_groups=[inside],
            open=False,
        )
        for name in ENDPOINTS
    ]
    provider.node.add_dependency(*endpoints)
    return provider


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text())
    synthesize(wanted["name"], Definition.from_json(wanted["definition"]), wanted["tags"])
