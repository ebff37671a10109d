"""Launch permissions, IMDS support and deprecation of AMIs in the simulated EC2."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.account import refused

if TYPE_CHECKING:
    from tests.local_aws.account import Account

ORGANIZATION = "arn:aws:organizations::111122223333:organization/o-a1b2c3d4e5"
UNIT = "arn:aws:organizations::111122223333:ou/o-a1b2c3d4e5/ou-ab12-11111111"
PERMISSIONS: Any = [
    {"UserId": "111122223333"},
    {"OrganizationArn": ORGANIZATION},
    {"OrganizationalUnitArn": UNIT},
]


def imported(aws: Account, **more: Any) -> str:
    """Import an AMI and return its id."""
    task_id = aws.start(**more)
    aws.finish()
    return str(aws.task(task_id)["ImageId"])


def ami(aws: Account, ami_id: str) -> dict[str, Any]:
    (found,) = aws.ec2.describe_images(ImageIds=[ami_id])["Images"]
    return dict(found)


def permissions(aws: Account, ami_id: str) -> list[Any]:
    found = aws.ec2.describe_image_attribute(ImageId=ami_id, Attribute="launchPermission")
    return list(found["LaunchPermissions"])


def now(aws: Account) -> datetime:
    return datetime.fromtimestamp(aws.server.now(), UTC)


def test_launch_permissions_are_added_once_and_removed(aws: Account) -> None:
    ami_id = imported(aws)

    for _ in range(2):
        aws.ec2.modify_image_attribute(ImageId=ami_id, LaunchPermission={"Add": PERMISSIONS})
    assert permissions(aws, ami_id) == PERMISSIONS
    for _ in range(2):
        aws.ec2.modify_image_attribute(ImageId=ami_id, LaunchPermission={"Remove": PERMISSIONS[:2]})

    assert permissions(aws, ami_id) == PERMISSIONS[2:]


def test_launch_permissions_in_the_older_form_of_the_request(aws: Account) -> None:
    ami_id = imported(aws)
    older: Any = {"Attribute": "launchPermission", "UserIds": ["111122223333"]}

    aws.ec2.modify_image_attribute(ImageId=ami_id, OperationType="add", **older)
    assert permissions(aws, ami_id) == PERMISSIONS[:1]
    aws.ec2.modify_image_attribute(ImageId=ami_id, OperationType="remove", **older)

    assert permissions(aws, ami_id) == []


@pytest.mark.parametrize(
    "permission",
    [
        {"UserId": "1111-2222-3333"},
        {"OrganizationArn": "o-a1b2c3d4e5"},
        {"OrganizationalUnitArn": ORGANIZATION},
    ],
)
def test_a_launch_permission_of_another_form_is_refused(aws: Account, permission: Any) -> None:
    ami_id, change = imported(aws), {"Add": [permission]}

    code, *_ = refused(
        lambda: aws.ec2.modify_image_attribute(ImageId=ami_id, LaunchPermission=change)  # type: ignore[arg-type]
    )

    assert code == "InvalidAMIAttributeItemValue"


def test_an_encrypted_ami_is_shared_only_with_a_key_of_its_owner(aws: Account) -> None:
    key = aws.kms.create_key()["KeyMetadata"]["Arn"]
    managed, own = imported(aws, Encrypted=True), imported(aws, Encrypted=True, KmsKeyId=key)
    change: Any = {"Add": PERMISSIONS}

    code, _, message = refused(
        lambda: aws.ec2.modify_image_attribute(ImageId=managed, LaunchPermission=change)
    )
    aws.ec2.modify_image_attribute(ImageId=own, LaunchPermission=change)

    assert code == "InvalidParameter"
    assert "AWS Managed CMK" in message
    assert permissions(aws, own) == PERMISSIONS


def test_imds_support_is_set_for_ever(aws: Account) -> None:
    ami_id = imported(aws)
    assert "ImdsSupport" not in ami(aws, ami_id)

    aws.ec2.modify_image_attribute(ImageId=ami_id, ImdsSupport={"Value": "v2.0"})
    code, *_ = refused(
        lambda: aws.ec2.modify_image_attribute(ImageId=ami_id, ImdsSupport={"Value": "v1.0"})
    )

    assert code == "InvalidParameterValue"
    assert ami(aws, ami_id)["ImdsSupport"] == "v2.0"
    shown = aws.ec2.describe_image_attribute(ImageId=ami_id, Attribute="imdsSupport")
    assert shown["ImdsSupport"] == {"Value": "v2.0"}


def test_a_request_modifies_exactly_one_attribute_of_an_ami(aws: Account) -> None:
    ami_id = imported(aws)
    modify = aws.ec2.modify_image_attribute

    for request in ({}, {"ImdsSupport": {"Value": "v2.0"}, "Description": {"Value": "a"}}):
        code, *_ = refused(lambda request=request: modify(ImageId=ami_id, **request))  # type: ignore[misc]
        assert code == "InvalidParameterCombination"
    modify(ImageId=ami_id, Description={"Value": "golden"})
    assert ami(aws, ami_id)["Description"] == "golden"


def test_a_deprecation_date_is_rounded_to_the_minute_and_can_be_cancelled(aws: Account) -> None:
    ami_id = imported(aws)
    date = (now(aws) + timedelta(days=30)).replace(second=31, microsecond=0)

    aws.ec2.enable_image_deprecation(ImageId=ami_id, DeprecateAt=date)
    rounded = date.replace(second=0) + timedelta(minutes=1)
    assert ami(aws, ami_id)["DeprecationTime"] == f"{rounded:%Y-%m-%dT%H:%M:00.000Z}"
    aws.ec2.disable_image_deprecation(ImageId=ami_id)

    assert "DeprecationTime" not in ami(aws, ami_id)


@pytest.mark.parametrize(("days", "public"), [(-1, False), (11 * 365, False), (3 * 365, True)])
def test_a_deprecation_date_in_the_past_or_too_far_ahead_is_refused(
    aws: Account, days: int, *, public: bool
) -> None:
    ami_id = imported(aws)
    if public:
        aws.ec2.modify_image_attribute(ImageId=ami_id, LaunchPermission={"Add": [{"Group": "all"}]})
    date = now(aws) + timedelta(days=days)

    code, *_ = refused(lambda: aws.ec2.enable_image_deprecation(ImageId=ami_id, DeprecateAt=date))

    assert code == "InvalidParameterValue"
    if public:
        aws.ec2.enable_image_deprecation(ImageId=ami_id, DeprecateAt=now(aws) + timedelta(days=700))


def test_attributes_of_an_ami_that_does_not_exist_are_refused(aws: Account) -> None:
    ami_id = "ami-0123456789abcdef9"
    calls: list[Any] = [
        lambda: aws.ec2.describe_image_attribute(ImageId=ami_id, Attribute="launchPermission"),
        lambda: aws.ec2.modify_image_attribute(ImageId=ami_id, ImdsSupport={"Value": "v2.0"}),
        lambda: aws.ec2.disable_image_deprecation(ImageId=ami_id),
    ]

    assert {refused(call)[0] for call in calls} == {"InvalidAMIID.NotFound"}


def test_a_dry_run_changes_no_attribute_of_an_ami(aws: Account) -> None:
    ami_id = imported(aws)
    date = now(aws) + timedelta(days=30)
    calls: list[Any] = [
        lambda: aws.ec2.modify_image_attribute(
            ImageId=ami_id, DryRun=True, LaunchPermission={"Add": PERMISSIONS}
        ),
        lambda: aws.ec2.modify_image_attribute(
            ImageId=ami_id, DryRun=True, ImdsSupport={"Value": "v2.0"}
        ),
        lambda: aws.ec2.enable_image_deprecation(ImageId=ami_id, DryRun=True, DeprecateAt=date),
        lambda: aws.ec2.disable_image_deprecation(ImageId=ami_id, DryRun=True),
    ]

    assert {refused(call)[0] for call in calls} == {"DryRunOperation"}
    assert permissions(aws, ami_id) == []
    assert not {"ImdsSupport", "DeprecationTime"} & ami(aws, ami_id).keys()
