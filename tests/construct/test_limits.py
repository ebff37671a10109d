"""The limits of CloudFormation, and the figures about them in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from cdk_vm_import import AmiSettings, ImportedVmImage, VmDisk, VmImportProvider, VmImportTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage

WAITING = (Path(__file__).parents[2] / "docs/waiting.md").read_text()
LIMITS = (Path(__file__).parents[2] / "docs/limits.md").read_text()
HOUR = cdk.Duration.hours
NO_WAIT: dict[str, Any] = {"wait_for_available": False}
MOST: list[tuple[dict[str, Any], int]] = [
    (NO_WAIT, 493),
    ({"timeout": HOUR(1)}, 493),
    ({"timeout": HOUR(3)}, 164),
    ({"timeout": HOUR(6)}, 82),
    ({"timeout": HOUR(12)}, 41),
]


@pytest.fixture
def app(tmp_path: Path) -> cdk.App:
    """An app as the CDK CLI runs it, with version reporting: one resource more for each stack.

    It has no feature flags: they do not change how many resources an image has.
    """
    return cdk.App(outdir=str(tmp_path), analytics_reporting=True)


@pytest.fixture
def images(app: cdk.App, import_image: ImportImage) -> Callable[..., cdk.Stack]:
    """Creates a stack with a number of images."""

    def images(count: int, **arguments: Any) -> cdk.Stack:
        stack = cdk.Stack(app, "Stack")
        for number in range(count):
            import_image(stack, f"Image{number}", image_name=f"image-{number}", **arguments)
        return stack

    return images


@pytest.mark.parametrize(("waits", "most"), MOST)
def test_a_stack_has_room_for_as_many_images_as_documented(
    images: Callable[..., cdk.Stack], waits: dict[str, Any], most: int
) -> None:
    resources = assertions.Template.from_stack(images(1, **waits)).to_json()["Resources"]

    shared = sum(not r["Type"].startswith("Custom::") for r in resources.values())
    of_image = len(resources) - shared
    assert (500 - shared) // of_image == most
    assert f"{most} images" in LIMITS or most in {82, 164}
    assert re.search(rf"^\|.*\| {of_image} \| {most} \|$", WAITING, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(("waits", "most"), MOST)
def test_a_stack_with_the_most_images_synthesizes_and_one_more_is_an_error(
    app: cdk.App,
    images: Callable[..., cdk.Stack],
    import_image: ImportImage,
    waits: dict[str, Any],
    most: int,
) -> None:
    stack = images(most, stack_output=False, **waits)
    template = app.synth().get_stack_by_name("Stack").template
    assert len(json.dumps(template)) < 400_000  # of 1 MB

    import_image(stack, "OneMore", image_name="one-more", stack_output=False, **waits)

    with pytest.raises(RuntimeError, match="greater than allowed maximum of 500"):
        app.synth(force=True)


def test_a_stack_has_at_most_200_outputs_with_those_of_cdk(
    app: cdk.App, images: Callable[..., cdk.Stack], import_image: ImportImage
) -> None:
    stack = images(199, **NO_WAIT)
    other = import_image(stack, "Other", stack_output=False, **NO_WAIT)
    nested = cdk.NestedStack(stack, "Nested")
    import_image(nested, "Image", **NO_WAIT)  # whose output is another template's
    consumer = cdk.Stack(app, "Consumer")
    cdk.CfnOutput(consumer, "Arn", value=other.image_arn)
    app.synth()

    cdk.CfnOutput(consumer, "Name", value=other.image_name)

    with pytest.raises(RuntimeError, match=r"\[Stack\] the stack has 201 outputs, but CloudF") as e:
        app.synth(force=True)
    assert str(e.value).count("outputs") == 1


def test_a_stack_has_room_for_246_tasks_with_their_images(
    app: cdk.App, import_image: ImportImage
) -> None:
    stack = cdk.Stack(app, "Tasks")
    for number in range(246):
        disk = VmDisk.from_snapshot(f"snap-{number:017x}")
        task = VmImportTask(stack, f"Task{number}", disks=[disk])
        import_image(
            stack,
            f"Image{number}",
            image_name=f"image-{number}",
            vm_import_task=task,
            vm_import_task_id=None,
            stack_output=False,
        )
    resources = app.synth().get_stack_by_name("Tasks").template["Resources"]

    assert len(resources) == 500
    assert "246 tasks" in LIMITS


def test_a_stack_has_room_for_246_images_with_their_settings(
    app: cdk.App, images: Callable[..., cdk.Stack]
) -> None:
    stack = images(246, stack_output=False)
    for image in stack.node.children:
        if isinstance(image, ImportedVmImage):
            AmiSettings(stack, f"{image.node.id}Settings", image=image, imds_support="v2.0")
    resources = app.synth().get_stack_by_name("Stack").template["Resources"]

    assert len(resources) == 499
    assert "246 images with their `AmiSettings`" in LIMITS


def test_the_provider_has_as_many_resources_as_documented(app: cdk.App) -> None:
    stacks = [cdk.Stack(app, name) for name in ("Plain", "Logged")]
    for stack, log_executions in zip(stacks, (False, True), strict=True):
        VmImportProvider(stack, "VmImportProvider", log_executions=log_executions)
    counts = []
    for stack in stacks:
        resources = assertions.Template.from_stack(stack).to_json()["Resources"]
        assert resources.pop("CDKMetadata")["Type"] == "AWS::CDK::Metadata"
        counts.append(len(resources))

    assert counts == [6, 7]
    assert "the provider is 6 of them, 7 with `log_executions`" in LIMITS


def test_a_task_has_at_most_21_disks(stack: cdk.Stack) -> None:
    disks = [VmDisk.from_snapshot(f"snap-{number:017x}") for number in range(22)]
    VmImportTask(stack, "Most", disks=disks[:21])

    with pytest.raises(ValueError, match="disks has 22 entries: use at most 21"):
        VmImportTask(stack, "Import", disks=disks)
    assert "21 disks" in LIMITS
