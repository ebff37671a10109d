"""A poll of an import: how far it is, and whether it can still succeed."""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from aws import Aws
from aws.ec2 import Ec2, ImportTask
from aws.image_builder import Image
from cloudformation.step import State
from contract import METRIC_NAMESPACE, Dimension, ImportOutcome, LogField, Metric
from errors import REPAIR, Reason, VmImportError

logger = logging.getLogger(__name__)

_UNITS: Final[dict[str, str]] = {Metric.DURATION: "Seconds", Metric.FAILED: "Count"}


@dataclass(frozen=True)
class Progress:
    """What a poll found. Image and task may be unknown."""

    image: Image | None = None
    task: ImportTask | None = None
    problem: str = ""
    """Why the poll found less, for example because AWS throttled it."""
    problem_summary: str = ""
    """The same without what differs each time."""
    ami: str = ""
    """The id of the AMI, once the image is AVAILABLE and the AMI is known."""
    is_missing: bool = False
    """Whether Image Builder did not find the image."""
    failure: Reason | None = None
    """Why the image can never be AVAILABLE."""
    resource: str = ""
    """The logical id of the image, if it is known. A link has another one."""

    def __str__(self) -> str:
        """Describe how far the import is."""
        image, task = self.image, self.task
        percent = f"at {task.progress} %, " if task and task.progress else ""
        texts = (
            f"EC2's import is {percent}{task.message or task.status}" if task else "",
            f"the image is {image.status}" if image else "",
            self.problem,
        )
        return "; ".join(filter(None, texts))

    @property
    def fields(self) -> dict[str, str | int]:
        """What a line of the log contains of it."""
        percent = self.task.progress if self.task else ""
        return {
            **({Dimension.RESOURCE: self.resource} if self.resource else {}),
            LogField.STATE: self.image.status if self.image else "",
            **({LogField.PROGRESS: int(percent)} if percent.isdigit() else {}),
        }


def poll(aws: Aws, arn: str, task_id: str, *, continues_if_denied: bool = False) -> Progress:
    """Poll an image, and its import task while it is being imported.

    Args:
        aws: The AWS APIs.
        arn: The image.
        task_id: Its import task.
        continues_if_denied: Whether a denied call is a problem as throttling is, and no error.

    Returns:
        What was found. If AWS throttles or fails, that is less, with the problem.

    Raises:
        VmImportError: A call failed for another reason.
    """
    image: Image | None = None
    task: ImportTask | None = None
    try:
        image = aws.image_builder.get(arn)
        if image is None:
            problem = f"Image Builder does not find {arn}"
            return Progress(problem=problem, problem_summary=problem, is_missing=True)
        if image.is_usable and not image.is_running:
            return _available(image, aws.ec2, task_id)
        task = aws.ec2.task(task_id)
    except VmImportError as error:
        if image and not image.is_usable:
            pass  # that it failed is certain, only EC2's reason is missing
        elif error.is_transient or (error.is_denied and continues_if_denied):
            return Progress(image, problem=error.reason.cause, problem_summary=error.summary)
        else:
            raise
    task_failed = task is not None and not task.is_usable
    if image.is_usable and not task_failed:
        return Progress(image, task)
    ids = [f"image {arn} is {image.status}"]
    reasons = [image.reason]
    if task and task_failed:
        # It says more than Image Builder, which waits for it.
        reasons.insert(0, task.message)
        ids.append(f"import task {task_id}")
    known = "; ".join(dict.fromkeys(filter(None, reasons)))
    cause = f"VM import failed: {known or 'AWS gives no reason'}"
    return Progress(image, task, failure=Reason(cause, REPAIR, ids))


def _available(image: Image, ec2: Ec2, task_id: str) -> Progress:
    """Return the progress of an image that is AVAILABLE, with its AMI if that is known yet."""
    if image.ami:
        return Progress(image, ami=image.ami)
    task = ec2.task(task_id)
    found = [task.ami] if task and task.ami else [ami.id for ami in ec2.amis("name", [task_id])]
    problem = "" if found else "its AMI is not listed yet"
    return Progress(image, ami="".join(found), problem=problem, problem_summary=problem)


def report(progress: Progress, state: State) -> State:
    """Log a poll if it found something new.

    A poll with a problem does not know the progress. When the problem has passed, the progress is
    compared with that before the problem.

    Args:
        progress: What the poll found.
        state: What the log says last.

    Returns:
        What the log says now.
    """
    now = replace(state, reported=str(progress))
    if progress.problem:
        now = replace(state, problem=progress.problem_summary)
    if now != state:
        logger.info(str(progress), extra={"fields": progress.fields})
    return now


def report_deletion(progress: Progress) -> None:
    """Log that an import ends for nobody: its image is gone. That is not a failure.

    Args:
        progress: What the last poll found.
    """
    fields = {**progress.fields, LogField.OUTCOME: ImportOutcome.DELETED}
    logger.info(
        "the image is gone, so its import is not followed any more", extra={"fields": fields}
    )


def report_end(
    progress: Progress, outcome: ImportOutcome, message: str, duration: int | None, **line: str
) -> None:
    """Log how an import ended, in a line that CloudWatch also reads as metrics.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

    Args:
        progress: What the last poll found.
        outcome: How the import ended.
        message: That in words.
        duration: Seconds since the import began; None if that is not known.
        **line: What else the line contains.
    """
    has_failed = outcome is not ImportOutcome.AVAILABLE
    metrics: dict[str, int] = {Metric.FAILED: int(has_failed)}
    if duration is not None:
        metrics = {Metric.DURATION: duration, **metrics}
    directive = {
        "Namespace": METRIC_NAMESPACE,
        "Dimensions": [list(Dimension)],
        "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in metrics],
    }
    fields: dict[str, Any] = {
        **progress.fields,
        LogField.OUTCOME: outcome,
        **metrics,
        **line,
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
    }
    level = logging.ERROR if has_failed else logging.INFO
    logger.log(level, message, extra={"fields": fields})
