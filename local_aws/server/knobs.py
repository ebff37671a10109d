"""What AWS does not document, as settings with both answers, instead of as assertions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True)
class Knobs:
    """The settings. Times are seconds of AWS time."""

    # No duration is promised: 5 to 10 minutes in workshop texts, well over 20 in issues.
    import_seconds: float = 1200
    # How long a failed or cancelled EC2 task stays in `deleting`.
    deleting_seconds: float = 30
    # How soon Image Builder, which watches the task by itself, sees that it is over.
    image_watch_seconds: float = 15
    # CancelImageCreation is asynchronous; how long it takes is not said.
    cancel_seconds: float = 20
    # "Same client token, original response", but for how long is not said.
    idempotency_seconds: float = 86400
    # What a client token answers whose image was deleted, or is FAILED or CANCELLED: the dead
    # ARN (the hazard), or a new import.
    idempotency_of_dead_image: Literal["replay", "import"] = "replay"
    # A client token with other parameters: ImportVmImage does not declare
    # IdempotentParameterMismatchException.
    idempotency_mismatch: Literal["refuse", "replay"] = "refuse"
    # A task id that EC2 does not know: refused at the call, or an image that goes FAILED.
    unknown_task: Literal["refuse", "fail"] = "refuse"
    # Whether CancelImageCreation works on an image with buildType IMPORT.
    cancel_import: Literal["cancel", "refuse"] = "cancel"
    # The error of CancelImageCreation on a terminal image: the model says one of the first
    # two, AWS's own CloudFormation handler of 2022 expects the third.
    cancel_terminal_error: Literal[
        "InvalidRequestException", "ResourceInUseException", "InvalidParameterValueException"
    ] = "InvalidRequestException"
    # "Others depend on it" blocks DeleteImage; whether a recipe's parentImage counts is not said.
    dependants_block_delete: bool = True
    # ListImageBuildVersions of an image version that nobody has made.
    unknown_image_version: Literal["empty", "not_found"] = "empty"
    # Whether Image Builder tags the AMI that it adopts with CreatedBy, as it tags its own.
    tag_imported_ami: bool = False
    # The StatusMessage of a task that the user cancelled, when no CancelReason was given.
    cancelled_task_message: str = "Cancelled by user"
    # What becomes of the snapshots of an import that failed or was cancelled at its very end.
    snapshots_of_dead_import: Literal["keep", "delete"] = "keep"
    # How long EC2 replays the ClientToken of an ImportImage.
    import_idempotency_seconds: float = 86400

    def changed(self, changes: dict[str, object]) -> Knobs:
        """These settings with some changed.

        Raises:
            ValueError: A name is none of ours, or a value is not of its type.
        """
        types = get_type_hints(type(self))
        for name, value in changes.items():
            if name not in types:
                raise ValueError(
                    f"no knob {name!r}; there are {', '.join(f.name for f in fields(self))}"
                )
            allowed = get_args(types[name])
            good = (
                value in allowed
                if allowed
                else isinstance(value, (int, float) if types[name] is float else types[name])
                and (types[name] is bool or not isinstance(value, bool))
            )
            if not good:
                raise ValueError(
                    f"knob {name} cannot be {value!r}; allowed: {allowed or types[name].__name__}"
                )
        return replace(self, **changes)  # type: ignore[arg-type]  # checked above

    def as_dict(self) -> dict[str, object]:
        """The settings by name."""
        return asdict(self)
