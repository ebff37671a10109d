"""Images with CDK's Image Builder constructs, EventBridge, Systems Manager, and from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_imagebuilder_alpha as alpha
from aws_cdk import aws_sns as sns

from cdk_vm_import import ImportedVmImage, Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_cdk.interfaces.aws_imagebuilder import IImageRef

    from tests.construct.conftest import ImportImage, NewApp, ResourcesOf

ARN = "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9-golden/1.2.3/4"
IN_EU_WEST_1 = cdk.Environment(account="123456789012", region="eu-west-1")


@pytest.fixture
def placed(app: cdk.App) -> cdk.Stack:
    """A stack whose account and Region are those of the ARN."""
    return cdk.Stack(app, "Placed", env=IN_EU_WEST_1)


@pytest.mark.parametrize(
    "to_base_image",
    [lambda image: image.to_base_image(), alpha.BaseImage.from_image],
    ids=["to_base_image", "from_image"],
)
def test_a_recipe_of_the_image_builder_constructs_builds_on_the_image(
    stack: cdk.Stack,
    import_image: ImportImage,
    resources_of: ResourcesOf,
    to_base_image: Callable[[Any], alpha.BaseImage],
) -> None:
    image = import_image(stack)

    alpha.ImageRecipe(stack, "Recipe", base_image=to_base_image(image))

    (recipe,) = resources_of(stack, "AWS::ImageBuilder::ImageRecipe").values()
    assert recipe["Properties"]["ParentImage"] == stack.resolve(image.image_arn)


def test_an_image_from_elsewhere_is_a_base_image_too(stack: cdk.Stack) -> None:
    image: Any = ImportedVmImage.from_image_arn(stack, "Image", ARN)

    assert image.to_base_image().image == alpha.BaseImage.from_image(image).image == ARN


def test_an_image_is_an_image_reference(stack: cdk.Stack, import_image: ImportImage) -> None:
    image = import_image(stack)
    reference: IImageRef = image

    assert reference.image_ref.image_arn == image.image_arn


def test_the_package_works_without_the_image_builder_constructs() -> None:
    """As for a user who did not install the extra."""
    program = """
import sys
sys.modules["aws_cdk.aws_imagebuilder_alpha"] = None
import aws_cdk as cdk
from cdk_vm_import import ImportedVmImage
image = ImportedVmImage.from_image_arn(cdk.Stack(None, "S"), "I", sys.argv[1])
try:
    image.to_base_image()
except ImportError as error:
    print(error)
