"""AmiSettings: the custom resource of the settings of an AMI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Annotations, Match

from cdk_vm_import import (
    AmiSettings,
    ImportedVmImage,
    Platform,
    VmDisk,
    VmImportProvider,
    VmImportTask,
)

if TYPE_CHECKING:
    from tests.construct.conftest import ImportImage, Predecessors, ResourcesOf

TYPE = "Custom::VmAmiSettings"
ORGANIZATION = "arn:aws:organizations::111122223333:organization/o-a1b2c3d4e5"
UNIT = "arn:aws-us-gov:organizations::111122223333:ou/o-a1b2c3d4e5/ou-ab12-11111111"


def test_the_settings_are_properties_in_the_words_of_ec2(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    AmiSettings(
        stack,
        "Sharing",
        image=import_image(stack),
        account_ids=["111122223333", "444455556666", "111122223333"],
        organization_arns=[ORGANIZATION],
        organizational_unit_arns=[UNIT],
        imds_support="v2.0",
        deprecation_date=datetime(2030, 1, 1, 1, 30, 59, tzinfo=timezone(timedelta(hours=1))),
    )

    (settings,) = resources_of(stack, TYPE).values()
    properties = settings["Properties"]
    del properties["ServiceToken"], properties["StateMachineArn"]
    assert properties == {
        "ImageId": {"Fn::GetAtt": ["Image9D742C96", "ImageId"]},
        "UserIds": ["111122223333", "444455556666"],
        "OrganizationArns": [ORGANIZATION],
        "OrganizationalUnitArns": [UNIT],
        "ImdsSupport": "v2.0",
        "DeprecateAt": "2030-01-01T00:30:00Z",
    }
    assert settings["DeletionPolicy"] == settings["UpdateReplacePolicy"] == "Delete"


def test_the_settings_are_set_after_the_last_hour_of_the_wait_and_removed_before_the_image(
    stack: cdk.Stack, import_image: ImportImage, predecessors: Predecessors
) -> None:
    image = import_image(stack, timeout=cdk.Duration.hours(2))
    settings = AmiSettings(stack, "Sharing", image=image, account_ids=["111122223333"])

    resource = settings.node.find_child("Resource").node.default_child
    assert isinstance(resource, cdk.CfnResource)
    before = predecessors(stack, stack.resolve(resource.logical_id))
    assert len(before["Custom::ImportedVmImage"]) == len(before["Custom::VmImageWait"]) == 1


def test_the_settings_use_the_function_of_the_image(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    own = VmImportProvider(stack, "Own")
    AmiSettings(
        stack, "Sharing", image=import_image(stack, provider=own), account_ids=["111122223333"]
    )

    (settings,) = resources_of(stack, TYPE).values()
    token = settings["Properties"]["ServiceToken"]
    assert token == stack.resolve(own.function.function_arn)


def test_retain_leaves_the_settings_as_they_are(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    AmiSettings(
        stack,
        "Sharing",
        image=import_image(stack),
        account_ids=["111122223333"],
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )

    (settings,) = resources_of(stack, TYPE).values()
    assert settings["DeletionPolicy"] == settings["UpdateReplacePolicy"] == "Retain"
    assert settings["Properties"]["Retain"] is True


def test_the_function_knows_that_an_aspect_retains_the_settings(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    sharing = AmiSettings(stack, "Sharing", image=import_image(stack), account_ids=["111122223333"])
    cdk.RemovalPolicies.of(sharing).retain()

    (settings,) = resources_of(stack, TYPE).values()
    assert settings["DeletionPolicy"] == "Retain"
    assert settings["Properties"]["Retain"] is True


@pytest.mark.parametrize("given", ["id", "token", "task"])
def test_settings_of_one_ami_are_changed_one_after_the_other(
    stack: cdk.Stack, import_image: ImportImage, predecessors: Predecessors, given: str
) -> None:
    task: dict[str, Any] = {"vm_import_task_id": "import-ami-0123456789abcdef0"}
    if given == "token":
        task = {"vm_import_task_id": cdk.CfnParameter(stack, "Task").value_as_string}
    if given == "task":
        disk = VmDisk.from_snapshot("snap-0123456789abcdef0")
        task = {
            "vm_import_task": VmImportTask(stack, "Task", disks=[disk]),
            "vm_import_task_id": None,
        }
    other = import_image(stack, "Other", vm_import_task_id="import-ami-0123456789abcdef1")
    images = [*(import_image(stack, name, **task) for name in ("First", "Second", "Third")), other]
    settings = [
        AmiSettings(stack, f"{image.node.id}Settings", image=image, account_ids=["111122223333"])
        for image in images
    ]

    resources = [one.node.find_child("Resource").node.default_child for one in settings]
    ids = [stack.resolve(cast("cdk.CfnResource", one).logical_id) for one in resources]
    before = [{*predecessors(stack, logical_id).get(TYPE, {})} for logical_id in ids]
    assert before == [set(), {ids[0]}, {*ids[:2]}, set()]


def test_tokens_pass(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    accounts = cdk.CfnParameter(stack, "Accounts", type="CommaDelimitedList").value_as_list
    organization = cdk.CfnParameter(stack, "Organization").value_as_string
    AmiSettings(
        stack,
        "Sharing",
        image=import_image(stack),
        account_ids=accounts,
        organization_arns=[organization],
    )

    (settings,) = resources_of(stack, TYPE).values()
    assert settings["Properties"]["UserIds"] == {"Ref": "Accounts"}
    assert settings["Properties"]["OrganizationArns"] == [{"Ref": "Organization"}]


def test_a_past_date_is_only_a_warning_because_apps_must_still_synthesize_when_it_is_over(
    stack: cdk.Stack, import_image: ImportImage
) -> None:
    AmiSettings(
        stack,
        "Sharing",
        image=import_image(stack),
        deprecation_date=datetime(2020, 1, 1, tzinfo=UTC),
    )

    found = Annotations.from_stack(stack).find_warning("*", Match.string_like_regexp("in the past"))
    assert len(found) == 1


def test_a_tuple_is_as_good_as_a_list(
    stack: cdk.Stack, import_image: ImportImage, resources_of: ResourcesOf
) -> None:
    AmiSettings(
        stack,
        "Sharing",
        image=import_image(stack),
        account_ids=("111122223333",),
        organization_arns=(ORGANIZATION,),
        organizational_unit_arns=(UNIT,),
    )

    (settings,) = resources_of(stack, TYPE).values()
    assert settings["Properties"]["UserIds"] == ["111122223333"]
    assert settings["Properties"]["OrganizationArns"] == [ORGANIZATION]
    assert settings["Properties"]["OrganizationalUnitArns"] == [UNIT]


@pytest.mark.parametrize("days", [1, 10 * 365])
def test_a_date_within_ten_years_is_accepted(
    stack: cdk.Stack, import_image: ImportImage, days: int
) -> None:
    date = datetime.now(UTC) + timedelta(days=days)
    AmiSettings(stack, "Sharing", image=import_image(stack), deprecation_date=date)

    assert not Annotations.from_stack(stack).find_warning("*", Match.any_value())


def test_an_image_of_another_stack_is_refused(app: cdk.App, stack: cdk.Stack) -> None:
    there = ImportedVmImage.from_image_attributes(
        stack,
        "There",
        image_arn="arn:aws:imagebuilder:us-east-1:123456789012:image/a/1.0.0/1",
        image_id="ami-0123456789abcdef0",
    )
    other = ImportedVmImage(
        cdk.Stack(app, "Other"),
        "Image",
        image_name="rhel9",
        semantic_version="1.0.0",
        platform=Platform.LINUX,
        vm_import_task_id="import-ami-0123456789abcdef0",
    )
    images: list[Any] = [there, other]

    for image in images:
        with pytest.raises(ValueError, match="in the stack that imports the image"):
            AmiSettings(stack, "Sharing", image=image, account_ids=["111122223333"])
