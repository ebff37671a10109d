"""What the template says of an import task, and the identity that follows from it. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aws.ec2 import tag_list
from cloudformation.properties import check, is_true
from contract import OwnTag
from contract import TaskProperty as P
from errors import PropertyError
from identity import Lookup, Owner

logger = logging.getLogger(__name__)

SCOPE: Final = "import-task"
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
class ImportTaskProperties:
    """The properties of a Custom::VmImportTask, in the words of ImportImage.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportImage.html
    """

    identity: Mapping[str, Any]
    """What is imported, and how: another identity is another task."""
    role_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    delete_ami: bool = False
    """Whether AMI and snapshots are deleted with the task."""

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties. Unknown properties are ignored.

        Raises:
            PropertyError: One is missing, or has a form that no import can be started with.
        """
        check(
            properties,
            required=(P.DISK_CONTAINERS,),
            strings=(*_STRINGS, P.ROLE_NAME),
            lists=(P.DISK_CONTAINERS, P.LICENSE_SPECIFICATIONS),
            mappings=(P.TAGS,),
        )
        identity = {
            P.DISK_CONTAINERS: properties[P.DISK_CONTAINERS],
            P.LICENSE_SPECIFICATIONS: properties.get(P.LICENSE_SPECIFICATIONS),
            P.ENCRYPTED: is_true(properties.get(P.ENCRYPTED)),
            **{name: properties.get(name) for name in _STRINGS},
        }
        return cls(
            identity={name.value: value for name, value in identity.items() if value},
            role_name=properties.get(P.ROLE_NAME),
            tags=properties.get(P.TAGS) or {},
            delete_ami=is_true(properties.get(P.DELETE_AMI)),
        )

    @classmethod
    def read_known(cls, properties: Mapping[str, Any]) -> Self | None:
        """Read properties; None if they have no known form, so that nothing was imported."""
        try:
            return cls.read(properties)
        except PropertyError as error:
            logger.info({"not the properties of an import task": str(error)})
            return None

    @property
    def client_token(self) -> str | None:
        """The client token that the user gave."""
        return self.identity.get(P.CLIENT_TOKEN)

    @property
    def snapshots(self) -> list[str]:
        """The snapshots among the disks."""
        ids = (disk.get("SnapshotId") for disk in self.identity[P.DISK_CONTAINERS])
        return [snapshot_id for snapshot_id in ids if snapshot_id]

    def lookup(self, owner: Owner) -> Lookup:
        """Return where to find the task."""
        return Lookup.of(SCOPE, owner, self.identity)

    def request(self, owner: Owner, token: str) -> dict[str, Any]:
        """Return the ImportImage request. It depends on the properties alone, as retries must."""
        tags = {**self.tags, **owner.tags, OwnTag.TOKEN: token}
        request = {
            "ClientToken": token,
            **self.identity,
            "RoleName": self.role_name,
            "TagSpecifications": [{"ResourceType": "import-image-task", "Tags": tag_list(tags)}],
        }
        return {name: value for name, value in request.items() if value}
