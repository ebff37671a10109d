"""Checks that deploy stacks with the CDK CLI."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.exceptions import ClientError

from contract import OwnTag
from integ.check import CheckError, check
from integ.definition import ENDPOINTS, Definition, Image
from integ.run import failure, raise_unless_missing
from integ.stack import Stack

if TYPE_CHECKING:
    from integ.check import Record
    from integ.run import Run

_IMAGE: Final = "Custom::ImportedVmImage"
_SERVICE_LINKED_ROLE: Final = "AWSServiceRoleForImageBuilder"
# Progress and message of a task, as public logs show them.
_KNOWN_STEPS: Final = {
    2: {"pending", "validating", "validated"},
    28: {"converting"},
    34: {"updating", "updated"},
    58: {"preparing to boot", "booting", "booted"},
    84: {"preparing ami"},
}
_DEVICE_AT: Final = 58
_SNAPSHOT_AT: Final = 84
# How far the date in a ResponseURL and the start of the execution may be apart, in seconds.
_SOON: Final = 120
_MANY: Final = 60
_ENDED: Final = ("CREATE_COMPLETE", "CREATE_FAILED", "ROLLBACK_COMPLETE")


@check(
    rows=(
        "creates_the_service_linked_role",
        "observed_progress_and_messages",
        "details_of_a_task_appear",
        "response_url_contains_when",
    ),
    knobs=("import_seconds",),
    minutes=40,
    stacks=1,
    imports=1,
    images=1,
)
def first_deployment(run: Run, record: Record) -> None:
    """The first deployment of an account, from a disk to an AVAILABLE image, and its removal."""
    known_before = _service_linked_role(run)
    with Stack(run, record, "first") as stack:
        stack.start(Definition({"Image": Image(run.disk())}))
        timeline = _observed_import(run, stack)
        outputs = stack.finish(hurry=False)
        record.observe("import task from its start to its end", timeline)
        record.observe("outputs", outputs)
        _decide_timeline(record, timeline)
        images, tasks = stack.images(), stack.tasks()
        record.expect(
            "The first deployment ends with one image, which is AVAILABLE",
            list(images.values()) == ["AVAILABLE"],
            images,
        )
        exists = _service_linked_role(run)
        record.row(
            "creates_the_service_linked_role",
            None if known_before else exists,
            f"the role existed before: {known_before}, and exists afterwards: {exists}",
        )
        _decide_tags_of_ami(run, record, tasks[0].get("ImageId", ""))
        _decide_response_url(record, stack)
        stack.read_log()
        stack.destroy()
        record.expect("cdk destroy deletes the image", stack.images() == {}, stack.images())
        _decide_deleted_ami(run, record, tasks[0].get("ImageId", ""))


def _service_linked_role(run: Run) -> bool:
    error = failure(run.account.client("iam").get_role, RoleName=_SERVICE_LINKED_ROLE)
    if error and not error.startswith("NoSuchEntity"):
        raise CheckError(f"the service-linked role cannot be read: {error}")
    return not error


def _observed_import(run: Run, stack: Stack) -> list[dict[str, Any]]:
    """Return what the task of a stack shows, each time that it changes, until it ends."""
    timeline: list[dict[str, Any]] = []

    def is_over() -> bool:
        shown = stack.tasks() if stack.stack_id else []
        if shown:
            task = {name: v for name, v in shown[0].items() if name not in ("Tags", "ClientToken")}
            if not timeline or timeline[-1]["task"] != task:
                timeline.append({"at": run.account.now(), "task": task})
        return bool(shown and shown[0]["Status"] in ("completed", "deleted")) or (
            stack.stack_id != "" and stack.status() in _ENDED
        )

    run.account.wait(is_over, 90, hurry=False, every=5)
    if not timeline:
        raise CheckError("the stack started no import task")
    return timeline


def _decide_timeline(record: Record, timeline: list[dict[str, Any]]) -> None:
    tasks = [entry["task"] for entry in timeline]
    active = [task for task in tasks if task["Status"] == "active"]
    steps = [(int(task.get("Progress", -1)), task.get("StatusMessage", "")) for task in active]
    unknown = [step for step in steps if step[1] not in _KNOWN_STEPS.get(step[0], set())]
    statuses = [task["Status"] for task in tasks]
    record.row(
        "observed_progress_and_messages",
        steps and not unknown and set(statuses) <= {"active", "completed"},
        ", ".join(dict.fromkeys(f"{progress} {message}" for progress, message in steps)),
    )
    # The platform is in the request, so the task shows it at any time.
    early_device = [t for t in active if _has(t, "DeviceName") and _progress(t) < _DEVICE_AT]
    early_snapshot = [t for t in active if _has(t, "SnapshotId") and _progress(t) < _SNAPSHOT_AT]
    last = tasks[-1]
    record.row(
        "details_of_a_task_appear",
        not early_device
        and not early_snapshot
        and "ImageId" in last
        and "Progress" not in last
        and "StatusMessage" not in last,
        f"device before {_DEVICE_AT}: {bool(early_device)}; snapshot before {_SNAPSHOT_AT}: "
        f"{bool(early_snapshot)}; at the end: {', '.join(sorted(last))}",
    )
    seconds = round(timeline[-1]["at"] - timeline[0]["at"])
    ended = last["Status"] == "completed"
    record.knob("import_seconds", seconds if ended else None, "from the first to the last change")


def _progress(task: dict[str, Any]) -> int:
    return int(task.get("Progress", 100))


def _has(task: dict[str, Any], detail: str) -> bool:
    return any(detail in disk for disk in task.get("SnapshotDetails", []))


def _decide_tags_of_ami(run: Run, record: Record, ami: str) -> None:
    found = run.account.client("ec2").describe_images(ImageIds=[ami])["Images"]
    keys = {tag["Key"] for image in found for tag in image.get("Tags", [])}
    record.expect("The AMI has the tags of the library", OwnTag.STACK in keys, sorted(keys))


def _decide_response_url(record: Record, stack: Stack) -> None:
    late: list[str] = []
    events = stack.events_of("")
    for event in events:
        query = parse_qs(urlsplit(event["event"]["ResponseURL"]).query)
        dates = query.get("X-Amz-Date")
        if not dates:
            late.append("no date")
            continue
        signed = datetime.strptime(dates[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(event["at"] - signed) > _SOON:
            late.append(f"{event['at'] - signed:.0f} s")
    record.row(
        "response_url_contains_when",
        events and not late,
        ", ".join(late) or f"in {len(events)} events, within {_SOON} s of the event",
    )


def _decide_deleted_ami(run: Run, record: Record, ami: str) -> None:
    try:
        found = run.account.client("ec2").describe_images(ImageIds=[ami])["Images"]
    except ClientError as error:
        raise_unless_missing(error)
        found = []
    record.expect("With delete_ami, cdk destroy deletes the AMI", not found, ami)


@check(
    rows=(
        "deleted_during_its_creation_sends_delete",
        "being_updated_cannot_be_deleted",
    ),
    minutes=60,
    stacks=2,
    imports=3,
    shares_import=True,
    images=3,
)
def rollback_while_importing(run: Run, record: Record) -> None:
    """A deletion and a cancelled update while the import runs."""
    with Stack(run, record, "cancelled") as stack:
        stack.start(Definition({"Image": Image(run.disk())}))
        arn = _importing(run, stack)
        run.account.client("cloudformation").delete_stack(StackName=stack.stack_id)
        stack.await_status("DELETE_COMPLETE")
        deletes = [
            event["event"].get("PhysicalResourceId", "")
            for event in stack.events_of("Image")
            if event["event"]["RequestType"] == "Delete"
            and event["event"]["ResourceType"] == _IMAGE
        ]
        record.row(
            "deleted_during_its_creation_sends_delete",
            bool(deletes) and arn not in deletes,
            f"the image is {arn}; Delete events: {', '.join(deletes) or 'none'}",
        )
        record.expect(
            "A deletion during the import leaves no image", stack.images() == {}, stack.images()
        )
        _expect_cancelled(record, stack, "A deletion during the import cancels the task")

    task_id = run.completed_task()
    with Stack(run, record, "updated") as stack:
        stack.deploy(Definition({"Image": Image(task_id)}))
        (original,) = stack.images()
        first = {"Image": Image(task_id)}
        stack.start(Definition({**first, "Second": Image(run.disk())}))
        _importing(run, stack)
        cloudformation = run.account.client("cloudformation")
        refusal = failure(cloudformation.delete_stack, StackName=stack.stack_id)
        record.row("being_updated_cannot_be_deleted", refusal, refusal or "DeleteStack succeeds")
        if not refusal:
            return
        cloudformation.cancel_update_stack(StackName=stack.stack_id)
        status = stack.await_status(
            "UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "UPDATE_COMPLETE"
        )
        images = stack.images()
        # If the update ends before it is cancelled, there is no rollback.
        is_cancelled = status != "UPDATE_COMPLETE"
        record.expect(
            "A cancelled update keeps the original image, and nothing else",
            (status, images) == ("UPDATE_ROLLBACK_COMPLETE", {original: "AVAILABLE"})
            if is_cancelled
            else None,
            f"{status}: {images}",
        )
        _expect_cancelled(record, stack, "A cancelled update cancels the task that it added")


def _importing(run: Run, stack: Stack) -> str:
    """Wait until a stack has an active task and a PENDING image, and return the image's ARN."""

    def pending() -> str:
        if not stack.stack_id or not stack.active_tasks():
            return ""
        return next((arn for arn, status in stack.images().items() if status == "PENDING"), "")

    arn = str(run.account.wait(pending, 30, hurry=False, every=5))
    if not arn:
        raise CheckError(f"{stack.name} imports nothing: it is {stack.status()}")
    return arn


