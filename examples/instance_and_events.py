"""Launch an instance from an imported image, and send an e-mail if an import fails.

cdk deploy --app "python3 examples/instance_and_events.py" -c task=import-ami-0123456789abcdef0 \
    -c email=images@example.com
"""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from cdk_vm_import import ImportedVmImage, Platform


class InstanceAndEvents(cdk.Stack):
    """A stack with an image, an instance and a topic for failures."""

    def __init__(
        self, scope: Construct, construct_id: str, *, vm_import_task_id: str, email: str
    ) -> None:
        """Import the image, launch the instance and subscribe to failures."""
        super().__init__(scope, construct_id)
        image = ImportedVmImage(
            self,
            "Image",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=vm_import_task_id,
            timeout=cdk.Duration.hours(3),
        )
        ec2.Instance(
            self,
            "Instance",
            vpc=ec2.Vpc(self, "Vpc", max_azs=2, nat_gateways=0),
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            instance_type=ec2.InstanceType("m7i.large"),
            # A new image replaces the instance.
            machine_image=image.to_machine_image(),
        )
        topic = sns.Topic(self, "Failures", enforce_ssl=True)
        topic.add_subscription(subscriptions.EmailSubscription(email))
        # CloudFormation creates the rule before the image, or at the same time.
        image.on_failed("ImportFailed", target=targets.SnsTopic(topic))


app = cdk.App()
InstanceAndEvents(
    app,
    "InstanceAndEvents",
    vm_import_task_id=app.node.get_context("task"),
    email=app.node.get_context("email"),
)
app.synth()
