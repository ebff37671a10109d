"""A poll of an import: how far it is, and whether it can still succeed; and when to poll again."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

from aws import Aws
from aws.ec2 import ImportTask
from aws.image_builder import Image
from contract import METRIC_NAMESPACE
from errors import ANOTHER_IMPORT, ImageFailedError, VmImportError
from identity import Owner

# In seconds. Imports take minutes to hours, so polls more often than this only cost money.
_SHORTEST: Final = 15
_LONGEST: Final = 90
# A late response costs at most this share of the import.
_SHARE: Final = 20
# EC2's task is completed, and the image becomes AVAILABLE soon.
_SHORTEST_AFTER_COMPLETION: Final = 5
_SHARE_AFTER_COMPLETION: Final = 4


@dataclass(frozen=True)
class Progress:
    """What a poll found. Image and task may be unknown."""

    image: Image | None = None
    task: ImportTask | None = None
    problem: str = ""
    """Why the poll found less, for example because AWS throttled it."""

    @property
    def ami(self) -> str:
        """The id of the AMI, once the image is AVAILABLE."""
        image = self.image
        return image.ami if image and image.is_usable and not image.is_running else ""

    def __str__(self) -> str:
        """Describe how far the import is."""
        task, texts = self.task, []
        if self.image:
            texts.append(f"the image is {self.image.status}")
        if task:
            progress = [f"{task.progress} %"] if task.progress else []
            texts.append(
                f"EC2's import is at {', '.join([*progress, task.message or task.status])}"
            )
        return "; ".join([*texts, *([self.problem] if self.problem else [])])


def poll(aws: Aws, arn: str, task_id: str) -> Progress:
    """Poll an image, and its import task while it is being imported.

    Args:
        aws: The AWS APIs.
        arn: The image.
        task_id: Its import task.

    Returns:
        What was found. If AWS throttles or fails, that is less, with the problem.

    Raises:
        ImageFailedError: The image is gone, or can never be AVAILABLE.
    """
    image: Image | None = None
    task: ImportTask | None = None
    try:
        image = aws.image_builder.get(arn)
        if image is None:
            raise ImageFailedError(f"{arn} is gone: it was deleted while it was imported")
        if image.is_usable and not image.is_running:
            return Progress(image)
        task = aws.ec2.task(task_id)
    except VmImportError as error:
        if image and not image.is_usable:
            pass  # that it failed is certain, only EC2's reason is missing
        elif error.is_transient:
            return Progress(image, problem=str(error))
        else:
            raise
    task_failed = task is not None and task.is_failed
    if image.is_usable and not task_failed:
        return Progress(image, task)
    reasons = [f"{arn} is {image.status}", image.reason]
    if task and task_failed:
        reasons.append(f"EC2's import task {task_id} is {task.status}: {task.message}")
    reasons.append(image.failure)
    text = "; ".join(reason.rstrip(".") for reason in reasons if reason)
    raise ImageFailedError(f"{text}. Hint: repair the disk image; {ANOTHER_IMPORT}")


def polling_interval(age: float, since_completion: float | None, jitter: float) -> int:
    """Return the seconds until the next poll.

    The interval grows with the age of the import, so that the response is late by at most a
    twentieth of the import and 5 seconds, and by at most 90 seconds.

    Args:
        age: Seconds since the image was created.
        since_completion: Seconds since a poll found EC2's task completed; None if it is not.
        jitter: From 0 to 1. Different values keep many imports from polling at the same time.
    """
    if since_completion is None:
        seconds = min(max(age / _SHARE + 5, _SHORTEST), _LONGEST)
    else:
        share = since_completion / _SHARE_AFTER_COMPLETION
        seconds = min(max(share, _SHORTEST_AFTER_COMPLETION), _LONGEST)
    return math.ceil(seconds * (1 - jitter / 20))


def next_poll(progress: Progress, elapsed: float, completed: float) -> int:
    """Return the seconds until the next poll of an import.

    Args:
        progress: What the last poll found.
        elapsed: Seconds since the wait began, for an image whose age is not known.
        completed: When a poll first found EC2's task completed, in seconds since 1970, or 0.
    """
    age = progress.image.age if progress.image else elapsed
    since_completion = time.time() - completed if completed else None
    jitter = random.random()  # noqa: S311 - not cryptography
    return polling_interval(elapsed if math.isinf(age) else age, since_completion, jitter)


def report(  # noqa: PLR0913 - one a column
    owner: Owner,
    arn: str,
    task_id: str,
    progress: Progress,
    *,
    outcome: str,
    elapsed: float,
    seconds: int = 0,
) -> None:
    """Write a poll as one line of JSON that CloudWatch also reads as metrics.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

    Args:
        owner: The resource. Its stack's name and its logical id are the metrics' dimensions.
        arn: The image.
        task_id: The import task.
        progress: What the poll found.
        outcome: `waiting`, `available`, `failed` or `timeout`.
        elapsed: Seconds since the wait began.
        seconds: Seconds until the next poll.
    """
    image, task = progress.image, progress.task
    line: dict[str, Any] = {
        "Stack": owner.stack_id.split("/")[1],
        "Resource": owner.logical_id,
        "image": arn,
        "task": task_id,
        "state": image and image.status,
        "status_message": task and task.message,
        "problem": progress.problem,
        "elapsed": round(elapsed),
        "next_poll": seconds,
        "outcome": outcome,
    }
    metrics = {}
    if task and task.progress.isdigit():
        metrics["Progress"] = (int(task.progress), "Percent")
    if outcome != "waiting":
        metrics["Duration"] = (round(elapsed), "Seconds")
        metrics["Available"] = (int(outcome == "available"), "Count")
    line |= {name: value for name, (value, _) in metrics.items()}
    if metrics:
        names = [{"Name": name, "Unit": unit} for name, (_, unit) in metrics.items()]
        directive = {
            "Namespace": METRIC_NAMESPACE,
            "Dimensions": [["Stack", "Resource"]],
            "Metrics": names,
        }
        timestamp = int(time.time() * 1000)
        line["_aws"] = {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}
    # Not by the logger, whose lines have a form of their own.
    sys.stdout.write(json.dumps({name: v for name, v in line.items() if v is not None}) + "\n")
    sys.stdout.flush()
