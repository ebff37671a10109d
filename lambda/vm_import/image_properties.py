"""What the template says about an image, and the identity that follows from it. Pure."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from errors import PropertyError

if TYPE_CHECKING:
    from collections.abc import Mapping

TAG_PREFIX: Final = "cdk-vm-import:"
TOKEN_TAG: Final = f"{TAG_PREFIX}token"
STACK_TAG: Final = f"{TAG_PREFIX}stack"
RESOURCE_TAG: Final = f"{TAG_PREFIX}resource"

# How often an image that is gone, under a token that AWS still remembers, is made anew.
GENERATIONS: Final = 5
# Never changes: the tokens of deployed images are derived from it.
_NAMESPACE: Final = uuid.UUID("5b0f7e0c-6f5d-5a43-9a39-0d3c1d1c8a52")
# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_DeleteImage.html
_BUILD_ARN: Final = re.compile(
    r"arn:aws[^:]*:imagebuilder:[^:]+:[0-9]{12}:image/[a-z0-9_-]+/[0-9]+\.[0-9]+\.[0-9]+/[0-9]+"
)
# What GetImage's model allows; ImportVmImage allows more, and nobody says what comes of that.
_NAME: Final = re.compile(r"[-_A-Za-z0-9][-_A-Za-z0-9 ]{1,126}[-_A-Za-z0-9]")
_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_PLACEHOLDER: Final = re.compile(
    r"(?P<slug>[a-z0-9_-]+)/(?P<version>\d+\.\d+\.\d+)/(?P<token>.+)", re.DOTALL
)


_SCALARS: Final = (
    "Name",
    "SemanticVersion",
    "Platform",
    "VmImportTaskId",
    "Description",
    "OsVersion",
    "LogGroupName",
    "ClientToken",
)


@dataclass(frozen=True)
class Owner:
    """The CloudFormation resource that an image belongs to."""

    stack_id: str
    logical_id: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which this resource knows its images."""
        return {STACK_TAG: self.stack_id, RESOURCE_TAG: self.logical_id}


