"""Create and delete tags of EC2 resources with permission checks, which MiniStack lacks.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.service_model import ServiceError, refuse_dry_run

if TYPE_CHECKING:
    from collections.abc import Sized

    from local_aws.services.service_model import Operation

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
_MOST_TAGS: Final = 50


def check_tags(tags: list[dict[str, str]]) -> None:
    """Check the tags of a request.

    Raises:
        ServiceError: There are too many, or one is not valid.
    """

    def refuse(why: str) -> None:
        raise ServiceError("InvalidParameterValue", why)

    seen = set()
    for tag in tags:
        key = tag.get("Key", "")
        # https://github.com/cloud-custodian/cloud-custodian/issues/3792
        if key in seen:
            refuse(f"Duplicate tag key '{key}' specified.")
        seen.add(key)
        # https://github.com/cloud-custodian/cloud-custodian/issues/5975
        if key.startswith("aws:"):
            reserved = "Tag keys starting with 'aws:' are reserved for internal use"
            refuse(f"Value ( {key} ) for parameter key is invalid. {reserved}")
        # https://github.com/skypilot-org/skypilot/pull/1992
        for name, text, longest in (("key", key, 128), ("value", tag.get("Value", ""), 256)):
            if len(text) > longest:
                refuse(f"Tag {name} exceeds the maximum length of {longest} characters")
    _check_number(tags)


def create_tags(request: dict[str, Any]) -> dict[str, Any]:
    """CreateTags."""
    _check_existence(request["Resources"])
    check_tags(request["Tags"])
    refuse_dry_run(request)
    new = {tag["Key"]: tag.get("Value", "") for tag in request["Tags"]}
    tagged = {resource_id: _tags(resource_id) | new for resource_id in request["Resources"]}
    for tags in tagged.values():
        _check_number(tags)
    for resource_id, tags in tagged.items():
        _put(resource_id, tags)
    return {}


def delete_tags(request: dict[str, Any]) -> dict[str, Any]:
    """DeleteTags: a value must match to delete its tag, and no tags means all tags."""
    _check_existence(request["Resources"])
    refuse_dry_run(request)
    for resource_id in request["Resources"]:
        tags = _tags(resource_id)
        to_delete = {tag["Key"]: tag.get("Value") for tag in request.get("Tags", [])} or dict(tags)
        kept = {
            key: value
            for key, value in tags.items()
            if key not in to_delete or to_delete[key] not in {None, value}
        }
        _put(resource_id, kept)
    return {}


OPERATIONS: dict[str, Operation] = {"CreateTags": create_tags, "DeleteTags": delete_tags}


def _ami_exists(image_id: str) -> bool:
    # An imported AMI that is not listed yet has an entry in the tags.
    public = {stub[0] for stub in seams.PUBLIC_AMIS}
    return any(image_id in known for known in (seams.AMIS, seams.EC2_TAGS, public))


def _check_existence(resource_ids: list[str]) -> None:
    """Refuse AMIs, snapshots and import tasks that do not exist.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    """
    for resource_id in resource_ids:
        match resource_id.rpartition("-")[0]:
            case "ami" if not _ami_exists(resource_id):
                code, why = "InvalidAMIID.NotFound", f"image id '[{resource_id}]' does not exist"
            case "snap" if resource_id not in seams.SNAPSHOTS:
                code, why = "InvalidSnapshot.NotFound", f"snapshot '{resource_id}' does not exist."
            case "import-ami" if resource_id not in seams.EC2_TAGS:
                code, why = "InvalidID", f"ID '{resource_id}' is not valid"
            case _:
                continue
        raise ServiceError(code, f"The {why}")


def _check_number(tags: Sized) -> None:
    if len(tags) > _MOST_TAGS:
        message = "The maximum number of Tags for a resource has been reached."
        raise ServiceError("TagLimitExceeded", message)


def _tags(resource_id: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in seams.EC2_TAGS.get(resource_id, [])}


def _put(resource_id: str, tags: dict[str, str]) -> None:
    seams.EC2_TAGS[resource_id] = [{"Key": key, "Value": value} for key, value in tags.items()]
