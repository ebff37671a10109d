"""Import a Windows server with a system disk and a data disk, which may take hours.

cdk deploy --app "python3 examples/two_disk_windows_server.py" -c bucket=my-vm-disks
"""

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_vm_import import (
    Architecture,
    BootMode,
    ImportedVmImage,
    LicenseType,
    Platform,
    VmDisk,
    VmImportTask,
)


class TwoDiskWindowsServer(cdk.Stack):
    """A stack with an import task of two disks and its image."""

    def __init__(self, scope: Construct, construct_id: str, *, bucket_name: str) -> None:
        """Import both disks as one machine."""
        super().__init__(scope, construct_id)
        bucket = s3.Bucket.from_bucket_name(self, "Disks", bucket_name)
        task = VmImportTask(
            self,
            "Import",
            disks=[
                VmDisk.from_bucket(bucket, "system.vhdx", device_name="/dev/sda1"),
                VmDisk.from_bucket(bucket, "data.vhdx", device_name="/dev/sdf"),
            ],
            platform=Platform.WINDOWS,
            architecture=Architecture.X86_64,
            boot_mode=BootMode.UEFI,
            # AWS's licence replaces the one that the system came with. With BYOL that one remains.
            license_type=LicenseType.AWS,
        )
        ImportedVmImage(
            self,
            "Image",
            image_name="windows-2022-files",
            semantic_version="1.0.0",
            platform=Platform.WINDOWS,
            os_version="Microsoft Windows Server 2022",
            vm_import_task=task,
            timeout=cdk.Duration.hours(6),
        )


app = cdk.App()
TwoDiskWindowsServer(app, "TwoDiskWindowsServer", bucket_name=app.node.get_context("bucket"))
app.synth()
