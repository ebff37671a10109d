"""What the template says of an image, and the identity that follows from it. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cloudformation.properties import check, is_true
from contract import IMAGE_NAME, LOG_GROUP_NAME, SEMANTIC_VERSION, OwnTag, slug
from contract import ImageProperty as P
from errors import PropertyError
from identity import Lookup, Owner

logger = logging.getLogger(__name__)

_REQUIRED: Final = (P.NAME, P.SEMANTIC_VERSION, P.PLATFORM, P.VM_IMPORT_TASK_ID)
_OPTIONAL: Final = (P.DESCRIPTION, P.OS_VERSION, P.CLIENT_TOKEN)


@dataclass(frozen=True)
class ImageProperties:
    """The properties of a Custom::ImportedVmImage, in the words of ImportVmImage.

    https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
    """

    identity: Mapping[str, str]
    """What Image Builder cannot change on an image: another identity is another image."""
    tags: Mapping[str, str] = field(default_factory=dict)
    is_retained: bool = False
    """Whether CloudFormation retains images that are replaced or removed."""
    delete_ami: bool = False
    """Whether AMI and snapshots are deleted with the image."""

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties. Unknown properties are ignored.

        Raises:
            PropertyError: One is missing, or has a form that no import can be started with.
        """
        check(
            properties,
            required=_REQUIRED,
            strings=(*_REQUIRED, *_OPTIONAL),
            mappings=(P.TAGS, P.LOGGING_CONFIGURATION),
        )
        for name, form in ((P.NAME, IMAGE_NAME), (P.SEMANTIC_VERSION, SEMANTIC_VERSION)):
            if not form.fullmatch(properties[name]):
                raise PropertyError(f"{name} {properties[name]!r} does not match {form.pattern}")
        log_group = (properties.get(P.LOGGING_CONFIGURATION) or {}).get(LOG_GROUP_NAME)
        identity = {name.value: properties.get(name) for name in (*_REQUIRED, *_OPTIONAL)}
        identity[LOG_GROUP_NAME] = log_group
        return cls(
            identity={name: value for name, value in identity.items() if value is not None},
            tags=properties.get(P.TAGS) or {},
            is_retained=is_true(properties.get(P.RETAIN)),
            delete_ami=is_true(properties.get(P.DELETE_AMI)),
        )

    @classmethod
    def read_known(cls, properties: Mapping[str, Any]) -> Self | None:
        """Read properties; None if they have no known form, so that nothing was imported."""
        try:
            return cls.read(properties)
        except PropertyError as error:
            logger.info({"not the properties of an image": str(error)})
            return None

    @property
    def name(self) -> str:
        """The name of the image."""
        return self.identity[P.NAME]

    @property
    def semantic_version(self) -> str:
        """The semantic version of the image."""
        return self.identity[P.SEMANTIC_VERSION]

    @property
    def vm_import_task_id(self) -> str:
        """The id of EC2's import task."""
        return self.identity[P.VM_IMPORT_TASK_ID]

    @property
    def client_token(self) -> str | None:
        """The client token that the user gave."""
        return self.identity.get(P.CLIENT_TOKEN)

    def lookup(self, owner: Owner) -> Lookup:
        """Return where to find the image."""
        return Lookup.of(f"{slug(self.name)}/{self.semantic_version}", owner, self.identity)

    def request(self, owner: Owner, token: str) -> dict[str, Any]:
        """Return the ImportVmImage request. It depends on the properties alone, as retries must."""
        log_group = self.identity.get(LOG_GROUP_NAME)
        request = {
            "name": self.name,
            "semanticVersion": self.semantic_version,
            "platform": self.identity[P.PLATFORM],
            "vmImportTaskId": self.vm_import_task_id,
            "description": self.identity.get(P.DESCRIPTION),
            "osVersion": self.identity.get(P.OS_VERSION),
            "loggingConfiguration": log_group and {"logGroupName": log_group},
            "tags": {**self.tags, **owner.tags, OwnTag.TOKEN: token},
            "clientToken": self.client_token or token,
        }
        return {name: value for name, value in request.items() if value}
