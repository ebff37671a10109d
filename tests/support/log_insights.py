"""The part of CloudWatch Logs Insights that the saved queries use, as AWS documents it.

No query has been run by CloudWatch here. This shows that the queries and the lines of the log fit.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Row = dict[str, Any]


def run(query: str, lines: Iterable[Row]) -> list[Row]:
    """Run a query on the lines of a log, in the order in which they were written."""
    rows = [{"@timestamp": number} | line for number, line in enumerate(lines)]
    for command in query.split("\n| "):
        name, _, rest = command.partition(" ")
        rows = _COMMANDS[name](rest, rows)
    return rows


def fields_of(query: str) -> set[str]:
    """The fields of the log that a query reads."""
    text = re.sub(r"'[^']*'", "", query)
    aliases = set(re.findall(r" as (\w+)", text))
    words = {"fields", "filter", "stats", "sort", "by", "as", "and", "or", "desc", "asc"}
    functions = set(re.findall(r"(\w+)\(", text))
    return set(re.findall(r"(?<![@\w])[A-Za-z]\w*", text)) - aliases - words - functions


def _fields(text: str, rows: list[Row]) -> list[Row]:
    # It adds fields, and only says which ones a table shows.
    for names, alias in re.findall(r"coalesce\(([\w, ]+)\) as (\w+)", text):
        for row in rows:
            values = [row[name] for name in names.split(", ") if name in row]
            if values:
                row[alias] = values[0]
    return rows


def _filter(text: str, rows: list[Row]) -> list[Row]:
    if names := re.findall(r"ispresent\((\w+)\)", text):
        return [row for row in rows if any(name in row for name in names)]
    conditions = re.findall(r"(\w+) (!?=) '([^']*)'", text)
    assert conditions, text
    decide = any if " or " in text else all
    return [
        row
        for row in rows
        if decide((row.get(name) == value) is (sign == "=") for name, sign, value in conditions)
    ]


def _stats(text: str, rows: list[Row]) -> list[Row]:
    functions, _, keys = text.partition(" by ")
    groups: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        group = groups.setdefault(tuple(row.get(key) for key in keys.split(", ")), {})
        group |= {key: row.get(key) for key in keys.split(", ")}
        # The rows are in the order of their time, so the latest value and the maximum are the last.
        for _, field, alias in re.findall(r"(latest|max)\((@?\w+)\) as (\w+)", functions):
            group[alias] = row.get(field)
    return list(groups.values())


def _sort(text: str, rows: list[Row]) -> list[Row]:
    field, order = text.split()
    return sorted(rows, key=lambda row: row[field], reverse=order == "desc")


_COMMANDS: dict[str, Callable[[str, list[Row]], list[Row]]] = {
    "fields": _fields,
    "filter": _filter,
    "stats": _stats,
    "sort": _sort,
}
