"""The app of tests/deploy/test_deploy.py: images as the context says, and a failure on demand."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder

from cdk_vm_import import ImportedVmImage, Platform

app = cdk.App()
stack = cdk.Stack(app, app.node.get_context("stack"))
previous: ImportedVmImage | None = None
for image_id, arguments in json.loads(app.node.get_context("images")).items():
    recipe_version = arguments.pop("recipe", None)
    removal_policy = cdk.RemovalPolicy[arguments.pop("removal_policy", "DESTROY")]
    platform = Platform(arguments.pop("platform", "Linux"))
    image = ImportedVmImage(
        stack,
        image_id,
        platform=platform,
        removal_policy=removal_policy,
        # test_waiting.py tests the wait.
        wait_for_available=False,
        **arguments,
    )
    if recipe_version:
        imagebuilder.CfnImageRecipe(
            stack,
            f"{image_id}Recipe",
            name=f"{arguments['image_name']}-recipe",
            version=recipe_version,
            parent_image=image.image_arn,
        )
    previous = image

# A recipe whose parent does not exist fails, after the images were imported.
if app.node.try_get_context("fail"):
    broken = imagebuilder.CfnImageRecipe(
        stack,
        "Broken",
        name="broken",
        version="1.0.0",
        parent_image=f"arn:aws:imagebuilder:{stack.region}:{stack.account}:image/no-such/1.0.0/1",
    )
    if previous:
        broken.node.add_dependency(previous)

app.synth()
