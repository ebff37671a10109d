"""Import a disk from a bucket as an image, and create a recipe on it, in one deployment.

cdk deploy --app "python3 examples/disk_in_a_bucket.py" -c bucket=my-vm-disks -c key=rhel9.vmdk
"""

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask


class DiskInABucket(cdk.Stack):
    """A stack with an import task, its image and a recipe."""

    def __init__(self, scope: Construct, construct_id: str, *, bucket_name: str, key: str) -> None:
        """Import the disk and create the recipe."""
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
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task=task,
            # A new disk replaces the image. Then nothing of the old one remains.
            removal_policy=cdk.RemovalPolicy.DESTROY,
            delete_ami=True,
        )
        imagebuilder.CfnImageRecipe(
            self,
            "Recipe",
            name="rhel9-golden-updated",
            version="1.0.x",
            parent_image=image.image_arn,
        )


app = cdk.App()
DiskInABucket(
    app,
    "DiskInABucket",
    bucket_name=app.node.get_context("bucket"),
    key=app.node.get_context("key"),
)
app.synth()
