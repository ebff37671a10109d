"""Import a disk from this machine as an AMI that is encrypted with your own KMS key.

cdk deploy --app "python3 examples/local_file_encrypted.py" -c disk=build/rhel9.vmdk

The deployment uploads the file as an asset. If the content of the file changes, the next deployment
imports it again.
"""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask


class LocalFileEncrypted(cdk.Stack):
    """A stack with a KMS key, an import task and its image."""

    def __init__(self, scope: Construct, construct_id: str, *, disk: str) -> None:
        """Import the disk and encrypt the AMI."""
        super().__init__(scope, construct_id)
        key = kms.Key(self, "Key", description="Golden images", enable_key_rotation=True)
        task = VmImportTask(
            self,
            "Import",
            disks=[VmDisk.from_asset(disk)],
            platform=Platform.LINUX,
            license_type=LicenseType.BYOL,
            encryption_key=key,
        )
        image = ImportedVmImage(
            self,
            "Image",
            image_name="rhel9-encrypted",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task=task,
        )
        cdk.CfnOutput(self, "AmiId", value=image.image_id)


app = cdk.App()
LocalFileEncrypted(app, "LocalFileEncrypted", disk=app.node.get_context("disk"))
app.synth()
