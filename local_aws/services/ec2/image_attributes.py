"""Launch permissions, IMDS support and deprecation of AMIs, of which MiniStack has only a part.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyImageAttribute.html
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.ec2.descriptions import check_form
from local_aws.services.service_model import ServiceError, refuse_dry_run

if TYPE_CHECKING:
    from local_aws.server.world import World
    from local_aws.services.service_model import Operation

_MOST_DAYS: Final = 10 * 365 + 3
_MOST_DAYS_IF_PUBLIC: Final = 2 * 365 + 1
# The forms of the members of a launch permission, and the lists of the older form of a request.
_FORMS: Final = {
    "UserId": (r"\d{12}", "UserIds"),
    "Group": ("all", "UserGroups"),
    "OrganizationArn": (
        r"arn:aws[^:]*:organizations::\d{12}:organization/o-[a-z0-9]{10,32}",
        "OrganizationArns",
    ),
    "OrganizationalUnitArn": (
        r"arn:aws[^:]*:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}",
        "OrganizationalUnitArns",
    ),
}


class ImageAttributes:
    """The attributes of AMIs in all accounts and Regions of a server."""

    def __init__(self, world: World) -> None:
        """Change the AMIs of MiniStack."""
        self._world = world
        self.operations: dict[str, Operation] = {
            "ModifyImageAttribute": self.modify_image_attribute,
            "DescribeImageAttribute": self.describe_image_attribute,
            "EnableImageDeprecation": self.enable_image_deprecation,
            "DisableImageDeprecation": self.disable_image_deprecation,
        }

    def modify_image_attribute(self, request: dict[str, Any]) -> dict[str, Any]:
        """ModifyImageAttribute: one attribute a request."""
        image = _image(request)
        permissions = request.get("LaunchPermission") or _older_form(request)
        given = {
            "launchPermission": permissions,
            "imdsSupport": request.get("ImdsSupport", {}).get("Value"),
            "description": request.get("Description", {}).get("Value"),
        }
        if request.get("Attribute") in {"imdsSupport", "description"} and "Value" in request:
            given[request["Attribute"]] = request["Value"]
        names = [name for name, value in given.items() if value]
        if len(names) != 1:
            raise ServiceError(
                "InvalidParameterCombination", "The request must contain exactly one attribute"
            )
        if given["launchPermission"]:
            self._change_permissions(image, given["launchPermission"], request)
            return {}
        refuse_dry_run(request)
        if given["description"]:
            image["Description"] = given["description"]
        elif given["imdsSupport"] == "v2.0":
            _details(image)["ImdsSupport"] = "v2.0"
        else:
            raise ServiceError(
                "InvalidParameterValue",
                f"Value ({given['imdsSupport']}) for parameter imdsSupport is invalid. "
                "Valid value: v2.0",
            )
        return {}

    def describe_image_attribute(self, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeImageAttribute: the attributes that ModifyImageAttribute changes."""
        image = _image(request)
        refuse_dry_run(request)
        match request["Attribute"]:
            case "launchPermission":
                shown: dict[str, Any] = {"LaunchPermissions": image.get("LaunchPermissions", [])}
            case "imdsSupport":
                value = _details(image).get("ImdsSupport")
                shown = {"ImdsSupport": {"Value": value}} if value else {}
            case "description":
                shown = {"Description": {"Value": image.get("Description") or ""}}
            case other:
                raise ServiceError(
                    "InvalidParameterValue",
                    f"Value ({other}) for parameter attribute is invalid, or local_aws does not "
                    "serve it",
                )
        return {"ImageId": image["ImageId"], **shown}

    def enable_image_deprecation(self, request: dict[str, Any]) -> dict[str, Any]:
        """EnableImageDeprecation: to the minute, not in the past, and at most 10 years ahead."""
        image = _image(request)
        now = datetime.fromtimestamp(self._world.now(), UTC)
        at = request["DeprecateAt"].replace(tzinfo=request["DeprecateAt"].tzinfo or UTC)
        limit = now + timedelta(days=_MOST_DAYS)
        if {"Group": "all"} in image.get("LaunchPermissions", []):
            created = datetime.fromisoformat(_details(image)["CreationDate"])
            limit = created + timedelta(days=_MOST_DAYS_IF_PUBLIC)
        if not now <= at <= limit:
            raise ServiceError(
                "InvalidParameterValue",
                f"The value {at.isoformat()} for DeprecateAt is in the past, or too far ahead",
            )
        refuse_dry_run(request)
        minute = (at + timedelta(seconds=30)).replace(second=0, microsecond=0)
        text = minute.astimezone(UTC).isoformat(timespec="milliseconds")
        _details(image)["DeprecationTime"] = text.replace("+00:00", "Z")
        return {"Return": True}

    def disable_image_deprecation(self, request: dict[str, Any]) -> dict[str, Any]:
        """DisableImageDeprecation."""
        image = _image(request)
        refuse_dry_run(request)
        _details(image).pop("DeprecationTime", None)
        return {"Return": True}

    def _change_permissions(
        self, image: dict[str, Any], changes: dict[str, Any], request: dict[str, Any]
    ) -> None:
        add, remove = changes.get("Add", []), changes.get("Remove", [])
        for permission in (*add, *remove):
            _check(permission)
        # https://github.com/hashicorp/packer/issues/7410
        is_managed = image.get("KmsKeyId", "") in {"", "alias/aws/ebs"}
        if add and image.get("Encrypted") and is_managed:
            raise ServiceError(
                "InvalidParameter",
                "Snapshots encrypted with the AWS Managed CMK can't be shared. Specify another "
                "snapshot.",
            )
        refuse_dry_run(request)
        kept = [found for found in image.get("LaunchPermissions", []) if found not in remove]
        image["LaunchPermissions"] = kept + [new for new in add if new not in kept]


def _image(request: dict[str, Any]) -> dict[str, Any]:
    image_id = request["ImageId"]
    check_form([image_id], "ami", "InvalidAMIID.Malformed")
    image: dict[str, Any] | None = seams.AMIS.get(image_id)
    if image is None:
        raise ServiceError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    return image


def _details(image: dict[str, Any]) -> dict[str, Any]:
    """Return what DescribeImages shows of an AMI besides what MiniStack knows."""
    details: dict[str, Any] = image.setdefault("Details", {})
    return details


def _older_form(request: dict[str, Any]) -> dict[str, Any]:
    """Return the launch permissions of a request with Attribute and OperationType."""
    permissions = [
        {member: value} for member, (_, name) in _FORMS.items() for value in request.get(name, [])
    ]
    change = "Remove" if request.get("OperationType") == "remove" else "Add"
    return {change: permissions} if permissions else {}


def _check(permission: dict[str, str]) -> None:
    """Check a launch permission.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    """
    for member, value in permission.items():
        if not re.fullmatch(_FORMS[member][0], value):
            raise ServiceError(
                "InvalidAMIAttributeItemValue", f'Invalid attribute item value "{value}"'
            )
