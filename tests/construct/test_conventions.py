"""What CDK users expect of every construct: removal policies, tags of the stack, outputs, help."""

from __future__ import annotations

import inspect
import pydoc
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
import jsii
import pytest
from aws_cdk import assertions

import cdk_vm_import
from cdk_vm_import import (
    ImportedVmImage,
    VmDisk,
    VmImportDashboard,
    VmImportProvider,
    VmImportRole,
    VmImportTask,
)
from contract import ImageProperty, ResourceType, TaskProperty

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from constructs import IConstruct

    from tests.construct.conftest import ImportImage, NewApp

DESTROY = cdk.RemovalPolicy.DESTROY
RETAIN = cdk.RemovalPolicy.RETAIN


@jsii.implements(cdk.IAspect)
class Destroys:
    """An Aspect of a user that has CloudFormation delete everything."""

    def visit(self, node: IConstruct) -> None:
        if isinstance(node, cdk.CfnResource):
            node.apply_removal_policy(DESTROY)


# Each way in which users decide that CloudFormation deletes an image.
WAYS: dict[str, Callable[[cdk.Stack, ImportedVmImage], None]] = {
    "method": lambda _, image: image.apply_removal_policy(DESTROY),
    "RemovalPolicies": lambda stack, _: cdk.RemovalPolicies.of(stack).destroy(),
    "Aspect": lambda stack, _: cdk.Aspects.of(stack).add(cast("cdk.IAspect", Destroys())),
}


def resource(stack: cdk.Stack, resource_type: ResourceType) -> dict[str, Any]:
    (found,) = assertions.Template.from_stack(stack).find_resources(resource_type).values()
    return dict(found)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_set_the_removal_policy_has_the_same_effect(
    stack: cdk.Stack, import_image: ImportImage, way: str
) -> None:
    WAYS[way](stack, import_image(stack, removal_policy=RETAIN))

    image = resource(stack, ResourceType.IMAGE)
    assert (image["DeletionPolicy"], image["UpdateReplacePolicy"]) == ("Delete", "Delete")
    assert ImageProperty.RETAIN not in image["Properties"]


def test_a_removal_policy_that_retains_can_be_applied_later(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, removal_policy=DESTROY).apply_removal_policy(RETAIN)

    image = resource(stack, ResourceType.IMAGE)
    assert (image["DeletionPolicy"], image["Properties"][ImageProperty.RETAIN]) == ("Retain", True)


def test_a_removal_policy_that_is_not_possible_is_refused_later_too(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack)

    with pytest.raises(ValueError, match="Stack/Image: removal_policy SNAPSHOT is not possible"):
        image.apply_removal_policy(cdk.RemovalPolicy.SNAPSHOT)


def warnings(stack: cdk.Stack) -> list[str]:
    pattern = assertions.Match.any_value()
    found = assertions.Annotations.from_stack(stack).find_warning("*", pattern)
    return [str(message.entry.data) for message in found]


def test_delete_ami_with_a_policy_that_retains_the_image_causes_a_warning(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, delete_ami=True)

    (warning,) = warnings(stack)
    assert warning.startswith("delete_ami is True, but the removal policy retains the image")


def test_delete_ami_with_a_policy_that_an_aspect_changed_causes_no_warning(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, delete_ami=True)
    cdk.RemovalPolicies.of(stack).destroy()

    assert warnings(stack) == []


def test_tags_of_the_stack_reach_the_image_and_the_task(
    new_app: NewApp, import_image: ImportImage
) -> None:
    stack = cdk.Stack(new_app(), "Stack", tags={"team": "platform", "stage": "test"})
    disk = VmDisk.from_snapshot("snap-0123456789abcdef0")
    task = VmImportTask(stack, "Import", disks=[disk])
    import_image(stack, vm_import_task_id=None, vm_import_task=task, tags={"stage": "live"})

    image = resource(stack, ResourceType.IMAGE)["Properties"]
    imported = resource(stack, ResourceType.IMPORT_TASK)["Properties"]
    assert image[ImageProperty.TAGS] == {"team": "platform", "stage": "live"}
    assert imported[TaskProperty.TAGS] == {"team": "platform", "stage": "test"}


def test_tags_of_the_stack_are_checked_at_synthesis(
    new_app: NewApp, import_image: ImportImage
) -> None:
    app = new_app()
    stack = cdk.Stack(app, "Stack", tags={str(n): "" for n in range(47)})
    import_image(stack)

    with pytest.raises(RuntimeError, match="tags has 47 entries: use at most 46"):
        app.synth()


def test_the_stack_output_can_be_switched_off(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack, stack_output=False)

    assert assertions.Template.from_stack(stack).find_outputs("*") == {}


def test_an_export_needs_the_output(stack: cdk.Stack, import_image: ImportImage) -> None:
    with pytest.raises(ValueError, match="export_name needs the stack output"):
        import_image(stack, stack_output=False, export_name="golden")


@pytest.mark.slow  # CDK reads the whole file
@pytest.mark.parametrize(("size", "count"), [(2 * 2**30, 0), (2 * 2**30 + 512, 1)])
def test_a_local_disk_of_more_than_2_gib_causes_a_warning(
    tmp_path: Path, size: int, count: int
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(510) + b"\x55\xaa")
    with disk.open("r+b") as file:
        file.truncate(size)
    # The asset is not copied.
    app = cdk.App(context={"aws:cdk:disable-asset-staging": True})
    stack = cdk.Stack(app, "Stack")

    VmImportTask(stack, "Import", disks=[VmDisk.from_asset(str(disk))])

    found = warnings(stack)
    assert len(found) == count
    expected = f"a local disk has {size / 2**30:.1f} GiB"
    assert all(expected in warning and "VmDisk.from_bucket" in warning for warning in found)


@pytest.mark.parametrize(
    "cls", [ImportedVmImage, VmImportTask, VmImportRole, VmImportProvider, VmImportDashboard]
)
def test_help_shows_the_arguments_and_their_defaults(cls: type) -> None:
    text = pydoc.plain(pydoc.render_doc(cls))

    assert f"{cls.__name__}(scope: " in text
    signature = str(inspect.signature(cls))
    assert "object at 0x" not in signature
    assert list(inspect.signature(cls).parameters) == [
        name
        for name in inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        if name != "self"
    ]


def test_help_shows_the_default_of_the_timeout() -> None:
    assert "timeout: aws_cdk.Duration = Duration.hours(1)" in str(
        inspect.signature(ImportedVmImage)
    )


def test_the_package_has_its_version() -> None:
    assert cdk_vm_import.__version__ == metadata.version("cdk-vm-import")
