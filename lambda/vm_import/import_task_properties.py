"""What the template says about an import task, and the identity that follows from it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from errors import PropertyError
from image_properties import TAG_PREFIX, TOKEN_TAG, Owner, generations, tokens_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RESOURCE_TYPE: Final = "Custom::VmImportTask"

_SCALARS: Final = (
    "Platform",
    "Architecture",
    "BootMode",
    "LicenseType",
    "UsageOperation",
    "KmsKeyId",
    "Description",
    "ClientToken",
)
_TASK_ID: Final = re.compile(r"import-ami-[0-9a-f]+")
_PLACEHOLDER: Final = "import-task/"


@dataclass(frozen=True)
class ImportTaskProperties:
    """The properties of a Custom::VmImportTask, in the words of ImportImage.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
    """

    identity: Mapping[str, Any]
    """What is imported, and how: another identity is another task."""
    role_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    delete_ami: bool = False
    """Whether AMI and snapshots go with the task."""

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties; unknown properties are passed over.

        Raises:
            PropertyError: One is missing, or of a form that no import can be made with.
        """
        disks = properties.get("DiskContainers")
        if not disks:
            raise PropertyError("missing resource property: DiskContainers")
        licenses = properties.get("LicenseSpecifications") or []
        tags = properties.get("Tags") or {}
        wrong = [
            *(n for n in (*_SCALARS, "RoleName") if not isinstance(properties.get(n, ""), str)),
            *(["DiskContainers"] if not _is_list_of_maps(disks) else []),
            *(["LicenseSpecifications"] if not _is_list_of_maps(licenses) else []),
            *(["Tags"] if not isinstance(tags, dict) else []),
        ]
        if wrong:
            raise PropertyError(f"resource property of a wrong type: {', '.join(wrong)}")
        if reserved := [key for key in tags if key.startswith(TAG_PREFIX)]:
            raise PropertyError(
                f"tag keys that start with {TAG_PREFIX!r} are reserved: {', '.join(reserved)}"
            )
        identity = {
            "DiskContainers": disks,
            "LicenseSpecifications": licenses,
            "Encrypted": _is_true(properties.get("Encrypted")),
            **{name: properties.get(name) for name in _SCALARS},
        }
        return cls(
            identity={name: value for name, value in identity.items() if value},
            role_name=properties.get("RoleName"),
            tags=tags,
            delete_ami=_is_true(properties.get("DeleteAmi")),
        )

    @property
    def snapshots(self) -> list[str]:
        """The snapshots among the disks."""
        ids = (disk.get("SnapshotId") for disk in self.identity["DiskContainers"])
        return [snapshot_id for snapshot_id in ids if snapshot_id]

    def tokens(self, owner: Owner) -> tuple[str, ...]:
        """The tokens under which this task may exist, in the order in which to use them."""
        return tokens_of(owner, self.identity)

    def placeholder(self, owner: Owner) -> str:
        """The physical id of a task that may or may not exist: enough to find and cancel it."""
        return f"{_PLACEHOLDER}{self.tokens(owner)[0]}"

    def request(self, owner: Owner, token: str) -> dict[str, Any]:
        """The ImportImage request. It depends on the properties alone: a replay is the same."""
        tags = {**self.tags, **owner.tags, TOKEN_TAG: token}
        request = {
            "ClientToken": token,
            **self.identity,
            "RoleName": self.role_name,
            "TagSpecifications": [{"ResourceType": "import-image-task", "Tags": tag_list(tags)}],
        }
        return {name: value for name, value in request.items() if value}


def is_task_id(physical_id: str) -> bool:
    """Whether this is the id of a task, the physical id of one that exists."""
    return _TASK_ID.fullmatch(physical_id) is not None


def tokens_of_placeholder(physical_id: str) -> tuple[str, ...]:
    """All generations of the identity that a placeholder stands for; none if it is none."""
    if not physical_id.startswith(_PLACEHOLDER):
        return ()
    return generations(physical_id.removeprefix(_PLACEHOLDER))


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _is_true(value: object) -> bool:
    # CloudFormation makes strings of booleans.
    return str(value).lower() == "true"


def _is_list_of_maps(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
