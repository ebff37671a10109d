"""What a tag on an AMI records: what existed before a resource changed the AMI's settings.

Each Custom::VmAmiSettings adds one tag to its AMI before it changes anything. Without the tag, a
rollback or a deletion could not distinguish what the resource added from what existed before.
"""

import base64
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self

from aws.ec2 import Permission
from contract import AMI_SETTINGS_TAG
from identity import Owner

# The longest value of a tag of EC2, in characters.
_MAX_VALUE: Final = 256
# Of each launch permission that existed before, in characters.
_DIGEST: Final = 5
# Of all launch permissions of the template together, in characters.
_DIGEST_OF_ALL: Final = 12
# What the tag contains when the resource has set no deprecation date.
_NOT_SET: Final = "-"
# How the tag ends when the settings stay without the resource.
_RETAINED: Final = "r"
MAX_EXISTING: Final = (
    _MAX_VALUE - _DIGEST_OF_ALL - len("/2027-11-24T12:00:00+00:00/") - len(f"/{_RETAINED}")
) // _DIGEST
"""How many launch permissions that existed before fit into the tag."""


@dataclass(frozen=True)
class Record:
    """What the tag of a resource says."""

    all_permissions: str
    """The digest of the launch permissions that the template names."""
    existing: frozenset[str]
    """The digests of those that existed before the template named them."""
    deprecate_at: str | None
    """When the AMI was deprecated before, empty if never; None if the resource set no date."""
    is_retained: bool = False
    """Whether CloudFormation leaves the settings as they are."""

    @classmethod
    def read(cls, tags: Mapping[str, str], key: str) -> Self | None:
        """Read the tag of a resource; None if the AMI does not have it."""
        if key not in tags:
            return None
        all_permissions, deprecate_at, digests, end = [*tags[key].split("/"), "", "", ""][:4]
        starts = range(0, len(digests), _DIGEST)
        return cls(
            all_permissions,
            frozenset(digests[start : start + _DIGEST] for start in starts),
            None if deprecate_at == _NOT_SET else deprecate_at,
            end == _RETAINED,
        )

    @property
    def value(self) -> str:
        """The value of the tag."""
        deprecate_at = _NOT_SET if self.deprecate_at is None else self.deprecate_at
        parts = [self.all_permissions, deprecate_at, "".join(sorted(self.existing))]
        return "/".join([*parts, _RETAINED] if self.is_retained else parts)

    def describes(self, permissions: Collection[Permission]) -> bool:
        """Return whether these are the launch permissions that the resource named last."""
        return self.all_permissions == digest_of_all(permissions)


def tag_key(owner: Owner) -> str:
    """Return the key of the tag of a resource."""
    return AMI_SETTINGS_TAG + hashlib.sha256(owner.logical_id.encode()).hexdigest()[:8]


def records(tags: Mapping[str, str]) -> dict[str, Record]:
    """Return the records of all resources that changed an AMI, by the keys of their tags."""
    keys = [key for key in tags if key.startswith(AMI_SETTINGS_TAG)]
    return {key: record for key in keys if (record := Record.read(tags, key))}


def explains(tags: Mapping[str, str], permissions: Collection[Permission]) -> bool:
    """Return whether an AMI is shared only because a resource of its stack shares it.

    CloudFormation may delete the image before the settings of its AMI, so the launch permissions
    of the settings must not retain the AMI, unless CloudFormation retains the settings.

    Args:
        tags: The tags of the AMI.
        permissions: Its launch permissions.
    """
    return any(
        record.describes(permissions) and not record.existing and not record.is_retained
        for record in records(tags).values()
    )


def digest(permission: Permission) -> str:
    """Return the digest of a launch permission."""
    return _hash("=".join(permission), _DIGEST)


def digest_of_all(permissions: Collection[Permission]) -> str:
    """Return one digest of launch permissions, in any order."""
    return _hash(
        " ".join(sorted("=".join(permission) for permission in permissions)), _DIGEST_OF_ALL
    )


def _hash(text: str, length: int) -> str:
    # Letters, digits, hyphens and underscores: all of them are allowed in a tag.
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


NOTHING_SET: Final = Record(digest_of_all(()), frozenset(), None)
"""What a resource records that has nothing to undo."""
