"""Custom::ImportedVmImage: an image that Image Builder imports from EC2's import task."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from amis import Amis
from aws import Aws
from aws.image_builder import Image
from aws.session import read_until_found
from cloudformation.event import Event
from cloudformation.step import Done, Pending, Response, State
from contract import IMAGE_BUILD_ARN, ImageAttribute
from errors import (
    ANOTHER_IMPORT,
    ImageFailedError,
    ImportTaskError,
    NotYetError,
    failures_name,
    tolerated,
)
from identity import Lookup, Owner, token_tag
from image.properties import ImageProperties
from image.waiting import Wait
from reconciler import READS, READS_WHILE_OTHERS_WORK, Reconciler, ResourceType

logger = logging.getLogger(__name__)

# CloudFormation deletes a retained image only in a rollback, because the stack operation created
# it. An older image existed before, was retained before, and was found instead of created.
_OLDEST_CREATED_BY_UPDATE: Final = 24 * 3600


def step(event: Event, state: State, aws: Aws) -> Pending | Done:
    """Take a step of an event of the resource.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        aws: The AWS APIs.
    """
    if event.request_type == "Delete":
        return _delete(event, aws)
    properties = ImageProperties.read(event.properties)
    old = ImageProperties.read_known(event.old_properties) if event.old_properties else None
    if not state.image:
        reconciler = Reconciler(Images(event.owner, aws), elapsed=state.elapsed)
        if event.request_type == "Create":
            image = reconciler.create(properties)
        else:
            image = reconciler.update(event.physical_id, properties, old)
        attributes = _attributes(image, properties, event.owner)
        state = replace(state, image=image.id, attributes=attributes)
        # A rollback to an image that had already failed must succeed. Any other event must not.
        if not image.is_usable and (
            not event.timeout or aws.stacks.is_rolling_back(event.owner.stack_id)
        ):
            reason = f"{image.id} is {image.status} and cannot be replaced"
            return Done(Response(image.id, state.attributes, reason))
    if not event.timeout and not state.follow_up:
        follow_up = replace(state, attributes={}, follow_up=True)
        return Done(Response(state.image, state.attributes), follow_up)
    with failures_name(state.image):
        if state.failure:
            _delete_failed(event, state, properties, aws)
            raise ImageFailedError(state.failure)
        try:
            return _wait(event, state, properties, old).step(aws)
        except ImageFailedError as error:
            if state.follow_up or state.image == event.physical_id:
                raise
            # Kept in the state first: when the image is deleted, nobody knows why it failed.
            return Pending(replace(state, failure=str(error)), 1)


def _wait(
    event: Event, state: State, properties: ImageProperties, old: ImageProperties | None
) -> Wait:
    # A later event may change the tags while a follow-up polls, so that uses those of the image.
    tags = None if state.follow_up else properties.tags
    previous = tuple(old.tags) if old else ()
    return Wait(event, state, properties.vm_import_task_id, state.image, tags, previous)


def _delete_failed(event: Event, state: State, properties: ImageProperties, aws: Aws) -> None:
    """Delete the image whose import failed. CloudFormation does so too, but not in every case."""
    may_repeat = state.elapsed < event.retry_limit
    with tolerated(f"{state.image} is left behind", except_transient=may_repeat):
        Reconciler(Images(event.owner, aws)).delete(state.image, properties)


def _delete(event: Event, aws: Aws) -> Done:
    properties = ImageProperties.read_known(event.properties)
    stays = Reconciler(Images(event.owner, aws)).delete(event.physical_id, properties)
    # Without an image the AMI was not created for this resource.
    if properties and properties.delete_ami and IMAGE_BUILD_ARN.fullmatch(event.physical_id):
        stays = Amis(event.owner, aws).delete(properties.vm_import_task_id)
    return Done(Response(event.physical_id, reason="; ".join(stays)))


def _attributes(image: Image, properties: ImageProperties, owner: Owner) -> dict[str, str]:
    version_arn = image.id.rsplit("/", 1)[0]
    own_token = image.token or properties.lookup(owner).tokens[0]
    return {
        ImageAttribute.IMAGE_ARN: image.id,
        ImageAttribute.IMAGE_VERSION_ARN: version_arn,
        ImageAttribute.LATEST_IMAGE_ARN: f"{version_arn.rsplit('/', 1)[0]}/x.x.x",
        ImageAttribute.IMAGE_NAME: properties.name,
        ImageAttribute.IMAGE_VERSION: properties.semantic_version,
        ImageAttribute.CLIENT_TOKEN: properties.client_token or own_token,
        ImageAttribute.VM_IMPORT_TASK_ID: properties.vm_import_task_id,
        ImageAttribute.REQUEST_ID: image.request_id,
        ImageAttribute.IMPORT_FAILED: str(not image.is_usable).lower(),
    }


class Images(ResourceType[ImageProperties, Image]):
    """The images of one CloudFormation resource."""

    noun = "image"
    id_format = IMAGE_BUILD_ARN
    next_token_hint = "semantic_version"  # noqa: S105 - an argument

    def get(self, physical_id: str) -> Image | None:
        """Return an image by its ARN."""
        return self.aws.image_builder.get(physical_id)

    def find(self, lookup: Lookup) -> Sequence[Image]:
        """Return the builds that this resource imported under these tokens."""
        own = [
            image
            for image in self.aws.image_builder.builds(lookup.scope)
            if image.token in lookup.tokens and self.owner.owns(image.tags)
        ]
        return sorted(own, key=lambda image: image.build)

    def check(self, properties: ImageProperties) -> None:
        """Fail at once, with EC2's reason, where Image Builder would fail later without it."""
        task_id = properties.vm_import_task_id
        task = self.aws.ec2.task(task_id)
        if task is None:
            raise ImportTaskError(
                f"EC2 does not know the import task {task_id} in this account and Region. EC2 "
                f"knows a task for 7 days after its end. Hint: {ANOTHER_IMPORT}"
            )
        if not task.is_usable:
            message = (task.message or "EC2 gives no reason").rstrip(".")
            raise ImportTaskError(
                f"the import task {task_id} is {task.status}: {message}. "
                f"Hint: repair the disk image; {ANOTHER_IMPORT}"
            )

    def create(self, properties: ImageProperties, token: str) -> Image | None:
        """Import the image; None if AWS answers with an image that is gone.

        Raises:
            ImageFailedError: The import failed at once.
        """
        images = self.aws.image_builder
        arn, request_id = images.import_vm_image(properties.request(self.owner, token))
        image = read_until_found(lambda: images.get(arn), READS)
        if image is None:
            return None
        if not image.is_usable and image.tags.items() >= token_tag(token).items():
            reason = (image.reason or "Image Builder gives no reason").rstrip(".")
            raise ImageFailedError(f"{arn} is {image.status}: {reason}")
        return replace(image, request_id=request_id)

    def change_tags(
        self, existing: Image, changed: Mapping[str, str], removed: Sequence[str]
    ) -> None:
        """Change the tags of the image. Its AMI gets them when it is AVAILABLE."""
        if changed:
            self.aws.image_builder.tag(existing.id, changed)
        if removed:
            self.aws.image_builder.untag(existing.id, removed)

    def delete(self, existing: Image, properties: ImageProperties | None) -> Sequence[str]:
        """Delete the image; an import that has not ended is cancelled first."""
        is_retained = properties is not None and properties.is_retained
        if is_retained and existing.is_usable and existing.age > _OLDEST_CREATED_BY_UPDATE:
            logger.warning("%s existed before the stack operation and is retained", existing.id)
            return ()
        images = self.aws.image_builder
        if existing.is_running:
            images.cancel(existing.id)
            if not read_until_found(
                lambda: not ((image := images.get(existing.id)) and image.is_running),
                READS_WHILE_OTHERS_WORK,
            ):
                raise NotYetError(f"{existing.id} is still being cancelled. Hint: delete it again")
        images.delete(existing.id)
        return ()
