from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_logs as logs

from cdk_vm_import import ImportedVmImage, Platform, VmImportProvider
from contract import LOG_GROUP_NAME, ImageAttribute, ImageProperty, ResourceType

if TYPE_CHECKING:
    from cdk_vm_import import IVmImage
    from tests.construct.conftest import ImportImage, ResourcesOf

IMAGE = ResourceType.IMAGE
BUILD_ARN = "arn:aws-cn:imagebuilder:cn-north-1:123456789012:image/rhel9-golden/1.2.3/4"


def properties(stack: cdk.Stack) -> dict[str, Any]:
    (image,) = assertions.Template.from_stack(stack).find_resources(IMAGE).values()
    return {key: value for key, value in image["Properties"].items() if key != "ServiceToken"}


def test_an_image_with_the_required_arguments_has_only_their_properties(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, wait_for_available=False)

    assert properties(stack) == {
        ImageProperty.NAME: "rhel9-golden",
        ImageProperty.SEMANTIC_VERSION: "1.0.0",
        ImageProperty.PLATFORM: "Linux",
        ImageProperty.VM_IMPORT_TASK_ID: "import-ami-0123456789abcdef0",
        ImageProperty.RETAIN: True,
        ImageProperty.STATE_MACHINE_ARN: {"Ref": "VmImportProviderEventStateMachine79B5AC06"},
    }


def test_a_property_says_whether_cloudformation_retains_the_image(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, wait_for_available=False, removal_policy=cdk.RemovalPolicy.DESTROY)

    assert ImageProperty.RETAIN not in properties(stack)


def test_every_argument_becomes_a_property(stack: cdk.Stack) -> None:
    ImportedVmImage(
        stack,
        "Image",
        image_name="Windows 2022_Golden",
        semantic_version="0.10.1073741823",
        platform=Platform.WINDOWS,
        vm_import_task_id="import-ami-01234567",
        description="The golden image",
        os_version="Microsoft Windows Server 2022",
        log_group=logs.LogGroup.from_log_group_name(stack, "Log", "/aws/imagebuilder/golden"),
        tags={"team": "platform", "cost center": ""},
        client_token="a-token-of-my-own",
        wait_for_available=False,
    )

    assert properties(stack) == {
        ImageProperty.NAME: "Windows 2022_Golden",
        ImageProperty.SEMANTIC_VERSION: "0.10.1073741823",
        ImageProperty.PLATFORM: "Windows",
        ImageProperty.VM_IMPORT_TASK_ID: "import-ami-01234567",
        ImageProperty.DESCRIPTION: "The golden image",
        ImageProperty.OS_VERSION: "Microsoft Windows Server 2022",
        ImageProperty.LOGGING_CONFIGURATION: {LOG_GROUP_NAME: "/aws/imagebuilder/golden"},
        ImageProperty.TAGS: {"team": "platform", "cost center": ""},
        ImageProperty.CLIENT_TOKEN: "a-token-of-my-own",
        ImageProperty.RETAIN: True,
        ImageProperty.STATE_MACHINE_ARN: {"Ref": "VmImportProviderEventStateMachine79B5AC06"},
    }


@pytest.mark.parametrize(
    ("platform", "value"),
    [(Platform.WINDOWS, "Windows"), (Platform.LINUX, "Linux"), (Platform.MACOS, "macOS")],
)
def test_each_platform_has_the_name_that_the_api_uses(
    stack: cdk.Stack, import_image: ImportImage, platform: Platform, value: str
) -> None:
    import_image(stack, platform=platform)

    assert properties(stack)[ImageProperty.PLATFORM] == value


def test_tokens_are_resolved_in_the_template(stack: cdk.Stack, import_image: ImportImage) -> None:
    def token(name: str) -> str:
        return cdk.CfnParameter(stack, name).value_as_string

    import_image(
        stack,
        image_name=f"{token('Name')}-golden",
        semantic_version=f"1.{token('Minor')}.0",
        vm_import_task_id=token("Task"),
        description=token("Description"),
        os_version=token("Os"),
        client_token=token("Token"),
        tags={"owner": token("Owner")},
    )

    found = properties(stack)
    assert found[ImageProperty.NAME] == {"Fn::Join": ["", [{"Ref": "Name"}, "-golden"]]}
    assert found[ImageProperty.SEMANTIC_VERSION] == {
        "Fn::Join": ["", ["1.", {"Ref": "Minor"}, ".0"]]
    }
    assert found[ImageProperty.VM_IMPORT_TASK_ID] == {"Ref": "Task"}
    assert found[ImageProperty.DESCRIPTION] == {"Ref": "Description"}
    assert found[ImageProperty.OS_VERSION] == {"Ref": "Os"}
    assert found[ImageProperty.CLIENT_TOKEN] == {"Ref": "Token"}
    assert found[ImageProperty.TAGS] == {"owner": {"Ref": "Owner"}}


