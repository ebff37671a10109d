"""Import hundreds of virtual machines, in a stack for each group of them.

cdk deploy --all --app "python3 examples/many_images.py" -c bucket=my-vm-disks -c machines=vms.json

The file has the machines of each stack: the names of the images, and the keys of their disks.

    {"Erp": {"erp-app": "erp/app.vmdk", "erp-db": "erp/db.vmdk"}, "Web": {"web": "web.vmdk"}}

A stack has room for 200 images with an output each. docs/limits.md has the limits.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask


class ManyImages(cdk.Stack):
    """A stack with an import task and an image for each machine."""

    def __init__(
        self, scope: Construct, construct_id: str, *, bucket_name: str, machines: Mapping[str, str]
    ) -> None:
        """Import the disks, all at the same time."""
        super().__init__(scope, construct_id)
        bucket = s3.Bucket.from_bucket_name(self, "Disks", bucket_name)
        for name, key in machines.items():
            # The ids are those of the machine, so that others can come and go.
            machine = Construct(self, name)
            task = VmImportTask(
                machine,
                "Import",
                disks=[VmDisk.from_bucket(bucket, key)],
                platform=Platform.LINUX,
                license_type=LicenseType.BYOL,
            )
            ImportedVmImage(
                machine,
                "Image",
                image_name=name,
                semantic_version="1.0.0",
                platform=Platform.LINUX,
                vm_import_task=task,
            )


app = cdk.App()
groups = json.loads(Path(app.node.get_context("machines")).read_text())
for group, machines in groups.items():
    ManyImages(app, group, bucket_name=app.node.get_context("bucket"), machines=machines)
app.synth()
