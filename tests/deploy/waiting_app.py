"""The app of the tests that wait: an image, a recipe and a launch template on it, a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_imagebuilder as imagebuilder

from cdk_vm_import import ImportedVmImage, Platform

if TYPE_CHECKING:
    from pathlib import Path


def synthesize(folder: Path, name: str, arguments: dict[str, Any], *, fail: bool) -> str:
    """Synthesize the stack into a folder, which the CDK CLI takes for the app.

    Args:
        folder: Where to.
        name: Name of the stack.
        arguments: Of ImportedVmImage; `minutes` is the timeout, and with `task_by_parameter` the
            import task is the value of a parameter of the stack.
        fail: Whether a resource fails, beside the wait or after it.

    Returns:
        The folder, for the CDK CLI.
    """
    app = cdk.App(outdir=str(folder))
    stack = cdk.Stack(app, name)
    if minutes := arguments.pop("minutes", None):
        arguments["timeout"] = cdk.Duration.minutes(minutes)
    if arguments.pop("task_by_parameter", False):
        parameter = cdk.CfnParameter(stack, "Task", default=arguments["vm_import_task_id"])
        arguments["vm_import_task_id"] = parameter.value_as_string
    image = ImportedVmImage(
        stack,
        "Image",
        platform=Platform.LINUX,
        **{"removal_policy": cdk.RemovalPolicy.DESTROY, **arguments},
    )
    imagebuilder.CfnImageRecipe(
        stack,
        "Recipe",
        name=f"{arguments['image_name']}-recipe",
        version=arguments["semantic_version"],
        parent_image=image.image_arn,
    )
    if arguments.get("wait_for_available", True):
        ec2.CfnLaunchTemplate(
            stack,
            "Template",
            launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
                image_id=image.to_machine_image().get_image(stack).image_id
            ),
        )
        cdk.CfnOutput(stack, "ImageId", value=image.image_id)
    if fail:
        broken = imagebuilder.CfnImageRecipe(
            stack,
            "Broken",
            name="broken",
            version="1.0.0",
            # there is no such image
            parent_image=f"arn:aws:imagebuilder:{stack.region}:{stack.account}:image/no/1.0.0/1",
        )
        broken.node.add_dependency(image.node.find_child("Resource"))
    app.synth()
    return str(folder)
