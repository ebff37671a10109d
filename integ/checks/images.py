"""Checks of Image Builder and VM Import themselves, without a stack."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from contract import IMAGE_BUILD_ARN, slug
from integ.check import check
from integ.run import attempt, failure, raise_unless_missing

if TYPE_CHECKING:
    from integ.check import Record
    from integ.run import Run

TERMINAL: Final = ("AVAILABLE", "FAILED", "CANCELLED")
_CREATED_BY: Final = {"Key": "CreatedBy", "Value": "EC2 Image Builder"}
# How soon an image of a task that has already completed should be AVAILABLE, in seconds.
_SOON: Final = 300
_POLL: Final = 2
UNKNOWN_TASK: Final = "import-ami-0123456789abcdef0"


@check(
    rows=(
        "returns_the_build_arn",
        "pending_until_its_task_completes",
        "already_completed",
        "differ_in_case_spaces_or_underscores",
        "build_numbers_increase",
        "finds_only_available_builds",
        "unknown_image_is_not_found",
        "running_image_cannot_be_deleted",
        "only_a_build_arn_can_be_deleted",
        "recipe_blocks_the_deletion",
        "image_retains_ami_and_snapshots",
        "tags_can_be_added_read_and_removed",
        "tags_of_a_deleted_image_are_not_found",
        "builds_are_listed",
        "image_version_is_listed_once",
        "ami_and_snapshot_of_an_import",
    ),
    knobs=(
        "image_watch_seconds",
        "ami_listing_seconds",
        "image_shows_ami",
        "imported_ami_name",
        "tag_imported_ami",
        "unknown_image_version",
        "dependants_block_delete",
    ),
    minutes=40,
    imports=1,
    images=3,
    recipes=1,
)
def what_an_import_shows(run: Run, record: Record) -> None:
    """What GetImage and the lists show of an image: while it is PENDING, and AVAILABLE."""
    client = run.account.client("imagebuilder")
    task_id = run.import_disk()
    name = f"{run.prefix} Shown_Image"
    request: dict[str, Any] = {
        "name": name,
        "semanticVersion": "1.0.0",
        "platform": "Linux",
        "vmImportTaskId": task_id,
        "tags": {**run.tags, "stage": "test"},
        "clientToken": str(uuid.uuid4()),
    }
    response = client.import_vm_image(**request)
    arn = response["imageArn"]
    record.observe("response of ImportVmImage", _plain(response))
    record.row("returns_the_build_arn", IMAGE_BUILD_ARN.fullmatch(arn), arn)
    other = client.import_vm_image(
        **{**request, "name": name.lower(), "clientToken": str(uuid.uuid4())}
    )["imageArn"]
    version = arn.rpartition("/")[0]
    record.row(
        "differ_in_case_spaces_or_underscores",
        arn.split("/")[1] == slug(name) and other.rpartition("/")[0] == version,
        f"{name!r} is {arn}; {name.lower()!r} is {other}",
    )
    pending = run.image(arn) or {}
    record.observe("GetImage while the image is imported", pending)
    _show_lists(run, record, version, "while the image is imported")
    record.row(
        "running_image_cannot_be_deleted",
        (refusal := failure(client.delete_image, imageBuildVersionArn=arn)).startswith(
            "ResourceDependencyException"
        ),
        refusal or "DeleteImage succeeded",
    )
    while_pending = failure(client.get_image, imageBuildVersionArn=version)
    _wait_for_both(run, record, task_id, arn)
    available = run.image(arn) or {}
    record.observe("GetImage when the image is AVAILABLE", available)
    found = client.get_image(imageBuildVersionArn=version)["image"]["arn"]
    record.row(
        "finds_only_available_builds",
        while_pending.startswith("ResourceNotFound") and found in {arn, other},
        f"with the version's ARN: {while_pending or 'found'} while PENDING, then {found}",
    )
    first, second = pending["state"]["status"], available["state"]["status"]
    record.row(
        "pending_until_its_task_completes",
        (first, second) == ("PENDING", "AVAILABLE"),
        f"{first}, then {second}",
    )
    _show_lists(run, record, version, "when the image is AVAILABLE")
    _decide_ami(run, record, task_id, available)
    _decide_lists(run, record, version, {arn, other})
    _decide_errors(run, record, arn)
    _decide_tags(run, record, arn)
    _decide_deletion(run, record, task_id, arn)
    _decide_builds(run, record, request, {arn, other})


def _plain(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name != "ResponseMetadata"}


def _show_lists(run: Run, record: Record, version: str, when: str) -> None:
    client = run.account.client("imagebuilder")
    builds = client.list_image_build_versions(imageVersionArn=version)["imageSummaryList"]
    record.observe(f"ListImageBuildVersions {when}", builds)
    record.observe(f"ListImages {when}", _versions(run, version))


def _versions(run: Run, version: str) -> list[dict[str, Any]]:
    pages = run.account.client("imagebuilder").get_paginator("list_images").paginate(owner="Self")
    return [one for page in pages for one in page["imageVersionList"] if one["arn"] == version]


def _wait_for_both(run: Run, record: Record, task_id: str, arn: str) -> None:
    """Wait until task and image have ended, and measure how far apart that is."""
    ended: dict[str, float] = {}

    def both_ended() -> bool:
        now = run.account.now()
        task = run.task(task_id)
        if task["Status"] in ("completed", "deleted"):
            ended.setdefault("task", now)
        if (ami := task.get("ImageId")) and _listed(run, ami):
            ended.setdefault("ami", now)
        if run.status(arn) in TERMINAL:
            ended.setdefault("image", now)
        return {"task", "image"} <= ended.keys()

    # Until the end is near, the clock of the simulated AWS may be moved in larger steps.
    run.account.wait(lambda: int(run.task(task_id).get("Progress", 100)) >= 84, 60)  # noqa: PLR2004
    run.account.wait(both_ended, 30, hurry=False, every=_POLL)
    run.await_task(task_id)
    run.await_image(arn, "AVAILABLE")
    apart = f"image AVAILABLE {ended['image'] - ended['task']:.0f} s after the task completed"
    record.knob("image_watch_seconds", round(ended["image"] - ended["task"]), apart)
    if "ami" in ended:
        late = round(max(ended["ami"] - ended["task"], 0))
        record.knob("ami_listing_seconds", late, "DescribeImages lists the AMI so much later")


def _listed(run: Run, ami: str) -> list[dict[str, Any]]:
    try:
        found = run.account.client("ec2").describe_images(ImageIds=[ami])["Images"]
    except ClientError as error:
        raise_unless_missing(error)
        return []
    return list(found)


def _decide_ami(run: Run, record: Record, task_id: str, image: dict[str, Any]) -> None:
    task = run.task(task_id)
    ami = task["ImageId"]
    shown = [one["image"] for one in image.get("outputResources", {}).get("amis", [])]
    record.knob("image_shows_ami", shown == [ami], f"GetImage shows {shown}, the task {ami}")
    (described,) = _listed(run, ami) or [{}]
    record.observe("DescribeImages", described)
    is_named = described.get("Name") == task_id
    record.knob("imported_ami_name", "task_id" if is_named else "other", described.get("Name"))
    tags = described.get("Tags", [])
    record.knob("tag_imported_ami", _CREATED_BY in tags, f"tags of the AMI: {tags}")
    snapshots = _snapshots(described)
    record.row(
        "ami_and_snapshot_of_an_import",
        is_named and snapshots and _existing(run, snapshots) == snapshots,
        f"AMI {described.get('Name')!r}, snapshots {snapshots}",
    )


def _snapshots(ami: dict[str, Any]) -> list[str]:
    mappings = ami.get("BlockDeviceMappings", [])
    return [mapping["Ebs"]["SnapshotId"] for mapping in mappings if "Ebs" in mapping]


def _existing(run: Run, snapshots: list[str]) -> list[str]:
    try:
        found = run.account.client("ec2").describe_snapshots(SnapshotIds=snapshots)["Snapshots"]
    except ClientError as error:
        raise_unless_missing(error)
        return []
    return [snapshot["SnapshotId"] for snapshot in found]


def _decide_lists(run: Run, record: Record, version: str, arns: set[str]) -> None:
    client = run.account.client("imagebuilder")
    builds = client.list_image_build_versions(imageVersionArn=version)["imageSummaryList"]
    shown = {
        build["arn"]: (build["state"]["status"], build.get("tags", {}).get("stage"))
        for build in builds
    }
    record.row("builds_are_listed", shown == dict.fromkeys(arns, ("AVAILABLE", "test")), str(shown))
    count = len(_versions(run, version))
    record.row(
        "image_version_is_listed_once", count == 1, f"{count} times, with {len(arns)} builds"
    )


def _decide_errors(run: Run, record: Record, arn: str) -> None:
    client = run.account.client("imagebuilder")
    version = arn.rpartition("/")[0]
    missing = failure(client.get_image, imageBuildVersionArn=f"{version}/999")
    record.row(
        "unknown_image_is_not_found", missing.startswith("ResourceNotFoundException 404"), missing
    )
    refusal = failure(client.delete_image, imageBuildVersionArn=version)
    record.row("only_a_build_arn_can_be_deleted", refusal, refusal or "DeleteImage succeeded")
    unknown = version.rpartition("/")[0] + "/9.9.9"
    error = failure(client.list_image_build_versions, imageVersionArn=unknown)
    kinds = {"": "empty", "ResourceNotFoundException": "not_found"}
    value = kinds.get(error.partition(" ")[0], "invalid")
    record.knob("unknown_image_version", value, error or "an empty list")


def _decide_tags(run: Run, record: Record, arn: str) -> None:
    client = run.account.client("imagebuilder")
    client.tag_resource(resourceArn=arn, tags={"added": "yes"})
    added = client.list_tags_for_resource(resourceArn=arn)["tags"]
    client.untag_resource(resourceArn=arn, tagKeys=["added"])
    removed = client.list_tags_for_resource(resourceArn=arn)["tags"]
    shown = (run.image(arn) or {}).get("tags")
    record.row(
        "tags_can_be_added_read_and_removed",
        added.get("added") == "yes" and "added" not in removed and shown == removed,
        f"{added}, then {removed}; GetImage shows {shown}",
    )


def _decide_deletion(run: Run, record: Record, task_id: str, arn: str) -> None:
    client = run.account.client("imagebuilder")
    recipe = client.create_image_recipe(
        name=run.recipe_name,
        semanticVersion="1.0.0",
        parentImage=arn,
        components=[
            {"componentArn": ":".join(arn.split(":")[:4]) + ":aws:component/update-linux/x.x.x"}
        ],
        clientToken=str(uuid.uuid4()),
    )["imageRecipeArn"]
    refusal = failure(client.delete_image, imageBuildVersionArn=arn)
    record.row(
        "recipe_blocks_the_deletion",
        refusal.startswith("ResourceDependencyException"),
        refusal or "DeleteImage succeeded",
    )
    record.knob("dependants_block_delete", bool(refusal), refusal or "DeleteImage succeeded")
    client.delete_image_recipe(imageRecipeArn=recipe)
    if refusal:
        client.delete_image(imageBuildVersionArn=arn)
    (ami,) = _listed(run, run.task(task_id)["ImageId"]) or [{}]
    snapshots = _snapshots(ami)
    record.row(
        "image_retains_ami_and_snapshots",
        snapshots and _existing(run, snapshots) == snapshots,
        f"after DeleteImage: {ami.get('ImageId')}, {snapshots}",
    )
    error = failure(client.list_tags_for_resource, resourceArn=arn)
    is_missing = error.startswith("ResourceNotFoundException")
    record.row("tags_of_a_deleted_image_are_not_found", is_missing, error or "tags are returned")


def _decide_builds(run: Run, record: Record, request: dict[str, Any], before: set[str]) -> None:
    """Import again from the completed task: the next build, soon AVAILABLE."""
    client = run.account.client("imagebuilder")
    started = run.account.now()
    new = client.import_vm_image(**{**request, "clientToken": str(uuid.uuid4())})["imageArn"]
    numbers = [int(arn.rpartition("/")[2]) for arn in [*sorted(before), new]]
    record.row(
        "build_numbers_increase",
        numbers == [1, 2, 3],
        f"builds {numbers}, the last one after the deletion of one",
    )
    status = run.await_image(new, *TERMINAL)
    seconds = run.account.now() - started
    record.row(
        "already_completed",
        status == "AVAILABLE" and seconds < _SOON,
        f"{status} after {seconds:.0f} s",
    )


@check(
    rows=(
        "token_returns_the_first_response",
        "returns_the_arn_of_a_deleted_image",
        "other_parameters_is_a_mismatch",
        "has_already_failed_makes_the_image_fail",
        "same_client_token_starts_one",
    ),
    knobs=("idempotency_mismatch", "idempotency_of_unusable_image"),
    minutes=45,
    imports=1,
    shares_import=True,
    broken_imports=3,
    images=5,
)
def tokens(run: Run, record: Record) -> None:
    """What a used client token returns after success, failure and deletion."""
    client = run.account.client("imagebuilder")
    token, task_id = str(uuid.uuid4()), run.completed_task()
    arn = run.import_image(task_id, "token", token=token)
    repeated = [run.import_image(task_id, "token", token=token)]
    run.await_image(arn, "AVAILABLE")
    repeated.append(run.import_image(task_id, "token", token=token))
    record.row(
        "token_returns_the_first_response",
        set(repeated) == {arn},
        f"first {arn}, then {repeated[0]} while PENDING and {repeated[1]} when AVAILABLE",
    )
    changed, error = attempt(
        run.import_image, task_id, "token", token=token, description="other parameters"
    )
    record.row(
        "other_parameters_is_a_mismatch",
        error.startswith("IdempotentParameterMismatchException"),
        error or f"{changed} is returned",
    )
    value = "refuse" if error else "replay" if changed == arn else None
    record.knob("idempotency_mismatch", value, error or changed)

    client.delete_image(imageBuildVersionArn=arn)
    after_deletion = run.import_image(task_id, "token", token=token)
    record.row(
        "returns_the_arn_of_a_deleted_image",
        after_deletion == arn,
        f"{after_deletion} is returned, which is {run.status(after_deletion)}",
    )
    failed, failed_token = run.failed_task(), str(uuid.uuid4())
    after_failure = _token_of_a_failed_image(run, record, failed, failed_token)
    values = {
        "replay" if after_deletion == arn else "import",
        *([after_failure] if after_failure else []),
    }
    record.knob(
        "idempotency_of_unusable_image",
        values.pop() if len(values) == 1 else None,
        f"after deletion: {after_deletion}; after failure: {after_failure or 'not decided'}",
    )
    # The broken disk is enough: whether the task succeeds does not matter.
    import_token = str(uuid.uuid4())
    tasks = [run.import_disk(run.broken_disk(), import_token) for _ in range(2)]
    record.row("same_client_token_starts_one", len(set(tasks)) == 1, ", ".join(tasks))


def _token_of_a_failed_image(run: Run, record: Record, task_id: str, token: str) -> str:
    name = "has_already_failed_makes_the_image_fail"
    arn, error = attempt(run.import_image, task_id, "failed", token=token)
    if error:
        record.row(name, holds=False, seen=f"ImportVmImage refuses: {error}")
        return ""
    status = run.await_image(arn, *TERMINAL)
    reason = (run.image(arn) or {}).get("state", {}).get("reason", "")
    record.row(name, status == "FAILED", f"{status}: {reason}")
    again = run.import_image(task_id, "failed", token=token)
    return "replay" if again == arn else "import"


@check(
    rows=(
        "becomes_cancelled_after_a_while",
        "image_that_has_ended_cannot_be_cancelled",
        "cancelled_task_is_deleting",
        "task_that_has_ended_cannot_be_cancelled",
        "makes_the_image_fail_with_its_message",
    ),
    knobs=(
        "cancel_import",
        "cancel_seconds",
        "cancel_terminal_error",
        "cancelled_task_message",
        "deleting_seconds",
        "snapshots_of_failed_import",
    ),
    minutes=40,
    imports=1,
    images=2,
)
def cancelling(run: Run, record: Record) -> None:
    """What CancelImageCreation and CancelImportTask do to an import that runs."""
    client, ec2 = run.account.client("imagebuilder"), run.account.client("ec2")
    task_id = run.import_disk()
    cancelled, other = run.import_image(task_id, "cancelled"), run.import_image(task_id, "other")
    request = {"imageBuildVersionArn": cancelled}
    started = run.account.now()
    refusal = failure(client.cancel_image_creation, clientToken=str(uuid.uuid4()), **request)
    record.knob("cancel_import", "refuse" if refusal else "cancel", refusal)
    if refusal:
        record.row("becomes_cancelled_after_a_while", holds=False, seen=refusal)
    else:
        first = run.status(cancelled)
        run.account.wait(lambda: run.status(cancelled) in TERMINAL, 30, hurry=False, every=_POLL)
        seconds = round(run.account.now() - started)
        status = run.status(cancelled)
        record.row(
            "becomes_cancelled_after_a_while",
            status == "CANCELLED",
            f"{first}, then {status} after {seconds} s",
        )
        record.knob("cancel_seconds", seconds, "until the image is CANCELLED")
        record.observe("the EC2 task after CancelImageCreation", run.task(task_id))
        error = failure(client.cancel_image_creation, clientToken=str(uuid.uuid4()), **request)
        code = error.partition(" ")[0]
        record.knob("cancel_terminal_error", code or None, error or "it succeeds")
        record.row("image_that_has_ended_cannot_be_cancelled", error, error or "it succeeds")

    # The snapshot exists shortly before the end of the import.
    def has_snapshot() -> bool:
        task = run.task(task_id)
        return "SnapshotId" in str(task.get("SnapshotDetails")) or task["Status"] != "active"

    run.account.wait(has_snapshot, 90, hurry=False, every=_POLL)
    snapshots = [one.get("SnapshotId") for one in run.task(task_id).get("SnapshotDetails", [])]
    snapshots = [snapshot for snapshot in snapshots if snapshot]
    started = run.account.now()
    refusal = failure(ec2.cancel_import_task, ImportTaskId=task_id)
    first = run.task(task_id)["Status"]
    status = run.await_task(task_id)["Status"]
    seconds = round(run.account.now() - started)
    record.row(
        "cancelled_task_is_deleting",
        (first, status) == ("deleting", "deleted") if not refusal else None,
        refusal or f"{first}, then {status}",
    )
    message = run.task(task_id).get("StatusMessage")
    record.knob("deleting_seconds", None if refusal else seconds, refusal)
    record.knob("cancelled_task_message", None if refusal else message, refusal)
    error = failure(ec2.cancel_import_task, ImportTaskId=task_id)
    record.row("task_that_has_ended_cannot_be_cancelled", error, error or "it succeeds")
    kept: str | None = None
    if snapshots and not refusal:
        kept = "keep" if _existing(run, snapshots) == snapshots else "delete"
    record.knob("snapshots_of_failed_import", kept, f"snapshots at the cancellation: {snapshots}")
    if kept == "keep":
        run.shared.setdefault("snapshots", []).extend(snapshots)
    status = run.await_image(other, *TERMINAL)
    reason = (run.image(other) or {}).get("state", {}).get("reason", "")
    record.row(
        "makes_the_image_fail_with_its_message",
        status == "FAILED" and str(message) in reason if not refusal else None,
        f"{status}: {reason!r}; the task: {message!r}",
    )


@check(
    rows=(
        "unknown_task_id_is_malformed",
        "unknown_task_is_refused",
        "missing_object_makes_the_task_fail",
    ),
    knobs=("unknown_task",),
    minutes=15,
    broken_imports=1,
    images=1,
)
def unknown_and_failed_tasks(run: Run, record: Record) -> None:
    """Which errors belong to a task id that EC2 does not know, and to a task that failed."""
    describe_unknown(run, record, "unknown_task_id_is_malformed", UNKNOWN_TASK)
    import_unknown(run, record, UNKNOWN_TASK)
    describe = run.account.client("ec2").describe_import_image_tasks
    for other in ("import-ami-xyz", "nothing"):
        record.observe(
            f"DescribeImportImageTasks of {other!r}", failure(describe, ImportTaskIds=[other])
        )
    bucket = run.broken_disk().bucket
    task_id = run.import_disk(type(run.broken_disk())(bucket, "missing.raw"))
    seen: list[str] = []

    def ended() -> bool:
        status = str(run.task(task_id)["Status"])
        if status not in seen:
            seen.append(status)
        return status in ("deleted", "completed")

    run.account.wait(ended, 30, hurry=False, every=_POLL)
    task = run.task(task_id)
    record.observe("a task whose object is missing", task)
    record.row(
        "missing_object_makes_the_task_fail",
        seen[-1] == "deleted" and "failed" not in seen and task.get("StatusMessage"),
        f"{', '.join(seen)}: {task.get('StatusMessage')}",
    )


def describe_unknown(run: Run, record: Record, row: str, task_id: str) -> None:
    """Decide a row by the error of DescribeImportImageTasks for a task that EC2 does not know."""
    describe = run.account.client("ec2").describe_import_image_tasks
    error = failure(describe, ImportTaskIds=[task_id])
    record.row(
        row, error.startswith("InvalidConversionTaskId"), error or "the task is returned, or none"
    )


def import_unknown(run: Run, record: Record, task_id: str) -> None:
    """Decide what ImportVmImage does with a task that EC2 does not know."""
    arn, error = attempt(run.import_image, task_id, "unknown-task")
    if error:
        record.row("unknown_task_is_refused", error.startswith("ClientException"), error)
        record.knob("unknown_task", "refuse", error)
        return
    status = run.await_image(arn, *TERMINAL)
    reason = (run.image(arn) or {}).get("state", {}).get("reason", "")
    record.row("unknown_task_is_refused", holds=False, seen=f"{arn} is {status}: {reason}")
    record.knob("unknown_task", "fail" if status == "FAILED" else None, f"{status}: {reason}")
