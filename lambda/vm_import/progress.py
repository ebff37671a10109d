"""A look at an import: how far it is, and whether it can still succeed."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from errors import ANOTHER_IMPORT, AwsError, ImageFailedError, OutOfTimeError, VmImportError

if TYPE_CHECKING:
    from image_builder import Image, ImageBuilder, ImportTask
    from image_properties import Owner
    from waiting import Waiting

_NAMESPACE: Final = "CdkVmImport"
_HINT: Final = f"Hint: mend the disk image; {ANOTHER_IMPORT}"


@dataclass(frozen=True)
class Look:
    """What was seen of an image and its import task; either may be unknown."""

    image: Image | None
    task: ImportTask | None
    problem: str = ""

    @property
    def ami(self) -> str:
        """Id of the AMI, once the image is there to be used."""
        image = self.image
        return image.ami if image and not image.is_running and not image.is_dead else ""

    def __str__(self) -> str:
        """Say how far the import is."""
        task = self.task
        progress = [f"{task.progress} %"] if task and task.progress else []
        message = [task.message or task.status] if task else []
        seen = [
            *([f"the image is {self.image.status}"] if self.image else []),
            *([f"EC2's import is at {', '.join(progress + message)}"] if task else []),
            *([self.problem] if self.problem else []),
        ]
        return "; ".join(seen)


def look(aws: ImageBuilder, arn: str, task_id: str) -> Look:
    """Look at an image, and while it is imported at its task.

    Args:
        aws: The AWS calls.
        arn: The image.
        task_id: Its import task.

    Returns:
        What was seen. When AWS throttles or fails, this is less, and says so.

    Raises:
        ImageFailedError: The image is gone, or can never be AVAILABLE.
    """
    image: Image | None = None
    try:
        image = aws.get(arn)
        if image is None:
            raise ImageFailedError(f"{arn} is gone: somebody deleted it while it was imported")
        if not image.is_running and not image.is_dead:
            return Look(image, None)
        task = aws.import_task(task_id)
    except VmImportError as error:
        if image and image.is_dead:
            task = None
        elif is_transient(error):
            return Look(image, None, str(error))
        else:
            raise
    failed = task is not None and task.status in {"deleting", "deleted"}
    if image.is_dead or failed:
        reasons = [f"{arn} is {image.status}"]
        if image.reason:
            reasons.append(image.reason)
        if task and failed:
            reasons.append(f"EC2's import task {task_id} is {task.status}: {task.message}")
        if image.failure:
            reasons.append(image.failure)
        raise ImageFailedError("; ".join(reasons) + f". {_HINT}")
    return Look(image, task)


def is_transient(error: VmImportError) -> bool:
    """Whether it may work later."""
    return isinstance(error, OutOfTimeError) or (isinstance(error, AwsError) and error.is_transient)


def report(owner: Owner, task_id: str, waiting: Waiting, seen: Look | None, outcome: str) -> None:
    """Write a look as one line of JSON that CloudWatch also reads as metrics.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

    Args:
        owner: The resource; its stack's name and its logical id are the metrics' dimensions.
        task_id: The import task.
        waiting: The wait; its next pause is set.
        seen: What was seen, if anything.
        outcome: `waiting`, `available`, `failed` or `timeout`.
    """
    image, task = (seen.image, seen.task) if seen else (None, None)
    line: dict[str, Any] = {
        "Stack": owner.stack_id.split("/")[1],
        "Resource": owner.logical_id,
        "image": waiting.image,
        "task": task_id,
        "state": image and image.status,
        "status_message": task and task.message,
        "problem": seen and seen.problem,
        "elapsed": round(waiting.elapsed),
        "next_poll": waiting.seconds,
        "outcome": outcome,
    }
    metrics = {}
    if task and task.progress.isdigit():
        metrics["Progress"] = (int(task.progress), "Percent")
    if outcome != "waiting":
        metrics["Duration"] = (line["elapsed"], "Seconds")
        metrics["Available"] = (int(outcome == "available"), "Count")
    line |= {name: value for name, (value, _) in metrics.items()}
    if metrics:
        line["_aws"] = {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": _NAMESPACE,
                    "Dimensions": [["Stack", "Resource"]],
                    "Metrics": [
                        {"Name": name, "Unit": unit} for name, (_, unit) in metrics.items()
                    ],
                }
            ],
        }
    # Not by the logger, whose lines have a form of their own.
    sys.stdout.write(json.dumps({name: v for name, v in line.items() if v is not None}) + "\n")
    sys.stdout.flush()
