"""The example app: imports a virtual machine as an image, and creates a recipe on that image.

    cdk deploy -c disk=path/to/disk.vmdk
    cdk deploy -c vm_import_task_id=import-ami-0123456789abcdef0

The first command uploads a disk from this machine, and EC2 imports it. The second command uses an
import task that was started elsewhere.

Optional context values: image_name, semantic_version, platform (Windows, Linux or macOS),
removal_policy (destroy, retain or retain_on_update_or_delete), tags (key=value,key2=value2) and
timeout_minutes (how long the deployment waits until the image is AVAILABLE, 1 to 720 minutes;
0 if it does not wait).
"""

import sys
from collections.abc import Mapping
from typing import NoReturn, TypeVar

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask

T = TypeVar("T")

PLATFORMS = {platform.value.lower(): platform for platform in Platform}
REMOVAL_POLICIES = {
    "retain_on_update_or_delete": cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    "destroy": cdk.RemovalPolicy.DESTROY,
    "retain": cdk.RemovalPolicy.RETAIN,
}
# The licence of the operating system on a disk.
LICENSES = {Platform.LINUX: LicenseType.BYOL, Platform.WINDOWS: LicenseType.AWS}
# Amazon's components that update the operating system. There is none for macOS.
UPDATES = {Platform.LINUX: "update-linux", Platform.WINDOWS: "update-windows"}


class GoldenImageStack(cdk.Stack):
    """An imported image and a recipe on it."""

    def __init__(  # noqa: PLR0913 - one for each context value
        self,
        scope: Construct,
        construct_id: str,
        *,
        disk: str | None,
        vm_import_task_id: str | None,
        image_name: str,
        semantic_version: str,
        platform: Platform,
        removal_policy: cdk.RemovalPolicy,
        image_tags: dict[str, str],
        timeout_minutes: int,
    ) -> None:
        """Import the disk, if one is given, then the image, and create the recipe."""
        super().__init__(scope, construct_id)
        task = None
        if disk:
            task = VmImportTask(
                self,
                "Import",
                disks=[VmDisk.from_asset(disk)],
                platform=platform,
                license_type=LICENSES.get(platform),
            )
        image = ImportedVmImage(
            self,
            "Image",
            image_name=image_name,
            semantic_version=semantic_version,
            platform=platform,
            vm_import_task=task,
            vm_import_task_id=vm_import_task_id,
            removal_policy=removal_policy,
            tags=image_tags,
            wait_for_available=timeout_minutes > 0,
            timeout=cdk.Duration.minutes(timeout_minutes or 60),
        )
        component = imagebuilder.CfnImageRecipe.ComponentConfigurationProperty
        recipe = imagebuilder.CfnImageRecipe(
            self,
            "Recipe",
            # The recipe's builds are images with the recipe's name, so it differs from the image's.
            name=f"{image_name}-updated",
            # Image Builder cannot change a recipe. For a new image, the x is the next free number.
            version="1.0.x",
            parent_image=image.image_arn,
            components=[
                component(
                    component_arn=f"arn:{self.partition}:imagebuilder:{self.region}:aws:"
                    f"component/{UPDATES[platform]}/x.x.x"
                )
            ]
            if platform in UPDATES
            else None,
        )
        cdk.CfnOutput(self, "RecipeArn", value=recipe.attr_arn)


def main(app: cdk.App) -> None:
    """Read the context values and synthesize the stack."""
    context = app.node.try_get_context
    disk, task_id = context("disk") or None, context("vm_import_task_id") or None
    if (disk is None) is (task_id is None):
        stop("use either -c disk=path/to/disk.vmdk or -c vm_import_task_id=import-ami-...")
    GoldenImageStack(
        app,
        "GoldenImage",
        disk=disk,
        vm_import_task_id=task_id,
        image_name=context("image_name") or "rhel9-golden",
        semantic_version=context("semantic_version") or "1.0.0",
        platform=choose("platform", PLATFORMS, context("platform") or "Linux"),
        removal_policy=choose(
            "removal_policy",
            REMOVAL_POLICIES,
            context("removal_policy") or "retain_on_update_or_delete",
        ),
        image_tags=parse_tags(context("tags") or ""),
        timeout_minutes=parse_minutes(str(context("timeout_minutes") or "60")),
    )
    app.synth()


def choose(argument: str, choices: Mapping[str, T], value: str) -> T:
    """Return what a context value stands for."""
    if value.lower() not in choices:
        stop(f"{argument} {value!r} is not valid: use one of {', '.join(choices)}.")
    return choices[value.lower()]


def parse_tags(value: str) -> dict[str, str]:
    """Read key=value,key2=value2."""
    pairs = [pair.partition("=") for pair in value.split(",") if pair]
    if not all(equals for _, equals, _ in pairs):
        stop(f"tags {value!r} is not valid: use key=value,key2=value2.")
    return {key: tag for key, _, tag in pairs}


def parse_minutes(value: str) -> int:
    """Read a whole number. The construct checks the limits."""
    if not value.isdecimal():
        stop(f"timeout_minutes {value!r} is not valid: use a whole number.")
    return int(value)


def stop(message: str) -> NoReturn:
    """End the app with one line instead of a stack trace."""
    sys.exit(f"app.py: {message}")


if __name__ == "__main__":
    main(cdk.App())
