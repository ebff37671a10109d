"""docs/local-aws.md and the tests list the same behaviours, faults and knobs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local_aws.server.knobs import Knobs

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = re.split(r"^## ", (ROOT / "docs/local-aws.md").read_text(), flags=re.MULTILINE)
KNOBS = next(section for section in SECTIONS if section.startswith("Knobs"))
FAULTS = next(section for section in SECTIONS if section.startswith("Faults"))
ROWS = [
    row
    for section in SECTIONS
    if section not in (KNOBS, FAULTS)
    for row in re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
]
TESTS = [
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_documentation_is_part_of_a_test_name(row: str) -> None:
    assert any(row in name for name in TESTS)


@pytest.mark.parametrize("row", re.findall(r"`(\w+)`(?: \|$|\))", FAULTS, re.MULTILINE))
def test_each_fault_of_the_documentation_has_a_test(row: str) -> None:
    assert any(row in name for name in TESTS)


def test_no_row_of_the_documentation_is_repeated() -> None:
    assert sorted(set(ROWS)) == sorted(ROWS)


def test_each_knob_is_documented() -> None:
    assert re.findall(r"^\| `(\w+)` \|", KNOBS, re.MULTILINE) == list(Knobs().as_dict())
