"""A project made by `cdk init`, with its own feature flags, in which others use a 12-hour image."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from contract import ResourceType
from local_aws.client.cdk_cli import CdkCli
from local_aws.client.environment import CHECKOUT
from tests.deploy.deployed import HOUR, Account, StackView, eventually, played

if TYPE_CHECKING:
    from pathlib import Path

STACK = """\
from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_ssm as ssm
from cdk_vm_import import ImportedVmImage, Platform
from constructs import Construct


class VmImagesStack(Stack):
    def __init__(self, scope: Construct, construct_id: str, **kwargs) -> None:
        super().__init__(scope, construct_id, **kwargs)
        self.image = ImportedVmImage(
            self,
            "GoldenImage",
            image_name="cdk-init-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=self.node.get_context("task"),
            timeout=Duration.hours(12),
            removal_policy=RemovalPolicy.DESTROY,
        )
        imagebuilder.CfnImageRecipe(
            self,
            "Recipe",
            name="cdk-init-recipe",
            version="1.0.0",
            parent_image=self.image.image_arn,
        )
        ssm.StringParameter(
            self, "Parameter", parameter_name="/cdk-init/ami", string_value=self.image.image_id
        )
        CfnOutput(self, "ImageId", value=self.image.image_id)
"""
OTHER_STACK = """\
from aws_cdk import Stack
from aws_cdk import aws_ssm as ssm
from constructs import Construct


class OtherStack(Stack):
    def __init__(self, scope: Construct, construct_id: str, *, image, **kwargs) -> None:
        super().__init__(scope, construct_id, **kwargs)
        ssm.StringParameter(
            self, "Parameter", parameter_name="/cdk-init/other", string_value=image.image_id
        )
"""
APP = """\
import aws_cdk as cdk

from vm_images.other_stack import OtherStack
from vm_images.vm_images_stack import VmImagesStack

app = cdk.App()
images = VmImagesStack(app, "VmImagesStack")
OtherStack(app, "OtherStack", image=images.image)
app.synth()
"""


def new_project(folder: Path) -> Path:
    """Create a project with `cdk init`, and write the user's code into it."""
    project = folder / "vm_images"
    project.mkdir()
    command = [str(CHECKOUT / "node_modules/.bin/cdk"), "init", "app", "--language", "python"]
    subprocess.run(
        [*command, "--generate-only"], cwd=project, check=True, capture_output=True, text=True
    )
    (project / "app.py").write_text(APP)
    (project / "vm_images/vm_images_stack.py").write_text(STACK)
    (project / "vm_images/other_stack.py").write_text(OTHER_STACK)
    return project


def test_other_resources_and_stacks_of_a_new_project_use_an_image_of_up_to_12_hours(
    account: Account, tmp_path: Path
) -> None:
    local = account.local
    local.knobs(import_seconds=2.5 * HOUR)
    project = new_project(tmp_path)
    assert "validateAgainstDefaultRules" in (project / "cdk.json").read_text()
    cdk = CdkCli(local, tmp_path, project=project)
    context = {"task": account.import_image()}

    with ThreadPoolExecutor() as executor:
        deployment = executor.submit(cdk.deploy, **context)
        assert eventually(lambda: deployment.done() or account.imports("cdk-init-golden"), 120)
        assert played(local, deployment.done)

    ami = account.ami_of(*account.builds("cdk-init-golden"))
    assert deployment.result()["ImageId"] == ami
    for name in ("/cdk-init/ami", "/cdk-init/other"):
        assert account.ssm.get_parameter(Name=name)["Parameter"]["Value"] == ami
    stack = StackView(account, "VmImagesStack")
    assert len(stack.resources(ResourceType.WAIT)) == 11
    (recipe,) = stack.resources("AWS::ImageBuilder::ImageRecipe").values()
    parent = account.images.get_image_recipe(imageRecipeArn=recipe)["imageRecipe"]["parentImage"]
    assert [parent] == account.builds("cdk-init-golden")
    cdk.destroy(**context)
    assert account.builds("cdk-init-golden") == []
