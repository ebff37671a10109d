"""The calls to EC2 Image Builder."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final, Self

from aws.session import AwsApi
from contract import LOG_GROUP_NAME, ImageProperty
from errors import AwsError, without_end
from identity import Existing

logger = logging.getLogger(__name__)

# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImageState.html
_RUNNING: Final = frozenset(
    {"PENDING", "CREATING", "BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING"}
)
_FAILED: Final = frozenset({"FAILED", "CANCELLED", "DELETED"})
# The image ended before it could be cancelled, or imports cannot be cancelled.
_NOT_CANCELLABLE: Final = frozenset(
    {"InvalidParameterValueException", "InvalidRequestException", "ResourceInUseException"}
)
# ListImageBuildVersions may refuse a version without builds, or return an empty list: what it does
# is not documented. The ARN itself has a valid form.
_VERSION_UNKNOWN: Final = frozenset(
    {
        "ClientException",
        "InvalidParameterException",
        "InvalidParameterValueException",
        "InvalidRequestException",
        "ValidationException",
    }
)


@dataclass(frozen=True)
class Image(Existing):
    """A build of an image, as Image Builder describes it."""

    reason: str = ""
    ami: str = ""
    created: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    """What AWS shows of it: neither the import task nor the description nor the client token."""

    @classmethod
    def read(cls, described: Mapping[str, Any], request_id: str, region: str) -> Self:
        """Read an Image or an ImageSummary, with its AMI in a Region."""
        identity = {
            ImageProperty.NAME: described.get("name"),
            ImageProperty.SEMANTIC_VERSION: described["arn"].split("/")[2],
            ImageProperty.PLATFORM: described.get("platform"),
            ImageProperty.OS_VERSION: described.get("osVersion"),
            LOG_GROUP_NAME: described.get("loggingConfiguration", {}).get("logGroupName"),
        }
        state = described.get("state", {})
        amis = (described.get("outputResources") or {}).get("amis") or []
        here = [
            ami["image"] for ami in amis if ami.get("image") and ami.get("region", region) == region
        ]
        return cls(
            id=described["arn"],
            status=state.get("status", ""),
            reason=without_end(state.get("reason", "")),
            tags=described.get("tags", {}),
            request_id=request_id,
            ami=here[0] if here else "",
            created=described.get("dateCreated", ""),
            identity={name: value for name, value in identity.items() if value},
        )

    @property
    def is_running(self) -> bool:
        """Whether the import has not ended yet."""
        return self.status in _RUNNING

    @property
    def is_usable(self) -> bool:
        """Whether it is, or may become, AVAILABLE. DEPRECATED and DISABLED images can return."""
        return self.status not in _FAILED

    @property
    def age(self) -> float:
        """Seconds since the image was created; infinite if AWS does not say when that was."""
        try:
            return time.time() - datetime.fromisoformat(self.created).timestamp()
        except ValueError:
            return float("inf")

    @property
    def build(self) -> int:
        """The build number, the last part of the ARN."""
        return int(self.id.rsplit("/", 1)[1])


class ImageBuilder(AwsApi):
    """Image Builder in the account, Region and partition of the function."""

    service: ClassVar[str] = "imagebuilder"

    def __init__(self, function_arn: str) -> None:
        """Take account, Region and partition from the function's ARN."""
        _, partition, _, self._region, account, *_ = function_arn.split(":")
        self._images = f"arn:{partition}:imagebuilder:{self._region}:{account}:image"

    def builds(self, version: str) -> Iterator[Image]:
        """Yield all builds of a version, with their states and tags.

        Args:
            version: Slug and semantic version, `rhel9-golden/1.0.0`.
        """
        pages = self._pages(
            "list_image_build_versions", imageVersionArn=f"{self._images}/{version}"
        )
        try:
            for page in pages:
                for summary in page.get("imageSummaryList", []):
                    yield Image.read(summary, page["requestId"], self._region)
        except AwsError as error:
            if not (error.is_not_found or error.code in _VERSION_UNKNOWN):
                raise

    def imports(self) -> Iterator[Image]:
        """Yield all builds of all imported images of the account, whoever imported them."""
        for page in self._pages("list_images", owner="Self"):
            for version in page.get("imageVersionList", []):
                if version.get("buildType", "IMPORT").startswith("IMPORT"):
                    yield from self.builds("/".join(version["arn"].split("/")[1:3]))

    def get(self, arn: str) -> Image | None:
        """Return the image, or None if Image Builder does not know it."""
        try:
            response = self._call("get_image", imageBuildVersionArn=arn)
        except AwsError as error:
            if error.is_not_found:
                return None
            if error.is_denied:
                return self.listed(arn)
            raise
        image = Image.read(response["image"], response["requestId"], self._region)
        return None if image.status == "DELETED" else image

    def listed(self, arn: str) -> Image | None:
        """Return the image as the list shows it, which is the same as GetImage does."""
        builds = self.builds("/".join(arn.split("/")[1:3]))
        return next((image for image in builds if image.id == arn), None)

    def import_vm_image(self, request: Mapping[str, Any]) -> tuple[str, str]:
        """Import an image; return its ARN and the id of the request."""
        response = self._call("import_vm_image", **request)
        fields = {"fields": {"token": request["clientToken"]}}
        logger.info("ImportVmImage imports %s", response["imageArn"], extra=fields)
        return response["imageArn"], response["requestId"]

    def cancel(self, image: Image) -> None:
        """Cancel the import of an image, unless it has ended or cannot be cancelled."""
        logger.info("CancelImageCreation cancels %s", image.id)
        try:
            self._call(
                "cancel_image_creation",
                imageBuildVersionArn=image.id,
                # A repeated request is the same request. But another image may get the same ARN.
                clientToken=str(uuid.uuid5(uuid.NAMESPACE_URL, image.id + image.created)),
            )
        except AwsError as error:
            if not (error.is_not_found or error.code in _NOT_CANCELLABLE):
                raise
            logger.info("%s is not cancelled: %s", image.id, error)

    def delete(self, arn: str) -> None:
        """Delete Image Builder's record of an image that has ended. AMI and snapshots stay."""
        logger.info("DeleteImage deletes %s", arn)
        try:
            self._call("delete_image", imageBuildVersionArn=arn)
        except AwsError as error:
            if not error.is_not_found:
                raise

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags, or change their values."""
        logger.info("TagResource tags %s with %s", arn, ", ".join(sorted(tags)))
        self._call("tag_resource", resourceArn=arn, tags=dict(tags))

    def untag(self, arn: str, keys: Sequence[str]) -> None:
        """Remove tags."""
        logger.info("UntagResource removes from %s %s", arn, ", ".join(keys))
        self._call("untag_resource", resourceArn=arn, tagKeys=keys)
