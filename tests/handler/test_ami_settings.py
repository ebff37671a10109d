"""Custom::VmAmiSettings: launch permissions, IMDS support and deprecation date of an AMI."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from ami_settings.record import MAX_EXISTING
from contract import (
    AMI_SETTINGS_TAG,
    MAX_TAGS,
    AmiSettingsProperty,
    ImageAttribute,
    OwnTag,
    ResourceType,
)
from tests.support.account import tags_of
from tests.support.aws import ROLLS_BACK
from tests.support.cloudformation import CustomResource
from tests.support.properties import checked
from tests.support.step_functions import STATE_MACHINE

if TYPE_CHECKING:
    from tests.handler.conftest import Log
    from tests.support.account import Account
    from tests.support.aws import Aws

A, B, C, D = (f"{n}11122223333" for n in range(1, 5))
ORGANIZATION: Final = "arn:aws:organizations::111122223333:organization/o-a1b2c3d4e5"
UNIT: Final = "arn:aws:organizations::111122223333:ou/o-a1b2c3d4e5/ou-ab12-11111111"
DENIED_CALLS = ["DescribeImages", "CreateTags", "DescribeImageAttribute", "ModifyImageAttribute"]
# As many as the calls of an event.
CALLS: Final = 12
FAULTS: Final = [
    "throttled",
    "denied at first",
    "answer lost",
    "killed before",
    "killed after",
]


@pytest.fixture
def settings(aws: Aws, image: CustomResource) -> CustomResource:
    """The settings of an AMI, in the stack of the image."""
    return CustomResource(
        aws, ResourceType.AMI_SETTINGS.value, logical_id="SharingF00D", stack_id=image.stack_id
    )


def imported(account: Account, image: CustomResource, **changes: Any) -> str:
    """Import an image, and return the id of its AMI."""
    account.knobs(import_seconds=10)
    response = image.create(account.waiting(**changes))
    assert response["Status"] == "SUCCESS", response["Reason"]
    return str(response["Data"][ImageAttribute.IMAGE_ID])


def of(ami_id: str, *accounts: str, **changes: Any) -> dict[str, Any]:
    """Properties of the settings, as CloudFormation resolves them."""
    properties: dict[str, Any] = {
        AmiSettingsProperty.IMAGE_ID: ami_id,
        AmiSettingsProperty.STATE_MACHINE_ARN: STATE_MACHINE,
    }
    if accounts:
        properties[AmiSettingsProperty.USER_IDS] = list(accounts)
    return properties | checked(AmiSettingsProperty, changes)


def ami(account: Account, ami_id: str) -> dict[str, Any]:
    (found,) = account.ec2.describe_images(ImageIds=[ami_id])["Images"]
    return dict(found)


def shared_with(account: Account, ami_id: str) -> set[str]:
    """The accounts, organizations and organizational units that may launch an AMI."""
    response = account.ec2.describe_image_attribute(ImageId=ami_id, Attribute="launchPermission")
    return {value for found in response["LaunchPermissions"] for value in found.values()}


def share(account: Account, ami_id: str, *accounts: str, change: str = "Add") -> None:
    """Have a person add or remove launch permissions."""
    permissions = {change: [{"UserId": user} for user in accounts]}
    account.ec2.modify_image_attribute(ImageId=ami_id, LaunchPermission=permissions)


def record_of(account: Account, ami_id: str) -> list[str]:
    """The tags of settings on an AMI."""
    return [key for key in tags_of(ami(account, ami_id)) if key.startswith(AMI_SETTINGS_TAG)]


def in_days(account: Account, days: float) -> str:
    """A date as the constructs write it."""
    date = datetime.fromtimestamp(account.aws.now(), UTC) + timedelta(days=days)
    return date.strftime("%Y-%m-%dT%H:%M:00Z")


def deprecation(account: Account, ami_id: str) -> str:
    """When an AMI is deprecated, as the constructs write it, or nothing."""
    return str(ami(account, ami_id).get("DeprecationTime", "")).replace(".000Z", "Z")


def changes_of(account: Account) -> list[str]:
    """The calls of the handler that changed settings or tags of AMIs."""
    names = {"ModifyImageAttribute", "EnableImageDeprecation", "DisableImageDeprecation"}
    return [call["operation"] for call in account.calls() if call["operation"] in names]


# --- create, update, delete ---


def test_a_create_shares_the_ami_and_sets_imds_support_and_the_deprecation_date(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id, date = imported(account, image), in_days(account, 365)

    response = settings.create(
        of(
            ami_id,
            A,
            B,
            OrganizationArns=[ORGANIZATION],
            OrganizationalUnitArns=[UNIT],
            ImdsSupport="v2.0",
            DeprecateAt=date,
        )
    )

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert response["PhysicalResourceId"] == ami_id
    assert shared_with(account, ami_id) == {A, B, ORGANIZATION, UNIT}
    assert ami(account, ami_id)["ImdsSupport"] == "v2.0"
    assert deprecation(account, ami_id) == date


def test_an_update_applies_the_difference_and_what_a_person_added_stays(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A, B))
    share(account, ami_id, D)
    before = len(changes_of(account))

    response = settings.update(of(ami_id, B, C))

    assert response["PhysicalResourceId"] == ami_id
    assert shared_with(account, ami_id) == {B, C, D}
    requests = [call["request"] for call in account.calls("ModifyImageAttribute")][before:]
    assert [request["LaunchPermission"] for request in requests] == [
        {"Remove": [{"UserId": A}]},
        {"Add": [{"UserId": C}]},
    ]


def test_an_update_puts_back_what_a_person_removed(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A, B))
    share(account, ami_id, B, change="Remove")

    settings.update(of(ami_id, A, B, C))

    assert shared_with(account, ami_id) == {A, B, C}
    settings.delete()
    assert shared_with(account, ami_id) == set()


@pytest.mark.parametrize("accounts", [(A, B), (A, B, C)])
def test_a_permission_of_before_that_a_person_removed_does_not_outlive_the_settings(
    account: Account, image: CustomResource, settings: CustomResource, accounts: tuple[str, ...]
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    settings.create(of(ami_id, A, B))
    share(account, ami_id, B, change="Remove")

    settings.update(of(ami_id, *accounts, DeprecateAt=in_days(account, 30)))

    assert shared_with(account, ami_id) == {*accounts}
    settings.delete()
    assert shared_with(account, ami_id) == set()


def test_an_update_without_a_difference_changes_nothing(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    properties = of(ami_id, A, B, ImdsSupport="v2.0", DeprecateAt=in_days(account, 30))
    settings.create(properties)
    before = changes_of(account)

    settings.update({**properties, AmiSettingsProperty.USER_IDS: [B, A]})

    assert changes_of(account) == before
    assert shared_with(account, ami_id) == {A, B}


def test_a_delete_undoes_what_was_added_and_what_existed_before_stays(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    settings.create(of(ami_id, A, B, C))
    share(account, ami_id, D)

    response = settings.delete()

    assert response["Status"] == "SUCCESS"
    assert shared_with(account, ami_id) == {B, D}
    assert record_of(account, ami_id) == []


def test_a_permission_that_existed_before_stays_when_an_update_removes_it(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    settings.create(of(ami_id, A, B))

    settings.update(of(ami_id, A))
    assert shared_with(account, ami_id) == {A, B}
    settings.update(of(ami_id, A, B))
    settings.delete()

    assert shared_with(account, ami_id) == {B}


def test_the_settings_are_left_as_they_are_if_nothing_was_ever_set(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, A)

    # Its Create was lost, and CloudFormation invented a physical id.
    response = settings.delete("images-SharingF00D-1ABC", of(ami_id, A))

    assert response["Status"] == "SUCCESS"
    assert "stay" in response["Reason"]
    assert shared_with(account, ami_id) == {A}


def test_properties_of_another_form_are_refused_and_deleted(settings: CustomResource) -> None:
    for properties in (
        {"UserIds": [A]},
        {"ImageId": "ami-1", "UserIds": A},
        {"ImageId": "ami-1", "DeprecateAt": "soon"},
    ):
        assert settings.create(properties)["Status"] == "FAILED"
        assert settings.delete()["Status"] == "SUCCESS"


# --- the deprecation date ---


def test_a_delete_cancels_the_deprecation(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, DeprecateAt=in_days(account, 30)))

    settings.delete()

    assert deprecation(account, ami_id) == ""


@pytest.mark.parametrize("ends", ["delete", "update"])
def test_the_deprecation_date_of_before_is_restored(
    account: Account, image: CustomResource, settings: CustomResource, ends: str
) -> None:
    ami_id, before = imported(account, image), in_days(account, 100)
    account.ec2.enable_image_deprecation(ImageId=ami_id, DeprecateAt=before)
    settings.create(of(ami_id, A, DeprecateAt=in_days(account, 30)))
    settings.update(of(ami_id, A, DeprecateAt=in_days(account, 40)))

    _ = settings.delete() if ends == "delete" else settings.update(of(ami_id, A))

    assert deprecation(account, ami_id) == before


def test_a_deprecation_date_that_a_person_set_meanwhile_stays(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id, by_hand = imported(account, image), in_days(account, 50)
    settings.create(of(ami_id, DeprecateAt=in_days(account, 30)))
    account.ec2.enable_image_deprecation(ImageId=ami_id, DeprecateAt=by_hand)

    settings.delete()

    assert deprecation(account, ami_id) == by_hand


def test_a_date_in_the_past_deprecates_the_ami_at_once(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)

    response = settings.create(of(ami_id, DeprecateAt=in_days(account, -30)))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert deprecation(account, ami_id) <= in_days(account, 0.01)
    account.advance(600)
    settings.delete()
    assert deprecation(account, ami_id) == ""


def test_a_rollback_to_a_date_that_is_over_meanwhile_succeeds(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    old = of(ami_id, DeprecateAt=in_days(account, 1))
    settings.create(old)
    account.advance(2 * 86400)
    settings.update(of(ami_id, DeprecateAt=in_days(account, 30)))

    back = settings.send(settings.update_event(old) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]
    assert deprecation(account, ami_id) <= in_days(account, 0.01)


# --- IMDS support ---


@pytest.mark.parametrize("ends", ["delete", "update"])
def test_imds_support_stays_because_ec2_cannot_undo_it(
    account: Account, image: CustomResource, settings: CustomResource, ends: str
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A, ImdsSupport="v2.0"))

    response = settings.delete() if ends == "delete" else settings.update(of(ami_id, A))

    assert response["Status"] == "SUCCESS"
    assert response["Reason"] == f"ImdsSupport v2.0 of {ami_id} stays: EC2 cannot undo it"


def test_imds_support_is_set_last(
    aws: Aws, account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    aws.expect(denied={"EnableImageDeprecation"})

    response = settings.create(of(ami_id, A, ImdsSupport="v2.0", DeprecateAt=in_days(account, 30)))

    assert "EnableImageDeprecation failed" in response["Reason"]
    assert "ImdsSupport" not in ami(account, ami_id)


# --- rollbacks ---


def test_a_rollback_of_an_update_restores_exactly_what_was_there(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id, date = imported(account, image), in_days(account, 30)
    old = of(ami_id, A, B, DeprecateAt=date)
    settings.create(old)
    share(account, ami_id, D)
    settings.update(of(ami_id, B, C, D, DeprecateAt=in_days(account, 60)))
    assert shared_with(account, ami_id) == {B, C, D}

    settings.send(settings.update_event(old) | ROLLS_BACK)

    assert shared_with(account, ami_id) == {A, B, D}
    assert deprecation(account, ami_id) == date
    settings.delete(properties=old)
    assert shared_with(account, ami_id) == {D}
    assert deprecation(account, ami_id) == ""


@pytest.mark.parametrize("denied", [*DENIED_CALLS, "EnableImageDeprecation"])
def test_a_denied_create_names_the_call_and_its_rollback_leaves_everything_as_it_was(
    aws: Aws, account: Account, image: CustomResource, settings: CustomResource, denied: str
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    aws.expect(denied={denied})

    created = settings.create(of(ami_id, A, B, DeprecateAt=in_days(account, 30)))

    assert created["Status"] == "FAILED"
    assert f"{denied} failed: AccessDenied" in created["Reason"]
    assert settings.delete()["Status"] == "SUCCESS"
    assert shared_with(account, ami_id) == {B}
    assert deprecation(account, ami_id) == ""


@pytest.mark.parametrize("denied", ["CreateTags", "ModifyImageAttribute", "EnableImageDeprecation"])
def test_a_denied_update_names_the_call_and_its_rollback_leaves_everything_as_it_was(
    aws: Aws, account: Account, image: CustomResource, settings: CustomResource, denied: str
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    old = of(ami_id, A)
    settings.create(old)
    aws.expect(denied={denied})

    updated = settings.update(of(ami_id, A, B, C, DeprecateAt=in_days(account, 30)))
    back = settings.send(settings.update_event(old) | ROLLS_BACK)

    assert f"{denied} failed: AccessDenied" in updated["Reason"]
    assert back["Status"] == "SUCCESS", back["Reason"]
    assert shared_with(account, ami_id) == {A, B}
    aws.expect()
    settings.delete()
    assert shared_with(account, ami_id) == {B}


def test_too_many_permissions_that_exist_already_are_refused_and_all_of_them_stay(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    existing = [f"{n:012}" for n in range(MAX_EXISTING + 1)]
    share(account, ami_id, *existing)
    old = of(ami_id, A)

    created = settings.create(of(ami_id, *existing))
    assert created["Status"] == "FAILED"
    assert f"{MAX_EXISTING} can be recorded" in created["Reason"]
    settings.delete()
    settings.create(old)
    assert settings.update(of(ami_id, *existing))["Status"] == "FAILED"
    settings.send(settings.update_event(old) | ROLLS_BACK)

    assert shared_with(account, ami_id) == {A, *existing}
    settings.update(of(ami_id, A, *existing[:MAX_EXISTING]))
    settings.delete()
    assert shared_with(account, ami_id) == {*existing}


def test_a_rollback_to_an_image_without_an_ami_succeeds(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A))

    back = settings.send(settings.update_event(of("", A)) | ROLLS_BACK)

    assert back["Status"] == "SUCCESS", back["Reason"]
    assert settings.delete(ami_id, of(ami_id, A))["Status"] == "SUCCESS"
    assert shared_with(account, ami_id) == set()
    assert settings.delete(back["PhysicalResourceId"])["Status"] == "SUCCESS"


def test_new_settings_of_an_image_whose_import_had_failed_say_that_and_what_to_do(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A))
    settings.send(settings.update_event(of("", A)) | ROLLS_BACK)
    settings.physical_id = settings.logical_id

    response = settings.update(of("", A, B))

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith(
        "there is no AMI: the import of the image had failed. Hint: start another import"
    )


@pytest.mark.parametrize("rolls_back", [True, False])
def test_an_ami_that_is_gone_fails_an_update_but_no_rollback(
    account: Account, image: CustomResource, settings: CustomResource, *, rolls_back: bool
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A))
    account.ec2.deregister_image(ImageId=ami_id)

    event = settings.update_event(of(ami_id, B)) | (ROLLS_BACK if rolls_back else {})
    response = settings.send(event)

    assert response["Status"] == ("SUCCESS" if rolls_back else "FAILED")
    assert f"EC2 does not list the AMI ({ami_id}" in response["Reason"]


# --- another AMI, or none ---


def test_the_ami_of_a_replaced_image_gets_the_settings_and_the_old_one_loses_them(
    account: Account, image: CustomResource, settings: CustomResource, other_image: CustomResource
) -> None:
    old_ami = imported(account, image)
    second = dataclasses.replace(other_image, stack_id=image.stack_id, logical_id="SecondF00D")
    new_ami = imported(account, second)
    old = of(old_ami, A, DeprecateAt=in_days(account, 30))
    settings.create(old)

    response = settings.update(of(new_ami, A, DeprecateAt=in_days(account, 30)))

    assert response["PhysicalResourceId"] == new_ami
    assert shared_with(account, new_ami) == {A}
    assert shared_with(account, old_ami) == {A}  # until CloudFormation deletes the old resource
    settings.delete(old_ami, old)
    assert shared_with(account, old_ami) == set()
    assert deprecation(account, old_ami) == ""
    assert shared_with(account, new_ami) == {A}


def test_a_rollback_of_a_replacement_keeps_the_settings_of_the_old_ami(
    account: Account, image: CustomResource, settings: CustomResource, other_image: CustomResource
) -> None:
    old_ami = imported(account, image)
    new_ami = imported(account, dataclasses.replace(other_image, stack_id=image.stack_id))
    share(account, old_ami, B)
    old, new = of(old_ami, A, B), of(new_ami, A, B)
    settings.create(old)
    settings.update(new)

    back = settings.send(settings.update_event(old) | ROLLS_BACK)
    settings.delete(new_ami, new)

    assert back["PhysicalResourceId"] == old_ami
    assert shared_with(account, new_ami) == set()
    assert shared_with(account, old_ami) == {A, B}
    settings.delete(old_ami, old)
    assert shared_with(account, old_ami) == {B}


def test_the_settings_of_an_ami_that_is_gone_count_as_deleted(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    settings.create(of(ami_id, A))
    account.ec2.deregister_image(ImageId=ami_id)

    assert settings.delete()["Status"] == "SUCCESS"


def test_the_ami_of_another_stack_is_not_changed(
    account: Account, other_image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, other_image)

    response = settings.create(of(ami_id, A))

    assert response["Status"] == "FAILED"
    assert response["Reason"].startswith("the AMI belongs to another stack, so its settings")
    assert f"its tag {OwnTag.STACK} is {other_image.stack_id}" in response["Reason"]
    assert settings.delete()["Status"] == "SUCCESS"
    assert shared_with(account, ami_id) == set()


@pytest.mark.parametrize("creates_image", [True, False])
def test_the_ami_of_a_deleted_stack_is_changed_when_its_tag_is_removed_as_the_hint_says(
    aws: Aws,
    account: Account,
    image: CustomResource,
    settings: CustomResource,
    *,
    creates_image: bool,
) -> None:
    ami_id = imported(account, image)
    again = CustomResource(aws, logical_id="AgainF00D")
    created = again.create(account.waiting(VmImportTaskId=image.properties["VmImportTaskId"]))
    assert created["Data"][ImageAttribute.IMAGE_ID] == ami_id
    sharing = dataclasses.replace(settings, stack_id=again.stack_id)
    reason = sharing.create(of(ami_id, A))["Reason"]
    command = f"aws ec2 delete-tags --resources {ami_id} --tags Key={OwnTag.STACK}"
    assert f"'{command}' and deploy again" in reason

    account.ec2.delete_tags(Resources=[ami_id], Tags=[{"Key": OwnTag.STACK}])
    if creates_image:
        # The first deployment was rolled back, so the next one is of another stack.
        third = CustomResource(aws, logical_id="AgainF00D")
        third.create(account.waiting(VmImportTaskId=image.properties["VmImportTaskId"]))
        sharing = dataclasses.replace(settings, stack_id=third.stack_id)
    response = sharing.create(of(ami_id, A))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert shared_with(account, ami_id) == {A}
    assert tags_of(ami(account, ami_id))[OwnTag.STACK] == sharing.stack_id
    sharing.delete()
    assert shared_with(account, ami_id) == set()


# --- the order of deletions ---


def test_an_ami_is_deleted_with_its_image_although_the_settings_share_it(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image, DeleteAmi="true")
    settings.create(of(ami_id, A, B))

    # After a replacement, CloudFormation may delete the image before the settings.
    response = image.delete()

    assert response["Reason"] == ""
    assert not account.ec2.describe_images(Filters=[{"Name": "image-id", "Values": [ami_id]}])[
        "Images"
    ]
    assert settings.delete()["Status"] == "SUCCESS"


def test_an_ami_whose_settings_are_retained_is_retained_while_it_is_shared(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image, DeleteAmi="true")
    settings.create(of(ami_id, A))
    settings.update(of(ami_id, A, Retain="true"))

    # CloudFormation sends no event when the settings are removed from the template.
    response = image.delete()

    assert "it has launch permissions for others" in response["Reason"]
    assert shared_with(account, ami_id) == {A}


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_ami_that_a_person_shared_too_is_retained(
    account: Account, image: CustomResource, settings: CustomResource, when: str
) -> None:
    ami_id = imported(account, image, DeleteAmi="true")
    if when == "before":
        share(account, ami_id, A)
    settings.create(of(ami_id, A, B))
    if when == "after":
        share(account, ami_id, D)

    assert "it has launch permissions for others" in image.delete()["Reason"]

    assert ami(account, ami_id)


def test_an_ami_is_deleted_with_its_image_after_its_settings(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image, DeleteAmi="true")
    settings.create(of(ami_id, A))

    assert settings.delete()["Status"] == "SUCCESS"
    assert image.delete()["Reason"] == ""


# --- another construct id ---


def test_a_construct_with_another_id_takes_the_settings_over(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id, date = imported(account, image), in_days(account, 30)
    share(account, ami_id, B)
    settings.create(of(ami_id, A, B, C, DeprecateAt=date))
    renamed = dataclasses.replace(settings, logical_id="RenamedF00D", physical_id=None)

    renamed.create(of(ami_id, A, B, DeprecateAt=date))
    settings.delete()

    assert shared_with(account, ami_id) == {A, B}
    assert deprecation(account, ami_id) == date
    renamed.delete()
    assert shared_with(account, ami_id) == {B}
    assert deprecation(account, ami_id) == ""
    assert record_of(account, ami_id) == []


def test_a_rollback_of_another_construct_id_keeps_the_settings(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id, date = imported(account, image), in_days(account, 30)
    settings.create(of(ami_id, A, DeprecateAt=date))
    renamed = dataclasses.replace(settings, logical_id="RenamedF00D", physical_id=None)
    renamed.create(of(ami_id, A, B, DeprecateAt=date))

    renamed.delete()

    assert shared_with(account, ami_id) == {A}
    assert deprecation(account, ami_id) == date
    settings.delete()
    assert shared_with(account, ami_id) == set()
    assert deprecation(account, ami_id) == ""


def test_two_images_of_one_ami_share_it_until_both_settings_are_removed(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    second = dataclasses.replace(settings, logical_id="SecondF00D", physical_id=None)
    settings.create(of(ami_id, A))
    second.create(of(ami_id, A))
    share(account, ami_id, A, change="Remove")
    second.update(of(ami_id, A, B))

    settings.delete()

    assert shared_with(account, ami_id) == {A, B}
    second.delete()
    assert shared_with(account, ami_id) == set()


def test_a_construct_gets_another_id_although_the_ami_has_as_many_tags_as_are_allowed(
    account: Account, image: CustomResource, settings: CustomResource, task: CustomResource
) -> None:
    tags = {f"key-{number}": "" for number in range(MAX_TAGS - 2)}
    account.knobs(import_seconds=10)
    task_id = task.create(account.task_properties(Tags=tags))["PhysicalResourceId"]
    ami_id = imported(account, image, VmImportTaskId=task_id, Tags=tags)
    of_image_builder = {"Key": "CreatedBy", "Value": "EC2 Image Builder"}
    account.ec2.create_tags(Resources=[ami_id], Tags=[of_image_builder])
    settings.create(of(ami_id, A))
    renamed = dataclasses.replace(settings, logical_id="RenamedF00D", physical_id=None)

    response = renamed.create(of(ami_id, A))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert len(tags_of(ami(account, ami_id))) == 50


@pytest.mark.parametrize("first", [-5, 5])
def test_a_construct_with_another_id_takes_a_date_over_that_is_over(
    account: Account, image: CustomResource, settings: CustomResource, first: int
) -> None:
    ami_id, date = imported(account, image), in_days(account, first)
    settings.create(of(ami_id, DeprecateAt=date))
    account.advance(6 * 86400)
    deprecated = deprecation(account, ami_id)
    renamed = dataclasses.replace(settings, logical_id="RenamedF00D", physical_id=None)

    renamed.create(of(ami_id, DeprecateAt=date))
    settings.delete()

    assert deprecation(account, ami_id) == deprecated != ""
    renamed.delete()
    assert deprecation(account, ami_id) == ""


def test_a_construct_with_another_id_and_a_later_date_leaves_no_date_that_is_over(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id, later = imported(account, image), in_days(account, 300)
    settings.create(of(ami_id, DeprecateAt=in_days(account, -5)))
    account.advance(600)
    renamed = dataclasses.replace(settings, logical_id="RenamedF00D", physical_id=None)

    renamed.create(of(ami_id, DeprecateAt=later))
    settings.delete()

    assert deprecation(account, ami_id) == later
    renamed.delete()
    assert deprecation(account, ami_id) == ""


# --- retries ---


def test_an_event_that_is_delivered_twice_is_handled_once(
    aws: Aws, account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    event = settings.create_event(of(ami_id, A, B))
    settings.send(event)

    aws.deliver_again(event)
    settings.delete(ami_id)

    assert shared_with(account, ami_id) == {B}


def test_a_delete_right_after_a_create_undoes_it_although_reads_lag_behind(
    account: Account, image: CustomResource, settings: CustomResource
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, B)
    account.advance(60)
    account.knobs(read_lag_seconds=7)
    settings.create(of(ami_id, A, B))

    settings.delete()

    account.advance(60)
    assert shared_with(account, ami_id) == {B}


@pytest.mark.parametrize("number", range(CALLS))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_call_of_a_create_changes_nothing_of_its_result(
    aws: Aws,
    account: Account,
    image: CustomResource,
    settings: CustomResource,
    fault: str,
    number: int,
) -> None:
    ami_id, date = imported(account, image), in_days(account, 30)
    share(account, ami_id, B)
    aws.expect({number: fault})

    response = settings.create(of(ami_id, A, B, DeprecateAt=date, ImdsSupport="v2.0"))

    assert response["Status"] == "SUCCESS", response["Reason"]
    assert shared_with(account, ami_id) == {A, B}
    assert deprecation(account, ami_id) == date
    aws.expect({number: fault})
    settings.delete()
    assert shared_with(account, ami_id) == {B}
    assert deprecation(account, ami_id) == ""


@pytest.mark.parametrize("number", range(CALLS))
@pytest.mark.parametrize("fault", ["answer lost", "killed before", "killed after"])
def test_a_fault_in_any_call_of_an_update_changes_nothing_of_its_result(
    aws: Aws,
    account: Account,
    image: CustomResource,
    settings: CustomResource,
    fault: str,
    number: int,
) -> None:
    ami_id = imported(account, image)
    share(account, ami_id, C)
    settings.create(of(ami_id, A, B, DeprecateAt=in_days(account, 30)))
    aws.expect({number: fault})

    settings.update(of(ami_id, B, C, D))

    assert shared_with(account, ami_id) == {B, C, D}
    assert deprecation(account, ami_id) == ""
    settings.delete()
    assert shared_with(account, ami_id) == {C}


@pytest.mark.parametrize("number", range(CALLS))
@pytest.mark.parametrize("fault", ["answer lost", "killed after"])
def test_a_fault_while_the_settings_are_taken_over_changes_nothing_of_the_result(
    aws: Aws,
    account: Account,
    image: CustomResource,
    settings: CustomResource,
    fault: str,
    number: int,
) -> None:
    ami_id, date = imported(account, image), in_days(account, 30)
    settings.create(of(ami_id, A, C, DeprecateAt=date))
    renamed = dataclasses.replace(settings, logical_id="RenamedF00D", physical_id=None)
    renamed.create(of(ami_id, A, DeprecateAt=date))
    aws.expect({number: fault})

    settings.delete()

    assert shared_with(account, ami_id) == {A}
    assert deprecation(account, ami_id) == date
    renamed.delete()
    assert shared_with(account, ami_id) == set()
    assert deprecation(account, ami_id) == ""


def test_the_log_has_the_changes_of_an_ami_in_words(
    account: Account, image: CustomResource, settings: CustomResource, log: Log
) -> None:
    ami_id = imported(account, image)
    date = in_days(account, 10)
    settings.create(of(ami_id, A, DeprecateAt=date, ImdsSupport="v2.0"))
    settings.delete()

    messages = [line["message"] for line in log() if line["Resource"] == settings.logical_id]
    assert [m for m in messages if "Tags" not in m and "succeeded" not in m] == [
        f"ModifyImageAttribute shares {ami_id} with {A}",
        f"EnableImageDeprecation deprecates {ami_id} at {date.replace('Z', '+00:00')}",
        f"ModifyImageAttribute sets the IMDS support of {ami_id} to v2.0",
        f"ModifyImageAttribute no longer shares {ami_id} with {A}",
        f"DisableImageDeprecation ends the deprecation of {ami_id}",
    ]
