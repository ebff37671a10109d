"""The app of the tests of failures: a stack for each of them, named after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aws_cdk as cdk

from cdk_vm_import import ImportedVmImage, Platform, VmImportProvider

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def synthesize(folder: Path, version: str, tasks: Mapping[str, str | None]) -> str:
    """Synthesize the stacks into a folder, which the CDK CLI takes for the app.

    Args:
        folder: Where to.
        version: The semantic version of the images.
        tasks: The import task of each stack's image, by the name of the stack; None for a stack
            without an image.

    Returns:
        The folder, for the CDK CLI.
    """
    app = cdk.App(outdir=str(folder))
    for name, task in tasks.items():
        stack = cdk.Stack(app, name)
        VmImportProvider(stack, "VmImportProvider")
        if task:
            ImportedVmImage(
                stack,
                "GoldenImage",
                image_name=f"golden-{name.lower()}",
                semantic_version=version,
                platform=Platform.LINUX,
                vm_import_task_id=task,
                timeout=cdk.Duration.minutes(30),
                removal_policy=cdk.RemovalPolicy.DESTROY,
            )
    app.synth()
    return str(folder)