@dataclass(frozen=True)
class ImageProperties:
    """The properties of a Custom::ImportedVmImage, in the words of ImportVmImage.

    https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html

    Beside them, `retained`: whether CloudFormation keeps images that are replaced or removed; and
    `delete_ami`: whether AMI and snapshots go with the image.
    """

    name: str
    semantic_version: str
    platform: str
    vm_import_task_id: str
    description: str | None = None
    os_version: str | None = None
    log_group_name: str | None = None
    client_token: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    retained: bool = False
    delete_ami: bool = False

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> Self:
        """Read ResourceProperties or OldResourceProperties; unknown properties are passed over.

        Raises:
            PropertyError: One is missing, or of a form that no import can be made with.
        """
        missing = [
            name
            for name in ("Name", "SemanticVersion", "Platform", "VmImportTaskId")
            if not properties.get(name)
        ]
        if missing:
            raise PropertyError(f"missing resource property: {', '.join(missing)}")
        tags = properties.get("Tags") or {}
        logging = properties.get("LoggingConfiguration") or {}
        scalars = {**properties, **logging} if isinstance(logging, dict) else properties
        wrong = [
            *(name for name in _SCALARS if not isinstance(scalars.get(name, ""), str)),
            *(name for name in ("Tags",) if not _is_map_of_strings(tags)),
            *(name for name in ("LoggingConfiguration",) if not isinstance(logging, dict)),
        ]
        if wrong:
            raise PropertyError(f"resource property of a wrong type: {', '.join(wrong)}")
        if not _NAME.fullmatch(properties["Name"]):
            raise PropertyError(f"Name {properties['Name']!r} does not match {_NAME.pattern}")
        if not _VERSION.fullmatch(properties["SemanticVersion"]):
            version = properties["SemanticVersion"]
            raise PropertyError(f"SemanticVersion {version!r} does not match {_VERSION.pattern}")
        if reserved := [key for key in tags if key.startswith(TAG_PREFIX)]:
            raise PropertyError(
                f"tag keys that start with {TAG_PREFIX!r} are reserved: {', '.join(reserved)}"
            )
        return cls(
            name=properties["Name"],
            semantic_version=properties["SemanticVersion"],
            platform=properties["Platform"],
            vm_import_task_id=properties["VmImportTaskId"],
            description=properties.get("Description"),
            os_version=properties.get("OsVersion"),
            log_group_name=logging.get("LogGroupName"),
            client_token=properties.get("ClientToken"),
            tags=tags,
            retained=str(properties.get("Retain")).lower() == "true",
            delete_ami=str(properties.get("DeleteAmi")).lower() == "true",
        )

    @property
    def identity(self) -> dict[str, str]:
        """What Image Builder cannot change on an image: another identity is another image."""
        identity = {
            "Name": self.name,
            "SemanticVersion": self.semantic_version,
            "Platform": self.platform,
            "VmImportTaskId": self.vm_import_task_id,
            "Description": self.description,
            "OsVersion": self.os_version,
            "LogGroupName": self.log_group_name,
            "ClientToken": self.client_token,
        }
        return {name: value for name, value in identity.items() if value is not None}

    @property
    def slug(self) -> str:
        """The name as it stands in ARNs: lower case, spaces and underscores become hyphens."""
        return re.sub("[ _]", "-", self.name.lower())

    def tokens(self, owner: Owner) -> tuple[str, ...]:
        """The tokens under which this image may exist, in the order in which to use them.

        They depend on the resource and the identity alone, so a retry, a duplicate and a
        rollback arrive at the same image. Each is a tag of its image, and its client token too
        unless the user gave one.
        """
        return tokens_of(owner, self.identity)

    def placeholder(self, owner: Owner) -> str:
        """The physical id of an image that may or may not exist: enough to find and remove it."""
        return f"{self.slug}/{self.semantic_version}/{self.tokens(owner)[0]}"

    def request(self, owner: Owner, token: str) -> dict[str, Any]:
        """The ImportVmImage request. It depends on the properties alone: a replay is the same."""
        request = {
            "name": self.name,
            "semanticVersion": self.semantic_version,
            "platform": self.platform,
            "vmImportTaskId": self.vm_import_task_id,
            "description": self.description,
            "osVersion": self.os_version,
            "loggingConfiguration": self.log_group_name and {"logGroupName": self.log_group_name},
            "tags": {**self.tags, **owner.tags, TOKEN_TAG: token},
            "clientToken": self.client_token or token,
        }
        return {name: value for name, value in request.items() if value}


@dataclass(frozen=True)
class Sought:
    """Where to look for a resource's images (slug and version), and by which tokens."""

    slug: str
    version: str
    tokens: tuple[str, ...]

    @classmethod
    def by_properties(cls, properties: ImageProperties, owner: Owner) -> Self:
        """All generations of the identity that the properties give."""
        return cls(properties.slug, properties.semantic_version, properties.tokens(owner))

    @classmethod
    def by_placeholder(cls, physical_id: str) -> Self | None:
        """All generations of the identity that a placeholder stands for; None if it is none."""
        match = _PLACEHOLDER.fullmatch(physical_id)
        return match and cls(match["slug"], match["version"], generations(match["token"]))


def _is_map_of_strings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def is_image_arn(physical_id: str) -> bool:
    """Whether this is the ARN of a build of an image, the physical id of one that exists."""
    return _BUILD_ARN.fullmatch(physical_id) is not None


def tokens_of(owner: Owner, identity: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokens of all generations of what a resource makes of an identity."""
    text = json.dumps([owner.stack_id, owner.logical_id, identity], sort_keys=True)
    return generations(str(uuid.uuid5(_NAMESPACE, text)))


def generations(first: str) -> tuple[str, ...]:
    """A token and those that take its place, one after the other, when its image is gone."""
    later = (str(uuid.uuid5(_NAMESPACE, f"{first}/{n}")) for n in range(1, GENERATIONS))
    return (first, *later)