def _expect_cancelled(record: Record, stack: Stack, sentence: str) -> None:
    """Say whether the tasks of a stack were cancelled, unless their imports ended first."""
    tasks = {task["ImportTaskId"]: task["Status"] for task in stack.tasks()}
    statuses = set(tasks.values())
    record.expect(
        sentence,
        None if "completed" in statuses else statuses <= {"deleting", "deleted"},
        f"{tasks}, the import ended first" if "completed" in statuses else tasks,
    )


@check(
    minutes=20,
    stacks=1,
    imports=2,
    images=2,
)
def removing_one_of_two_tasks(run: Run, record: Record) -> None:
    """An update that removes one of two imports that run."""
    first, other = (Image(run.disk(), waits=False) for _ in range(2))
    with Stack(run, record, "two-tasks") as stack:
        stack.deploy(Definition({"First": first, "Other": other}), hurry=False)
        before = stack.active_tasks()
        stack.deploy(Definition({"Other": other}), hurry=False)
        statuses = {task["ImportTaskId"]: task["Status"] for task in stack.tasks()}
        _decide_removal(record, before, statuses)
        images = stack.images()
        record.expect(
            "The removed image is deleted, the other one is not", len(images) == 1, images
        )
        record.expect("No resource failed", stack.failed() == {}, stack.failed())


