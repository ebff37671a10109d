"""Images in other stacks, Regions and accounts, as docs/other-stacks.md describes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_ram as ram
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from aws_cdk.aws_imagebuilder import CfnImageRecipe

from cdk_vm_import import ImportedVmImage, Platform, VmDisk, VmImportTask
from tests.disks.real_disks import real_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.construct.conftest import ImportImage, NewApp

PAGE = (Path(__file__).parents[2] / "docs/other-stacks.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
STRENGTH = "@aws-cdk/core:defaultCrossStackReferences"
FUNCTIONS = {"strong": "Fn::ImportValue", "weak": "Fn::GetStackOutput"}


class Stacks:
    """A stack with an image, and another stack."""

    def __init__(self, app: cdk.App, import_image: ImportImage, **arguments: Any) -> None:
        self.images, self.other = cdk.Stack(app, "Images"), cdk.Stack(app, "Other")
        self.image = import_image(self.images, **arguments)

    def recipe(self, parent_image: str) -> str:
        """Create a recipe in the other stack; return how its template names the parent."""
        CfnImageRecipe(self.other, "Recipe", name="web", version="1.0.x", parent_image=parent_image)
        found = assertions.Template.from_stack(self.other).find_resources(
            "AWS::ImageBuilder::ImageRecipe"
        )
        (recipe,) = found.values()
        return json.dumps(recipe["Properties"]["ParentImage"])


@pytest.fixture
def stacks(new_app: NewApp, import_image: ImportImage) -> Callable[..., Stacks]:
    """Creates both stacks in an app whose references have a strength."""

    def stacks(strength: str = "weak", **arguments: Any) -> Stacks:
        return Stacks(new_app(context={STRENGTH: strength}), import_image, **arguments)

    return stacks


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_each_snippet_of_the_page_synthesizes(
    stacks: Callable[..., Stacks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "rhel9.vmdk").write_bytes(real_disk("VMDK"))
    monkeypatch.chdir(tmp_path)
    made = stacks()
    sns.Topic(made.other, "Topic")  # a stack needs a resource
    app = made.images.node.root
    assert isinstance(app, cdk.App)
    before = len(app.node.find_all())
    names = {"app": app, "image": made.image, "images": made.images, "other": made.other}
    modules = {"cdk": cdk, "ec2": ec2, "ram": ram, "sns": sns, "ssm": ssm, "targets": targets}
    classes = (CfnImageRecipe, ImportedVmImage, Platform, VmDisk, VmImportTask)

    exec(SNIPPETS[number], names | modules | {cls.__name__: cls for cls in classes})  # noqa: S102

    app.synth()
    assert len(app.node.find_all()) > before


@pytest.mark.parametrize("strength", FUNCTIONS)
@pytest.mark.parametrize("hours", [1, 2])
@pytest.mark.parametrize(
    "attribute", ["image_arn", "image_version_arn", "latest_image_arn", "latest_minor_image_arn"]
)
def test_a_reference_passes_what_the_page_says(
    stacks: Callable[..., Stacks], strength: str, hours: int, attribute: str
) -> None:
    made = stacks(strength, timeout=cdk.Duration.hours(hours))

    parent = made.recipe(getattr(made.image, attribute))

    assert FUNCTIONS[strength] in parent
    own = hours == 1 and attribute in {"image_version_arn", "latest_image_arn"}
    passed = {"image_version_arn": "ImageVersionArn", "latest_image_arn": "LatestImageArn"}
    assert (passed[attribute] if own else "ImageArn") in parent
    assert ("Fn::Split" in parent) is (attribute != "image_arn" and not own)


@pytest.mark.parametrize("strength", FUNCTIONS)
def test_an_image_by_its_name_refers_to_no_stack(
    stacks: Callable[..., Stacks], strength: str
) -> None:
    made = stacks(strength, timeout=cdk.Duration.hours(12))
    golden = ImportedVmImage.from_image_name(made.other, "Golden", "rhel9-golden")

    parent = made.recipe(golden.latest_minor_image_arn)

    assert "image/rhel9-golden/x.x.x" in parent
    assert all(function not in parent for function in FUNCTIONS.values())


@pytest.mark.parametrize("target", [targets.SnsTopic, targets.LambdaFunction])
def test_a_target_in_a_stack_that_uses_the_image_needs_a_rule_there(
    stacks: Callable[..., Stacks], target: Callable[[Any], Any]
) -> None:
    def consumer(stack: cdk.Stack) -> Any:
        if target is targets.SnsTopic:
            return sns.Topic(stack, "Target")
        return lambda_.Function(
            stack,
            "Target",
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler="index.handler",
            code=lambda_.Code.from_inline("pass"),
        )

    allowed = stacks("strong")
    allowed.image.on_failed("Failed", target=target(consumer(allowed.other)))
    assert assertions.Template.from_stack(allowed.images).find_resources("AWS::Events::Rule")

    cyclic = stacks("strong")
    cyclic.image.on_failed("Failed", target=target(consumer(cyclic.other)))
    with pytest.raises(RuntimeError, match="would create a cyclic reference"):
        cyclic.recipe(cyclic.image.image_arn)

    works = stacks("strong")
    golden = ImportedVmImage.from_image_name(works.other, "Golden", "rhel9-golden")
    golden.on_failed("Failed", target=target(consumer(works.other)))
    assert works.recipe(works.image.image_arn)


def test_a_reference_to_another_region_is_only_text(
    new_app: NewApp, import_image: ImportImage
) -> None:
    app = new_app()
    here, there = (
        cdk.Stack(
            app,
            region,
            env=cdk.Environment(account="111122223333", region=region),
            cross_region_references=True,
        )
        for region in ("eu-west-1", "us-east-1")
    )
    image = import_image(here)
    ssm.StringParameter(there, "Arn", string_value=image.image_arn)
    app.synth()

    with pytest.raises(RuntimeError, match="is in the Region eu-west-1, but this construct is in"):
        ec2.LaunchTemplate(there, "Template", machine_image=image.to_machine_image())
