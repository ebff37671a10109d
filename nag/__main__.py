"""Print what cdk-nag's packs and checkov find in each template, as a table.

make nag
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from nag.findings import PACKS, find, find_with_checkov
from nag.templates import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


COLUMNS: Final = ("template", *PACKS, "all packs", "IAM5", "checkov")


def table() -> Iterator[str]:
    """Yield the lines of the table, each when it is known."""
    yield _line(COLUMNS)
    yield _line(["---"] * len(COLUMNS))
    for name, build in TEMPLATES.items():
        findings = find(build)
        counts = Counter(finding.pack for finding in findings)
        wildcards = sum("IAM5" in finding.rule for finding in findings)
        numbers = [*(counts[pack] for pack in PACKS), len(findings), wildcards]
        yield _line([name, *numbers, len(find_with_checkov(build))])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)  # noqa: T201 - the output
