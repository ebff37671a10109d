"""The app of tests/deploy/test_other_stacks.py: an image, and a recipe in another stack."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_ssm as ssm

from cdk_vm_import import ImportedVmImage, Platform

app = cdk.App()
name, way = app.node.get_context("name"), app.node.get_context("way")
images, recipes = cdk.Stack(app, f"{name}-images"), cdk.Stack(app, f"{name}-recipes")
image = ImportedVmImage(
    images,
    "Image",
    image_name=name,
    semantic_version="1.0.0",
    platform=Platform.LINUX,
    vm_import_task_id=app.node.get_context("task"),
    wait_for_available=False,
    # MiniStack does not notice an update that changes nothing but outputs.
    tags={"way": way},
)
if way == "PARAMETER":
    parameter = f"/{name}/arn"
    ssm.StringParameter(images, "Arn", parameter_name=parameter, string_value=image.image_arn)
    arn = ssm.StringParameter.value_for_string_parameter(recipes, parameter)
    recipes.add_dependency(images)
else:
    arn = cdk.Stack.consume_reference(image.image_arn, cdk.ReferenceStrength[way])
imagebuilder.CfnImageRecipe(
    recipes,
    "Recipe",
    name=f"{name}-recipe",
    version="1.0.x",
    parent_image=arn,
    description=app.node.try_get_context("description"),
)
app.synth()