def test_a_log_group_of_the_same_stack_is_referenced(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    log_group = logs.LogGroup(stack, "Log", log_group_name="/aws/imagebuilder/golden")
    import_image(stack, log_group=log_group)

    assert properties(stack)[ImageProperty.LOGGING_CONFIGURATION] == {
        LOG_GROUP_NAME: stack.resolve(log_group.log_group_name)
    }


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("image_arn", ImageAttribute.IMAGE_ARN),
        ("image_version_arn", ImageAttribute.IMAGE_VERSION_ARN),
        ("latest_image_arn", ImageAttribute.LATEST_IMAGE_ARN),
        ("image_name", ImageAttribute.IMAGE_NAME),
        ("image_version", ImageAttribute.IMAGE_VERSION),
        ("client_token", ImageAttribute.CLIENT_TOKEN),
        ("vm_import_task_id", ImageAttribute.VM_IMPORT_TASK_ID),
        ("request_id", ImageAttribute.REQUEST_ID),
        ("image_id", ImageAttribute.IMAGE_ID),
    ],
)
def test_each_attribute_comes_from_the_resource(
    stack: cdk.Stack, import_image: ImportImage, name: str, attribute: str
) -> None:
    image = import_image(stack)

    assert stack.resolve(getattr(image, name)) == {"Fn::GetAtt": ["Image9D742C96", attribute]}


def test_a_recipe_builds_on_the_image(stack: cdk.Stack, import_image: ImportImage) -> None:
    imagebuilder.CfnImageRecipe(
        stack,
        "Recipe",
        name="recipe",
        version="1.0.0",
        parent_image=import_image(stack).image_arn,
    )

    assertions.Template.from_stack(stack).has_resource_properties(
        "AWS::ImageBuilder::ImageRecipe",
        {"ParentImage": {"Fn::GetAtt": ["Image9D742C96", ImageAttribute.IMAGE_ARN]}},
    )


def test_the_arn_is_an_output_of_the_stack(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack)

    assert assertions.Template.from_stack(stack).find_outputs("*") == {
        "ImageImageArnCD42D5A5": {
            "Description": "ARN of the imported Image Builder image",
            "Value": {"Fn::GetAtt": ["Image9D742C96", ImageAttribute.IMAGE_ARN]},
        }
    }


def test_an_export_name_exports_the_arn(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack, export_name="golden-image")

    (output,) = assertions.Template.from_stack(stack).find_outputs("*").values()
    assert output["Export"] == {"Name": "golden-image"}


@pytest.mark.parametrize(
    ("arguments", "on_delete", "on_replace"),
    [
        ({}, "RetainExceptOnCreate", "Retain"),
        ({"removal_policy": cdk.RemovalPolicy.DESTROY}, "Delete", "Delete"),
        ({"removal_policy": cdk.RemovalPolicy.RETAIN}, "Retain", "Retain"),
    ],
)
def test_the_removal_policy_sets_the_deletion_policies_of_the_image(
    stack: cdk.Stack,
    import_image: ImportImage,
    resources_of: ResourcesOf,
    arguments: dict[str, Any],
    on_delete: str,
    on_replace: str,
) -> None:
    import_image(stack, **arguments)

    (image,) = resources_of(stack, IMAGE).values()
    assert (image["DeletionPolicy"], image["UpdateReplacePolicy"]) == (on_delete, on_replace)