def _decide_removal(record: Record, before: list[str], after: dict[str, str]) -> None:
    """Decide whether one of two tasks was cancelled, unless their imports ended first.

    Args:
        record: The record of the check.
        before: The tasks that were active before the update.
        after: The statuses of all tasks of the stack after it.
    """
    cancelled = [task for task, status in after.items() if status in ("deleting", "deleted")]
    ended_first = not cancelled and "completed" in after.values()
    record.expect(
        "The removed task is cancelled and the other one continues",
        None if ended_first else len(after) == 2 and len(cancelled) == 1,  # noqa: PLR2004
        f"active before: {before}, after: {after}",
    )


@check(
    rows=("parent_that_does_not_exist",),
    minutes=50,
    stacks=1,
    imports=2,
    shares_import=True,
    images=2,
)
def rollback_of_the_first_task(run: Run, record: Record) -> None:
    """The rollback of an update that adds the first import task of a stack."""
    plain = {"Plain": Image(run.completed_task(), waits=False)}
    with Stack(run, record, "first-task") as stack:
        stack.deploy(Definition(plain))
        before = stack.images()
        added = {"Added": Image(run.disk(), waits=False)}
        stack.deploy(Definition({**plain, **added}, fails_after="Added"), fails=True, hurry=False)
        status = stack.await_status("UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED")
        failed = stack.failed()
        record.row(
            "parent_that_does_not_exist",
            True if failed.keys() == {"Broken"} else None,
            f"failed: {failed}",
        )
        record.expect("The update is rolled back", status == "UPDATE_ROLLBACK_COMPLETE", status)
        _expect_cancelled(record, stack, "The rollback cancels the task that it removes")
        record.expect(
            "The rollback keeps the original image, and nothing else",
            stack.images().keys() == before.keys(),
            stack.images(),
        )


