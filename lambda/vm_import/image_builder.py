"""The AWS calls: Image Builder's images, and EC2's import tasks."""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from aws_calls import AwsCalls
from errors import (
    NOT_CANCELLABLE,
    NOT_FOUND,
    TASK_NOT_FOUND,
    AwsError,
)
from image_properties import TOKEN_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deadline import Deadline

logger = logging.getLogger(__name__)

# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImageState.html
_RUNNING: Final = frozenset(
    {"PENDING", "CREATING", "BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING"}
)
_DEAD: Final = frozenset({"FAILED", "CANCELLED", "DELETED"})


@dataclass(frozen=True)
class Image:
    """A build of an image, as Image Builder describes it."""

    arn: str
    status: str
    reason: str
    tags: Mapping[str, str]
    request_id: str
    ami: str = ""
    failure: str = ""
    created: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    """As much of it as AWS shows: neither import task nor description nor client token."""

    @classmethod
    def read(cls, described: Mapping[str, Any], request_id: str) -> Image:
        """Read an Image or an ImageSummary."""
        identity = {
            "Name": described.get("name"),
            "SemanticVersion": described["arn"].split("/")[2],
            "Platform": described.get("platform"),
            "OsVersion": described.get("osVersion"),
            "LogGroupName": described.get("loggingConfiguration", {}).get("logGroupName"),
        }
        state = described.get("state", {})
        amis = (described.get("outputResources") or {}).get("amis") or [{}]
        failure = state.get("failureContext")
        return cls(
            arn=described["arn"],
            status=state.get("status", ""),
            reason=state.get("reason", ""),
            tags=described.get("tags", {}),
            request_id=request_id,
            ami=amis[0].get("image", ""),
            failure=json.dumps(failure) if failure else "",
            created=described.get("dateCreated", ""),
            identity={name: value for name, value in identity.items() if value},
        )

    @property
    def is_running(self) -> bool:
        """Whether the import still goes on."""
        return self.status in _RUNNING

    @property
    def is_dead(self) -> bool:
        """Whether it is, and stays, of no use. DEPRECATED and DISABLED ones are not dead."""
        return self.status in _DEAD

    @property
    def age(self) -> float:
        """Seconds since it was made; without end if AWS does not say when that was."""
        try:
            return time.time() - datetime.fromisoformat(self.created).timestamp()
        except ValueError:
            return float("inf")

    @property
    def build(self) -> int:
        """The build number, the last part of the ARN."""
        return int(self.arn.rsplit("/", 1)[1])

    @property
    def token(self) -> str:
        """The client token that it was made with."""
        return self.tags.get(TOKEN_TAG, "")


@dataclass(frozen=True)
class ImportTask:
    """An EC2 import image task."""

    status: str
    message: str
    progress: str


class ImageBuilder(AwsCalls):
    """Image Builder in the account, Region and partition of the function."""

    def __init__(self, function_arn: str, deadline: Deadline) -> None:
        """Take account, Region and partition from the function's ARN."""
        _, partition, _, region, account, *_ = function_arn.split(":")
        self._images = f"arn:{partition}:imagebuilder:{region}:{account}:image"
        super().__init__(deadline)

    def builds(self, slug: str, version: str) -> Sequence[Image]:
        """All builds of a version, with their states and tags."""
        request: dict[str, Any] = {"imageVersionArn": f"{self._images}/{slug}/{version}"}
        builds: list[Image] = []
        while True:
            try:
                page = self._call("imagebuilder", "list_image_build_versions", **request)
            except AwsError as error:
                if error.code in NOT_FOUND:
                    return builds
                raise
            builds += [
                Image.read(summary, page["requestId"])
                for summary in page.get("imageSummaryList", [])
            ]
            if not page.get("nextToken"):
                return builds
            request["nextToken"] = page["nextToken"]

    def imports(self) -> Iterator[Image]:
        """All builds of all imported images of the account, whoever made them."""
        request: dict[str, Any] = {"owner": "Self"}
        while True:
            page = self._call("imagebuilder", "list_images", **request)
            for version in page.get("imageVersionList", []):
                if version.get("buildType", "IMPORT").startswith("IMPORT"):
                    _, slug, number, *_ = version["arn"].split("/")
                    yield from self.builds(slug, number)
            if not page.get("nextToken"):
                return
            request["nextToken"] = page["nextToken"]

    def get(self, arn: str) -> Image | None:
        """The image, or None if Image Builder does not know it (any more)."""
        try:
            response = self._call("imagebuilder", "get_image", imageBuildVersionArn=arn)
        except AwsError as error:
            if error.code in NOT_FOUND:
                return None
            raise
        image = Image.read(response["image"], response["requestId"])
        return None if image.status == "DELETED" else image

    def import_vm_image(self, request: Mapping[str, Any]) -> tuple[str, str]:
        """Import, and return the image's ARN and the id of the request."""
        response = self._call("imagebuilder", "import_vm_image", **request)
        logger.info({"action": "ImportVmImage", "image": response["imageArn"], **_named(request)})
        return response["imageArn"], response["requestId"]

    def cancel(self, image: Image) -> None:
        """Ask for the import's end. One that has ended, or cannot be cancelled, is left be."""
        logger.info({"action": "CancelImageCreation", "image": image.arn})
        try:
            # The token makes a repeated request the same request.
            self._call(
                "imagebuilder",
                "cancel_image_creation",
                imageBuildVersionArn=image.arn,
                clientToken=str(uuid.uuid5(uuid.NAMESPACE_URL, image.arn)),
            )
        except AwsError as error:
            if error.code not in NOT_FOUND | NOT_CANCELLABLE:
                raise
            logger.info({"action": "CancelImageCreation", "image": image.arn, "not": str(error)})

    def delete(self, image: Image) -> None:
        """Delete Image Builder's record of an image that has ended; AMI and snapshots stay."""
        logger.info({"action": "DeleteImage", "image": image.arn})
        try:
            self._call("imagebuilder", "delete_image", imageBuildVersionArn=image.arn)
        except AwsError as error:
            if error.code not in NOT_FOUND:
                raise

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags, or change their values."""
        logger.info({"action": "TagResource", "image": arn, "keys": sorted(tags)})
        self._call("imagebuilder", "tag_resource", resourceArn=arn, tags=dict(tags))

    def untag(self, arn: str, keys: Sequence[str]) -> None:
        """Remove tags."""
        logger.info({"action": "UntagResource", "image": arn, "keys": keys})
        self._call("imagebuilder", "untag_resource", resourceArn=arn, tagKeys=keys)

    def import_task(self, task_id: str) -> ImportTask | None:
        """EC2's import image task, or None if EC2 does not know it (any more)."""
        try:
            response = self._call("ec2", "describe_import_image_tasks", ImportTaskIds=[task_id])
        except AwsError as error:
            if error.code in TASK_NOT_FOUND:
                return None
            raise
        for task in response.get("ImportImageTasks", []):
            return ImportTask(
                task.get("Status", ""), task.get("StatusMessage", ""), task.get("Progress", "")
            )
        return None


def _named(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: request[name] for name in ("name", "semanticVersion", "clientToken")}
