"""Image recipes, by the API and as AWS::ImageBuilder::ImageRecipe."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.account import Account, refused

if TYPE_CHECKING:
    from collections.abc import Callable

COMPONENT = "arn:aws:imagebuilder:us-east-1:aws:component/update-linux/x.x.x"


class Stack:
    def __init__(self, aws: Account) -> None:
        session = aws.server.session()
        self.api: Any = session.client("cloudformation", aws_access_key_id=aws.account_id)

    def settle(self) -> str:
        """Wait until the operation of the stack ends, and return its status."""
        while True:
            status = str(self.describe()["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return status
            time.sleep(0.02)

    def describe(self) -> Any:
        return self.api.describe_stacks(StackName="stack")["Stacks"][0]

    def deploy(self, outputs: dict[str, Any] | None = None, **recipe: Any) -> str:
        properties = {"Name": "My Recipe", "Version": "1.0.0", **recipe}
        template = {
            "Resources": {
                "Recipe": {"Type": "AWS::ImageBuilder::ImageRecipe", "Properties": properties}
            },
            "Outputs": {name: {"Value": value} for name, value in (outputs or {}).items()},
        }
        try:
            self.describe()
        except self.api.exceptions.ClientError:
            act = self.api.create_stack
        else:
            act = self.api.update_stack
        act(StackName="stack", TemplateBody=json.dumps(template))
        return self.settle()

    def reasons(self) -> list[str]:
        events = self.api.describe_stack_events(StackName="stack")["StackEvents"]
        return [event.get("ResourceStatusReason", "") for event in events]

    def outputs(self) -> dict[str, str]:
        found = self.describe().get("Outputs", [])
        return {output["OutputKey"]: output["OutputValue"] for output in found}

    def physical_id(self) -> str:
        response = self.api.describe_stack_resource(StackName="stack", LogicalResourceId="Recipe")
        return str(response["StackResourceDetail"]["PhysicalResourceId"])


def create(aws: Account, parent: str, **more: Any) -> str:
    wanted: Any = {"name": "My Recipe", "semanticVersion": "1.0.0", "parentImage": parent, **more}
    return aws.images.create_image_recipe(**wanted)["imageRecipeArn"]


def test_a_recipe_shows_its_request(aws: Account) -> None:
    parent = aws.import_image()
    arn = create(aws, parent, components=[{"componentArn": COMPONENT}], tags={"a": "b"})
    assert arn == (f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image-recipe/my-recipe/1.0.0")
    result = aws.images.get_image_recipe(imageRecipeArn=arn)
    recipe: Any = dict(result["imageRecipe"])
    assert recipe.pop("dateCreated")
    assert recipe == {
        "arn": arn,
        "type": "AMI",
        "name": "My Recipe",
        "platform": "Linux",
        "owner": aws.account_id,
        "version": "1.0.0",
        "components": [{"componentArn": COMPONENT}],
        "parentImage": parent,
        "tags": {"a": "b"},
    }
    assert result["latestVersionReferences"]["latestVersionArn"].endswith("/my-recipe/x.x.x")


def test_a_parent_can_be_any_existing_image_or_one_of_another_account(aws: Account) -> None:
    build = aws.import_image()
    version = build.rpartition("/")[0]
    wildcard = version.rpartition("/")[0] + "/x.x.x"
    parents = [build, version, wildcard, "ami-0123456789abcdef0", "ssm:/golden", COMPONENT]
    for number, parent in enumerate(parents):
        create(aws, parent, name=f"recipe-{number}")


def test_a_parent_that_does_not_exist_is_refused(aws: Account) -> None:
    parent = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image/golden/1.0.0/1"
    code, status, message = refused(lambda: create(aws, parent))
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert "'parentImage'" in message
    assert parent in message


def test_a_component_of_this_account_that_does_not_exist_is_refused(aws: Account) -> None:
    component = COMPONENT.replace(":aws:component", f":{aws.account_id}:component")
    for components in ([component], [COMPONENT, component]):
        arns = [{"componentArn": arn} for arn in components]
        refusal = refused(lambda arns=arns: create(aws, "ami-0123456789abcdef0", components=arns))  # type: ignore[misc]
        assert refusal[0] == "InvalidParameterValueException"


@pytest.mark.parametrize(
    ("knob", "code"),
    [
        ("invalid", "InvalidParameterValueException"),
        ("not_found", "ResourceNotFoundException"),
        ("accept", None),
    ],
)
def test_missing_reference_is_refused_or_accepted(
    aws: Account, knob: str, code: str | None
) -> None:
    aws.server.knobs(missing_reference=knob)
    prefix = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}"
    missing: Any = {"components": [{"componentArn": f"{prefix}:component/no/1.0.0/1"}]}
    calls: list[Callable[[], str]] = [
        lambda: create(aws, f"{prefix}:image/golden/1.0.0/1"),
        lambda: create(aws, "ami-0123456789abcdef0", semanticVersion="2.0.0", **missing),
    ]
    for call in calls:
        if code:
            assert refused(call)[0] == code
        else:
            assert call()


def test_a_second_recipe_with_the_same_name_and_version_is_refused(aws: Account) -> None:
    create(aws, "ami-0123456789abcdef0")
    refusal = refused(lambda: create(aws, "ami-0123456789abcdef0", name="my_recipe"))
    assert refusal[:2] == ("ResourceAlreadyExistsException", 400)


@pytest.mark.parametrize("version", [f"1.0.{2**30}", f"{'9' * 5000}.0.0"], ids=["2^30", "long"])
def test_a_version_of_a_recipe_or_component_is_not_too_large(aws: Account, version: str) -> None:
    component: Any = {"name": "part", "platform": "Linux", "data": "a: b"}
    parent = "ami-0123456789abcdef0"

    refusals = [
        refused(lambda: create(aws, parent, semanticVersion=version)),
        refused(lambda: aws.images.create_component(**component, semanticVersion=version)),
    ]

    assert {code for code, *_ in refusals} == {"InvalidVersionNumberException"}
    create(aws, parent, semanticVersion=f"1.0.{2**30 - 1}")


def test_x_in_a_version_becomes_the_next_free_number(aws: Account) -> None:
    wanted = ["1.x.x", "1.0.x", "1.0.7", "1.0.x", "2.x.x", "x.x.x"]
    made = [
        create(aws, "ami-0123456789abcdef0", semanticVersion=version).rpartition("/")[2]
        for version in wanted
    ]
    assert made == ["1.0.0", "1.0.1", "1.0.7", "1.0.8", "2.0.0", "2.0.1"]


def test_x_in_an_arn_finds_the_newest_recipe(aws: Account) -> None:
    arns = [
        create(aws, "ami-0123456789abcdef0", semanticVersion=version)
        for version in ("1.9.0", "1.10.0", "2.0.0")
    ]
    wildcard = arns[0].replace("1.9.0", "1.x.x")
    found = aws.images.get_image_recipe(imageRecipeArn=wildcard)["imageRecipe"]
    assert found["arn"] == arns[1]


def test_a_client_token_creates_one_recipe(aws: Account) -> None:
    first = create(aws, "ami-0123456789abcdef0", clientToken="t")
    assert create(aws, "ami-0123456789abcdef0", clientToken="t") == first


def test_a_dry_run_creates_no_recipe(aws: Account) -> None:
    refusal = refused(lambda: create(aws, "ami-0123456789abcdef0", dryRun=True))
    assert refusal[:2] == ("DryRunOperationException", 412)
    create(aws, "ami-0123456789abcdef0")


def test_a_deleted_recipe_is_not_found(aws: Account) -> None:
    arn = create(aws, "ami-0123456789abcdef0")
    assert aws.images.delete_image_recipe(imageRecipeArn=arn)["imageRecipeArn"] == arn
    for call in (aws.images.get_image_recipe, aws.images.delete_image_recipe):
        refusal = refused(lambda call=call: call(imageRecipeArn=arn))  # type: ignore[misc]
        assert refusal[:2] == ("ResourceNotFoundException", 404)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_recipe_blocks_the_deletion_of_its_parent_unless_the_knob_says_so(
    aws: Account, *, blocks: bool
) -> None:
    aws.server.knobs(dependants_block_delete=blocks)
    parent = aws.import_image()
    aws.finish()
    create(aws, "ami-0123456789abcdef0", name="another")
    recipe = create(aws, parent)
    if blocks:
        refusal = refused(lambda: aws.images.delete_image(imageBuildVersionArn=parent))
        assert refusal[:2] == ("ResourceDependencyException", 400)
        aws.images.delete_image_recipe(imageRecipeArn=recipe)
    aws.images.delete_image(imageBuildVersionArn=parent)


def test_a_stack_creates_updates_and_deletes_a_recipe(aws: Account) -> None:
    stack = Stack(aws)
    properties: dict[str, Any] = {
        "ParentImage": aws.import_image(),
        "Components": [{"ComponentArn": COMPONENT, "Parameters": [{"Name": "P", "Value": ["v"]}]}],
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {"VolumeSize": "20", "DeleteOnTermination": "true", "Iops": 3000},
            }
        ],
        "AdditionalInstanceConfiguration": {
            "SystemsManagerAgent": {"UninstallAfterBuild": True},
        },
        "Description": "d",
        "WorkingDirectory": "/tmp",  # noqa: S108 - in the machine to be built
        "Tags": {"a": "1", "b": "2"},
    }
    attributes = ("Arn", "Name", "Version", "LatestVersion.Minor")
    outputs: dict[str, Any] = {
        name.replace(".", ""): {"Fn::GetAtt": ["Recipe", name]} for name in attributes
    }
    outputs["Ref"] = {"Ref": "Recipe"}
    assert stack.deploy(outputs, **properties) == "CREATE_COMPLETE"
    arn = stack.physical_id()
    assert stack.outputs() == {
        "Ref": arn,
        "Arn": arn,
        "Name": "My Recipe",
        "Version": "1.0.0",
        "LatestVersionMinor": arn.replace("1.0.0", "1.0.x"),
    }
    recipe: Any = aws.images.get_image_recipe(imageRecipeArn=arn)["imageRecipe"]
    assert recipe["components"] == [
        {"componentArn": COMPONENT, "parameters": [{"name": "P", "value": ["v"]}]}
    ]
    assert recipe["blockDeviceMappings"][0]["ebs"] == {
        "volumeSize": 20,
        "deleteOnTermination": True,
        "iops": 3000,
    }
    assert recipe["tags"] == {"a": "1", "b": "2"}

    properties["Tags"] = {"a": "3"}
    assert stack.deploy(outputs, **properties) == "UPDATE_COMPLETE"
    assert stack.physical_id() == arn
    assert aws.images.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "3"}

    assert stack.deploy(outputs, **properties, Version="1.0.1") == "UPDATE_COMPLETE"
    assert stack.physical_id() == arn.replace("1.0.0", "1.0.1")
    refusal = refused(lambda: aws.images.get_image_recipe(imageRecipeArn=arn))
    assert refusal[0] == "ResourceNotFoundException"

    stack.api.delete_stack(StackName="stack")
    while "stack" in str(stack.api.list_stacks(StackStatusFilter=["DELETE_IN_PROGRESS"])):
        time.sleep(0.02)
    arn = arn.replace("1.0.0", "1.0.1")
    refusal = refused(lambda: aws.images.get_image_recipe(imageRecipeArn=arn))
    assert refusal[0] == "ResourceNotFoundException"


def test_a_stack_with_a_missing_parent_fails_with_the_error_of_image_builder(
    aws: Account,
) -> None:
    stack = Stack(aws)
    parent = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image/golden/1.0.0/1"
    assert stack.deploy(ParentImage=parent) == "ROLLBACK_COMPLETE"
    assert any("InvalidParameterValueException" in reason for reason in stack.reasons())


def test_a_stack_cannot_change_a_recipe_that_keeps_its_name_and_version(aws: Account) -> None:
    stack = Stack(aws)
    first = aws.import_image()
    assert stack.deploy(ParentImage=first) == "CREATE_COMPLETE"
    second = aws.import_image()
    assert stack.deploy(ParentImage=second) == "UPDATE_ROLLBACK_COMPLETE"
    assert any("already exists" in reason for reason in stack.reasons())
    arn = stack.physical_id()
    recipe = aws.images.get_image_recipe(imageRecipeArn=arn)["imageRecipe"]
    assert recipe["parentImage"] == first


def test_a_stack_with_unknown_recipe_properties_fails(aws: Account) -> None:
    stack = Stack(aws)
    status = stack.deploy(ParentImage="ami-0123456789abcdef0", Colour="red")
    assert status == "ROLLBACK_COMPLETE"
    assert any("colour" in reason for reason in stack.reasons())
