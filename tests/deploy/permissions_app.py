"""The app of the tests that add and remove what a stack needs permissions for."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_s3 as s3

from cdk_vm_import import ImportedVmImage, Platform, VmDisk, VmImportTask

app = cdk.App()
name = app.node.get_context("stack")
stack = cdk.Stack(app, name)
bucket = s3.Bucket.from_bucket_name(stack, "Disks", app.node.get_context("bucket"))
# Images by construct id: from a task of the stack with a `disk`, or from `vm_import_task_id`.
for construct_id, arguments in json.loads(app.node.get_context("images")).items():
    if disk := arguments.pop("disk", None):
        arguments["vm_import_task"] = VmImportTask(
            stack, f"{construct_id}Task", disks=[VmDisk.from_bucket(bucket, disk)]
        )
    image = ImportedVmImage(
        stack,
        construct_id,
        image_name=f"{name}-{construct_id}",
        platform=Platform.LINUX,
        removal_policy=cdk.RemovalPolicy.DESTROY,
        **{"semantic_version": "1.0.0", **arguments},
    )
    if construct_id == app.node.try_get_context("fail_after"):
        # A recipe on an image that does not exist.
        recipe = imagebuilder.CfnImageRecipe(
            stack,
            "Broken",
            name=f"{name}-broken",
            version="1.0.0",
            parent_image=f"{image.image_version_arn}/999",
        )
        recipe.node.add_dependency(image)

app.synth()
