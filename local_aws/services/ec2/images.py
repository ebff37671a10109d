"""Delete AMIs and snapshots as EC2 does, with its errors, which MiniStack lacks.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/deregister-ami.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_aws import seams
from local_aws.services.ec2.descriptions import check_form
from local_aws.services.ec2.permissions import delete_snapshot_check
from local_aws.services.service_model import ServiceError, refuse_dry_run

if TYPE_CHECKING:
    from local_aws.services.service_model import Operation


def deregister_image(request: dict[str, Any]) -> dict[str, Any]:
    """DeregisterImage: DeleteAssociatedSnapshots skips snapshots that another AMI uses."""
    image_id = request["ImageId"]
    check_form([image_id], "ami", "InvalidAMIID.Malformed")
    image = seams.AMIS.get(image_id)
    if image is None:
        raise ServiceError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    refuse_dry_run(request)
    snapshots = _snapshots(image)
    seams.AMIS.pop(image_id)
    seams.EC2_TAGS.pop(image_id, None)
    if not request.get("DeleteAssociatedSnapshots"):
        return {"Return": True}
    results = []
    for snapshot_id in snapshots:
        code = "skipped" if _user(snapshot_id) else "success"
        if delete_snapshot_check(snapshot_id).refusal:
            code = "missing-permissions"
        if code == "success":
            _delete(snapshot_id)
        results.append({"SnapshotId": snapshot_id, "ReturnCode": code})
    return {"Return": True, "DeleteSnapshotResults": results}


def delete_snapshot(request: dict[str, Any]) -> dict[str, Any]:
    """DeleteSnapshot: refused while an AMI uses the snapshot."""
    snapshot_id = request["SnapshotId"]
    check_form([snapshot_id], "snap", "InvalidSnapshotID.Malformed")
    if snapshot_id not in seams.SNAPSHOTS:
        raise ServiceError(
            "InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist."
        )
    if user := _user(snapshot_id):
        raise ServiceError(
            "InvalidSnapshot.InUse", f"The snapshot {snapshot_id} is currently in use by {user}"
        )
    refuse_dry_run(request)
    _delete(snapshot_id)
    return {}


OPERATIONS: dict[str, Operation] = {
    "DeregisterImage": deregister_image,
    "DeleteSnapshot": delete_snapshot,
}


def _delete(snapshot_id: str) -> None:
    seams.SNAPSHOTS.pop(snapshot_id, None)
    seams.EC2_TAGS.pop(snapshot_id, None)


def _snapshots(image: dict[str, Any]) -> list[str]:
    """Return the snapshots of an AMI."""
    mappings = image.get("BlockDeviceMappings") or []
    found = [mapping.get("Ebs", {}).get("SnapshotId") for mapping in mappings]
    return [snapshot_id for snapshot_id in found if snapshot_id]


def _user(snapshot_id: str) -> str | None:
    """Return an AMI that uses the snapshot."""
    images = seams.AMIS.values()
    return next((image["ImageId"] for image in images if snapshot_id in _snapshots(image)), None)
