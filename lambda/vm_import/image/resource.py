"""Custom::ImportedVmImage: an image that Image Builder imports from EC2's import task."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from amis import Amis
from aws import Aws
from aws.deadline import LambdaContext
from aws.image_builder import Image
from cloudformation.event import Event
from cloudformation.step import Done, Pending, Response, State
from contract import IMAGE_BUILD_ARN, ImageAttribute
from errors import ANOTHER_IMPORT, ImageFailedError, ImportTaskError, VmImportError, failures_name
from identity import Lookup, Owner, token_tag
from image.properties import ImageProperties
from image.waiting import Wait
from reconciler import Reconciler

logger = logging.getLogger(__name__)

# How long a step may take, in seconds: a poll; what finds, creates or deletes images.
_POLL: Final = 10
_STEP: Final = 120
# How long deleting an image may take whose import failed: CloudFormation waits for the response.
_CLEAN_UP: Final = 60
# Reads may lag behind writes: attempts to read a new image.
_READS: Final = 4
# CloudFormation deletes a retained image only in a rollback, because the stack operation created
# it. An older image existed before, was retained before, and was found instead of created.
_OLDEST_CREATED_BY_UPDATE: Final = 24 * 3600


def step(event: Event, state: State, context: LambdaContext) -> Pending | Done:
    """Take a step of an event of the resource.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        context: The context of the invocation.
    """
    if event.request_type == "Delete":
        return _delete(event, Aws(context, _STEP))
    properties = ImageProperties.read(event.properties)
    old = ImageProperties.read_known(event.old_properties) if event.old_properties else None
    if not state.image:
        image = _create_or_update(event, properties, old, Aws(context, _STEP))
        state = replace(
            state, image=image.arn, attributes=_attributes(image, properties, event.owner)
        )
        if not image.is_usable and (event.timeout is None or _is_rollback(properties, old)):
            reason = f"{image.arn} is {image.status} and could not be imported again"
            return Done(Response(image.arn, state.attributes, reason))
    if event.timeout is None and not state.follow_up:
        follow_up = replace(state, attributes={}, follow_up=True)
        return Done(Response(state.image, state.attributes), follow_up)
    with failures_name(state.image):
        return _wait(event, state, properties, old, context)


def _create_or_update(
    event: Event, properties: ImageProperties, old: ImageProperties | None, aws: Aws
) -> Image:
    reconciler = Reconciler(event.owner, Images(event.owner, aws), aws.deadline)
    if event.request_type == "Create":
        return reconciler.create(properties)
    return reconciler.update(event.physical_id, properties, old)


def _is_rollback(properties: ImageProperties, old: ImageProperties | None) -> bool:
    """Return whether an event that ends with a failed image can only be a rollback.

    A failed image of another identity than before was in use before that.
    """
    return old is not None and old.identity != properties.identity


def _wait(
    event: Event,
    state: State,
    properties: ImageProperties,
    old: ImageProperties | None,
    context: LambdaContext,
) -> Pending | Done:
    wait = Wait(
        event,
        state,
        properties.vm_import_task_id,
        properties.tags,
        tuple(old.tags) if old else (),
    )
    try:
        progress = wait.step(Aws(context, _POLL))
        if isinstance(progress, Pending):
            return progress
        if state.follow_up:
            return Done(None)
        if progress.ami:
            data = {**state.attributes, ImageAttribute.IMAGE_ID: progress.ami}
            return Done(Response(state.image, data))
        if event.continues:
            return Done(Response(state.image, state.attributes, f"still importing: {progress}"))
        raise wait.timed_out(progress)
    except VmImportError as error:
        if state.follow_up:
            logger.warning("the import failed: %s", error)
            return Done(None)
        if state.image != event.physical_id:
            _delete_created(event, state.image, properties, context)
        raise


def _delete_created(
    event: Event, arn: str, properties: ImageProperties, context: LambdaContext
) -> None:
    """Delete the image whose import failed. CloudFormation does so too, but not in every case."""
    aws = Aws(context, _CLEAN_UP)
    try:
        Reconciler(event.owner, Images(event.owner, aws), aws.deadline).delete(arn, properties)
    except VmImportError as error:
        logger.warning("%s is left to CloudFormation's clean-up: %s", arn, error)


def _delete(event: Event, aws: Aws) -> Done:
    properties = ImageProperties.read_known(event.properties)
    images = Images(event.owner, aws)
    Reconciler(event.owner, images, aws.deadline).delete(event.physical_id, properties)
    stays: list[str] = []
    # Without an image the AMI was not created for this resource.
    if properties and properties.delete_ami and images.is_id(event.physical_id):
        stays = Amis(event.owner, aws).delete(properties.vm_import_task_id)
    return Done(Response(event.physical_id, reason="; ".join(stays)))


def _attributes(image: Image, properties: ImageProperties, owner: Owner) -> dict[str, str]:
    version_arn = image.arn.rsplit("/", 1)[0]
    token = image.token or properties.lookup(owner).tokens[0]
    return {
        ImageAttribute.IMAGE_ARN: image.arn,
        ImageAttribute.IMAGE_VERSION_ARN: version_arn,
        ImageAttribute.LATEST_IMAGE_ARN: f"{version_arn.rsplit('/', 1)[0]}/x.x.x",
        ImageAttribute.IMAGE_NAME: properties.name,
        ImageAttribute.IMAGE_VERSION: properties.semantic_version,
        ImageAttribute.CLIENT_TOKEN: properties.client_token or token,
        ImageAttribute.VM_IMPORT_TASK_ID: properties.vm_import_task_id,
        ImageAttribute.REQUEST_ID: image.request_id,
        ImageAttribute.IMPORT_FAILED: str(not image.is_usable).lower(),
    }


class Images:
    """The images of one CloudFormation resource, for the reconciler."""

    noun = "image"
    next_token_hint = "semantic_version"  # noqa: S105 - an argument

    def __init__(self, owner: Owner, aws: Aws) -> None:
        """Work for one resource.

        Args:
            owner: The CloudFormation resource.
            aws: The AWS APIs.
        """
        self._owner = owner
        self._aws = aws

    def is_id(self, physical_id: str) -> bool:
        """Return whether this is the ARN of an image."""
        return IMAGE_BUILD_ARN.fullmatch(physical_id) is not None

    def get(self, physical_id: str) -> Image | None:
        """Return an image by its ARN."""
        return self._aws.image_builder.get(physical_id)

    def find(self, lookup: Lookup) -> Sequence[Image]:
        """Return the builds that this resource imported under these tokens."""
        own = [
            image
            for image in self._aws.image_builder.builds(lookup.scope)
            if image.token in lookup.tokens and self._owner.owns(image.tags)
        ]
        return sorted(own, key=lambda image: image.build)

    def earlier_failures(self, physical_id: str, properties: ImageProperties) -> Sequence[Image]:
        """Return the failed builds that an image replaced. Later ones replaced the image."""
        build = int(physical_id.rsplit("/", 1)[1])
        found = self.find(properties.lookup(self._owner))
        return [image for image in found if not image.is_usable and image.build < build]

    def check(self, properties: ImageProperties) -> None:
        """Fail at once, with EC2's reason, where Image Builder would fail later without it."""
        task_id = properties.vm_import_task_id
        task = self._aws.ec2.task(task_id)
        if task is None:
            raise ImportTaskError(
                f"EC2 does not know the import task {task_id} in this account and Region. EC2 "
                f"knows a task for 7 days after its end. Hint: {ANOTHER_IMPORT}"
            )
        if task.is_failed:
            message = (task.message or "EC2 gives no reason").rstrip(".")
            raise ImportTaskError(
                f"the import task {task_id} is {task.status}: {message}. "
                f"Hint: repair the disk image; {ANOTHER_IMPORT}"
            )

    def create(self, properties: ImageProperties, token: str) -> Image | None:
        """Import the image.

        Returns:
            The image; None if AWS answered with an image that is gone.

        Raises:
            ImageFailedError: The import failed at once.
        """
        images = self._aws.image_builder
        arn, request_id = images.import_vm_image(properties.request(self._owner, token))
        image = self._aws.deadline.until_found(arn, _READS, lambda: images.get(arn))
        if image is None:
            return None
        if not image.is_usable and image.tags.items() >= token_tag(token).items():
            reason = (image.reason or "Image Builder gives no reason").rstrip(".")
            raise ImageFailedError(f"{arn} is {image.status}: {reason}")
        return replace(image, request_id=request_id)

    def tag(
        self, resource: Image, properties: ImageProperties, previous: Mapping[str, str]
    ) -> None:
        """Apply the template's tags to the image."""
        token = resource.token or properties.lookup(self._owner).tokens[0]
        expected = {**properties.tags, **self._owner.tags, **token_tag(token)}
        changed = {k: v for k, v in expected.items() if resource.tags.get(k) != v}
        # What was read may be older than the change that this one reverts.
        changed |= dict(properties.tags.items() - previous.items())
        if changed:
            self._aws.image_builder.tag(resource.arn, changed)
        if removed := sorted(set(previous) - set(expected)):
            self._aws.image_builder.untag(resource.arn, removed)

    def delete(self, resource: Image, properties: ImageProperties | None) -> Sequence[str]:
        """Delete the image; an import that has not ended is cancelled first."""
        if (
            properties
            and properties.is_retained
            and resource.is_usable
            and resource.age > _OLDEST_CREATED_BY_UPDATE
        ):
            logger.warning("%s existed before the stack operation and is retained", resource.arn)
            return []
        images = self._aws.image_builder
        if resource.is_running:
            images.cancel(resource)
        for _ in self._aws.deadline.attempts(f"{resource.arn} to be cancelled"):
            current = images.get(resource.arn)
            if current is None:
                break
            if not current.is_running:
                images.delete(current)
                break
        return []