def test_a_removal_policy_for_the_whole_stack_reaches_the_image(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    import_image(stack)
    cdk.RemovalPolicies.of(stack).destroy()

    (image,) = resources_of(stack, IMAGE).values()
    assert image["DeletionPolicy"] == "Delete"


def test_tags_of_the_app_reach_the_image(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack)
    cdk.Tags.of(app).add("team", "platform")

    assert properties(stack)[ImageProperty.TAGS] == {"team": "platform"}


def test_tags_of_a_scope_take_precedence_over_the_argument(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack, tags={"team": "platform", "stage": "test"})
    cdk.Tags.of(image).add("stage", "live")

    assert properties(stack)[ImageProperty.TAGS] == {"team": "platform", "stage": "live"}


def test_a_scope_can_remove_a_tag(stack: cdk.Stack, import_image: ImportImage) -> None:
    import_image(stack, tags={"team": "platform", "stage": "test"})
    cdk.Tags.of(stack).remove("stage")

    assert properties(stack)[ImageProperty.TAGS] == {"team": "platform"}


def test_tags_can_exclude_images_by_their_resource_type(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack)
    cdk.Tags.of(image).add("team", "platform", exclude_resource_types=[IMAGE])

    assert ImageProperty.TAGS not in properties(stack)


@pytest.fixture(params=["imported by this stack", "from an ARN"])
def any_image(
    request: pytest.FixtureRequest, stack: cdk.Stack, import_image: ImportImage
) -> IVmImage:
    if request.param == "imported by this stack":
        return import_image(stack)
    return ImportedVmImage.from_image_arn(stack, "Image", BUILD_ARN)


def test_a_grant_allows_its_actions_on_this_image_only(
    stack: cdk.Stack, any_image: IVmImage
) -> None:
    grant = any_image.grant(iam.User(stack, "User"), "imagebuilder:GetImage", "imagebuilder:Get*")

    assert stack.resolve(grant.principal_statements[0].to_json()) == {
        "Effect": "Allow",
        "Action": ["imagebuilder:GetImage", "imagebuilder:Get*"],
        "Resource": stack.resolve(any_image.image_arn),
    }


def test_grant_read_allows_get_image(stack: cdk.Stack, any_image: IVmImage) -> None:
    grant = any_image.grant_read(iam.User(stack, "User"))

    assert grant.principal_statements[0].actions == ["imagebuilder:GetImage"]
    assert grant.success


def test_an_image_from_an_arn_adds_nothing_to_the_template(stack: cdk.Stack) -> None:
    cdk.CfnResource(stack, "Topic", type="AWS::SNS::Topic")
    ImportedVmImage.from_image_arn(stack, "Image", BUILD_ARN)

    assert list(assertions.Template.from_stack(stack).to_json()["Resources"]) == ["Topic"]


def test_an_image_from_a_literal_arn_has_literal_attributes(stack: cdk.Stack) -> None:
    image = ImportedVmImage.from_image_arn(stack, "Image", BUILD_ARN)

    prefix = "arn:aws-cn:imagebuilder:cn-north-1:123456789012:image"
    assert image.image_arn == BUILD_ARN
    assert image.image_version_arn == f"{prefix}/rhel9-golden/1.2.3"
    assert image.latest_image_arn == f"{prefix}/rhel9-golden/x.x.x"
    assert image.image_name == "rhel9-golden"
    assert image.image_version == "1.2.3"


def test_an_image_from_an_arn_has_the_account_and_region_of_the_arn(stack: cdk.Stack) -> None:
    """CDK needs them, for example to grant access across accounts."""
    image = ImportedVmImage.from_image_arn(stack, "Image", BUILD_ARN)

    assert isinstance(image, cdk.Resource)
    assert (image.env.account, image.env.region) == ("123456789012", "cn-north-1")


def test_cloudformation_splits_an_arn_that_is_a_token(stack: cdk.Stack) -> None:
    image = ImportedVmImage.from_image_arn(stack, "Image", cdk.Fn.import_value("golden-image"))

    def part(index: int) -> object:
        return {"Fn::Select": [index, {"Fn::Split": ["/", {"Fn::ImportValue": "golden-image"}]}]}

    def join(*parts: object) -> object:
        return {"Fn::Join": ["", list(parts)]}

    assert stack.resolve(image.image_arn) == {"Fn::ImportValue": "golden-image"}
    assert stack.resolve(image.image_name) == part(1)
    assert stack.resolve(image.image_version) == part(2)
    assert stack.resolve(image.image_version_arn) == join(part(0), "/", part(1), "/", part(2))
    assert stack.resolve(image.latest_image_arn) == join(part(0), "/", part(1), "/x.x.x")


@pytest.mark.parametrize(
    "image_arn",
    [
        "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9-golden/1.0.0",
        "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9-golden/x.x.x",
        "arn:aws:imagebuilder:eu-west-1:123456789012:component/rhel9-golden/1.0.0/1",
        "arn:aws:imagebuilder:eu-west-1:aws:image/amazon-linux-2023-x86/1.0.0/1",
        "ami-0123456789abcdef0",
    ],
)
def test_only_the_arn_of_an_image_build_is_accepted(stack: cdk.Stack, image_arn: str) -> None:
    with pytest.raises(ValueError, match=r"Stack/Image: image_arn .* is not the ARN of an image"):
        ImportedVmImage.from_image_arn(stack, "Image", image_arn)


def test_another_stack_can_be_granted_access_to_the_image(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    image = import_image(stack)
    other = cdk.Stack(app, "Other")
    image.grant_read(iam.User(other, "User"))

    assertions.Template.from_stack(other).resource_count_is("AWS::IAM::Policy", 1)


def warnings(stack: cdk.Stack) -> list[str]:
    found = assertions.Annotations.from_stack(stack).find_warning(
        "*", assertions.Match.string_like_regexp("builds of one image version")
    )
    return [entry.id for entry in found]


def test_a_second_image_with_the_same_name_and_version_causes_a_warning(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, "First", image_name="RHEL9_golden")
    import_image(stack, "Second", image_name="rhel9 golden")

    assert warnings(stack) == ["/Stack/Second"]


def test_images_with_another_version_or_stack_cause_no_warning(
    app: cdk.App, stack: cdk.Stack, import_image: ImportImage
) -> None:
    import_image(stack, "First")
    import_image(stack, "Second", semantic_version="1.0.1")
    import_image(cdk.Stack(app, "Other"))

    assert warnings(stack) == []


def test_names_that_are_tokens_cause_no_warning(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    name = cdk.CfnParameter(stack, "Name").value_as_string
    import_image(stack, "First", image_name=name)
    import_image(stack, "Second", image_name=name)

    assert warnings(stack) == []


def test_an_image_uses_the_given_provider(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    provider = VmImportProvider(stack, "Mine")
    import_image(stack, provider=provider)

    (image,) = resources_of(stack, IMAGE).values()
    assert image["Properties"]["ServiceToken"] == stack.resolve(provider.function.function_arn)
    assert len(resources_of(stack, "AWS::Lambda::Function")) == 1
