"""The app of the tests that start from disks: a task and an image for each, and a recipe on it."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_s3 as s3

from cdk_vm_import import (
    DiskFormat,
    ImportedVmImage,
    Platform,
    VmDisk,
    VmImportRole,
    VmImportTask,
)

app = cdk.App()
name = app.node.get_context("stack")
stack = cdk.Stack(app, name)
bucket = s3.Bucket.from_bucket_name(stack, "Disks", app.node.get_context("bucket"))
hours = int(app.node.try_get_context("hours") or "1")
role = None
# A role that may read another disk only.
if app.node.try_get_context("other_role"):
    role = VmImportRole(stack, "Other", disks=[VmDisk.from_bucket(bucket, "another.raw")])
image: ImportedVmImage | None = None
for index, (key, disk_format) in enumerate(json.loads(app.node.get_context("disks")).items()):
    image = ImportedVmImage(
        stack,
        f"Image{index}",
        image_name=f"{name}-{index}",
        semantic_version="1.0.0",
        platform=Platform.LINUX,
        vm_import_task=VmImportTask(
            stack,
            f"Import{index}",
            disks=[VmDisk.from_bucket(bucket, key, format=disk_format and DiskFormat(disk_format))],
            role=role,
        ),
        tags={"team": "images"},
        wait_for_available=hours > 0,
        timeout=cdk.Duration.hours(hours or 1),
        removal_policy=cdk.RemovalPolicy.DESTROY,
        delete_ami=True,
    )
    recipe = imagebuilder.CfnImageRecipe(
        stack,
        f"Recipe{index}",
        name=f"{name}-{index}-recipe",
        # A recipe cannot change.
        version=f"1.0.{app.node.try_get_context('recipe') or 0}",
        parent_image=image.image_arn,
    )

# A recipe whose parent does not exist fails.
if app.node.try_get_context("fail") and image:
    broken = imagebuilder.CfnImageRecipe(
        stack,
        "Broken",
        name="broken",
        version="1.0.0",
        parent_image=f"arn:aws:imagebuilder:{stack.region}:{stack.account}:image/no-such/1.0.0/1",
    )
    broken.node.add_dependency(image)

app.synth()
