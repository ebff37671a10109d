"""The app of the tests that change the settings of an AMI."""

from __future__ import annotations

import json
from datetime import datetime

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder

from cdk_vm_import import AmiSettings, ImportedVmImage, Platform

app = cdk.App()
name = app.node.get_context("stack")
stack = cdk.Stack(app, name)
image = ImportedVmImage(
    stack,
    "Image",
    image_name=name,
    semantic_version="1.0.0",
    platform=Platform.LINUX,
    vm_import_task_id=app.node.get_context("task"),
    removal_policy=cdk.RemovalPolicy.DESTROY,
    delete_ami=True,
)
cdk.CfnOutput(stack, "ImageId", value=image.image_id)
# The arguments of AmiSettings, by construct id.
for construct_id, arguments in json.loads(app.node.get_context("settings")).items():
    if date := arguments.pop("deprecation_date", None):
        arguments["deprecation_date"] = datetime.fromisoformat(date)
    settings = AmiSettings(stack, construct_id, image=image, **arguments)
    if app.node.try_get_context("fail"):
        # A recipe on an image that does not exist.
        recipe = imagebuilder.CfnImageRecipe(
            stack,
            "Broken",
            name=f"{name}-broken",
            version="1.0.0",
            parent_image=f"{image.image_version_arn}/999",
        )
        recipe.node.add_dependency(settings)

app.synth()