@check(
    minutes=90,
    stacks=1,
    imports=2,
    shares_import=True,
    images=2,
)
def replacement_without_waiting(run: Run, record: Record) -> None:
    """A replacement with DESTROY that does not wait for the new image."""
    with Stack(run, record, "replaced") as stack:
        stack.deploy(Definition({"Image": Image(run.completed_task())}))
        (old,) = stack.images()
        new_image = Image(run.disk(), version="2.0.0", waits=False)
        stack.deploy(Definition({"Image": new_image}), hurry=False)
        images = stack.images()
        new = next((arn for arn in images if arn != old), "")
        record.expect("The old image is deleted", old not in images, images)
        # On a busy machine, the simulated import can end before the deployment does.
        is_late = run.account.is_simulated and images.get(new) == "AVAILABLE"
        record.expect(
            "The deployment ends while the new image is PENDING",
            None if is_late else images.get(new) == "PENDING",
            images,
        )
        order = [
            (e["event"]["RequestType"], e["event"].get("PhysicalResourceId", ""))
            for e in stack.events_of("Image")
            if e["event"]["ResourceType"] == _IMAGE
        ]
        record.expect(
            "CloudFormation deletes the old image after the update",
            [kind for kind, _ in order] == ["Create", "Update", "Delete"] and order[-1][1] == old,
            order,
        )
        run.await_image(new, "AVAILABLE", minutes=90)
        ami = str(stack.tasks()[0].get("ImageId", ""))

        def is_tagged() -> bool:
            found = run.account.client("ec2").describe_images(ImageIds=[ami])["Images"]
            return any(tag["Key"] == OwnTag.STACK for i in found for tag in i.get("Tags", []))

        tagged = run.account.wait(is_tagged, 15)
        record.expect("The AMI of the new image is tagged in the background", tagged, ami)


