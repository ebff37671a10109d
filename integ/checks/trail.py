"""Who calls what, as CloudTrail records it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from integ.check import check
from integ.run import attempt, failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from integ.check import Record
    from integ.run import Run

_SOURCES: Final = ("imagebuilder.amazonaws.com", "ec2.amazonaws.com", "vmie.amazonaws.com")
# CloudTrail shows an event after up to 15 minutes.
_MINUTES: Final = 25
# LookupEvents returns 50 calls at a time, twice a second.
_MOST_CALLS: Final = 5000
NOT_AVAILABLE: Final = "not available here: the simulated AWS records no calls in CloudTrail"


@check(
    rows=("read_its_task_and_ami",),
    knobs=("import_checks_caller",),
    minutes=60,
    imports=1,
    shares_import=True,
    images=1,
)
def who_calls_what(run: Run, record: Record) -> None:
    """Which calls the import of an image causes, and with whose permissions, from CloudTrail."""
    started = run.account.now()
    arn = run.import_image(run.completed_task(), "trail")
    run.await_image(arn, "AVAILABLE")
    lookup = run.account.client("cloudtrail").lookup_events
    if error := failure(lookup, MaxResults=1):
        record.decide_rest(f"LookupEvents: {error}")
        return
    if run.account.is_simulated:
        events = look_up(run, started, "imagebuilder.amazonaws.com")
        record.observe("calls by caller", by_caller(events) or NOT_AVAILABLE)
        record.decide_rest(NOT_AVAILABLE)
        return

    def is_recorded() -> bool:
        return any(arn in str(e) for e in look_up(run, started, "imagebuilder.amazonaws.com"))

    run.account.wait(is_recorded, _MINUTES, every=60)
    events = [event for source in _SOURCES for event in look_up(run, started, source)]
    record.observe("calls by caller", by_caller(events))
    _decide_reader(record, run.about["principal"], events)
    # The reads of the disk are data events, which a trail of the user would have to record.
    record.knob("import_checks_caller", None, "LookupEvents shows no data events of S3")


def _decide_reader(record: Record, principal: str, events: list[dict[str, Any]]) -> None:
    """Decide with whose permissions Image Builder reads an import task."""
    readers = {who for name, who in _callers(events) if name == "DescribeImportImageTasks"}
    through = " through imagebuilder.amazonaws.com"
    by_image_builder = {who for who in readers if who.endswith(through)}
    # The ARN of a session of a role is not that of the role. A user can have a path.
    names = principal.rpartition(":")[2].split("/")
    own = names[1] if names[0] == "assumed-role" else names[-1]
    record.row(
        "read_its_task_and_ami",
        any(who.endswith(f"{own}{through}") for who in by_image_builder)
        if by_image_builder
        else None,
        f"DescribeImportImageTasks was called by {sorted(readers)}",
    )


def look_up(run: Run, since: float, source: str) -> list[dict[str, Any]]:
    """Return the calls of a service since a date, as CloudTrail recorded them."""
    pages = (
        run.account.client("cloudtrail")
        .get_paginator("lookup_events")
        .paginate(
            LookupAttributes=[{"AttributeKey": "EventSource", "AttributeValue": source}],
            StartTime=datetime.fromtimestamp(since, UTC),
            PaginationConfig={"MaxItems": _MOST_CALLS},
        )
    )
    return [json.loads(event["CloudTrailEvent"]) for page in pages for event in page["Events"]]


def by_caller(events: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return how often each caller called each operation."""
    return {f"{name} by {who}": times for (name, who), times in Counter(_callers(events)).items()}


def _callers(events: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["eventName"], _who(event)) for event in events]


def _who(event: dict[str, Any]) -> str:
    identity = event.get("userIdentity", {})
    issuer = identity.get("sessionContext", {}).get("sessionIssuer", {})
    who = issuer.get("arn") or identity.get("arn") or identity.get("type", "unknown")
    through = identity.get("invokedBy") or event.get("sourceIPAddress", "")
    return f"{who} through {through}" if through.endswith(".amazonaws.com") else str(who)


def calls_of_run(run: Run) -> dict[str, int] | str:
    """Return the calls since the run started, by caller, or why there are none."""
    calls: list[dict[str, Any]] = []
    for source in _SOURCES:
        found, error = attempt(look_up, run, run.about["started"], source)
        if error:
            return f"LookupEvents: {error}"
        calls += found
    return by_caller(calls) or (NOT_AVAILABLE if run.account.is_simulated else "none")
