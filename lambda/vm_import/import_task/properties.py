"""What the template says of an import task. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from aws.ec2 import tag_list
from cloudformation.properties import Properties, check, is_true
from contract import TaskProperty as P
from identity import Owner, Record

_STRINGS: Final = (
    P.PLATFORM,
    P.ARCHITECTURE,
    P.BOOT_MODE,
    P.LICENSE_TYPE,
    P.USAGE_OPERATION,
    P.KMS_KEY_ID,
    P.DESCRIPTION,
    P.CLIENT_TOKEN,
)


@dataclass(frozen=True)
class ImportTaskProperties(Properties):
    """The properties of a Custom::VmImportTask, in the words of ImportImage.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
    """

    role_name: str | None = None

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties. Unknown properties are ignored."""
        lists = (P.DISK_CONTAINERS, P.LICENSE_SPECIFICATIONS)
        types = dict.fromkeys((*_STRINGS, P.ROLE_NAME), str) | dict.fromkeys(lists, list)
        check(properties, (P.DISK_CONTAINERS,), types | {P.TAGS: dict})
        names = (P.DISK_CONTAINERS, P.LICENSE_SPECIFICATIONS, *_STRINGS)
        identity = {name.value: properties.get(name) for name in names}
        identity[P.ENCRYPTED] = is_true(properties.get(P.ENCRYPTED))
        return cls(
            identity={name: value for name, value in identity.items() if value},
            role_name=properties.get(P.ROLE_NAME),
            tags=properties.get(P.TAGS) or {},
            delete_ami=is_true(properties.get(P.DELETE_AMI)),
        )

    @property
    def scope(self) -> str:
        """EC2 lists all tasks together."""
        return "import-task"

    @property
    def snapshots(self) -> list[str]:
        """The snapshots among the disks."""
        disks = self.identity[P.DISK_CONTAINERS]
        return [disk["SnapshotId"] for disk in disks if disk.get("SnapshotId")]

    def request(self, owner: Owner, token: str) -> dict[str, Any]:
        """Return the ImportImage request. It depends on the properties alone, as retries must."""
        tags = tag_list({**self.tags, **owner.tags, **Record(token).tag})
        request = {
            "ClientToken": token,
            **self.identity,
            "RoleName": self.role_name,
            "TagSpecifications": [{"ResourceType": "import-image-task", "Tags": tags}],
        }
        return {name: value for name, value in request.items() if value}
