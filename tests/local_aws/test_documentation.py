"""docs/local-aws.md and the tests list the same behaviours, faults and knobs.

Each behaviour of AWS has a source that a reader can open, or is assumed and has a knob.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.loaders import Loader

from local_aws.server.knobs import Knobs

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/local-aws.md").read_text()
# The links that the page defines at its end, by their text.
LINKS: Final = dict(re.findall(r"^\[([^\]]+)\]: (https://\S+)$", PAGE, re.MULTILINE))
# Where AWS publishes its documentation, its examples and the specification of its protocols.
OF_AWS: Final = (
    "https://docs.aws.amazon.com/",
    "https://github.com/aws/aws-cli/blob/develop/awscli/examples/",
    "https://github.com/smithy-lang/smithy/",
    "https://smithy.io/",
)
TESTS: Final = [
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
]


def tables(*header: str) -> list[list[str]]:
    """Return the rows of all tables with a header, as lists of cells."""
    lines = "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"])
    bodies = re.findall(re.escape(lines) + r"\n((?:\|.*\n)+)", PAGE)
    rows = [line.strip("| ").split(" | ") for body in bodies for line in body.splitlines()]
    assert {len(row) for row in rows} == {len(header)}
    return [[cell.strip("`") for cell in row[:1]] + row[1:] for row in rows]


OWN: Final = tables("Row", "Behaviour")
OF_A_SOURCE: Final = tables("Row", "Behaviour", "Confidence", "Source")
FAULTS: Final = PAGE.partition("## Faults")[2].partition("\n## ")[0]
KNOBS: Final = [knob for knob, _ in tables("Knob", "What is not known")]
MODELS: Final = {
    prefix: re.findall(r"\[([\w-]+)/([\d-]+)/service-2\.json\]", path)[0]
    for prefix, path in tables("Model", "File in the data of botocore")
}
ROWS: Final = [row for row, *_ in OWN + OF_A_SOURCE]


@cache
def model(prefix: str) -> dict[str, Any]:
    """Return a model of botocore; a file that does not exist is an error."""
    service, version = MODELS[prefix]
    loaded: dict[str, Any] = Loader().load_service_model(service, "service-2", version)
    return loaded


def is_in_a_model(source: str) -> bool:
    """Return whether an operation, a shape or a member of a shape exists."""
    prefix, name, member = re.fullmatch(r"`(\w+)#(\w+)(?:\$(\w+))?`", source).groups()  # type: ignore[union-attr]
    if not member:
        return name in model(prefix)["shapes"] or name in model(prefix)["operations"]
    return member in model(prefix)["shapes"][name]["members"]


def kind(source: str) -> str:
    """Return what a source is: model, AWS, other or knob.

    Raises:
        AssertionError: It is none of them, or nothing has that name.
    """
    if knob := re.fullmatch(r"knob `(\w+)`", source):
        assert knob[1] in KNOBS, source
        return "knob"
    if source.startswith("`"):
        assert is_in_a_model(source), source
        return "model"
    link = re.fullmatch(r"\[([^\]]+)\](?:\((https://\S+)\))?", source)
    assert link, f"{source} is no link, no model and no knob"
    assert link[2] or link[1] in LINKS, f"{source} has no address"
    return "AWS" if (link[2] or LINKS[link[1]]).startswith(OF_AWS) else "other"


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_documentation_is_part_of_a_test_name(row: str) -> None:
    assert any(row in name for name in TESTS)


@pytest.mark.parametrize("row", re.findall(r"`(\w+)`(?: \|$|\))", FAULTS, re.MULTILINE))
def test_each_fault_of_the_documentation_has_a_test(row: str) -> None:
    assert any(row in name for name in TESTS)


def test_no_row_of_the_documentation_is_repeated() -> None:
    assert sorted(set(ROWS)) == sorted(ROWS)


def test_each_knob_is_documented() -> None:
    assert list(Knobs().as_dict()) == KNOBS


@pytest.mark.parametrize(
    ("confidence", "sources"),
    [(confidence, sources) for _, _, confidence, sources in OF_A_SOURCE],
    ids=[row for row, *_ in OF_A_SOURCE],
)
def test_each_behaviour_of_aws_has_a_source_or_a_knob(confidence: str, sources: str) -> None:
    kinds = {kind(source) for source in sources.split("; ")}
    needed = {"documented": {"model", "AWS"}, "observed": {"other"}, "assumed": {"knob"}}
    assert kinds & needed[confidence]
    # A row has the confidence of its weakest part.
    assert confidence != "documented" or "other" not in kinds


def test_the_documentation_counts_its_rows() -> None:
    counted = {word: int(rows) for word, rows, _ in tables("Confidence", "Rows", "Meaning")}
    confidences = [confidence for _, _, confidence, _ in OF_A_SOURCE]
    assert counted == {word: confidences.count(word) for word in counted}
    assert sum(counted.values()) == len(OF_A_SOURCE)


def test_the_documentation_defines_only_links_that_it_uses() -> None:
    body = "".join(line for line in PAGE.splitlines(keepends=True) if not line.startswith("["))
    assert [text for text in LINKS if f"[{text}]" not in body] == []


def test_each_row_of_a_table_belongs_to_a_table_that_the_tests_read() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    faults = re.findall(r"^\| `(\w+)` \|", FAULTS, re.MULTILINE)
    assert sorted(rows) == sorted([*ROWS, *KNOBS, *MODELS, *faults])
