"""Import an image with a provider that passes a security review.

cdk deploy --app "python3 examples/hardened_provider.py" -c task=import-ami-0123456789abcdef0
    -c vpc=vpc-0123456789abcdef0 -c zone=us-east-1a -c subnet=subnet-0123456789abcdef0

The subnet needs a route to the endpoints that docs/permissions.md lists. That page also lists the
findings of cdk-nag and checkov that remain, with the reason of each.
"""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_vm_import import ImportedVmImage, Platform, VmImportProvider


class HardenedProvider(cdk.Stack):
    """A stack with an image and a provider in a VPC, encrypted with a key of its own."""

    def __init__(  # noqa: PLR0913 - each is a value of the context
        self,
        scope: Construct,
        construct_id: str,
        *,
        task: str,
        vpc: str,
        zone: str,
        subnet: str,
    ) -> None:
        """Create the provider before the first image, with the id that all images look for."""
        super().__init__(scope, construct_id)
        key = kms.Key(self, "Key", description="VM imports", enable_key_rotation=True)
        undelivered = sqs.Queue(
            self,
            "Undelivered",
            encryption_master_key=key,
            enforce_ssl=True,
            redrive_allow_policy=sqs.RedriveAllowPolicy(
                redrive_permission=sqs.RedrivePermission.DENY_ALL
            ),
        )
        VmImportProvider(
            self,
            "VmImportProvider",
            vpc=ec2.Vpc.from_vpc_attributes(
                self,
                "Vpc",
                vpc_id=vpc,
                availability_zones=[zone],
                private_subnet_ids=[subnet],
            ),
            encryption_key=key,
            runtime=lambda_.Runtime.PYTHON_3_14,
            reserved_concurrent_executions=10,
            dead_letter_queue=undelivered,
            tracing=lambda_.Tracing.ACTIVE,
            log_executions=True,
        )
        ImportedVmImage(
            self,
            "Image",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=task,
        )


if __name__ == "__main__":
    app = cdk.App()
    HardenedProvider(
        app,
        "HardenedProvider",
        task=app.node.get_context("task"),
        vpc=app.node.get_context("vpc"),
        zone=app.node.get_context("zone"),
        subnet=app.node.get_context("subnet"),
    )
    app.synth()
