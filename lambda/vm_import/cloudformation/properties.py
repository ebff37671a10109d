"""The properties of a resource. CloudFormation sends every scalar as a string."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from contract import TAG_PREFIX
from errors import PropertyError
from identity import Lookup, Owner, tokens_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Properties(ABC):
    """What a template says of an image or an import task."""

    identity: Mapping[str, Any]
    """What AWS cannot change: another identity is another image or task."""
    tags: Mapping[str, str] = field(default_factory=dict)
    delete_ami: bool = False
    """Whether AMI and snapshots are deleted with it."""

    @classmethod
    @abstractmethod
    def read(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties. Unknown properties are ignored.

        Raises:
            PropertyError: One is missing, or has a form that no import can be started with.
        """

    @classmethod
    def read_known(cls, properties: Mapping[str, Any]) -> Self | None:
        """Read properties; None if they have no known form, so that nothing was created."""
        try:
            return cls.read(properties)
        except PropertyError as error:
            logger.info("nothing was imported for these properties: %s", error)
            return None

    @property
    def client_token(self) -> str | None:
        """The client token that the user gave."""
        return self.identity.get("ClientToken")

    @property
    @abstractmethod
    def scope(self) -> str:
        """Where AWS lists it, as in Lookup."""

    def lookup(self, owner: Owner) -> Lookup:
        """Return where to find what the resource created for the identity."""
        return Lookup(self.scope, tokens_of(owner, self.identity))


def check(
    properties: Mapping[str, Any], required: Collection[str], types: Mapping[str, type]
) -> None:
    """Check that properties have the form that the constructs give them.

    Args:
        properties: ResourceProperties or OldResourceProperties.
        required: Properties that must be there.
        types: The types of properties, if they are there.

    Raises:
        PropertyError: One is missing, has another type, or is a reserved tag key.
    """
    if missing := [name for name in required if not properties.get(name)]:
        raise PropertyError(f"missing resource property: {', '.join(missing)}")
    present = {name: properties[name] for name in types if properties.get(name) is not None}
    if wrong := [name for name, value in present.items() if not isinstance(value, types[name])]:
        raise PropertyError(f"resource property of a wrong type: {', '.join(wrong)}")
    if reserved := [key for key in present.get("Tags", {}) if key.startswith(TAG_PREFIX)]:
        raise PropertyError(f"tag keys that start with {TAG_PREFIX!r} are reserved: {reserved}")


def is_true(value: object) -> bool:
    """Read a boolean property."""
    return str(value).lower() == "true"
