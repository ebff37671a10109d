"""The report of a run, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from integ.check import CHECKS, Kind, Outcome
from integ.run import elapsed_text, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from integ.check import Record
    from integ.run import Run

_TITLES: Final = {
    Kind.ROW: "Rows of docs/local-aws.md",
    Kind.KNOB: "Knobs",
    Kind.BEHAVIOUR: "Behaviour of the constructs",
}
_LONGEST: Final = 400


def write_report(run: Run, calls: Mapping[str, int] | str, left: Mapping[str, list[str]]) -> Path:
    """Write report.md and report.json, and return the path of the first.

    Args:
        run: The run.
        calls: The calls that CloudTrail recorded, by caller, or why there are none.
        left: What the clean-up did not delete.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "about": run.about,
        "counts": counts(run.records.values()),
        "records": {name: record.as_json() for name, record in run.records.items()},
        "cloudtrail": calls,
        "left": left,
    }
    (run.folder / "report.json").write_text(json.dumps(whole, indent=2, default=str))
    path = run.folder / "report.md"
    path.write_text("\n".join(_lines(run, calls, left)) + "\n")
    return path


def counts(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Return how many verdicts of each kind have each outcome."""
    found = Counter((v.kind.value, v.outcome.value) for r in records for v in r.verdicts)
    return {
        kind.value: {
            o.value: found[kind.value, o.value] for o in Outcome if found[kind.value, o.value]
        }
        for kind in Kind
    }


def _lines(
    run: Run, calls: Mapping[str, int] | str, left: Mapping[str, list[str]]
) -> Iterator[str]:
    about = run.about
    yield f"# Integration checks, run {run.id}"
    yield ""
    simulated = " (the simulated AWS)" if about.get("simulated") else ""
    yield f"- Account: {about.get('account')}, {about.get('region')}{simulated}"
    yield f"- Principal: {about.get('principal')}"
    yield f"- Disk: {about.get('disk')}"
    yield f"- Started: {timestamp(about['started'])} UTC"
    yield ""
    yield "## Checks"
    yield ""
    yield "| check | status | time | confirmed | refuted | not decided |"
    yield "|---|---|---|---|---|---|"
    for record in run.records.values():
        found = Counter(verdict.outcome for verdict in record.verdicts)
        yield (
            f"| {record.check} | {_status(record)} "
            f"| {elapsed_text(max(record.ended - record.started, 0))} "
            f"| {found[Outcome.CONFIRMED] + found[Outcome.MEASURED]} | {found[Outcome.REFUTED]} "
            f"| {found[Outcome.UNDECIDED]} |"
        )
    for kind, title in _TITLES.items():
        yield from ["", f"## {title}", ""]
        yield "| | verdict | seen | check |"
        yield "|---|---|---|---|"
        for record in run.records.values():
            for verdict in record.verdicts:
                if verdict.kind is kind:
                    subject = verdict.subject if kind is Kind.BEHAVIOUR else f"`{verdict.subject}`"
                    yield (
                        f"| {subject} | {_emphasised(verdict.outcome)} | {_cell(verdict.seen)} "
                        f"| {record.check} |"
                    )
    yield from ["", "## Calls by caller (CloudTrail)", ""]
    if isinstance(calls, str):
        yield calls
    else:
        yield from (f"- {times} x {call}" for call, times in sorted(calls.items()))
    yield from ["", "## What is left in the account", ""]
    if left:
        yield from (f"- {kind}: {', '.join(names)}" for kind, names in left.items())
    else:
        yield "Nothing."
    for record in run.records.values():
        yield from _details(record)


def _details(record: Record) -> Iterator[str]:
    yield from ["", f"## {record.check}", ""]
    yield CHECKS[record.check].title
    if record.error:
        yield from ["", f"It failed: {_cell(record.error)}"]
    if record.events:
        yield from ["", "Events that the function received:", ""]
        yield "| started | stack | request | resource | type | physical id |"
        yield "|---|---|---|---|---|---|"
        for received in record.events:
            event = received["event"]
            request = "follow-up of " if received["follows"] else ""
            yield (
                f"| {timestamp(received['at'])} | {received['stack']} "
                f"| {request}{event['RequestType']} | {event['LogicalResourceId']} "
                f"| {event['ResourceType']} | {event.get('PhysicalResourceId', '')} |"
            )
    if record.observations:
        yield from ["", "Observations:", ""]
        for seen in record.observations:
            text = json.dumps(seen["value"], default=str)
            yield f"- {timestamp(seen['at'])} {seen['what']}: {_cell(text)}"


def _status(record: Record) -> str:
    if record.status == "waiting":
        return f"its second half can run from {timestamp(record.due)} UTC"
    return record.status


def _emphasised(outcome: Outcome) -> str:
    return f"**{outcome.value}**" if outcome is Outcome.REFUTED else outcome.value


def _cell(text: str) -> str:
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... (report.json has all)"
    return short.replace("|", "\\|").replace("\n", " ")


def summary(run: Run) -> Iterator[str]:
    """Return what is printed at the end: the numbers, and each verdict that is no confirmation.

    The rows that a failed check did not decide are only in the report.
    """
    for kind, found in counts(run.records.values()).items():
        numbers = ", ".join(f"{count} {outcome}" for outcome, count in found.items())
        yield f"{kind + ':':<11} {numbers or 'none'}"
    for record in run.records.values():
        if record.status in ("failed", "interrupted"):
            yield f"{record.status}: {record.check}: {record.error[:_LONGEST]}"
        shown = {Outcome.REFUTED, *([Outcome.UNDECIDED] if record.status == "completed" else [])}
        for verdict in record.verdicts:
            if verdict.outcome in shown:
                yield f"{verdict.outcome.value}: {verdict.subject}: {verdict.seen[:_LONGEST]}"
