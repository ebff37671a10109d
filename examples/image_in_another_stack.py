"""Import an image in one stack, and use it in another: a recipe and a launch template.

cdk deploy --all --app "python3 examples/image_in_another_stack.py" -c bucket=my-vm-disks \
    -c key=rhel9.vmdk

The other stack knows the image by its name, and the AMI by a parameter of Systems Manager. So it
uses a new image without a deployment of its own. docs/other-stacks.md compares the other ways.
"""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask

IMAGE_NAME = "rhel9-golden"
PARAMETER = "/images/rhel9-golden"


class GoldenImage(cdk.Stack):
    """A stack that imports the image and publishes the id of its AMI."""

    def __init__(self, scope: Construct, construct_id: str, *, bucket_name: str, key: str) -> None:
        """Import the disk."""
        super().__init__(scope, construct_id)
        bucket = s3.Bucket.from_bucket_name(self, "Disks", bucket_name)
        task = VmImportTask(
            self,
            "Import",
            disks=[VmDisk.from_bucket(bucket, key)],
            platform=Platform.LINUX,
            license_type=LicenseType.BYOL,
        )
        image = ImportedVmImage(
            self,
            "Image",
            image_name=IMAGE_NAME,
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task=task,
        )
        image.publish_image_id_to_ssm(PARAMETER)


class WebServers(cdk.Stack):
    """A stack that uses the latest image."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        """Create a recipe and a launch template."""
        super().__init__(scope, construct_id)
        image = ImportedVmImage.from_image_name(self, "Image", IMAGE_NAME)
        imagebuilder.CfnImageRecipe(
            self,
            "Recipe",
            name="web-server",
            version="1.0.x",
            # Image Builder finds the latest image whenever it builds.
            parent_image=image.image_arn,
        )
        ec2.LaunchTemplate(
            self,
            "Template",
            # EC2 reads the parameter whenever it launches an instance.
            machine_image=ec2.MachineImage.resolve_ssm_parameter_at_launch(PARAMETER),
        )


app = cdk.App()
golden_image = GoldenImage(
    app,
    "GoldenImage",
    bucket_name=app.node.get_context("bucket"),
    key=app.node.get_context("key"),
)
web_servers = WebServers(app, "WebServers")
# The recipe needs an image that exists.
web_servers.add_dependency(golden_image)
app.synth()
