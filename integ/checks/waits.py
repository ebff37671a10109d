"""Checks of two halves, with a day or a week between them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from integ.check import DAY, HOUR, check
from integ.checks.images import describe_unknown, import_unknown

if TYPE_CHECKING:
    from integ.check import Record
    from integ.run import Run

# A little longer, because nobody knows whether the limit is exact.
_AFTER_A_DAY: Final = DAY + HOUR
_AFTER_A_WEEK: Final = 7 * DAY + HOUR


def _import_again_after_a_day(run: Run, record: Record) -> None:
    arn, task_id = record.kept["arn"], record.kept["task"]
    again = run.import_image(task_id, "day", token=record.kept["token"])
    hours = (run.account.now() - record.kept["at"]) / HOUR
    record.row(
        "client_token_expires", again != arn, f"after {hours:.0f} hours {again}, at first {arn}"
    )
    # Known is only on which side of this time the token expires.
    validity = "is not valid any more" if again != arn else "is still valid"
    seen = f"after {hours:.1f} hours a token {validity}"
    record.knob("idempotency_seconds", round(hours * HOUR), seen)


@check(
    rows=("client_token_expires",),
    knobs=("idempotency_seconds",),
    pause=_AFTER_A_DAY,
    later=_import_again_after_a_day,
    minutes=35,
    imports=1,
    shares_import=True,
    images=2,
)
def tokens_after_a_day(run: Run, record: Record) -> None:
    """Whether a used client token is still valid after a day."""
    task_id, token = run.completed_task(), str(uuid.uuid4())
    arn = run.import_image(task_id, "day", token=token)
    run.await_image(arn, "AVAILABLE")
    record.kept = {"arn": arn, "task": task_id, "token": token, "at": run.account.now()}


def _describe_after_a_week(run: Run, record: Record) -> None:
    task_id = record.kept["task"]
    describe_unknown(run, record, "disappears_7_days_after_its_end", task_id)
    import_unknown(run, record, task_id)
    pages = run.account.client("ec2").get_paginator("describe_import_image_tasks").paginate()
    listed = [task["ImportTaskId"] for page in pages for task in page["ImportImageTasks"]]
    record.observe("the list of all tasks contains the forgotten one", task_id in listed)


@check(
    rows=("disappears_7_days_after_its_end", "unknown_task_is_refused"),
    knobs=("unknown_task",),
    pause=_AFTER_A_WEEK,
    later=_describe_after_a_week,
    minutes=35,
    imports=1,
    shares_import=True,
    images=1,
)
def forgotten_task(run: Run, record: Record) -> None:
    """Which errors belong to a task that EC2 has forgotten, 7 days after its end."""
    record.kept = {"task": run.completed_task(), "at": run.account.now()}
