"""Create, update and delete an imported image: the decisions, in terms of the AWS calls."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from errors import (
    TOKEN_USED_OTHERWISE,
    AwsError,
    ClientTokenError,
    ImageFailedError,
    ImportTaskError,
)
from image_properties import Sought, is_image_arn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from deadline import Deadline
    from image_builder import Image, ImageBuilder
    from image_properties import ImageProperties, Owner

logger = logging.getLogger(__name__)

# How often an image that was just imported, or is just not listed, is looked for again.
_LOOKS = 4


@dataclass(frozen=True)
class ImportedImage:
    """What CloudFormation is told of an image."""

    arn: str
    attributes: Mapping[str, str]


class Lifecycle:
    """The life of the images of one CloudFormation resource."""

    def __init__(
        self,
        owner: Owner,
        image_builder: ImageBuilder,
        deadline: Deadline,
        answer_with: Callable[[str], None],
    ) -> None:
        """Work for one resource, during one invocation.

        Args:
            owner: The resource.
            image_builder: The AWS calls.
            deadline: Ends all waiting.
            answer_with: Told the physical id to answer with if what follows fails, so that
                CloudFormation's clean-up finds just what this invocation made.
        """
        self._owner = owner
        self._aws = image_builder
        self._deadline = deadline
        self._answer_with = answer_with

    def create(self, properties: ImageProperties) -> ImportedImage:
        """Return the image that the properties describe; import it if there is none."""
        # A duplicate of this event may have imported it: whatever fails, it can be found.
        self._answer_with(properties.placeholder(self._owner))
        return self._ensure(properties)

    def update(
        self, physical_id: str, properties: ImageProperties, old: ImageProperties | None
    ) -> ImportedImage:
        """Change tags in place; for another identity, return another image.

        Nothing is deleted here: CloudFormation deletes the old image in its clean-up, or, when
        it rolls back, the new one.
        """
        if old and old.identity == properties.identity and is_image_arn(physical_id):
            image = self._aws.get(physical_id)
            if image and not image.is_dead:
                self._change_tags(image, properties.tags, old.tags)
                return self._result(image, properties)
        return self._ensure(properties, old)

    def delete(self, physical_id: str, properties: ImageProperties | None) -> None:
        """Remove the image, and what earlier generations of it left; none is success.

        Args:
            physical_id: An image's ARN; or a placeholder; or, when CloudFormation gave up a
                Create in flight, an id that CloudFormation invented. Then the properties tell.
            properties: None if they are of no known form, so that no import was made with them.
        """
        by_properties = properties and Sought.by_properties(properties, self._owner)
        if not is_image_arn(physical_id):
            sought = Sought.by_placeholder(physical_id) or by_properties
            doomed = self._own(sought) if sought else []
        else:
            image = self._aws.get(physical_id)
            earlier = self._own(by_properties) if by_properties else []
            # A later generation took this image's place, and stays.
            build = int(physical_id.rsplit("/", 1)[1])
            doomed = [other for other in earlier if other.build < build]
            if image:
                doomed.append(image)
        for image in doomed:
            self._remove(image)

    def _ensure(
        self, properties: ImageProperties, old: ImageProperties | None = None
    ) -> ImportedImage:
        sought = Sought.by_properties(properties, self._owner)
        own = self._own(sought)
        for image in own:
            if not image.is_dead:
                self._change_tags(image, properties.tags, old.tags if old else ())
                return self._result(image, properties)
        self._answer_with(properties.placeholder(self._owner))
        self._check_import_task(properties.vm_import_task_id)
        burnt = {image.token for image in own}
        for token in sought.tokens:
            if token not in burnt and (new := self._import(properties, token, sought)):
                return self._result(new, properties)
        if properties.client_token:
            raise ClientTokenError(
                f"the image that was imported with client token {properties.client_token!r} is "
                "gone, and AWS makes no other under it; leave client_token out, or change it"
            )
        raise ClientTokenError(
            f"{len(sought.tokens)} images of this name, version and import task were made and "
            "are gone, and AWS still remembers their client tokens; change semantic_version"
        )

    def _own(self, sought: Sought) -> list[Image]:
        """The images that this resource made under these tokens; no other is ever touched."""
        return [
            image
            for image in self._aws.builds(sought.slug, sought.version)
            if image.token in sought.tokens and self._is_own(image)
        ]

    def _is_own(self, image: Image) -> bool:
        return self._owner.tags.items() <= image.tags.items()

    def _is_of_another(self, image: Image) -> bool:
        return any(image.tags.get(key, value) != value for key, value in self._owner.tags.items())

    def _check_import_task(self, task_id: str) -> None:
        """Fail at once, with EC2's reason, where Image Builder would fail later with less."""
        task = self._aws.import_task(task_id)
        if task is None:
            raise ImportTaskError(
                f"EC2 does not know the import task {task_id} in this account and region: it "
                "forgets a task 7 days after its end. Hint: run ec2:ImportImage again and deploy "
                "with the new task's id"
            )
        if task.status in {"deleting", "deleted"}:
            raise ImportTaskError(
                f"the import task {task_id} is {task.status}: "
                f"{task.message or 'EC2 gives no reason'}. Hint: mend the disk image, run "
                "ec2:ImportImage again and deploy with the new task's id"
            )

    def _import(self, properties: ImageProperties, token: str, sought: Sought) -> Image | None:
        """Import under a token; None if the token is burnt: its image is gone."""
        try:
            arn, request_id = self._aws.import_vm_image(properties.request(self._owner, token))
        except AwsError as error:
            if error.code not in TOKEN_USED_OTHERWISE or properties.client_token:
                raise
            # Only tags can differ. If the image lives, it is listed sooner or later.
            return self._look(
                lambda: next(
                    (i for i in self._own(sought) if i.token == token and not i.is_dead), None
                )
            )
        image = self._look(lambda: self._aws.get(arn))
        if image is None or image.status == "DELETED":
            return None
        if self._is_of_another(image):
            raise ClientTokenError(
                f"AWS answered client token {token!r} with {arn}, which belongs to another "
                "resource. Hint: leave client_token out, or give each image its own"
            )
        self._answer_with(arn)
        if image.is_dead:
            self._remove(image)
            raise ImageFailedError(
                f"{arn} is {image.status}: {image.reason or 'Image Builder gives no reason'}"
            )
        return replace(image, request_id=request_id)

    def _look(self, look: Callable[[], Image | None]) -> Image | None:
        """Look a few times: what was just written may be read a moment later."""
        for attempt, _ in enumerate(self._deadline.pauses("Image Builder to show the image"), 1):
            if (image := look()) or attempt == _LOOKS:
                return image
        raise AssertionError  # pauses() never ends by itself

    def _change_tags(self, image: Image, wanted: Mapping[str, str], before: Iterable[str]) -> None:
        """Give the image its tags. Tags that the template never named are left alone."""
        changed = {key: value for key, value in wanted.items() if image.tags.get(key) != value}
        if changed:
            self._aws.tag(image.arn, changed)
        dropped = sorted((set(before) - set(wanted)) & set(image.tags))
        if dropped:
            self._aws.untag(image.arn, dropped)

    def _remove(self, image: Image) -> None:
        """Delete the image; a running one is cancelled first."""
        if image.is_running:
            self._aws.cancel(image)
        for _ in self._deadline.pauses(f"{image.arn} to end"):
            seen = self._aws.get(image.arn)
            if seen is None:
                return
            if not seen.is_running:
                self._aws.delete(seen)
                return

    def _result(self, image: Image, properties: ImageProperties) -> ImportedImage:
        version_arn = image.arn.rsplit("/", 1)[0]
        return ImportedImage(
            arn=image.arn,
            attributes={
                "ImageArn": image.arn,
                "ImageVersionArn": version_arn,
                "LatestImageArn": f"{version_arn.rsplit('/', 1)[0]}/x.x.x",
                "ImageName": properties.name,
                "ImageVersion": properties.semantic_version,
                "ClientToken": image.token or properties.tokens(self._owner)[0],
                "VmImportTaskId": properties.vm_import_task_id,
                "RequestId": image.request_id,
            },
        )
