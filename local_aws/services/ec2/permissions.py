"""The permissions that each of our operations of EC2 requires.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_aws import seams
from local_aws.services.iam.authorization import Check, tag_key_names, tag_keys

if TYPE_CHECKING:
    from collections.abc import Iterator


def ec2_checks(operation: str, request: dict[str, Any]) -> Iterator[Check]:
    """Yield the checks for a request of EC2 that we serve."""
    region = {"ec2:Region": seams.get_region()}
    regional = f"arn:aws:ec2:{seams.get_region()}:{seams.get_account_id()}"
    public = f"arn:aws:ec2:{seams.get_region()}:"  # the ARNs of AMIs and snapshots have no account
    match operation:
        case "ImportImage":
            tags = {
                tag.get("Key", ""): tag.get("Value", "")
                for specification in request.get("TagSpecifications", [])
                for tag in specification.get("Tags", [])
            }
            keys = region | tag_keys("aws:RequestTag", tags) | tag_key_names(tags)
            task = f"{regional}:import-image-task/*"
            yield Check("ec2:ImportImage", f"{public}:image/*", keys)
            yield Check("ec2:ImportImage", task, keys)
            for container in request.get("DiskContainers", []):
                if snapshot_id := container.get("SnapshotId"):
                    yield Check("ec2:ImportImage", f"{public}:snapshot/{snapshot_id}", keys)
            if tags:
                yield Check("ec2:CreateTags", task, keys | {"ec2:CreateAction": "ImportImage"})
        case "CancelImportTask":
            task_id = request.get("ImportTaskId", "*")
            yield _on_tagged(operation, f"{regional}:import-image-task/{task_id}", task_id)
        case (
            "DeregisterImage"
            | "ModifyImageAttribute"
            | "EnableImageDeprecation"
            | "DisableImageDeprecation"
        ):
            yield _on_tagged(operation, f"{public}:image/{request['ImageId']}", request["ImageId"])
        case "CreateTags" | "DeleteTags":
            tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("Tags", [])}
            asked = tag_keys("aws:RequestTag", tags) | tag_key_names(tags)
            for resource_id in request["Resources"]:
                check = _on_tagged(operation, _ec2_arn(resource_id), resource_id)
                yield Check(check.action, check.resource, {**check.keys, **asked})
        case "DeleteSnapshot":
            yield delete_snapshot_check(request["SnapshotId"])
        case _:
            yield Check(f"ec2:{operation}", keys=region)


def delete_snapshot_check(snapshot_id: str) -> Check:
    """Return the check for deleting a snapshot, alone or together with its AMI."""
    return _on_tagged(
        "DeleteSnapshot", f"arn:aws:ec2:{seams.get_region()}::snapshot/{snapshot_id}", snapshot_id
    )


def pass_role_check(role_arn: str) -> Check:
    """Return the check for passing a role to VM Import."""
    return Check("iam:PassRole", role_arn, {"iam:PassedToService": "vmie.amazonaws.com"})


def read_disk_checks(bucket: str, key: str) -> Iterator[Check]:
    """Yield the checks for reading a disk that the guide of VM Import lists for the caller."""
    yield Check("s3:GetBucketLocation", f"arn:aws:s3:::{bucket}")
    yield Check("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")


def _on_tagged(operation: str, arn: str, resource_id: str) -> Check:
    tags = {tag["Key"]: tag["Value"] for tag in seams.EC2_TAGS.get(resource_id, [])}
    keys: dict[str, object] = {
        "ec2:Region": seams.get_region(),
        "ec2:Owner": seams.get_account_id(),
    }
    keys |= tag_keys("aws:ResourceTag", tags) | tag_keys("ec2:ResourceTag", tags)
    return Check(f"ec2:{operation}", arn, keys)


def _ec2_arn(resource_id: str) -> str:
    """Return the ARN of an AMI, a snapshot or an import task, or `*`."""
    kind = {"ami": "image", "snap": "snapshot", "import-ami": "import-image-task"}.get(
        resource_id.rpartition("-")[0]
    )
    account = seams.get_account_id() if kind == "import-image-task" else ""
    return f"arn:aws:ec2:{seams.get_region()}:{account}:{kind}/{resource_id}" if kind else "*"
