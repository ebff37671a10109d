"""Knobs: settings for what AWS does not document, so that tests run with each possibility."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True)
class Knobs:
    """All knobs with their defaults. Times are seconds of AWS time."""

    # How long an import takes. Workshops report 5 to 10 minutes, issues well over 20.
    import_seconds: float = 1200
    # How long a failed or cancelled EC2 task stays in `deleting`.
    deleting_seconds: float = 30
    # How soon Image Builder, which polls the task, sees that it has ended.
    image_watch_seconds: float = 15
    # How long the asynchronous CancelImageCreation takes.
    cancel_seconds: float = 20
    # How long a client token returns the original response.
    idempotency_seconds: float = 86400
    # What a client token returns if its image is deleted, FAILED or CANCELLED: the ARN of that
    # image, or the ARN of a new import.
    idempotency_of_unusable_image: Literal["replay", "import"] = "replay"
    # What a client token with other parameters does. ImportVmImage does not declare
    # IdempotentParameterMismatchException.
    idempotency_mismatch: Literal["refuse", "replay"] = "refuse"
    # Whether the build number of a deleted image is used again, if it was the highest one.
    build_numbers: Literal["increase", "reuse"] = "increase"
    # The error of Image Builder for an invalid value: one that the operation declares, or the one
    # that users of other operations report, which none of these operations declares.
    invalid_value_error: Literal["declared", "InvalidParameterValueException"] = "declared"
    # When Image Builder notices a task id that EC2 does not know: it refuses the call, or the image
    # becomes FAILED.
    unknown_task: Literal["refuse", "fail"] = "refuse"
    # What Image Builder does about a task that fails: the image becomes FAILED with the
    # StatusMessage of the task as its reason, or without a reason; or the call is refused, if the
    # task has failed before it.
    failed_task: Literal["fail", "fail_without_reason", "refuse"] = "fail"
    # Whether CancelImageCreation cancels an image with buildType IMPORT.
    cancel_import: Literal["cancel", "refuse"] = "cancel"
    # The error of CancelImageCreation for an image that has ended. The model allows the first two,
    # AWS's CloudFormation handler of 2022 expects the third.
    cancel_terminal_error: Literal[
        "InvalidRequestException", "ResourceInUseException", "InvalidParameterValueException"
    ] = "InvalidRequestException"
    # Whether a recipe with the image as parentImage is a dependency that blocks DeleteImage.
    dependants_block_delete: bool = True
    # What ListImageBuildVersions returns for an image version that does not exist.
    unknown_image_version: Literal["empty", "not_found", "invalid"] = "empty"
    # What creating a recipe or a pipeline does if a resource that it names does not exist. The
    # model has an error for it, ResourceNotFoundException, but declares it for none of these
    # operations.
    missing_reference: Literal["invalid", "not_found", "accept"] = "invalid"
    # What Image Builder checks first for an image that does not exist: the permissions of the
    # caller, which fail if they require a tag, or the existence.
    checked_first: Literal["permissions", "existence"] = "permissions"
    # Whether Image Builder tags an imported AMI with CreatedBy, as it tags the AMIs that it builds.
    tag_imported_ami: bool = False
    # What an imported AMI is named: after its task, or otherwise.
    imported_ami_name: Literal["task_id", "other"] = "task_id"
    # Whether GetImage and ListImageBuildVersions name the AMI of an imported image.
    image_shows_ami: bool = True
    # How long DescribeImages does not list an imported AMI yet.
    ami_listing_seconds: float = 0
    # For how long a read or a list shows resources as they were before a change.
    read_lag_seconds: float = 0
    # For how long DescribeStacks shows a stack as it was before a change. It is a knob of its own,
    # because the CDK CLI takes an old status for the end of a deployment.
    stack_lag_seconds: float = 0
    # For how long roles and users have the policies that they had before a change.
    iam_lag_seconds: float = 0
    # Whether the caller of StartExecution, and not only the role of the state machine, must be
    # able to use the key of the state machine.
    state_machine_key_checks_caller: bool = True
    # How long after an update CloudFormation deletes what the update replaced or removed.
    clean_up_seconds: float = 0
    # The order of resources that do not depend on each other: by their names, or the reverse.
    resource_order: Literal["by_name", "reverse"] = "by_name"
    # The StatusMessage of a task that is cancelled without a CancelReason.
    cancelled_task_message: str = "Cancelled by user"
    # What CancelImportTask does about a task that has ended.
    cancel_ended_task: Literal["refuse", "ignore"] = "refuse"
    # What happens to the snapshots of an import that fails or is cancelled after creating them.
    snapshots_of_failed_import: Literal["keep", "delete"] = "keep"
    # How long a ClientToken of ImportImage returns the original response.
    import_idempotency_seconds: float = 86400
    # Whether the caller of ImportImage, and not only the role, must be able to read the disks.
    import_checks_caller: bool = True
    # What happens if the request has license configurations that the role may not use: ImportImage
    # is refused, or the task fails.
    licenses_denied: Literal["refuse", "fail"] = "refuse"
    # When CloudFormation deletes a resource whose creation failed without a rollback: before or
    # after the next operation creates it again.
    failed_creation_deleted: Literal["before", "after"] = "before"
    # How long before it sends an event CloudFormation signs the ResponseURL.
    response_url_age_seconds: float = 0

    def changed(self, changes: dict[str, object]) -> Knobs:
        """Return a copy of these knobs in which some have other values.

        Raises:
            ValueError: A knob does not exist, or a value is not allowed.
        """
        types = get_type_hints(type(self))
        for name, value in changes.items():
            if name not in types:
                known = ", ".join(knob.name for knob in fields(self))
                raise ValueError(f"knob {name!r} does not exist: use one of {known}")
            allowed = get_args(types[name])
            good = (
                value in allowed
                if allowed
                else isinstance(value, (int, float) if types[name] is float else types[name])
                and (types[name] is bool or not isinstance(value, bool))
            )
            if not good:
                raise ValueError(
                    f"{value!r} is not valid for knob {name}: use {allowed or types[name].__name__}"
                )
        return replace(self, **changes)  # type: ignore[arg-type]  # checked above

    def as_dict(self) -> dict[str, object]:
        """Return the knobs by name."""
        return asdict(self)
