"""Custom::ImportedVmImage: what CloudFormation asks of it, done and answered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from cfn_resource import NotYetError
from deadline import Deadline
from errors import ImageFailedError, PropertyError, VmImportError
from image_builder import ImageBuilder
from image_properties import ImageProperties, Owner, is_image_arn
from import_tasks import ImportTasks
from imported_amis import ImportedAmis
from lifecycle import Lifecycle
from progress import Look, is_transient, look, report
from wait_condition import signal_failure, signal_success
from waiting import KEY, LONGEST_SIGNAL, Waiting, delete_limit, import_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfn_resource import CfnResource
    from deadline import LambdaContext
    from lifecycle import ImportedImage

logger = logging.getLogger(__name__)

# How long, in seconds, one call waits for itself when the state machine can call again: for a
# deletion; and for the end of an import that is given up.
_FOR_A_STEP: Final = 10
_FOR_THE_CLEAN_UP: Final = 60


class ImportedVmImage:
    """An event of the resource, or a step of its wait."""

    def __init__(
        self, event: Mapping[str, Any], context: LambdaContext, answer: CfnResource
    ) -> None:
        """Take an event.

        Args:
            event: CloudFormation's, with the state of the wait, if there is one.
            context: Of the invocation.
            answer: Takes physical id and attributes, and the reason of a success with a remark.
        """
        self._event = event
        self._properties: Mapping[str, Any] = event["ResourceProperties"]
        self._old: Mapping[str, Any] = event.get("OldResourceProperties", {})
        self._waiting: Waiting | None = event[KEY]
        self._owner = Owner(event["StackId"], event["LogicalResourceId"])
        self._context = context
        self._answer = answer

    def create(self) -> str:
        """Import the image, or find the one that an earlier delivery of this event imported."""
        wanted = ImageProperties.parse(self._properties)
        return self._answer_with(lambda: self._lifecycle().create(wanted))

    def update(self) -> str:
        """Change tags in place, or import another image."""
        wanted = ImageProperties.parse(self._properties)
        old = _parse_known(self._old)

        def imported() -> ImportedImage:
            lifecycle = self._lifecycle()
            if (
                old
                and old.identity != wanted.identity
                and self._handle_is_used
                and not lifecycle.is_there(wanted)
            ):
                raise PropertyError(
                    "the image changes by what is known at deploy time only, such as a parameter, "
                    "and CloudFormation would not wait for the new one: a wait condition cannot be "
                    "used twice. Hint: write the new value into the app, or give a timeout of at "
                    "most an hour"
                )
            return lifecycle.update(self._event["PhysicalResourceId"], wanted, old)

        return self._answer_with(imported)

    def delete(self) -> str:
        """Remove the image; one that is gone, or never was, is removed."""
        physical_id: str = self._event["PhysicalResourceId"]
        properties = _parse_known(self._properties)
        waiting = self._waiting
        # An id that is no image's takes longer: a call for an earlier event may still import.
        step = _FOR_A_STEP if is_image_arn(physical_id) else _FOR_THE_CLEAN_UP
        lifecycle = self._lifecycle(step if waiting else None)
        try:
            lifecycle.delete(physical_id, properties)
        except VmImportError as error:
            if waiting and is_transient(error) and waiting.wait_until(self._limit(delete_limit)):
                logger.info({"the deletion": "goes on", "since": str(error)})
                raise NotYetError from error
            raise
        # What was made of no image is not this resource's to delete.
        if properties and properties.delete_ami and is_image_arn(physical_id):
            self._answer.Reason = "; ".join(self._amis().remove(properties.vm_import_task_id))
        return physical_id

    def go_on(self) -> None:
        """Look at the image after the answer; tell the wait condition, if one waits, of the end."""
        try:
            ami = self._look()
        except NotYetError:
            return
        except VmImportError as error:
            logger.warning("the import failed: %s", error)
            self._signal(signal_failure, str(error))
        except Exception as error:
            logger.exception("the wait failed")
            self._signal(signal_failure, repr(error))
        else:
            self._signal(signal_success, ami)

    def _signal(self, signal: Callable[[str, str], None], what: str) -> None:
        handle = self._properties.get("WaitHandle")
        if handle and not self._handle_is_used:
            signal(handle, what)

    def _answer_with(self, imported: Callable[[], ImportedImage]) -> str:
        """Answer with the image: at once, or once it is AVAILABLE, if that is to be waited for."""
        waiting = self._waiting
        if waiting is None:
            image = imported()
            self._answer.Data.update(image.attributes)
            self._tag_amis()
            return image.arn
        if not waiting.image:
            image = imported()
            waiting.image, waiting.attributes = image.arn, dict(image.attributes)
        self._answer.PhysicalResourceId = waiting.image
        self._answer.Data.update(waiting.attributes)
        if not self._answer_waits:
            # Somebody still has to tag the AMI, and maybe to signal.
            waiting.answered = True
            waiting.wait_until(self._limit(import_limit))
            return waiting.image
        try:
            self._answer.Data["ImageId"] = self._look()
        except VmImportError:
            if waiting.image != self._event.get("PhysicalResourceId"):
                self._remove_newcomer(waiting.image)
            raise
        return waiting.image

    def _look(self) -> str:
        """The AMI of the image, once it is AVAILABLE, and the AMI tagged.

        Raises:
            NotYetError: It is not, and the next pause is set.
            ImageFailedError: It will not be, or not in time.
        """
        waiting: Waiting = self._event[KEY]
        task_id = self._properties["VmImportTaskId"]
        aws = self._image_builder(_FOR_A_STEP)
        seen: Look | None = None
        outcome = "failed"
        try:
            seen = look(aws, waiting.image, task_id)
            is_done = bool(seen.ami) and self._tag_amis()
            if not is_done and waiting.wait_until(self._limit(import_limit)):
                outcome = "waiting"
                raise NotYetError
            if seen.ami:
                outcome = "available"
                return seen.ami
            outcome = "timeout"
            raise ImageFailedError(
                f"{waiting.image} was not AVAILABLE after {waiting.elapsed / 60:.0f} minutes: "
                f"{seen}. Hint: EC2's import goes on, and the next deployment takes it up; give "
                "the image a longer timeout, up to 12 hours, or wait_for_available=False"
            )
        finally:
            report(self._owner, task_id, waiting, seen, outcome)

    def _remove_newcomer(self, arn: str) -> None:
        """Remove what failed. CloudFormation does so too, but not in each of its ways to fail."""
        try:
            properties = _parse_known(self._properties)
            self._lifecycle(_FOR_THE_CLEAN_UP).delete(arn, properties)
        except VmImportError as error:
            logger.warning("%s is left to CloudFormation's clean-up: %s", arn, error)

    def _tag_amis(self) -> bool:
        """Tag what the import left in EC2, if it is over. The image is there without that too.

        Returns:
            False if it may work later.
        """
        properties = ImageProperties.parse(self._properties)
        before = self._old.get("Tags") or {}
        try:
            self._amis(_FOR_A_STEP if self._waiting else None).tag(
                properties.vm_import_task_id, properties.tags, before
            )
        except VmImportError as error:
            logger.warning("the AMI is not tagged: %s", error)
            return not is_transient(error)
        return True

    @property
    def _answer_waits(self) -> bool:
        """Whether CloudFormation is answered when the image is AVAILABLE, and not before."""
        return "TimeoutSeconds" in self._properties and "WaitHandle" not in self._properties

    @property
    def _handle_is_used(self) -> bool:
        """Whether the wait condition was there before this update, and so will not wait again."""
        handle = self._properties.get("WaitHandle")
        return handle is not None and handle == self._old.get("WaitHandle")

    def _limit(self, limit: Callable[..., float]) -> float:
        timeout = float(self._properties.get("TimeoutSeconds", LONGEST_SIGNAL))
        return limit(timeout, after_answer=not self._answer_waits)

    def _lifecycle(self, at_most: float | None = None) -> Lifecycle:
        return Lifecycle(
            owner=self._owner,
            image_builder=self._image_builder(at_most),
            deadline=Deadline(self._context, at_most),
            answer_with=self._answer.keep_physical_id,
        )

    def _amis(self, at_most: float | None = None) -> ImportedAmis:
        tasks = ImportTasks(Deadline(self._context, at_most))
        return ImportedAmis(self._owner, tasks, self._image_builder(at_most))

    def _image_builder(self, at_most: float | None = None) -> ImageBuilder:
        return ImageBuilder(self._context.invoked_function_arn, Deadline(self._context, at_most))


def _parse_known(properties: Mapping[str, Any]) -> ImageProperties | None:
    try:
        return ImageProperties.parse(properties)
    except PropertyError as error:
        # Nothing was ever imported with them.
        logger.info({"not properties of an image": str(error)})
        return None
