"""Custom::ImportedVmImage: an image that Image Builder imports from EC2's import task."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from amis import Amis
from aws import Aws
from aws.image_builder import Image
from aws.session import LAG, READS, READS_WHILE_OTHERS_WORK, read_until_found
from cloudformation import executions
from cloudformation.event import Event, seconds_of
from cloudformation.step import Done, Pending, Response, State
from contract import IMAGE_BUILD_ARN, ImageAttribute, OwnTag
from errors import (
    ANOTHER_IMPORT,
    REPAIR,
    AwsError,
    ImageFailedError,
    ImportTaskError,
    NotListedError,
    NotYetError,
    Reason,
    failures_name,
    tolerated,
)
from identity import Lookup, Owner, Placeholder
from image.properties import ImageProperties
from image.waiting import Wait
from reconciler import Reconciler, ResourceType

# How long a stack operation takes at most, in seconds.
_LONGEST_OPERATION: Final = 24 * 3600
# For how many seconds the steps of an event are repeated until Step Functions stops an execution.
_STOP_LIMIT: Final = 60


def step(event: Event, state: State, aws: Aws) -> Pending | Done:
    """Take a step of an event of the resource.

    Args:
        event: CloudFormation's event.
        state: What is known from the steps before.
        aws: The AWS APIs.
    """
    if event.request_type == "Delete":
        return _delete(event, state, aws)
    properties = ImageProperties.read(event.properties)
    old = ImageProperties.read_known(event.old_properties) if event.old_properties else None
    if not state.image:
        images = Images(event, state, aws)
        reconciler = Reconciler(images)
        if event.request_type == "Create":
            image = reconciler.create(properties)
        else:
            image = reconciler.update(properties, old)
        attributes = _attributes(image, properties, event.owner)
        state = replace(state, image=image.id, attributes=attributes, waited=image.is_running)
        if image.is_running and image.record.created_by:
            # From here on this event waits for the import, or follows it.
            images.stop_follow_ups(image)
        # A rollback to an image that had already failed must succeed. Any other event must not.
        if not image.is_usable and (
            not event.timeout or ((stack := images.stack()) and stack.is_rolling_back)
        ):
            reason = Reason(f"{image.id} is {image.status} and cannot be replaced")
            # What refers to the AMI must not fail the rollback either.
            no_ami: dict[str, str] = {ImageAttribute.IMAGE_ID: ""} if event.timeout else {}
            return Done(Response(image.id, {**state.attributes, **no_ami}, reason))
    if not event.timeout and not state.follow_up:
        follow_up = replace(state, attributes={}, follow_up=True)
        return Done(Response(state.image, state.attributes), follow_up)
    is_known = state.image == event.physical_id
    # A later event may adopt the image before CloudFormation deletes what this one created.
    placeholder = properties.lookup(event.owner).placeholder(event.id)
    with failures_name(state.image if is_known else placeholder):
        if state.import_failure:
            _delete_failed(event, state, properties, aws)
            raise ImageFailedError.because(state.reason)
        try:
            return _wait(event, state, properties, old).step(aws)
        except ImageFailedError as error:
            if state.follow_up or is_known:
                raise
            # Kept in the state first: when the image is deleted, nobody knows why it failed.
            reason = error.reason
            failed = replace(state, import_failure=reason.cause, hint=reason.hint, ids=reason.ids)
            return Pending(failed, 1)


def _wait(
    event: Event, state: State, properties: ImageProperties, old: ImageProperties | None
) -> Wait:
    # A later event may change the tags while a follow-up polls, so that uses those of the image.
    tags = None if state.follow_up else properties.tags
    previous = tuple(old.tags) if old else ()
    return Wait(event, state, properties.vm_import_task_id, state.image, tags, previous)


def _delete_failed(event: Event, state: State, properties: ImageProperties, aws: Aws) -> None:
    """Delete the image whose import failed. CloudFormation does so too, but not in every case."""
    images = Images(event, state, aws)
    with tolerated(f"{state.image} is left behind", unless=images.repeats):
        if image := read_until_found(lambda: images.get(state.image), READS):
            Reconciler(images).delete_existing(image, properties)


def _delete(event: Event, state: State, aws: Aws) -> Pending | Done:
    properties, images = ImageProperties.read_known(event.properties), Images(event, state, aws)
    # Without an image the AMI was not created for this resource.
    is_image = IMAGE_BUILD_ARN.fullmatch(event.physical_id)
    deletes_ami = properties and properties.delete_ami and is_image
    if deletes_ami and not state.attributes:
        # Kept in the state first: when the image is deleted, Image Builder no longer names its AMI.
        image = read_until_found(lambda: images.get(event.physical_id), READS)
        ami_id = image.ami if image else ""
        return Pending(replace(state, attributes={ImageAttribute.IMAGE_ID: ami_id}), 1)
    stays = Reconciler(images).delete(properties)
    if properties and deletes_ami:
        ami_id = state.attributes.get(ImageAttribute.IMAGE_ID, "")
        stays += Amis(event.owner, aws).delete(
            properties.vm_import_task_id, repeats=images.repeats, ami_id=ami_id
        )
    return Done(Response(event.physical_id, reason=Reason("; ".join(stays))))


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
        ImageAttribute.REQUEST_ID: image.record.request_id or image.request_id,
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
        task = self.aws.ec2.known_task(task_id)
        if task is None:
            raise ImportTaskError(
                f"EC2 does not know the import task {task_id} in this account and Region",
                f"EC2 knows a task for 7 days after its end; {ANOTHER_IMPORT}",
            )
        if not task.is_usable:
            raise ImportTaskError(
                f"VM import failed: {task.message or 'EC2 gives no reason'}",
                REPAIR,
                [f"import task {task_id}"],
            )

    def create(self, properties: ImageProperties, token: str) -> Image | None:
        """Import the image; None if AWS answers with an image that is gone.

        Raises:
            ImageFailedError: The import failed at once.
        """
        images = self.aws.image_builder
        arn, request_id = images.import_vm_image(properties.request(self.owner, token))
        image = read_until_found(lambda: images.get(arn) or images.listed(arn), READS)
        if image is None:
            # The answer may be that of an import whose image is gone. But another token makes a
            # second image, so time must have shown that Image Builder does not only list it late.
            not_listed = NotListedError(f"Image Builder does not list {arn}")
            if self.state.may_pass(not_listed):
                raise not_listed
            return None
        if not image.is_usable and image.token == token:
            raise ImageFailedError(
                f"VM import failed: {image.reason or 'Image Builder gives no reason'}",
                ids=[f"image {arn} is {image.status}"],
            )
        return replace(image, request_id=request_id)

    def tag(self, existing: Image, tags: Mapping[str, str]) -> None:
        """Add tags of the image. Its AMI gets them when the image is AVAILABLE."""
        self.aws.image_builder.tag(existing.id, tags)

    def untag(self, existing: Image, keys: Sequence[str]) -> None:
        """Remove tags of the image."""
        self.aws.image_builder.untag(existing.id, keys)

    def delete(self, existing: Image, properties: ImageProperties | None) -> Sequence[str]:
        """Delete the image; an import that has not ended is cancelled first."""
        if properties and properties.is_retained and self._was_retained(existing):
            return [f"{existing.id} is retained: it existed before the stack operation"]
        if existing.is_running:
            self.stop_follow_ups(existing)
            with tolerated("the import is not cancelled", unless=self.repeats):
                self.aws.image_builder.cancel(existing)
            if not read_until_found(
                lambda: not self._is_running(existing), READS_WHILE_OTHERS_WORK
            ):
                # After a timeout, the next deployment uses the task.
                if properties and not self.state.import_failure:
                    self._cancel_task(properties.vm_import_task_id, existing)
                raise NotYetError(
                    "the import is still being cancelled",
                    "delete the image again",
                    [f"image {existing.id}"],
                )
        try:
            self.aws.image_builder.delete(existing.id)
        except AwsError as error:
            # One read may have missed the image while it was being cancelled.
            if error.is_in_use and self._is_running(existing):
                raise NotYetError.because(error.reason) from error
            raise
        is_found = self.event.physical_id != existing.id
        if properties and properties.delete_ami and existing.ami and is_found:
            # The next deployment may import another image from the same task.
            return [f"{existing.ami} is retained: the deployment of its image failed"]
        return ()

    def stop_follow_ups(self, existing: Image) -> None:
        """Stop what follows the import for earlier events: an import has at most one outcome."""
        with tolerated(
            "the log may have another outcome of the import",
            unless=lambda error: self.state.may_pass(error, _STOP_LIMIT),
        ):
            executions.stop_follow_ups(self.event, existing.id)

    def _is_running(self, existing: Image) -> bool:
        image = self.get(existing.id)
        return image is not None and image.is_running

    def _was_retained(self, existing: Image) -> bool:
        """Return whether the image was retained before the stack operation.

        In a rollback, CloudFormation deletes an image that the stack operation adopted, as if it
        had created it. Or the policy has changed, and then the image is to be deleted.
        """
        if self.event.request_type == "Delete":
            # What was read may be older than the record of the event that adopted the image.
            time.sleep(LAG)
            existing = self.get(existing.id) or existing
        record = existing.record
        used = seconds_of(record.belongs_to)
        if not existing.is_usable or used is None:
            return False
        if not record.adopted_by and time.time() - used < _LONGEST_OPERATION:
            begun = self._operation_begun()
            return begun is not None and used < begun
        if self.event.physical_id == existing.id:
            stack = self.stack()
            return stack is None or stack.is_rolling_back
        placeholder = Placeholder.read(self.event.physical_id)
        return not (placeholder and placeholder.event_id == record.created_by)

    def _operation_begun(self) -> float | None:
        """Return when the stack operation at the latest began that CloudFormation rolls back.

        Its first event for the resource tells, or the last one before it.
        """
        known = self.event.physical_id
        is_image = IMAGE_BUILD_ARN.fullmatch(known)
        if self.event.request_type == "Update" and is_image:
            # What it undoes was sent after the event that the image to return to belongs to.
            image = self.get(known)
            belongs_to = image.record.belongs_to if image else ""
            return seconds_of(belongs_to) if belongs_to != self.event.id else None
        if self.event.request_type == "Delete" and not (is_image or Placeholder.read(known)):
            with tolerated("when the stack operation began is not known", unless=self.repeats):
                return executions.last_before(self.event, self.state.started)
        return None

    def _cancel_task(self, task_id: str, existing: Image) -> None:
        """Cancel the stack's own import task, where Image Builder cannot cancel the import."""
        amis, task = Amis(self.owner, self.aws), self.aws.ec2.task(task_id)
        if not (task and task.is_active and task.tags.get(OwnTag.STACK) == self.owner.stack_id):
            return
        if all(image.id == existing.id for image in amis.images_imported_from(task)):
            with tolerated("the import task is not cancelled", unless=self.repeats):
                self.aws.ec2.cancel(task_id)
