"""What the template says of the settings of an AMI. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from aws.ec2 import Permission
from cloudformation.properties import check, is_true
from contract import AmiSettingsProperty as P
from errors import PropertyError

# The members of EC2's LaunchPermission, by the properties that list their values.
_MEMBERS: Final = {
    P.USER_IDS: "UserId",
    P.ORGANIZATION_ARNS: "OrganizationArn",
    P.ORGANIZATIONAL_UNIT_ARNS: "OrganizationalUnitArn",
}


@dataclass(frozen=True)
class AmiSettingsProperties:
    """The properties of a Custom::VmAmiSettings."""

    image_id: str = ""
    """The AMI. Empty after a rollback to an image whose import had failed."""
    permissions: frozenset[Permission] = frozenset()
    imds_support: str = ""
    deprecate_at: datetime | None = None
    is_retained: bool = False
    """Whether CloudFormation leaves the settings as they are."""

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties. Unknown properties are ignored.

        Raises:
            PropertyError: One is missing, or has another form than the constructs give it.
        """
        strings = dict.fromkeys((P.IMAGE_ID, P.IMDS_SUPPORT, P.DEPRECATE_AT), str)
        check(properties, (), strings | dict.fromkeys(_MEMBERS, list))
        if P.IMAGE_ID not in properties:
            raise PropertyError(f"missing resource property: {P.IMAGE_ID}")
        try:
            deprecate_at = time_of(properties.get(P.DEPRECATE_AT, ""))
        except ValueError as error:
            raise PropertyError(f"{P.DEPRECATE_AT} is not a time: {error}") from error
        return cls(
            image_id=properties[P.IMAGE_ID],
            permissions=frozenset(
                (member, value)
                for name, member in _MEMBERS.items()
                for value in properties.get(name, [])
            ),
            imds_support=properties.get(P.IMDS_SUPPORT, ""),
            deprecate_at=deprecate_at,
            is_retained=is_true(properties.get(P.RETAIN)),
        )

    @classmethod
    def read_known(cls, properties: Mapping[str, Any]) -> Self:
        """Read properties; those that have no known form were never applied."""
        try:
            return cls.read(properties)
        except PropertyError:
            return cls()


def time_of(text: str) -> datetime | None:
    """Read a time as EC2 and the constructs write it; None if there is none."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