"""

    printed = subprocess.run(
        [sys.executable, "-c", program, ARN], check=True, capture_output=True, text=True
    ).stdout

    assert printed == (
        "S/I: to_base_image needs the package aws-cdk.aws-imagebuilder-alpha: install "
        "cdk-vm-import[imagebuilder], or use parent_image=image.image_arn in a CfnImageRecipe.\n"
    )


def test_the_parameter_has_the_id_of_the_ami_and_its_type(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    image = import_image(stack, timeout=cdk.Duration.hours(2))

    image.publish_image_id_to_ssm("/images/rhel9")

    (parameter,) = resources_of(stack, "AWS::SSM::Parameter").values()
    assert parameter["Properties"] == {
        "DataType": "aws:ec2:image",
        "Description": "AMI of the imported Image Builder image",
        "Name": "/images/rhel9",
        "Type": "String",
        "Value": stack.resolve(image.image_id),
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "rhel 9",
        "images/rhel9",
        "/aws/rhel9",
        "AWSrhel9",
        "ssm-rhel9",
        "/a/",
        "/a" * 16,
        1,
        None,
    ],
)
def test_a_parameter_name_that_systems_manager_refuses_is_an_error(
    stack: cdk.Stack, import_image: ImportImage, name: Any
) -> None:
    image = import_image(stack)

    with pytest.raises(ValueError, match=r"^Stack/Image: parameter_name .* is not valid: use a"):
        image.publish_image_id_to_ssm(name)


def test_an_image_has_one_parameter(stack: cdk.Stack, import_image: ImportImage) -> None:
    image = import_image(stack)
    image.publish_image_id_to_ssm("/images/rhel9")

    with pytest.raises(ValueError, match=r"^Stack/Image: publish_image_id_to_ssm was called"):
        image.publish_image_id_to_ssm("/images/other")


def test_an_image_that_is_not_waited_for_has_no_parameter(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, wait_for_available=False)

    with pytest.raises(ValueError, match="Stack/Image: image_id is not available, because with"):
        image.publish_image_id_to_ssm("/images/rhel9")


@pytest.mark.parametrize(
    ("method", "detail"),
    [
        ("on_state_change", {}),
        ("on_available", {"detail": {"state": {"status": ["AVAILABLE"]}}}),
        ("on_failed", {"detail": {"state": {"status": ["FAILED"]}}}),
    ],
)
def test_a_rule_is_for_the_builds_of_the_version_and_does_not_wait_for_the_image(
    placed: cdk.Stack,
    import_image: ImportImage,
    resources_of: ResourcesOf,
    method: str,
    detail: dict[str, Any],
) -> None:
    image = import_image(placed, image_name="RHEL_9 golden")
    topic = sns.Topic(placed, "Topic")

    getattr(image, method)("Rule", target=targets.SnsTopic(topic), rule_name="rhel9")

    (rule,) = resources_of(placed, "AWS::Events::Rule").values()
    series = "imagebuilder:eu-west-1:123456789012:image/rhel-9-golden/1.0.0/"
    prefix = placed.resolve(f"arn:{placed.partition}:{series}")
    assert (
        rule["Properties"]["EventPattern"]
        == {
            "source": ["aws.imagebuilder"],
            "detail-type": ["EC2 Image Builder Image State Change"],
            "resources": [{"prefix": prefix}],
        }
        | detail
    )
    assert rule["Properties"]["Name"] == "rhel9"
    assert [target["Arn"] for target in rule["Properties"]["Targets"]] == [{"Ref": "TopicBFC7AF6E"}]


def test_events_need_a_name_that_is_known_at_synthesis(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, image_name=cdk.CfnParameter(stack, "Name").value_as_string)

    with pytest.raises(ValueError, match=r"^Stack/Image: image_name is an unresolved token, so"):
        image.on_available("Rule")


def test_events_of_an_image_from_an_arn_name_that_build(
    stack: cdk.Stack, resources_of: ResourcesOf
) -> None:
    ImportedVmImage.from_image_arn(stack, "Image", ARN).on_failed("Rule")

    (rule,) = resources_of(stack, "AWS::Events::Rule").values()
    assert rule["Properties"]["EventPattern"]["resources"] == [ARN]


def test_an_image_from_attributes_knows_its_ami(stack: cdk.Stack) -> None:
    image = ImportedVmImage.from_image_attributes(
        stack, "Image", image_arn=ARN, image_id="ami-0123456789abcdef0", platform=Platform.WINDOWS
    )

    assert image.image_arn == ARN
    assert image.image_id == "ami-0123456789abcdef0"
    machine = image.to_machine_image().get_image(stack)
    assert (machine.image_id, machine.os_type) == (
        "ami-0123456789abcdef0",
        cdk.aws_ec2.OperatingSystemType.WINDOWS,
    )


def test_an_image_from_an_arn_says_how_to_tell_the_ami(stack: cdk.Stack) -> None:
    image = ImportedVmImage.from_image_arn(stack, "Image", ARN)

    with pytest.raises(ValueError, match=r"^Stack/Image: image_id .*: use from_image_attributes w"):
        _ = image.image_id
    with pytest.raises(ValueError, match=r"^Stack/Image: the platform .*: use from_image_attribut"):
        image.to_machine_image()


@pytest.mark.parametrize(
    ("version", "version_arn", "major", "minor", "builds", "events"),
    [
        ("x.x.x", "x.x.x", "x.x.x", "x.x.x", ["*"], ""),
        ("1.x.x", "1.x.x", "1.x.x", "1.x.x", ["1.*"], "1."),
        ("1.2.x", "1.2.x", "1.x.x", "1.2.x", ["1.2.*"], "1.2."),
        ("1.2.3", "1.2.3", "1.x.x", "1.2.x", ["1.2.3", "1.2.3/*"], "1.2.3/"),
    ],
)
def test_an_image_from_its_name_stands_for_the_latest_build(
    placed: cdk.Stack,
    resources_of: ResourcesOf,
    version: str,
    version_arn: str,
    major: str,
    minor: str,
    builds: list[str],
    events: str,
) -> None:
    image = ImportedVmImage.from_image_name(
        placed, "Image", "RHEL_9 golden", semantic_version=version
    )
    grant = image.grant_read(iam.User(placed, "User"))
    image.on_available("Rule")

    def arn(end: str) -> object:
        series = "imagebuilder:eu-west-1:123456789012:image/rhel-9-golden"
        return placed.resolve(f"arn:{placed.partition}:{series}/{end}")

    resolved = placed.resolve
    assert image.image_name == "rhel-9-golden"
    assert image.image_version == version
    assert resolved(image.image_arn) == resolved(image.image_version_arn) == arn(version_arn)
    assert resolved(image.latest_image_arn) == arn("x.x.x")
    assert resolved(image.latest_major_image_arn) == arn(major)
    assert resolved(image.latest_minor_image_arn) == arn(minor)
    allowed = resolved(grant.principal_statements[0].to_json())["Resource"]
    assert (allowed if isinstance(allowed, list) else [allowed]) == list(map(arn, builds))
    (rule,) = resources_of(placed, "AWS::Events::Rule").values()
    assert rule["Properties"]["EventPattern"]["resources"] == [{"prefix": arn(events)}]


@pytest.mark.parametrize(
    "version", ["x", "1.x", "01.2.3", "x.1.x", "1.x.3", "1.2", "1.2.3.4", "", None, 1]
)
def test_a_version_filter_that_image_builder_does_not_know_is_an_error(
    stack: cdk.Stack, version: Any
) -> None:
    with pytest.raises(ValueError, match=r"^Stack/Image: semantic_version .* is not valid: use X"):
        ImportedVmImage.from_image_name(stack, "Image", "rhel9-golden", semantic_version=version)


def test_a_name_that_is_a_token_is_an_error(stack: cdk.Stack) -> None:
    name = cdk.CfnParameter(stack, "Name").value_as_string

    with pytest.raises(ValueError, match=r"^Stack/Image: image_name is an unresolved token"):
        ImportedVmImage.from_image_name(stack, "Image", name)


@pytest.mark.parametrize(
    ("env", "warnings"),
    [
        (IN_EU_WEST_1, []),
        (None, []),
        (
            cdk.Environment(account="123456789012", region="us-east-1"),
            ["The image is in the Region eu-west-1, but its stack is in us-east-1. Recipes can"],
        ),
        (
            cdk.Environment(account="210987654321", region="eu-west-1"),
            ["The image is in the account 123456789012, but its stack is in 210987654321. Recip"],
        ),
    ],
)
def test_an_image_of_another_account_or_region_causes_a_warning(
    new_app: NewApp, env: cdk.Environment | None, warnings: list[str]
) -> None:
    stack = cdk.Stack(new_app(), "Stack", env=env)
    image = ImportedVmImage.from_image_arn(stack, "Image", ARN)
    cdk.CfnOutput(stack, "Name", value=image.image_name)
    sns.Topic(stack, "Topic")

    found = assertions.Annotations.from_stack(stack).find_warning("*", assertions.Match.any_value())
    assert len(found) == len(warnings)
    for message, beginning in zip(found, warnings, strict=True):
        assert str(message.entry.data).startswith(beginning)
