"""The app of the tests that wait: an image, a recipe and a launch template on it, and a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_imagebuilder as imagebuilder

from cdk_vm_import import ImportedVmImage, Platform

if TYPE_CHECKING:
    from pathlib import Path

TASK_PARAMETER = "Task"


def synthesize(
    folder: Path, name: str, arguments: dict[str, Any], *, fail_after_hour: int = 0
) -> str:
    """Synthesize the stack into a folder, which the CDK CLI takes for the app.

    Args:
        folder: Where to.
        name: Name of the stack.
        arguments: Those of ImportedVmImage. `minutes` is the timeout. With `task_by_parameter` the
            import task is the value of the parameter `Task` of the stack. `recipe_version` is the
            version of the recipe, which must change with the image.
        fail_after_hour: The hour of the wait after which another resource fails. Default: none.

    Returns:
        The folder, for the CDK CLI.
    """
    app = cdk.App(outdir=str(folder))
    stack = cdk.Stack(app, name)
    if minutes := arguments.pop("minutes", None):
        arguments["timeout"] = cdk.Duration.minutes(minutes)
    if arguments.pop("task_by_parameter", False):
        parameter = cdk.CfnParameter(stack, TASK_PARAMETER)
        arguments["vm_import_task_id"] = parameter.value_as_string
    recipe_version = arguments.pop("recipe_version", arguments["semantic_version"])
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
        version=recipe_version,
        parent_image=image.image_arn,
    )
    cdk.CfnOutput(stack, "Arn", value=image.image_arn)
    if arguments.get("wait_for_available", True):
        ec2.CfnLaunchTemplate(
            stack,
            "Template",
            launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
                image_id=image.to_machine_image().get_image(stack).image_id
            ),
        )
        cdk.CfnOutput(stack, "ImageId", value=image.image_id)
    if fail_after_hour:
        broken = imagebuilder.CfnImageRecipe(
            stack,
            "Broken",
            name="broken",
            version="1.0.0",
            # There is no such image.
            parent_image=f"arn:aws:imagebuilder:{stack.region}:{stack.account}:image/no/1.0.0/1",
        )
        waits = "Resource" if fail_after_hour == 1 else f"Wait{fail_after_hour}"
        broken.node.add_dependency(image.node.find_child(waits))
        # The simulated CloudFormation creates one resource at a time: this one before the next.
        if link := image.node.try_find_child(f"Wait{fail_after_hour + 1}"):
            link.node.add_dependency(broken)
    app.synth()
    return str(folder)
