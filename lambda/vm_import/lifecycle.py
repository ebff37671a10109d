"""Create, update and delete an imported image: the decisions, in terms of the AWS calls."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from errors import (
    ANOTHER_IMPORT,
    TOKEN_USED_OTHERWISE,
    AwsError,
    ClientTokenError,
    ImageFailedError,
    ImportTaskError,
    OutOfTimeError,
    VmImportError,
)
from image_properties import TOKEN_TAG, Sought, is_image_arn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from deadline import Deadline
    from image_builder import Image, ImageBuilder
    from image_properties import ImageProperties, Owner

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How often an image that was just imported, or is just not listed, is looked for: about 5 s.
_LOOKS: Final = 4
# How often one is looked for that another event may be making right now: 30 to 60 s, longer than
# a Create takes that finds four tokens burnt.
_LOOKS_FOR_OTHERS: Final = 8
# CloudFormation deletes a retained image only in a rollback, as a newcomer. An older one is no
# newcomer, whatever CloudFormation says: it was retained before, and found instead of imported.
_OLDEST_NEWCOMER: Final = 24 * 3600


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

    def is_there(self, properties: ImageProperties) -> bool:
        """Whether the image that the properties describe exists, so that none is imported."""
        sought = Sought.by_properties(properties, self._owner)
        return any(not image.is_dead for image in self._own(sought))

    def update(
        self, physical_id: str, properties: ImageProperties, old: ImageProperties | None
    ) -> ImportedImage:
        """Change tags in place; for another identity, return another image.

        The image in use is never deleted here: CloudFormation does that in its clean-up.
        """
        if old and old.identity == properties.identity:
            image = self._aws.get(physical_id) if is_image_arn(physical_id) else None
            if image and not image.is_dead and not self._is_of_another(image):
                self._change_tags(image, properties, old.tags)
                return self._result(image, properties)
            return self._ensure(properties, physical_id, old.tags)
        result = self._ensure(
            properties, physical_id, old.tags if old else None, properties.placeholder(self._owner)
        )
        if old and physical_id in {result.arn, old.placeholder(self._owner)}:
            self._sweep_untaken(old)
        return result

    def delete(self, physical_id: str, properties: ImageProperties | None) -> None:
        """Remove the image, and what earlier generations of it left; none is success.

        Args:
            physical_id: An image's ARN; or a placeholder; or, when CloudFormation gave up a
                Create in flight, an id that CloudFormation invented. Then the properties tell.
            properties: None if they are of no known form, so that no import was made with them.
        """
        doomed: list[Image] = []
        # What was made a moment ago may not be seen yet: one look is not enough to say that there
        # is none.
        if is_image_arn(physical_id):
            image = self._look(_LOOKS, lambda: self._aws.get(physical_id))
            if image and self._is_own(image):
                doomed.append(image)
            elif image:
                logger.warning("%s does not carry this resource's tags and is left", physical_id)
            # A later generation took this image's place, and stays.
            build = int(physical_id.rsplit("/", 1)[1])
            others = self._own_by_properties(properties) if properties else []
            doomed += [other for other in others if other.is_dead and other.build < build]
        elif sought := Sought.by_placeholder(physical_id):
            doomed += self._look_for_own(_LOOKS, sought)
        elif properties:
            sought = Sought.by_properties(properties, self._owner)
            doomed += self._look_for_own(_LOOKS_FOR_OTHERS, sought)
        for image in doomed:
            if _is_kept(image, properties):
                logger.warning("%s was there before the stack operation and is left", image.arn)
            else:
                self._remove(image)

    def _ensure(
        self,
        properties: ImageProperties,
        physical_id: str = "",
        tags_before: Mapping[str, str] | None = None,
        failed_id: str | None = None,
    ) -> ImportedImage:
        """Return the image that the properties describe; import it if none is alive.

        Of this identity only that image is left, and the one that CloudFormation knows.

        Args:
            properties: What the template says now.
            physical_id: What CloudFormation knows the resource by, and cleans up itself.
            tags_before: The tags that the template named before, if there was a before.
            failed_id: The id to answer with if it fails once an import may have been made.
        """
        sought = Sought.by_properties(properties, self._owner)
        own = self._own(sought)
        doomed = [image for image in own if image.is_dead and image.arn != physical_id]
        before = properties.tags if tags_before is None else tags_before
        try:
            if image := next((image for image in own if not image.is_dead), None):
                self._change_tags(image, properties, before)
            else:
                self._check_import_task(properties.vm_import_task_id)
                if failed_id:
                    self._answer_with(failed_id)
                burnt = {image.token for image in own}
                image = self._make(properties, sought, burnt, doomed)
                if image.tags != properties.request(self._owner, image.token)["tags"]:
                    # It was there already, with other tags, and not listed yet.
                    self._change_tags(image, properties, before)
        except ImportTaskError:
            if not (physical_id and own):
                raise
            # A rollback to what was dead before must not hang the stack.
            image = max(own, key=lambda image: (image.arn == physical_id, image.build))
            logger.warning(
                "%s is %s and stays: no import can take its place", image.arn, image.status
            )
            doomed = [other for other in doomed if other != image]
        finally:
            self._sweep(doomed)
        return self._result(image, properties)

    def _make(
        self, properties: ImageProperties, sought: Sought, burnt: set[str], doomed: list[Image]
    ) -> Image:
        """Import under the first token that is not burnt; what fails is doomed."""
        for token in sought.tokens[: 1 if properties.client_token else None]:
            if token not in burnt and (new := self._import(properties, token)):
                if not new.is_dead:
                    return new
                doomed.append(new)
                raise ImageFailedError(
                    f"{new.arn} is {new.status}: {new.reason or 'Image Builder gives no reason'}"
                )
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

    def _own_by_properties(self, properties: ImageProperties) -> list[Image]:
        return self._own(Sought.by_properties(properties, self._owner))

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
                f"forgets a task 7 days after its end. Hint: {ANOTHER_IMPORT}"
            )
        if task.status in {"deleting", "deleted"}:
            raise ImportTaskError(
                f"the import task {task_id} is {task.status}: "
                f"{task.message or 'EC2 gives no reason'}. Hint: mend the disk image; "
                f"{ANOTHER_IMPORT}"
            )

    def _import(self, properties: ImageProperties, token: str) -> Image | None:
        """Import under a token; None if the token is burnt: its image is gone."""
        arn = ""
        try:
            arn, request_id = self._aws.import_vm_image(properties.request(self._owner, token))
            image = self._look(_LOOKS, lambda: self._aws.get(arn))
        except AwsError as error:
            # A fault may hide a success. And to a token that was used with other tags AWS answers
            # with an error, but the image that it made may live.
            mismatch = error.code in TOKEN_USED_OTHERWISE
            looks = _LOOKS if arn or mismatch or error.is_transient else 1
            own = self._look(looks, lambda: self._alive(properties, token))
            if own or (mismatch and not properties.client_token):
                return own
            raise
        if image and (self._is_of_another(image) or image.token not in {"", token}):
            if properties.client_token:
                raise ClientTokenError(
                    f"AWS answered client token {properties.client_token!r} with {arn}, which "
                    "belongs to another resource or has other properties. Hint: leave "
                    "client_token out, or give each image its own"
                )
            return None
        return image and replace(image, request_id=request_id)

    def _alive(self, properties: ImageProperties, token: str) -> Image | None:
        own = self._own_by_properties(properties)
        return next((i for i in own if i.token == token and not i.is_dead), None)

    def _look(self, looks: int, look: Callable[[], T | None]) -> T | None:
        """Look so many times, as time permits: others write too, and reads lag behind writes."""
        found = None
        try:
            for attempt, _ in enumerate(self._deadline.pauses("Image Builder's answers"), 1):
                if (found := look()) or attempt == looks:
                    break
        except OutOfTimeError:
            if found is None:
                raise
        return found

    def _look_for_own(self, looks: int, sought: Sought) -> list[Image]:
        """Look for images of this resource, again as long as none that is alive is seen."""
        seen: list[Image] = []

        def is_alive() -> bool:
            seen[:] = self._own(sought)
            return any(not image.is_dead for image in seen)

        self._look(looks, is_alive)
        return seen

    def _change_tags(
        self, image: Image, properties: ImageProperties, before: Mapping[str, str]
    ) -> None:
        """Give the image its tags. Tags that the template never named are left alone."""
        token = image.token or properties.tokens(self._owner)[0]
        wanted = {**properties.tags, **self._owner.tags, TOKEN_TAG: token}
        changed = {key: value for key, value in wanted.items() if image.tags.get(key) != value}
        # What is seen may be older than the change that this one takes back.
        changed |= dict(properties.tags.items() - before.items())
        if changed:
            self._aws.tag(image.arn, changed)
        if dropped := sorted(set(before) - set(wanted)):
            self._aws.untag(image.arn, dropped)

    def _sweep_untaken(self, old: ImageProperties) -> None:
        """Remove the images of properties that CloudFormation goes back from, and never took to.

        The update that made them failed or never answered, and maybe still runs.
        """
        try:
            sought = Sought.by_properties(old, self._owner)
            images = self._look_for_own(_LOOKS_FOR_OTHERS, sought)
        except VmImportError as error:
            logger.warning("not known what the update left behind: %s", error)
        else:
            self._sweep(image for image in images if not _is_kept(image, old))

    def _sweep(self, images: Iterable[Image]) -> None:
        """Remove what is of no use, as far as it goes: the event is about something else."""
        for image in images:
            try:
                self._remove(image)
            except VmImportError as error:
                logger.warning("%s is left behind: %s", image.arn, error)

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
                "ClientToken": (
                    properties.client_token or image.token or properties.tokens(self._owner)[0]
                ),
                "VmImportTaskId": properties.vm_import_task_id,
                "RequestId": image.request_id,
            },
        )


def _is_kept(image: Image, properties: ImageProperties | None) -> bool:
    """Whether CloudFormation retained the image before, and asks for its end by mistake."""
    retained = properties is not None and properties.retained
    return retained and not image.is_dead and image.age > _OLDEST_NEWCOMER
