"""What the template says of an image. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cloudformation.properties import Properties, check, is_true
from contract import IMAGE_NAME, LOG_GROUP_NAME, SEMANTIC_VERSION, slug
from contract import ImageProperty as P
from errors import PropertyError
from identity import Owner, Record

_REQUIRED: Final = (P.NAME, P.SEMANTIC_VERSION, P.PLATFORM, P.VM_IMPORT_TASK_ID)
_STRINGS: Final = (*_REQUIRED, P.DESCRIPTION, P.OS_VERSION, P.CLIENT_TOKEN)


@dataclass(frozen=True)
class ImageProperties(Properties):
    """The properties of a Custom::ImportedVmImage, in the words of ImportVmImage.

    https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
    """

    is_retained: bool = False
    """Whether CloudFormation retains images that are replaced or removed."""

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties. Unknown properties are ignored."""
        mappings = (P.TAGS, P.LOGGING_CONFIGURATION)
        check(properties, _REQUIRED, dict.fromkeys(_STRINGS, str) | dict.fromkeys(mappings, dict))
        for name, form in ((P.NAME, IMAGE_NAME), (P.SEMANTIC_VERSION, SEMANTIC_VERSION)):
            if not form.fullmatch(properties[name]):
                raise PropertyError(f"{name} {properties[name]!r} does not match {form.pattern}")
        identity = {name.value: properties.get(name) for name in _STRINGS}
        identity |= properties.get(P.LOGGING_CONFIGURATION) or {}
        return cls(
            identity={name: value for name, value in identity.items() if value is not None},
            tags=properties.get(P.TAGS) or {},
            delete_ami=is_true(properties.get(P.DELETE_AMI)),
            is_retained=is_true(properties.get(P.RETAIN)),
        )

    @property
    def name(self) -> str:
        """The name of the image."""
        return str(self.identity[P.NAME])

    @property
    def semantic_version(self) -> str:
        """The semantic version of the image."""
        return str(self.identity[P.SEMANTIC_VERSION])

    @property
    def vm_import_task_id(self) -> str:
        """The id of EC2's import task."""
        return str(self.identity[P.VM_IMPORT_TASK_ID])

    @property
    def scope(self) -> str:
        """Image Builder lists the builds of a version."""
        return f"{slug(self.name)}/{self.semantic_version}"

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
            "tags": {**self.tags, **owner.tags, **Record(token).tag},
            "clientToken": self.client_token or token,
        }
        return {name: value for name, value in request.items() if value}
