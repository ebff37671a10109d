"""The Lambda function's entry: CloudFormation's events to the lifecycle of images."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cfn_resource import CfnResource, NotYetError
from deadline import Deadline
from errors import AwsError, ImageFailedError, PropertyError, VmImportError
from image_builder import ImageBuilder
from image_properties import ImageProperties, Owner, is_image_arn
from import_task_lifecycle import ImportTaskLifecycle
from import_task_properties import RESOURCE_TYPE, ImportTaskProperties
from import_tasks import ImportTasks
from imported_amis import ImportedAmis
from lifecycle import Lifecycle
from progress import Look, is_transient, look, report
from state_machine import end_earlier, hand_over
from wait_condition import signal_failure, signal_success
from waiting import KEY, Waiting, delete_limit, import_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from deadline import LambdaContext
    from lifecycle import ImportedImage

    Event = Mapping[str, Any]
    Handle = Callable[[Event, LambdaContext], str]

T = TypeVar("T")

logger = logging.getLogger(__name__)
cfn_resource = CfnResource()

# How long one call waits for itself, in seconds, when the state machine can call again: for the
# state machine to take the event; for a deletion; and for the end of an import that is given up.
_FOR_THE_HAND_OVER: Final = 60
_FOR_A_STEP: Final = 10
_FOR_THE_CLEAN_UP: Final = 60


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    """Handle an event of Custom::ImportedVmImage or Custom::VmImportTask, or a step of a wait.

    Args:
        event: CloudFormation's event. When the state machine calls, the state of the wait is in
            it.
        context: Of the invocation.

    Returns:
        To the state machine, the event with the state of the wait for the next step.
    """
    waiting = Waiting.resume(event[KEY]) if KEY in event else None
    if waiting and waiting.answered:
        _signal(event, context, waiting)
    else:
        cfn_resource({**event, KEY: waiting}, context)
    return {**event, KEY: waiting.state()} if waiting else None


def _by_the_waiter(handle: Handle) -> Handle:
    """Leave an event to the state machine, if the resource has one."""

    @functools.wraps(handle)
    def handle_or_hand_over(event: Event, context: LambdaContext) -> str:
        state_machine = event["ResourceProperties"].get("Waiter")
        waiting: Waiting | None = event[KEY]
        if waiting and not waiting.waited and event["RequestType"] != "Create":
            end_earlier(event, state_machine)
        if state_machine and waiting is None:
            try:
                hand_over(event, state_machine, Deadline(context, _FOR_THE_HAND_OVER))
            except AwsError as error:
                # An update that waits for nothing any more removes the state machine, and then
                # the old image: there is still the function's own time for that.
                if event["RequestType"] != "Delete":
                    raise
                logger.warning("done without the state machine: %s", error)
            else:
                raise NotYetError
        return handle(event, context)

    return handle_or_hand_over


@cfn_resource.create
@_by_the_waiter
def create(event: Event, context: LambdaContext) -> str:
    """Import the image, or find the one that an earlier delivery of this event imported."""
    if event["ResourceType"] == RESOURCE_TYPE:
        wanted = ImportTaskProperties.parse(event["ResourceProperties"])
        return _answer_task(_task_lifecycle(event, context).create(wanted))
    properties = ImageProperties.parse(event["ResourceProperties"])
    return _wait_for(event, context, lambda: _lifecycle(event, context).create(properties))


@cfn_resource.update
@_by_the_waiter
def update(event: Event, context: LambdaContext) -> str:
    """Change tags in place, or import another image."""
    physical_id = event["PhysicalResourceId"]
    if event["ResourceType"] == RESOURCE_TYPE:
        wanted = ImportTaskProperties.parse(event["ResourceProperties"])
        before = _parse_leniently(ImportTaskProperties.parse, event["OldResourceProperties"])
        return _answer_task(_task_lifecycle(event, context).update(physical_id, wanted, before))
    properties = ImageProperties.parse(event["ResourceProperties"])
    old = _parse_leniently(ImageProperties.parse, event["OldResourceProperties"])

    def imported() -> ImportedImage:
        lifecycle = _lifecycle(event, context)
        if (
            old
            and old.identity != properties.identity
            and _handle_is_used(event)
            and not lifecycle.is_there(properties)
        ):
            raise PropertyError(
                "the image changes by what is known at deploy time only, such as a parameter, and "
                "CloudFormation would not wait for the new one: a wait condition cannot be used "
                "twice. Hint: write the new value into the app, or give a timeout of at most an "
                "hour"
            )
        return lifecycle.update(physical_id, properties, old)

    return _wait_for(event, context, imported)


@cfn_resource.delete
@_by_the_waiter
def delete(event: Event, context: LambdaContext) -> str:
    """Remove the image; one that is gone, or never was, is removed."""
    physical_id: str = event["PhysicalResourceId"]
    if event["ResourceType"] == RESOURCE_TYPE:
        task = _parse_leniently(ImportTaskProperties.parse, event["ResourceProperties"])
        task_ids = _task_lifecycle(event, context).delete(physical_id, task)
        if task and task.delete_ami:
            _remove_amis(event, context, task_ids, task.snapshots)
        return physical_id
    properties = _parse_leniently(ImageProperties.parse, event["ResourceProperties"])
    waiting: Waiting | None = event[KEY]
    lifecycle = _lifecycle(event, context, _FOR_A_STEP if waiting else None)
    try:
        lifecycle.delete(physical_id, properties)
    except VmImportError as error:
        if waiting and is_transient(error) and waiting.wait_until(_limit(event, delete_limit)):
            logger.info({"the deletion": "goes on", "since": str(error)})
            raise NotYetError from error
        raise
    # What was made of no image is not this resource's to delete.
    if properties and properties.delete_ami and is_image_arn(physical_id):
        _remove_amis(event, context, [properties.vm_import_task_id])
    return physical_id


def _wait_for(event: Event, context: LambdaContext, imported: Callable[[], ImportedImage]) -> str:
    """Answer with the image: at once, or once it is AVAILABLE, if that is to be waited for."""
    waiting: Waiting | None = event[KEY]
    if waiting is None:
        answer = _answer(imported())
        _tag_amis(event, context)
        return answer
    if not waiting.image:
        image = imported()
        waiting.image, waiting.attributes = image.arn, dict(image.attributes)
    _answer_with(waiting.image)
    cfn_resource.Data.update(waiting.attributes)
    if event["ResourceProperties"].get("WaitHandle"):
        if not _handle_is_used(event):
            waiting.answered = True
            waiting.wait_until(_limit(event, import_limit))
        return waiting.image
    try:
        cfn_resource.Data["ImageId"] = _look(event, context, waiting)
    except VmImportError:
        if waiting.image != event.get("PhysicalResourceId"):
            _remove_newcomer(event, context, waiting.image)
        raise
    return waiting.image


def _look(event: Event, context: LambdaContext, waiting: Waiting) -> str:
    """The AMI of the image, once it is AVAILABLE.

    Raises:
        NotYetError: It is not, and the next pause is set.
        ImageFailedError: It will not be, or not in time.
    """
    owner = Owner(event["StackId"], event["LogicalResourceId"])
    task_id = event["ResourceProperties"]["VmImportTaskId"]
    aws = ImageBuilder(context.invoked_function_arn, Deadline(context, _FOR_A_STEP))
    seen: Look | None = None
    outcome = "failed"
    try:
        seen = look(aws, waiting.image, task_id)
        if seen.ami:
            outcome = "available"
            _tag_amis(event, context)
            return seen.ami
        if waiting.wait_until(_limit(event, import_limit)):
            outcome = "waiting"
            raise NotYetError
        outcome = "timeout"
        raise ImageFailedError(
            f"{waiting.image} was not AVAILABLE after {waiting.elapsed / 60:.0f} minutes: {seen}. "
            "Hint: EC2's import goes on, and the next deployment takes it up; give the image a "
            "longer timeout, up to 12 hours, or wait_for_available=False"
        )
    finally:
        report(owner, task_id, waiting, seen, outcome)


def _signal(event: Event, context: LambdaContext, waiting: Waiting) -> None:
    """Look at the image, and tell the wait condition when that is over."""
    handle = event["ResourceProperties"]["WaitHandle"]
    try:
        ami = _look(event, context, waiting)
    except NotYetError:
        return
    except VmImportError as error:
        signal_failure(handle, str(error))
    except Exception as error:
        logger.exception("the wait failed")
        signal_failure(handle, repr(error))
    else:
        signal_success(handle, ami)


def _remove_newcomer(event: Event, context: LambdaContext, arn: str) -> None:
    """Remove what failed. CloudFormation does so too, but not in each of its ways to fail."""
    try:
        _lifecycle(event, context, _FOR_THE_CLEAN_UP).delete(arn, None)
    except VmImportError as error:
        logger.warning("%s is left to CloudFormation's clean-up: %s", arn, error)


def _handle_is_used(event: Event) -> bool:
    """Whether the wait condition was there before this update, and so will not wait again."""
    handle = event["ResourceProperties"].get("WaitHandle")
    return handle is not None and handle == event.get("OldResourceProperties", {}).get("WaitHandle")


def _limit(event: Event, limit: Callable[..., float]) -> float:
    properties = event["ResourceProperties"]
    return limit(float(properties["TimeoutSeconds"]), by_signal="WaitHandle" in properties)


def _lifecycle(event: Event, context: LambdaContext, at_most: float | None = None) -> Lifecycle:
    deadline = Deadline(context, at_most)
    return Lifecycle(
        owner=Owner(event["StackId"], event["LogicalResourceId"]),
        image_builder=ImageBuilder(context.invoked_function_arn, deadline),
        deadline=deadline,
        answer_with=_answer_with,
    )


def _task_lifecycle(event: Event, context: LambdaContext) -> ImportTaskLifecycle:
    deadline = Deadline(context)
    return ImportTaskLifecycle(
        owner=Owner(event["StackId"], event["LogicalResourceId"]),
        import_tasks=ImportTasks(deadline),
        deadline=deadline,
        answer_with=_answer_with,
    )


def _amis(event: Event, context: LambdaContext) -> ImportedAmis:
    deadline = Deadline(context)
    return ImportedAmis(
        owner=Owner(event["StackId"], event["LogicalResourceId"]),
        import_tasks=ImportTasks(deadline),
        image_builder=ImageBuilder(context.invoked_function_arn, deadline),
    )


def _tag_amis(event: Event, context: LambdaContext) -> None:
    """Tag what the import left in EC2, if it is over. The image is there without that too."""
    properties = ImageProperties.parse(event["ResourceProperties"])
    before = event.get("OldResourceProperties", {}).get("Tags") or {}
    try:
        _amis(event, context).tag(properties.vm_import_task_id, properties.tags, before)
    except VmImportError as error:
        logger.warning("the AMI is not tagged: %s", error)


def _remove_amis(
    event: Event, context: LambdaContext, task_ids: Iterable[str], disks: Collection[str] = ()
) -> None:
    """Delete what imports left in EC2, and answer with what is kept."""
    amis = _amis(event, context)
    cfn_resource.Reason = "; ".join(kept for task in task_ids for kept in amis.remove(task, disks))


def _parse_leniently(
    parse: Callable[[Mapping[str, Any]], T], properties: Mapping[str, Any]
) -> T | None:
    try:
        return parse(properties)
    except PropertyError as error:
        # Nothing was ever imported with them.
        logger.info({"not properties of an import": str(error)})
        return None


def _answer_with(physical_id: str) -> None:
    cfn_resource.PhysicalResourceId = physical_id


def _answer_task(task_id: str) -> str:
    cfn_resource.Data["ImportTaskId"] = task_id
    return task_id


def _answer(image: ImportedImage) -> str:
    cfn_resource.Data.update(image.attributes)
    return image.arn
