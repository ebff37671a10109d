"""Components, configurations and pipelines, by the API and as CloudFormation resources."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.account import Account, refused
from tests.local_aws.test_recipes import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = "name: hello\nschemaVersion: 1.0\nphases: []\n"
DISTRIBUTION: Any = {"region": "us-east-1", "amiDistributionConfiguration": {"name": "golden"}}


class Parts:
    """A pipeline and its parts, created by the API."""

    def __init__(self, aws: Account) -> None:
        images: Any = aws.images
        self.images = images
        aws.iam.create_instance_profile(InstanceProfileName="builder")
        self.component = self.images.create_component(
            name="Hello", semanticVersion="1.0.0", platform="Linux", data=DOCUMENT
        )["componentBuildVersionArn"]
        self.recipe = self.images.create_image_recipe(
            name="recipe",
            semanticVersion="1.0.0",
            parentImage="ami-0123456789abcdef0",
            components=[{"componentArn": self.component}],
        )["imageRecipeArn"]
        self.infrastructure = self.images.create_infrastructure_configuration(
            name="Infra_1", instanceProfileName="builder", tags={"a": "b"}
        )["infrastructureConfigurationArn"]
        self.distribution = self.images.create_distribution_configuration(
            name="dist", distributions=[DISTRIBUTION]
        )["distributionConfigurationArn"]

    def pipeline(self, **changes: Any) -> str:
        wanted = {
            "name": "pipeline",
            "imageRecipeArn": self.recipe,
            "infrastructureConfigurationArn": self.infrastructure,
            "distributionConfigurationArn": self.distribution,
        }
        given = {name: value for name, value in (wanted | changes).items() if value is not None}
        return str(self.images.create_image_pipeline(**given)["imagePipelineArn"])


@pytest.fixture
def parts(aws: Account) -> Parts:
    return Parts(aws)


def test_pipelines_and_their_parts_show_their_requests(parts: Parts, aws: Account) -> None:
    prefix = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}"
    assert parts.component == f"{prefix}:component/hello/1.0.0/1"
    assert parts.infrastructure == f"{prefix}:infrastructure-configuration/infra-1"
    component = parts.images.get_component(componentBuildVersionArn=parts.component)["component"]
    assert (component["name"], component["data"], component["type"]) == ("Hello", DOCUMENT, "BUILD")
    infrastructure = parts.images.get_infrastructure_configuration(
        infrastructureConfigurationArn=parts.infrastructure
    )["infrastructureConfiguration"]
    assert (infrastructure["name"], infrastructure["tags"]) == ("Infra_1", {"a": "b"})
    distribution = parts.images.get_distribution_configuration(
        distributionConfigurationArn=parts.distribution
    )["distributionConfiguration"]
    assert distribution["distributions"] == [DISTRIBUTION]
    pipeline = parts.images.get_image_pipeline(imagePipelineArn=parts.pipeline())["imagePipeline"]
    assert pipeline["imageRecipeArn"] == parts.recipe
    assert pipeline["status"] == "ENABLED"


def test_a_pipeline_shows_its_defaults_and_the_platform_of_its_recipe(parts: Parts) -> None:
    arn = parts.pipeline()
    created = parts.images.get_image_pipeline(imagePipelineArn=arn)["imagePipeline"]
    tests = {"imageTestsEnabled": True, "timeoutMinutes": 720}
    assert (created["platform"], created["imageTestsConfiguration"]) == ("Linux", tests)
    assert created["dateUpdated"] == created["dateCreated"]


def test_x_in_the_arn_of_a_component_finds_the_newest(parts: Parts) -> None:
    newer = parts.images.create_component(
        name="Hello", semanticVersion="1.10.0", platform="Linux", data=DOCUMENT
    )["componentBuildVersionArn"]
    wildcard = parts.component.replace("1.0.0/1", "1.x.x")
    found = parts.images.get_component(componentBuildVersionArn=wildcard)["component"]
    assert found["arn"] == newer


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("imageRecipeArn", "image-recipe/no/1.0.0", "InvalidParameterValueException"),
        (
            "infrastructureConfigurationArn",
            "infrastructure-configuration/no",
            "InvalidParameterValueException",
        ),
        (
            "distributionConfigurationArn",
            "distribution-configuration/no",
            "InvalidParameterValueException",
        ),
        ("imageRecipeArn", None, "InvalidParameterCombinationException"),
    ],
)
def test_a_pipeline_with_parts_that_do_not_exist_is_refused(
    parts: Parts, aws: Account, name: str, value: str | None, code: str
) -> None:
    arn = value and f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:{value}"
    assert refused(lambda: parts.pipeline(**{name: arn}))[:2] == (code, 400)


@pytest.mark.parametrize("knob", ["not_found", "accept"])
def test_missing_reference_of_a_pipeline_is_not_found_or_accepted(
    parts: Parts, aws: Account, knob: str
) -> None:
    aws.server.knobs(missing_reference=knob)
    nothing = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:infrastructure-configuration/no"
    if knob == "accept":
        assert parts.pipeline(infrastructureConfigurationArn=nothing)
    else:
        refusal = refused(lambda: parts.pipeline(infrastructureConfigurationArn=nothing))
        assert refusal[:2] == ("ResourceNotFoundException", 404)


def test_a_component_with_other_content_is_the_next_build(parts: Parts) -> None:
    made = [
        parts.images.create_component(
            name="hello", semanticVersion="1.0.0", platform="Linux", data=f"{DOCUMENT}# {number}"
        )["componentBuildVersionArn"]
        for number in (2, 3)
    ]
    assert made == [parts.component.removesuffix("1") + build for build in ("2", "3")]
    found = parts.images.get_component(componentBuildVersionArn=parts.component[:-2])
    assert found["component"]["arn"] == made[1]


def test_an_instance_profile_that_does_not_exist_is_refused(aws: Account) -> None:
    images: Any = aws.images
    refusal = refused(
        lambda: images.create_infrastructure_configuration(name="infra", instanceProfileName="no")
    )
    assert refusal[0] == "InvalidParameterValueException"
    assert "instance profile does not exist" in refusal[2]


def test_a_second_part_with_the_same_name_is_refused(parts: Parts) -> None:
    for again in (
        lambda: parts.images.create_component(
            name="hello", semanticVersion="1.0.0", platform="Linux", data=DOCUMENT
        ),
        lambda: parts.images.create_infrastructure_configuration(
            name="infra 1", instanceProfileName="builder"
        ),
        lambda: parts.images.create_distribution_configuration(
            name="DIST", distributions=[DISTRIBUTION]
        ),
    ):
        assert refused(again)[:2] == ("ResourceAlreadyExistsException", 400)


def test_parts_in_use_cannot_be_deleted(parts: Parts) -> None:
    pipeline = parts.pipeline()
    deletions: list[tuple[str, Callable[..., object], str]] = [
        ("componentBuildVersionArn", parts.images.delete_component, parts.component),
        ("imageRecipeArn", parts.images.delete_image_recipe, parts.recipe),
        (
            "infrastructureConfigurationArn",
            parts.images.delete_infrastructure_configuration,
            parts.infrastructure,
        ),
        (
            "distributionConfigurationArn",
            parts.images.delete_distribution_configuration,
            parts.distribution,
        ),
    ]
    for member, delete, arn in deletions:
        refusal = refused(lambda delete=delete, member=member, arn=arn: delete(**{member: arn}))  # type: ignore[misc]
        assert refusal[:2] == ("ResourceDependencyException", 400)
    parts.images.delete_image_pipeline(imagePipelineArn=pipeline)
    for member, delete, arn in [*deletions[1:], deletions[0]]:
        delete(**{member: arn})
        refusal = refused(lambda delete=delete, member=member, arn=arn: delete(**{member: arn}))  # type: ignore[misc]
        assert refusal[:2] == ("ResourceNotFoundException", 404)


def test_an_update_replaces_everything_except_name_and_tags(parts: Parts) -> None:
    parts.images.update_infrastructure_configuration(
        infrastructureConfigurationArn=parts.infrastructure,
        instanceProfileName="builder",
        description="d",
    )
    parts.images.update_infrastructure_configuration(
        infrastructureConfigurationArn=parts.infrastructure, instanceProfileName="builder"
    )
    shown = parts.images.get_infrastructure_configuration(
        infrastructureConfigurationArn=parts.infrastructure
    )["infrastructureConfiguration"]
    assert "description" not in shown
    assert (shown["name"], shown["tags"]) == ("Infra_1", {"a": "b"})


class PipelineStack(Stack):
    """A stack with a pipeline and its parts."""

    def act(self, action: str, changes: dict[str, dict[str, Any]]) -> str:
        properties: dict[str, dict[str, Any]] = {
            "Component": {
                "Name": "Hello",
                "Version": "1.0.0",
                "Platform": "Linux",
                "Data": DOCUMENT,
            },
            "ImageRecipe": {
                "Name": "recipe",
                "Version": "1.0.0",
                "ParentImage": "ami-0123456789abcdef0",
                "Components": [{"ComponentArn": {"Ref": "Component"}}],
            },
            "InfrastructureConfiguration": {
                "Name": "infra",
                "InstanceProfileName": {"Ref": "Profile"},
                "InstanceTypes": ["t3.large"],
                "TerminateInstanceOnFailure": "true",
                "Tags": {"a": "1"},
            },
            "DistributionConfiguration": {
                "Name": "dist",
                "Distributions": [
                    {
                        "Region": "us-east-1",
                        "AmiDistributionConfiguration": {
                            "Name": "golden {{ imagebuilder:buildDate }}",
                            "AmiTags": {"Kept": "As it is"},
                            "LaunchPermissionConfiguration": {"UserIds": ["123456789012"]},
                        },
                    }
                ],
            },
            "ImagePipeline": {
                "Name": "pipeline",
                "ImageRecipeArn": {"Fn::GetAtt": ["ImageRecipe", "Arn"]},
                "InfrastructureConfigurationArn": {
                    "Fn::GetAtt": ["InfrastructureConfiguration", "Arn"]
                },
                "DistributionConfigurationArn": {"Ref": "DistributionConfiguration"},
                "ImageTestsConfiguration": {"ImageTestsEnabled": False, "TimeoutMinutes": 60},
                "Status": "DISABLED",
            },
        }
        for name, change in changes.items():
            properties[name] |= change
        resources: dict[str, Any] = {
            name: {"Type": f"AWS::ImageBuilder::{name}", "Properties": values}
            for name, values in properties.items()
        }
        resources["Profile"] = {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": []}}
        outputs = {
            f"{name}{attribute}": {"Value": {"Fn::GetAtt": [name, attribute]}}
            for name in properties
            for attribute in ("Arn", "Name")
        }
        outputs["Type"] = {"Value": {"Fn::GetAtt": ["Component", "Type"]}}
        outputs["Latest"] = {"Value": {"Fn::GetAtt": ["Component", "LatestVersion.Major"]}}
        template = json.dumps({"Resources": resources, "Outputs": outputs})
        getattr(self.api, action)(
            StackName="stack", TemplateBody=template, Capabilities=["CAPABILITY_IAM"]
        )
        return self.settle()


def test_a_stack_creates_updates_and_deletes_a_pipeline_and_its_parts(aws: Account) -> None:
    images: Any = aws.images
    stack = PipelineStack(aws)
    assert stack.act("create_stack", {}) == "CREATE_COMPLETE", set(stack.reasons())
    outputs = stack.outputs()
    assert outputs["ComponentName"] == "Hello"
    assert outputs["Type"] == "BUILD"
    assert outputs["Latest"].endswith(":component/hello/1.x.x")
    arn = outputs["ImagePipelineArn"]
    pipeline = images.get_image_pipeline(imagePipelineArn=arn)["imagePipeline"]
    assert pipeline["imageRecipeArn"] == outputs["ImageRecipeArn"]
    assert pipeline["distributionConfigurationArn"] == outputs["DistributionConfigurationArn"]
    assert pipeline["imageTestsConfiguration"]["timeoutMinutes"] == 60
    distribution = images.get_distribution_configuration(
        distributionConfigurationArn=outputs["DistributionConfigurationArn"]
    )["distributionConfiguration"]["distributions"][0]["amiDistributionConfiguration"]
    assert distribution["amiTags"] == {"Kept": "As it is"}
    assert distribution["launchPermission"] == {"userIds": ["123456789012"]}

    changes: dict[str, dict[str, Any]] = {
        "InfrastructureConfiguration": {"InstanceTypes": ["m5.large"], "Tags": {"b": "2"}},
        "ImagePipeline": {"Status": "ENABLED"},
        "Component": {"Version": "1.1.0"},
        "ImageRecipe": {"Version": "1.1.0"},
    }
    assert stack.act("update_stack", changes) == "UPDATE_COMPLETE", set(stack.reasons())
    pipeline = images.get_image_pipeline(imagePipelineArn=arn)["imagePipeline"]
    assert pipeline["status"] == "ENABLED"
    assert pipeline["imageRecipeArn"].endswith("/1.1.0")
    shown = images.get_infrastructure_configuration(
        infrastructureConfigurationArn=pipeline["infrastructureConfigurationArn"]
    )["infrastructureConfiguration"]
    assert (shown["instanceTypes"], shown["tags"]) == (["m5.large"], {"b": "2"})
    gone = refused(lambda: images.get_image_recipe(imageRecipeArn=outputs["ImageRecipeArn"]))
    assert gone[0] == "ResourceNotFoundException"

    stack.api.delete_stack(StackName="stack")
    while "stack" in str(stack.api.list_stacks(StackStatusFilter=["DELETE_IN_PROGRESS"])):
        time.sleep(0.02)
    gone = refused(lambda: images.get_image_pipeline(imagePipelineArn=arn))
    assert gone[0] == "ResourceNotFoundException"


def test_a_stack_with_a_pipeline_of_a_missing_recipe_fails(aws: Account) -> None:
    stack = PipelineStack(aws)
    nothing = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image-recipe/nothing/1.0.0"
    changes = {"ImagePipeline": {"ImageRecipeArn": nothing}}
    assert stack.act("create_stack", changes) == "ROLLBACK_COMPLETE"
    assert any(nothing in reason for reason in stack.reasons()), set(stack.reasons())
