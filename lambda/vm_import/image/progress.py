"""A poll of an import: how far it is, and whether it can still succeed."""

import json
import sys
import time
from dataclasses import dataclass

from aws import Aws
from aws.ec2 import Ec2, ImportTask
from aws.image_builder import Image
from contract import METRIC_NAMESPACE
from errors import ANOTHER_IMPORT, ImageFailedError, VmImportError
from identity import Owner


@dataclass(frozen=True)
class Progress:
    """What a poll found. Image and task may be unknown."""

    image: Image | None = None
    task: ImportTask | None = None
    problem: str = ""
    """Why the poll found less, for example because AWS throttled it."""
    ami: str = ""
    """The id of the AMI, once the image is AVAILABLE and the AMI is known."""
    is_missing: bool = False
    """Whether Image Builder did not find the image."""

    def __str__(self) -> str:
        """Describe how far the import is."""
        image, task = self.image, self.task
        percent = f"{task.progress} %, " if task and task.progress else ""
        texts = (
            f"the image is {image.status}" if image else "",
            f"EC2's import is at {percent}{task.message or task.status}" if task else "",
            self.problem,
        )
        return "; ".join(text.rstrip(".") for text in texts if text)


def poll(aws: Aws, arn: str, task_id: str) -> Progress:
    """Poll an image, and its import task while it is being imported.

    Args:
        aws: The AWS APIs.
        arn: The image.
        task_id: Its import task.

    Returns:
        What was found. If AWS throttles or fails, that is less, with the problem.

    Raises:
        ImageFailedError: The image can never be AVAILABLE.
    """
    image: Image | None = None
    task: ImportTask | None = None
    try:
        image = aws.image_builder.get(arn)
        if image is None:
            return Progress(problem=f"Image Builder does not find {arn}", is_missing=True)
        if image.is_usable and not image.is_running:
            return _available(image, aws.ec2, task_id)
        task = aws.ec2.task(task_id)
    except VmImportError as error:
        if image and not image.is_usable:
            pass  # that it failed is certain, only EC2's reason is missing
        elif error.is_transient:
            return Progress(image, problem=str(error).partition(". Hint: ")[0])
        else:
            raise
    task_failed = task is not None and not task.is_usable
    if image.is_usable and not task_failed:
        return Progress(image, task)
    reasons = [f"{arn} is {image.status}", image.reason]
    if task and task_failed:
        reasons.append(f"EC2's import task {task_id} is {task.status}: {task.message}")
    text = "; ".join(reason.rstrip(".") for reason in reasons if reason)
    raise ImageFailedError(f"{text}. Hint: repair the disk image; {ANOTHER_IMPORT}")


def _available(image: Image, ec2: Ec2, task_id: str) -> Progress:
    """Return the progress of an image that is AVAILABLE, with its AMI if that is known yet."""
    if image.ami:
        return Progress(image, ami=image.ami)
    task = ec2.task(task_id)
    found = [task.ami] if task and task.ami else [ami.id for ami in ec2.amis("name", [task_id])]
    return Progress(image, ami="".join(found), problem="" if found else "its AMI is not listed yet")


def report(owner: Owner, progress: Progress, outcome: str, elapsed: int, **line: str | int) -> None:
    """Write a poll as one line of JSON that CloudWatch also reads as metrics.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

    Args:
        owner: The resource. Its stack's name and its logical id are the metrics' dimensions.
        progress: What the poll found.
        outcome: `waiting`, `available`, `failed` or `timeout`.
        elapsed: Seconds since the wait began.
        **line: What else the line contains.
    """
    image, task = progress.image, progress.task
    metrics = {}
    if task and task.progress.isdigit():
        metrics["Progress"] = ("Percent", int(task.progress))
    if outcome != "waiting":
        metrics["Duration"] = ("Seconds", elapsed)
        metrics["Available"] = ("Count", int(outcome == "available"))
    directive = {
        "Namespace": METRIC_NAMESPACE,
        "Dimensions": [["Stack", "Resource"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, (unit, _) in metrics.items()],
    }
    found = {
        "Stack": owner.stack_id.split("/")[1],
        "Resource": owner.logical_id,
        "state": image and image.status,
        "status_message": task and task.message,
        "problem": progress.problem,
        "outcome": outcome,
        "elapsed": elapsed,
        **{name: value for name, (_, value) in metrics.items()},
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
    }
    # Not by the logger, whose lines have a form of their own.
    sys.stdout.write(json.dumps(found | line) + "\n")
    sys.stdout.flush()
