"""What a check wants a stack to contain. The app makes it a template."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the function reaches through interface endpoints, as constants of
# `InterfaceVpcEndpointAwsService`; it reaches S3 through a gateway.
ENDPOINTS: Final = ("IMAGE_BUILDER", "EC2", "STEP_FUNCTIONS", "CLOUDFORMATION", "CLOUDWATCH_LOGS")


@dataclass(frozen=True)
class Disk:
    """A disk in a bucket."""

    bucket: str
    key: str


@dataclass(frozen=True)
class Image:
    """An image of a stack.

    Attributes:
        source: A disk, which the stack imports, or the id of an import task.
        version: Its semantic version.
        waits: Whether the deployment waits for it.
        delete_ami: Whether AMI and snapshots are deleted with it.
    """

    source: Disk | str
    version: str = "1.0.0"
    waits: bool = True
    delete_ami: bool = True


@dataclass(frozen=True)
class Definition:
    """A stack.

    Attributes:
        images: Its images, by id. All have the removal policy DESTROY.
        fails_after: The id of the image after whose import task another resource fails.
        in_vpc: Whether the function runs in a VPC that has endpoints only.
    """

    images: Mapping[str, Image] = field(default_factory=dict)
    fails_after: str = ""
    in_vpc: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the definition as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Definition:
        """Return the definition that `as_json` returned."""
        images = {}
        for name, image in fields["images"].items():
            source = image["source"]
            disk = source if isinstance(source, str) else Disk(**source)
            images[name] = Image(**{**image, "source": disk})
        return cls(**{**fields, "images": images})
