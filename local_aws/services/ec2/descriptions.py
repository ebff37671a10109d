"""Describe AMIs and snapshots with pages, and with errors that MiniStack lacks.

MiniStack finds the resources. The errors are those of
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from moto.core.utils import get_service_model

from local_aws import seams
from local_aws.services.paging import ec2_page
from local_aws.services.service_model import ServiceError, refuse_dry_run

if TYPE_CHECKING:
    from local_aws.services.service_model import Operation

_HTTP_OK: Final = 200
# MiniStack ignores all other filters.
_IMAGE_FILTERS: Final = (
    "architecture", "description", "image-id", "is-public", "name", "owner-alias", "owner-id",
    "platform", "root-device-name", "root-device-type", "state", "tag-key", "virtualization-type",
)  # fmt: skip
# The members that filters of AMIs compare here.
_IMAGE_MEMBERS: Final = {
    "creation-date": "CreationDate",
    "hypervisor": "Hypervisor",
    "image-type": "ImageType",
    "manifest-location": "ImageLocation",
}
# The members of a block device mapping, or of its Ebs.
_DISK_MEMBERS: Final = {
    "block-device-mapping.delete-on-termination": "DeleteOnTermination",
    "block-device-mapping.device-name": "DeviceName",
    "block-device-mapping.encrypted": "Encrypted",
    "block-device-mapping.snapshot-id": "SnapshotId",
    "block-device-mapping.volume-size": "VolumeSize",
    "block-device-mapping.volume-type": "VolumeType",
}
# The members that filters of snapshots compare here, because MiniStack does not know wildcards.
_SNAPSHOT_MEMBERS: Final = {
    "description": "Description",
    "encrypted": "Encrypted",
    "owner-id": "OwnerId",
    "progress": "Progress",
    "snapshot-id": "SnapshotId",
    "status": "State",
    "storage-tier": "StorageTier",
    "volume-id": "VolumeId",
    "volume-size": "VolumeSize",
}
_SNAPSHOT_FILTERS: Final = (*_SNAPSHOT_MEMBERS, "start-time", "tag-key")


def describe_images(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeImages."""
    _check_filters(request, (*_IMAGE_FILTERS, *_IMAGE_MEMBERS, *_DISK_MEMBERS))
    ids = request.get("ImageIds", [])
    check_form(ids, "ami", "InvalidAMIID.Malformed")
    found = _of_ministack("DescribeImages", {"ImageIds": ids})["Images"] if ids else []
    if unknown := sorted(set(ids) - {image["ImageId"] for image in found}):
        error = f"The image id '[{', '.join(unknown)}]' does not exist"
        raise ServiceError("InvalidAMIID.NotFound", error)
    refuse_dry_run(request)
    filters = request.pop("Filters", [])
    ours = {*_IMAGE_MEMBERS, *_DISK_MEMBERS}
    request["Filters"] = [wanted for wanted in filters if wanted["Name"] not in ours]
    found = _of_ministack("DescribeImages", request)["Images"]
    images = [_with_details(image) for image in found]
    for wanted in filters:
        if wanted["Name"] in ours:
            images = [image for image in images if _image_matches(image, wanted)]
    return ec2_page("Images", images, request)


def describe_snapshots(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeSnapshots."""
    _check_filters(request, _SNAPSHOT_FILTERS)
    check_form(request.get("SnapshotIds", []), "snap", "InvalidSnapshotID.Malformed")
    filters = request.pop("Filters", [])
    request["Filters"] = [found for found in filters if found["Name"] not in _SNAPSHOT_MEMBERS]
    snapshots = _of_ministack("DescribeSnapshots", request)["Snapshots"]
    refuse_dry_run(request)
    for wanted in filters:
        if member := _SNAPSHOT_MEMBERS.get(wanted["Name"]):
            values = wanted.get("Values", [])
            snapshots = [found for found in snapshots if _matches(found[member], values)]
    return ec2_page("Snapshots", snapshots, request)


OPERATIONS: dict[str, Operation] = {
    "DescribeImages": describe_images,
    "DescribeSnapshots": describe_snapshots,
}


def _check_filters(request: dict[str, Any], known: tuple[str, ...]) -> None:
    for wanted in request.get("Filters", []):
        name = wanted.get("Name", "")
        if name not in known and not name.startswith("tag:"):
            raise ServiceError(
                "InvalidParameterValue",
                f"The filter '{name}' is invalid, or local_aws does not serve it",
            )


def _image_matches(image: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether an AMI, or one of its disks, matches a filter."""
    name, patterns = wanted["Name"], wanted.get("Values", [])
    if member := _IMAGE_MEMBERS.get(name):
        return member in image and _matches(image[member], patterns)
    member = _DISK_MEMBERS[name]
    disks = [mapping | mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", [])]
    return any(member in disk and _matches(disk[member], patterns) for disk in disks)


def _matches(value: object, patterns: list[str]) -> bool:
    """Return whether a value of EC2 matches one of the values of a filter, with * and ?."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return bool(seams.filter_value_matches(text, patterns))


def check_form(ids: list[str], prefix: str, code: str) -> None:
    """Check the form of ids.

    Raises:
        ServiceError: With this code, if one is malformed.
    """
    for resource_id in ids:
        if not re.fullmatch(f"{prefix}-(?:[0-9a-f]{{8}}|[0-9a-f]{{17}})", resource_id):
            raise ServiceError(code, f'Invalid id: "{resource_id}"')


def _with_details(image: dict[str, Any]) -> dict[str, Any]:
    """Add the members of an imported AMI that MiniStack does not show."""
    stored = seams.AMIS.get(image["ImageId"], {})
    details = stored.get("Details", {})
    for mapping in image.get("BlockDeviceMappings", []):
        if "Encrypted" in stored:
            mapping["Ebs"]["Encrypted"] = stored["Encrypted"]
    return {**image, **details}


def _of_ministack(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the response of MiniStack to a request.

    Raises:
        ServiceError: MiniStack refuses the request.
    """
    operation = get_service_model("ec2").operation_model(name)
    query = create_serializer("ec2").serialize_to_request(request, operation)["body"]
    status, headers, body = seams.EC2_ACTIONS[name](query)
    response: dict[str, Any] = create_parser("ec2").parse(
        {"status_code": status, "headers": headers, "body": body}, operation.output_shape
    )
    if status != _HTTP_OK:
        raise ServiceError(response["Error"]["Code"], response["Error"]["Message"], status)
    del response["ResponseMetadata"]
    return response