@check(
    rows=(
        "failed_creation_is_deleted_and_created_again",
        "without_rollback_is_deleted_with_its_stack",
        "followed_by_a_delete_with_the_id",
        "failed_create_in_an_update",
    ),
    minutes=150,
    stacks=4,
    imports=2,
    shares_import=True,
    broken_imports=4,
    images=6,
)
def no_rollback_and_retry(run: Run, record: Record) -> None:
    """Which events a failed create causes: with --no-rollback and a retry, and with a rollback."""
    broken, good = Image(run.broken_disk()), Image(run.disk())
    with Stack(run, record, "retried") as stack:
        stack.deploy(Definition({"Image": broken}), "--no-rollback", fails=True)
        _raise_unless_image_failed(stack)
        record.observe("status after --no-rollback", stack.status())
        before = len(stack.events_of("Image"))
        stack.deploy(Definition({"Image": good}), "--no-rollback")
        later = [_short(event) for event in stack.events_of("Image")[before:]]
        record.observe("events of the retry, in their order", later)
        images = [event for event in later if event[0] == _IMAGE]
        record.row(
            "failed_creation_is_deleted_and_created_again",
            [event[1] for event in images] == ["Delete", "Create"],
            [event[1:] for event in images],
        )
        record.expect(
            "The retry ends with one image, which is AVAILABLE",
            list(stack.images().values()) == ["AVAILABLE"],
            stack.images(),
        )
    with Stack(run, record, "not-retried") as stack:
        stack.deploy(Definition({"Image": broken}), "--no-rollback", fails=True)
        _raise_unless_image_failed(stack)
        stack.read_log()
        before = len(_deletes(stack))
        stack.delete()
        deletes = _deletes(stack)[before:]
        record.row("without_rollback_is_deleted_with_its_stack", before == 0 and deletes, deletes)
    with Stack(run, record, "rolled-back") as stack:
        stack.deploy(Definition({"Image": broken}), fails=True)
        stack.await_status("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
        _decide_delete_after_failure(record, stack, "followed_by_a_delete_with_the_id")
        stack.read_log()
        stack.delete()
    plain = {"Plain": Image(run.completed_task(), waits=False)}
    with Stack(run, record, "rolled-back-update") as stack:
        stack.deploy(Definition(plain))
        stack.deploy(Definition({**plain, "Image": broken}), fails=True)
        stack.await_status("UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED")
        _decide_delete_after_failure(record, stack, "failed_create_in_an_update")
        record.expect(
            "A failed create leaves no active task", not stack.active_tasks(), stack.active_tasks()
        )


def _raise_unless_image_failed(stack: Stack) -> None:
    """Check that a deployment failed as the check intends, or its events decide nothing.

    Raises:
        CheckError: Another resource failed.
    """
    if not (failed := stack.failed()) or failed != stack.failed(_IMAGE):
        raise CheckError(f"{stack.name}: the image had to fail, and nothing else: {failed}")


def _short(event: dict[str, Any]) -> tuple[str, str, str]:
    shown = event["event"]
    return shown["ResourceType"], shown["RequestType"], shown.get("PhysicalResourceId", "")


def _deletes(stack: Stack) -> list[str]:
    """Return the physical ids in the Delete events of images."""
    shown = map(_short, stack.events_of("Image"))
    return [name for t, kind, name in shown if (t, kind) == (_IMAGE, "Delete")]


def _decide_delete_after_failure(record: Record, stack: Stack, row: str) -> None:
    _raise_unless_image_failed(stack)
    # The id in a FAILED response contains the id of the request, so CloudFormation cannot make it.
    requests = [
        event["event"]["RequestId"]
        for event in stack.events_of("Image")
        if _short(event)[:2] == (_IMAGE, "Create")
    ]
    deletes = _deletes(stack)
    record.row(
        row,
        len(requests) == len(deletes) == 1 and requests[0] in deletes[0],
        f"Create with the request id {requests}, Delete of {deletes}",
    )


@check(
    minutes=50,
    stacks=1,
    imports=1,
    shares_import=True,
    images=_MANY,
)
def sixty_images_at_once(run: Run, record: Record) -> None:
    """A stack with 60 images: duration, throttling, and that each exists once."""
    task_id = run.completed_task()
    images = {f"Image{number:02}": Image(task_id) for number in range(_MANY)}
    with Stack(run, record, "sixty") as stack:
        started = run.account.now()
        stack.deploy(Definition(images))
        record.observe("seconds of the deployment", round(run.account.now() - started))
        found = stack.images()
        record.expect(
            f"Each of {_MANY} images exists once and is AVAILABLE",
            list(found.values()) == ["AVAILABLE"] * _MANY,
            f"{len(found)} images, {list(found.values()).count('AVAILABLE')} AVAILABLE",
        )
        throttled = [line for line in stack.log_lines() if _is_throttling(line)]
        record.observe("log lines about throttling", len(throttled))
        started = run.account.now()
        stack.read_log()
        stack.destroy()
        record.observe("seconds of the removal", round(run.account.now() - started))
        record.expect("The removal leaves no image", stack.images() == {}, stack.images())


def _is_throttling(line: str) -> bool:
    return any(word in line for word in ("Throttl", "TooManyRequests", "RateLimit", "RequestLimit"))


@check(
    minutes=80,
    stacks=1,
    imports=1,
    shares_import=True,
    images=1,
    endpoints=len(ENDPOINTS),
)
def vpc_with_endpoints_only(run: Run, record: Record) -> None:
    """A function in a VPC that reaches AWS through endpoints only."""
    with Stack(run, record, "vpc") as stack:
        started = run.account.now()
        stack.deploy(Definition({"Image": Image(run.completed_task())}, in_vpc=True))
        record.observe("seconds of the deployment", round(run.account.now() - started))
        endpoints = stack.resources("AWS::EC2::VPCEndpoint")
        images = stack.images()
        works = list(images.values()) == ["AVAILABLE"] and len(endpoints) == len(ENDPOINTS) + 1
        simulated = "not available here: the simulated AWS has no network between its services"
        record.expect(
            "The endpoints of Image Builder, EC2, Step Functions, CloudFormation, Logs and S3 are "
            "enough for the function",
            works if not run.account.is_simulated or not works else None,
            simulated if run.account.is_simulated and works else images,
        )
